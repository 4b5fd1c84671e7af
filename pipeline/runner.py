"""Pulls a stage: whatever upstream is missing is computed, what is there is reused."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from llmrepair.pipeline.artifact import Artifact
from llmrepair.pipeline.errors import Problem, RequestError, WorkError
from llmrepair.pipeline.keys import KEY_SCHEME, code_digests, document_key
from llmrepair.pipeline.progress import Reporter
from llmrepair.pipeline.record import Recorder
from llmrepair.pipeline.stage import Context, Outcome, Runtime, Stage
from llmrepair.pipeline.store import Store

_CODE_THAT_COUNTS = ("llmrepair.stages", "llmrepair.models", "llmrepair.lab")


def current_code(module: str) -> dict[str, str]:
    """Digests of the code that `module` computes with, as it is now."""
    return code_digests(module, _CODE_THAT_COUNTS)


class Runner:
    """Runs stages against one store.

    Args:
        runtime_problems: what is wrong with the runtime options on this machine; asked only if something has to run.
    """

    def __init__(
        self,
        store: Store,
        runtime: Runtime,
        reporter: Reporter,
        runtime_problems: Callable[[Runtime], list[Problem]] = lambda runtime: [],
    ):
        self.store = store
        self.runtime = runtime
        self.reporter = reporter
        self._runtime_problems = runtime_problems
        self._documents: dict[int, dict[str, Any]] = {}
        self._stages: list[Stage] = []  # keeps the ids above alive

    def pull(self, stage: Stage) -> Outcome:
        """The artifact of `stage`, computed with everything it needs if it is not there.

        Raises:
            RequestError: with all that is wrong with any stage that has to run, before anything is computed.
            WorkError: a stage failed; what finished before it stays.
        """
        self._key_everything(stage)
        missing = list(self._missing(stage))
        self._check(missing)
        for upstream in missing[:-1]:
            self._compute(upstream)
        if missing:
            return self._compute(stage)
        artifact = self._find(stage)
        assert artifact is not None  # nothing was missing
        self._tell(stage, artifact, "cached")
        return Outcome(artifact, cached=True, seconds=0.0)

    def key_document(self, stage: Stage) -> dict[str, Any]:
        """Everything the key of `stage` is computed from."""
        if id(stage) not in self._documents:
            self._stages.append(stage)
            self._documents[id(stage)] = {
                "scheme": KEY_SCHEME,
                "stage": stage.name,
                "config": stage.config.identity(),
                "inputs": {name: f"{i.name}/{self.key(i)}" for name, i in stage.inputs().items()},
                "sources": stage.sources(self.store.digests),
                "code": current_code(stage.code),
            }
        return self._documents[id(stage)]

    def key(self, stage: Stage) -> str:
        return document_key(self.key_document(stage))

    def _find(self, stage: Stage) -> Artifact | None:
        return self.store.find(stage.name, self.key(stage))

    def _key_everything(self, stage: Stage) -> None:
        """Computes all keys, so that every source that does not exist is told at once."""
        problems: list[Problem] = []
        for each in _upstream_first(stage):
            try:
                self.key(each)
            except RequestError as error:
                problems += [problem for problem in error.problems if problem not in problems]
        if problems:
            raise RequestError(*problems)

    def _missing(self, stage: Stage, seen: set[str] | None = None) -> Iterator[Stage]:
        """The stages that have to run, inputs first, each key once. What only a finished artifact needs is not asked for."""
        seen = set() if seen is None else seen
        if self._find(stage) is not None or self.key(stage) in seen:
            return
        seen.add(self.key(stage))
        for upstream in stage.inputs().values():
            yield from self._missing(upstream, seen)
        yield stage

    def _check(self, stages: list[Stage]) -> None:
        problems = self._runtime_problems(self.runtime) if stages else []
        problems += [problem for stage in stages for problem in stage.check()]
        if problems:
            raise RequestError(*dict.fromkeys(problems))

    def _compute(self, stage: Stage) -> Outcome:
        key = self.key(stage)
        with self.store.lock(stage.name, key, lambda owner: self._tell_waiting(stage, owner)):
            artifact = self._find(stage)
            if artifact is not None:  # another process made it while we waited
                self._tell(stage, artifact, "cached")
                return Outcome(artifact, cached=True, seconds=0.0)
            self.reporter.say(f"{stage.name:<13} {stage.label()} ...")
            recorder = Recorder()
            artifact = self._run(stage, key, recorder)
        self._tell(stage, artifact, f"{recorder.seconds:.1f} s")
        return Outcome(artifact, cached=False, seconds=recorder.seconds)

    def _run(self, stage: Stage, key: str, recorder: Recorder) -> Artifact:
        inputs = {name: self._input(upstream) for name, upstream in stage.inputs().items()}
        with _told_failures(stage), self.store.draft(stage.name, key) as draft:
            work = self.store.work_folder(stage.name, key)
            metrics = stage.run(Context(draft, work, inputs, self.runtime, self.reporter))
            record = recorder.record(stage.label(), self.runtime.model_dump(), metrics)
            return self.store.publish(draft, stage.name, key, self.key_document(stage), record)

    def _input(self, upstream: Stage) -> Artifact:
        artifact = self._find(upstream)
        if artifact is None:
            raise WorkError(
                Problem(f"`{upstream.name}/{self.key(upstream)}` was removed while it was needed", "run the command again")
            )
        return artifact

    def _tell(self, stage: Stage, artifact: Artifact, what: str) -> None:
        self.reporter.say(f"{stage.name:<13} {stage.label()}: {what}  {artifact.key}")

    def _tell_waiting(self, stage: Stage, owner: str) -> None:
        self.reporter.say(f"{stage.name:<13} {stage.label()}: waiting for {owner}, which is computing it")


def _upstream_first(stage: Stage) -> Iterator[Stage]:
    for upstream in stage.inputs().values():
        yield from _upstream_first(upstream)
    yield stage


@contextmanager
def _told_failures(stage: Stage) -> Iterator[None]:
    """Turns the failures that a user can mend into a `WorkError`; a bug keeps its traceback."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        hint = "make room, or choose another folder with --runs DIR, and run the command again"
        raise WorkError(Problem(f"the disk is full; stage {stage.name} was not finished", hint)) from error
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and type(error).__name__ != "OutOfMemoryError":  # torch's, without importing it
            raise
        hint = "lower --batch-size or --seq-len, or choose a smaller --dtype"
        raise WorkError(Problem(f"memory ran out in stage {stage.name}", hint)) from error
