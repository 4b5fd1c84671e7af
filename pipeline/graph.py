"""The stages that some targets need, each once, inputs first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmrepair.pipeline.artifact import Artifact
from llmrepair.pipeline.code import code_digests
from llmrepair.pipeline.errors import Problem, RequestError
from llmrepair.pipeline.keys import KEY_SCHEME, DigestCache, document_key
from llmrepair.pipeline.stage import Stage
from llmrepair.pipeline.versions import versions_of

Explain = Callable[[Stage, Problem], Problem]
Find = Callable[[str], Artifact | None]


def as_it_is(stage: Stage, problem: Problem) -> Problem:
    """Tells a problem with a stage as it is."""
    return problem


@dataclass(frozen=True)
class Node:
    """A stage with its key."""

    stage: Stage
    name: str
    """`stage/key`: the artifact's, made or not."""
    document: dict[str, Any]
    """Everything the key is computed from."""
    versionless: str
    """`stage/key` without the versions of libraries in it, nor in the keys of its inputs."""
    asked_for: dict[str, Any] | None = None
    """What the document would be with the versions that are installed; None where it is that."""

    @property
    def inputs(self) -> Iterable[str]:
        inputs: Mapping[str, str] = self.document["inputs"]
        return inputs.values()


class Graph:
    """Nodes by name. Two stages with one key are one node.

    Args:
        targets: the stages that are asked for.
        digests: of input files.
        explain: a problem with a stage -> how to tell it.
        borrow: finds what was made with other versions, by its name without versions; only asked where `has` says that what
            was asked for is not there.
        root: the folder of artifacts.

    Raises:
        RequestError: with every source that does not exist.
    """

    def __init__(
        self,
        targets: Iterable[Stage],
        digests: DigestCache,
        explain: Explain = as_it_is,
        has: Find = lambda name: None,
        borrow: Find = lambda name: None,
        root: Path = Path(),
    ):
        self.nodes: dict[str, Node] = {}
        self.targets: list[str] = []
        self._digests = digests
        self._explain = explain
        self._has, self._borrow, self._root = has, borrow, root
        self._names: dict[int, str] = {}
        self._stages: list[Stage] = []  # keeps the ids above alive
        problems: list[Problem] = []
        for target in targets:
            if (name := self._add(target, problems)) is not None:
                self.targets.append(name)
        if problems:
            raise RequestError(*dict.fromkeys(problems))

    def _add(self, stage: Stage, problems: list[Problem]) -> str | None:
        """Adds a stage and all it needs; returns its name, or None if a source is missing."""
        if id(stage) in self._names:
            return self._names[id(stage)]
        inputs = {name: self._add(upstream, problems) for name, upstream in stage.inputs().items()}
        stage.find_inputs({name: self._root / upstream for name, upstream in inputs.items() if upstream is not None})
        try:
            sources = stage.sources(self._digests)
        except RequestError as error:
            problems += [self._explain(stage, problem) for problem in error.problems]
            return None
        if None in inputs.values():
            return None
        document = {
            "scheme": KEY_SCHEME,
            "stage": stage.name,
            "config": stage.identity(),
            "inputs": inputs,
            "sources": sources,
            "libraries": versions_of(stage.libraries()),
            "code": code_digests(stage.modules()),
        }
        node = self._node(stage, document)
        self.nodes.setdefault(node.name, node)
        self._stages.append(stage)
        self._names[id(stage)] = node.name
        return node.name

    def _node(self, stage: Stage, document: dict[str, Any]) -> Node:
        name = f"{stage.name}/{document_key(document)}"
        inputs = {role: self.nodes[upstream].versionless for role, upstream in document["inputs"].items()}
        versionless = f"{stage.name}/{document_key(document | {'inputs': inputs, 'libraries': {}})}"
        borrowed = self._borrow(versionless) if self._has(name) is None else None
        if borrowed is None:
            return Node(stage, name, document, versionless)
        return Node(stage, borrowed.name, borrowed.key_document, versionless, asked_for=document)

    def missing(self, find: Callable[[str, bool], Artifact | None]) -> list[Node]:
        """The nodes that have to be computed, inputs first. What only a finished artifact needs is not asked for.

        Args:
            find: the finished artifact `stage/key`; told whether its files are about to be read.
        """
        wanted: set[str] = set()
        seen: set[tuple[str, bool]] = set()

        def visit(name: str, is_read: bool) -> None:
            if (name, is_read) in seen:
                return
            seen.add((name, is_read))
            if name not in wanted and find(name, is_read) is not None:
                for role in self.nodes[name].stage.handed_on() if is_read else ():
                    visit(self.nodes[name].document["inputs"][role], True)
                return
            wanted.add(name)
            for upstream in self.nodes[name].inputs:
                visit(upstream, True)

        for target in self.targets:
            visit(target, False)
        return [node for node in self if node.name in wanted]

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes.values())


def labels_of(nodes: Iterable[Node]) -> dict[str, str]:
    """What each stage is called; those that would be called the same are told apart by the options in which they differ."""
    alike: dict[tuple[str, str], list[Node]] = {}
    for node in nodes:
        alike.setdefault((node.stage.name, node.stage.label()), []).append(node)
    labels = {}
    for (_, label), those in alike.items():
        options = {node.name: node.stage.options() for node in those}
        names = sorted({name for each in options.values() for name in each})
        differing = [name for name in names if len({repr(each.get(name)) for each in options.values()}) > 1]
        for node in those:
            told = [f"{name} {options[node.name].get(name, 'default')}" for name in differing]
            labels[node.name] = ", ".join([label, *told])
    return labels
