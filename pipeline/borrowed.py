"""Artifacts that differ from what is asked for in the versions of libraries alone, for `--any-version`."""

from __future__ import annotations

from collections.abc import Set

from llmrepair.pipeline.artifact import Artifact
from llmrepair.pipeline.store import Store

VERSIONLESS_KEY = "versionless_key"
"""Field of a record: the key that an artifact would have if no versions were in it, nor in the keys of its inputs."""


class OtherVersions:
    """What there is, by its key without versions.

    Of several the one that was made first, so that what is made meanwhile changes nothing.

    Args:
        but: names that count as not there.
    """

    def __init__(self, store: Store, but: Set[str] = frozenset()):
        self._found: dict[str, Artifact] = {}
        usable = [artifact for artifact in store.artifacts() if artifact.name not in but]
        for artifact in sorted(usable, key=lambda each: (each.record.get("started", ""), each.name)):
            self._found.setdefault(versionless_name(artifact), artifact)

    def find(self, name: str) -> Artifact | None:
        """The artifact `stage/key`, of which the key is one without versions."""
        return self._found.get(name)


def versionless_name(artifact: Artifact) -> str:
    """`stage/key` without versions; the artifact's own where its record says none."""
    return f"{artifact.stage}/{artifact.record.get(VERSIONLESS_KEY, artifact.key)}"
