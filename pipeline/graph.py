"""The stages that some targets need, each once, inputs first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from llmrepair.pipeline.artifact import Artifact
from llmrepair.pipeline.code import code_digests
from llmrepair.pipeline.errors import Problem, RequestError
from llmrepair.pipeline.keys import KEY_SCHEME, DigestCache, document_key
from llmrepair.pipeline.stage import Stage

Explain = Callable[[Stage, Problem], Problem]


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

    Raises:
        RequestError: with every source that does not exist.
    """

    def __init__(self, targets: Iterable[Stage], digests: DigestCache, explain: Explain = as_it_is):
        self.nodes: dict[str, Node] = {}
        self.targets: list[str] = []
        self._digests = digests
        self._explain = explain
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
            "code": code_digests(stage.modules()),
        }
        name = f"{stage.name}/{document_key(document)}"
        self.nodes.setdefault(name, Node(stage, name, document))
        self._stages.append(stage)
        self._names[id(stage)] = name
        return name

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
                return
            wanted.add(name)
            for upstream in self.nodes[name].inputs:
                visit(upstream, True)

        for target in self.targets:
            visit(target, False)
        return [node for node in self if node.name in wanted]

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes.values())
