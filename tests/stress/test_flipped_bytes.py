"""One byte of a finished artifact that became another is damage, whichever it is."""

from __future__ import annotations

import random

import pytest

from llmrepair.pipeline.artifact import Artifact
from tests.stress.conftest import Record, Reference, artifact_folders

pytestmark = pytest.mark.stress
FLIPS = 1000


def test_every_flipped_byte_is_found(reference: Reference, record_property: Record) -> None:
    draw = random.Random(0)
    folders = artifact_folders(reference.runs)
    for _ in range(FLIPS):
        folder = draw.choice(folders)
        file = draw.choice([path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "manifest.json"])
        content = file.read_bytes()
        place = draw.randrange(len(content))
        file.write_bytes(content[:place] + bytes([content[place] ^ draw.randrange(1, 256)]) + content[place + 1 :])
        damage = Artifact(folder.parent.name, folder.name, folder).damage()
        file.write_bytes(content)
        assert damage is not None, (file, place)
    record_property("a byte of an artifact flipped, and found", FLIPS)
