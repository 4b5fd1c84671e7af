"""Pulls a stage: whatever upstream is missing is computed, what is there is reused."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import ExitStack, contextmanager

from llmrepair.pipeline.artifact import LOG_FILE, Artifact, first_not_finite, write_json
from llmrepair.pipeline.borrowed import VERSIONLESS_KEY, OtherVersions
from llmrepair.pipeline.differences import version_changes
from llmrepair.pipeline.errors import Problem, RequestError, WorkError, disk_is_full, is_out_of_memory, says_disk_is_full
from llmrepair.pipeline.fit import Fit, Free
from llmrepair.pipeline.graph import Explain, Graph, Node, as_it_is
from llmrepair.pipeline.imports import no_garbage_collection
from llmrepair.pipeline.journal import Journal, read_progress
from llmrepair.pipeline.machine import clear_gpu, free_disk, free_memory
from llmrepair.pipeline.progress import Reporter, ShownBars
from llmrepair.pipeline.record import Recorder
from llmrepair.pipeline.stage import Context, Outcome, Runtime, Stage
from llmrepair.pipeline.store import USES_FILE, Store

_ALWAYS_READ_BYTES = 16 << 20
"""Files up to this size are checked whenever their artifact is reused, larger ones when they are about to be read anyway."""


class Runner:
    """Runs stages against one store.

    Args:
        runtime_problems: what is wrong with the runtime options on this machine; asked only if something has to run.
        explain: a problem with a stage -> how to tell it, such as with the line of the plan that asks for it.
        free_device_memory: bytes of the GPU that would be used; None where none is.
    """

    def __init__(
        self,
        store: Store,
        runtime: Runtime,
        reporter: Reporter,
        runtime_problems: Callable[[Runtime], list[Problem]] = lambda runtime: [],
        explain: Explain = as_it_is,
        free_device_memory: Callable[[Runtime], int | None] = lambda runtime: None,
    ):
        self.store = store
        self.runtime = runtime
        self.reporter = reporter
        self._runtime_problems = runtime_problems
        self._explain = explain
        self._free_device_memory = free_device_memory

    def pull(self, stage: Stage) -> Outcome:
        """The artifact of `stage`, computed with everything it needs if it is not there.

        Raises:
            RequestError: with all that is wrong with any stage that has to run, before anything is computed.
            WorkError: a stage failed; what finished before it stays.
        """
        graph, missing = self.graph_and_missing([stage])
        for node in self.check(missing):
            outcome = self.compute(node)
        if missing:
            return outcome
        artifact = self.store.find(graph.targets[0])
        assert artifact is not None  # nothing was missing
        self._tell(stage, artifact, "cached")
        return Outcome(artifact, cached=True, seconds=0.0)

    def graph(self, targets: Iterable[Stage], damaged: Set[str] = frozenset()) -> Graph:
        """The stages that targets need. With `--any-version`, those among them that were made with others stand for them.

        Args:
            damaged: names of artifacts that cannot.
        """
        if not self.runtime.any_version:
            return Graph(targets, self.store.digests, self._explain, root=self.store.root)
        others = OtherVersions(self.store, damaged)
        return Graph(targets, self.store.digests, self._explain, self.store.find, others.find, self.store.root)

    def graph_and_missing(self, targets: Sequence[Stage]) -> tuple[Graph, list[Node]]:
        """The stages that targets need, and those that have to be computed."""
        damaged: set[str] = set()
        while True:
            graph = self.graph(targets, damaged)
            missing = graph.missing(self.find_intact)
            if not (borrowed := {node.name for node in missing if node.asked_for is not None}):
                self._tell_borrowed(graph)
                return graph, missing
            damaged |= borrowed  # nothing can be made again under the key of other versions

    def _tell_borrowed(self, graph: Graph) -> None:
        for node in graph:
            if node.asked_for is not None:
                versions = ", ".join(version_changes(node.document, node.asked_for)) or "its inputs' versions"
                self.reporter.note(f"`{node.name}` is reused in spite of other versions: {versions}")

    def find_intact(self, name: str, is_read: bool) -> Artifact | None:
        """A finished artifact whose checksums are right; a damaged one is put aside and counts as missing.

        Args:
            is_read: its files are about to be read: large ones are checked too.
        """
        artifact = self.store.find(name)
        if artifact is None or (damage := artifact.damage(None if is_read else _ALWAYS_READ_BYTES)) is None:
            return artifact
        place = self.store.quarantine(artifact)
        self.reporter.note(f"`{name}` is damaged: {damage}" + (f"; it was moved to {place}" if place is not None else ""))
        return None

    def check(self, nodes: list[Node], run_here: bool = True) -> list[Node]:
        """Looks closely at stages that are about to run. Those that come first are computed, for the others to be looked at.

        Args:
            run_here: on this machine, into which they must fit.

        Returns:
            Those that are left to compute.

        Raises:
            RequestError: with all that is wrong with any of them.
        """
        if not nodes:
            return []
        self.store.clear_dead()
        if first := [node for node in nodes if node.stage.comes_first]:
            self._check(first, run_here=True)
            for node in first:
                self.compute(node)
        left = [node for node in nodes if node not in first]
        self._check(left, run_here)
        return left

    def _check(self, nodes: list[Node], run_here: bool) -> None:
        with self.reporter.busy(_checking(nodes)), no_garbage_collection():
            problems = self._problems(nodes, run_here)
        if problems:
            raise RequestError(*dict.fromkeys(problems))
        with told_failures(f"stage {nodes[0].stage.name}"):
            self.store.need_room()
        for note in dict.fromkeys(note for node in nodes for note in node.stage.notes()):
            self.reporter.note(note)

    def _problems(self, nodes: list[Node], run_here: bool) -> list[Problem]:
        problems = self._runtime_problems(self.runtime)
        problems += [self._explain(node.stage, problem) for node in nodes for problem in _problems_of(node.stage)]
        return problems or (self._misfits(nodes) if run_here else [])

    def _misfits(self, nodes: list[Node]) -> list[Problem]:
        """What is wrong with stages that need more than this machine has left, each by itself."""
        free = Free(free_memory(), self._free_device_memory(self.runtime), free_disk(self.store.root))
        problems = []
        for node in nodes:
            fit = Fit(node.stage, self.runtime, free)
            problems += [self._explain(node.stage, problem) for problem in fit.problems()]
            for note in fit.notes():
                self.reporter.note(note)
        return problems

    def compute(self, node: Node) -> Outcome:
        """Computes one stage whose inputs are there, unless another process does so first."""
        stage = node.stage
        with told_failures(f"stage {stage.name}"), _Waiting(self, node) as waiting, self.store.lock(node.name, waiting.tell):
            waiting.end()
            work = self.store.work_folder(node.name)
            artifact = self.store.find(node.name)
            if artifact is not None:  # another process made it while we waited
                shutil.rmtree(work, ignore_errors=True)
                self._tell(stage, artifact, "cached")
                return Outcome(artifact, cached=True, seconds=0.0)
            recorder = Recorder(interrupted_before=(work / USES_FILE).exists())
            with self.reporter.journalled(Journal(work)):
                artifact = self._run(node, recorder)
            clear_gpu()
        self._tell(stage, artifact, f"{recorder.seconds:.1f} s")
        return Outcome(artifact, cached=False, seconds=recorder.seconds)

    def _run(self, node: Node, recorder: Recorder) -> Artifact:
        stage, work = node.stage, self.store.work_folder(node.name)
        self.reporter.say(f"{stage.name:<13} {stage.label()} ...")
        write_json(work / USES_FILE, list(node.inputs))
        inputs = {name: self._input(reference) for name, reference in node.document["inputs"].items()}
        with self.store.draft(node.name) as draft:
            context = Context(draft, work, inputs, self.runtime, self.reporter)
            estimate = stage.needs(self.runtime)
            metrics = stage.run(context)
            if (name := first_not_finite(metrics)) is not None:
                hint = "give --dtype float32 or bfloat16, or change the model less"
                raise WorkError(Problem(f"`{name}`, which stage {stage.name} measured, is no finite number", hint))
            shutil.copyfile(work / LOG_FILE, draft / LOG_FILE)
            record = recorder.record(stage, self.runtime, metrics, estimate, context.peaks)
            record[VERSIONLESS_KEY] = node.versionless.partition("/")[2]
            return self.store.publish(draft, node.name, node.document, record)

    def _input(self, name: str) -> Artifact:
        artifact = self.store.find(name)
        if artifact is None:
            raise WorkError(Problem(f"`{name}` was removed while it was needed", "run the command again"))
        return artifact

    def _tell(self, stage: Stage, artifact: Artifact, what: str) -> None:
        self.reporter.say(f"{stage.name:<13} {stage.label()}: {what}  {artifact.key}")


class _Waiting:
    """Says once whom a stage waits for, and shows how far that one is."""

    def __init__(self, runner: Runner, node: Node):
        self._runner, self._node = runner, node
        self._stack = ExitStack()
        self._bars: ShownBars | None = None

    def __enter__(self) -> _Waiting:
        return self

    def __exit__(self, *exception: object) -> None:
        self.end()

    def tell(self, owner: str) -> None:
        stage = self._node.stage
        if self._bars is None:
            self._runner.reporter.say(f"{stage.name:<13} {stage.label()}: waiting for {owner}, which is computing it")
            self._bars = self._stack.enter_context(self._runner.reporter.bars())
        self._bars.update(stage.name, read_progress(self._runner.store.work_folder(self._node.name)))

    def end(self) -> None:
        self._stack.close()


def _problems_of(stage: Stage) -> Sequence[Problem]:
    try:
        return stage.check()
    except RequestError as error:
        return error.problems


def _checking(nodes: list[Node]) -> str:
    """What is said before the libraries are imported, which takes seconds."""
    first, more = nodes[0].stage, f" and {len(nodes) - 1} more" if len(nodes) > 1 else ""
    return f"{first.name:<13} {first.label()}{more}: checking ..."


@contextmanager
def told_failures(what: str) -> Iterator[None]:
    """Turns the failures of `what` that a user can mend into a `WorkError`; a bug keeps its traceback."""
    try:
        yield
    except Exception as error:
        if says_disk_is_full(error):
            raise WorkError(disk_is_full(what)) from error
        if is_out_of_memory(error):
            hint = "lower --batch-size or --seq-len, or choose a smaller --dtype"
            raise WorkError(Problem(f"memory ran out in {what}", hint)) from error
        if hasattr(error, "hint"):  # what `models` raises, which knows nothing of stages
            kind = RequestError if getattr(error, "is_of_request", False) else WorkError
            raise kind(Problem(str(error), error.hint)) from error
        raise
