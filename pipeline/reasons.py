"""Why the stages of a graph are not cached, in words."""

from __future__ import annotations

from typing import Any

from llmrepair.pipeline.artifact import Artifact
from llmrepair.pipeline.differences import Nearest, differences
from llmrepair.pipeline.graph import Graph, Node
from llmrepair.pipeline.store import Store


class Reasons:
    """Compares each stage with the most similar finished artifact.

    Args:
        graph: where documents of artifacts that are not made yet are found.
    """

    def __init__(self, store: Store, graph: Graph):
        self._store, self._graph = store, graph
        self._finished: dict[str, list[Artifact]] = {}
        for artifact in store.artifacts():
            self._finished.setdefault(artifact.stage, []).append(artifact)
        self._nearest: dict[str, Nearest] = {}

    def of(self, node: Node) -> list[str]:
        """A few words each, such as "`bits` 4 -> 3", the most telling first."""
        if node.asked_for is not None:
            return differences(node.document, node.asked_for, self._document)
        if self._store.quarantined(node.name):
            return ["it was damaged and put aside"]
        finished = self._finished.get(node.stage.name, [])
        if not finished:
            return ["never made"]
        if node.stage.name not in self._nearest:
            documents = [artifact.key_document for artifact in finished]
            self._nearest[node.stage.name] = Nearest(documents, self._document)
        nearest = self._nearest[node.stage.name].to(node.document)
        assert nearest is not None  # there are finished ones
        return differences(finished[nearest].key_document, node.document, self._document)

    def _document(self, name: str) -> dict[str, Any] | None:
        return self._graph.nodes[name].document if name in self._graph.nodes else self._store.find_document(name)
