from __future__ import annotations

import copy
from typing import Any

import pytest

from llmrepair.pipeline.differences import Nearest, differences

COMPRESS: dict[str, Any] = {
    "scheme": 1,
    "stage": "compress",
    "config": {"method": "gptq", "bits": 4, "sparsity": None, "group_size": -1},
    "inputs": {},
    "sources": {"model": {"files": {"model.safetensors": "a" * 64}}, "calibration": {"lab": "seen-qa"}},
    "libraries": {"torch": "2.12.0", "gptqmodel": "7.6"},
    "code": {"llmrepair.stages.compress.run": "1", "llmrepair.models.text": "2"},
}
TUNE = {**COMPRESS, "stage": "tune-lora", "config": {"rank": 8}, "inputs": {"compressed": "compress/c1"}, "sources": {}}


def changed(document: dict[str, Any], **parts: dict[str, Any]) -> dict[str, Any]:
    document = copy.deepcopy(document)
    for part, values in parts.items():
        document[part] |= values
    return document


def nothing_known(name: str) -> None:
    return None


@pytest.mark.parametrize(
    "after, words",
    [
        (COMPRESS, []),
        (changed(COMPRESS, config={"bits": 3}), ["`bits` 4 -> 3"]),
        (changed(COMPRESS, config={"group_size": [1, 2]}), ["`group_size` -1 -> 1,2"]),
        (changed(COMPRESS, config={"sparsity": 0.5, "method": "wanda"}), ["`method` gptq -> wanda", "`sparsity` none -> 0.5"]),
        (
            changed(COMPRESS, sources={"model": {"files": {"model.safetensors": "b" * 64}}}),
            ["input `model.safetensors` of model changed"],
        ),
        (
            changed(COMPRESS, sources={"model": {"hub": "someone/tiny", "commit": "c" * 40}}),
            [
                "input `files` of model: model.safetensors aaaaaaaaaaaa... -> none",
                "input `hub` of model: none -> someone/tiny",
                "input `commit` of model: none -> cccccccccccc...",
            ],
        ),
        (changed(COMPRESS, sources={"calibration": None}), ["input `calibration`: lab seen-qa -> none"]),
        (changed(COMPRESS, code={"llmrepair.stages.compress.run": "9"}), ["code of `stages/compress/run` changed"]),
        (changed(COMPRESS, code={"llmrepair.models.new": "9"}), ["code of `models/new` was added"]),
        ({**COMPRESS, "code": {"llmrepair.models.text": "2"}}, ["code of `stages/compress/run` is gone"]),
        ({**COMPRESS, "scheme": 2}, ["scheme of keys 1 -> 2"]),
        ({**COMPRESS, "scheme": 2, "libraries": {"torch": "2"}}, ["scheme of keys 1 -> 2"]),
        (changed(COMPRESS, libraries={"torch": "2.13.0"}), ["`torch` 2.12.0 -> 2.13.0"]),
        (changed(COMPRESS, libraries={"gptqmodel": None}), ["`gptqmodel` 7.6 -> none"]),
    ],
)
def test_what_changed_in_words(after: dict[str, Any], words: list[str]) -> None:
    assert differences(COMPRESS, after, nothing_known) == words


def test_an_input_is_told_by_its_own_differences() -> None:
    known = {"compress/c1": COMPRESS, "compress/c2": changed(COMPRESS, config={"bits": 3})}
    after = changed(TUNE, config={"rank": 4}, inputs={"compressed": "compress/c2"})
    assert differences(TUNE, after, known.get) == ["`rank` 8 -> 4", "`bits` 4 -> 3 (compress)"]
    assert differences(TUNE, after, nothing_known) == ["`rank` 8 -> 4", "input `compressed`: compress/c1 -> compress/c2"]


def test_a_library_is_told_once_and_that_of_an_input_with_its_stage() -> None:
    known = {"compress/c1": COMPRESS, "compress/c2": changed(COMPRESS, libraries={"torch": "2.13.0", "gptqmodel": "8"})}
    before = {**TUNE, "libraries": {"torch": "2.12.0"}}
    after = changed(before, libraries={"torch": "2.13.0"}, inputs={"compressed": "compress/c2"})
    assert differences(before, after, known.get) == ["`torch` 2.12.0 -> 2.13.0", "`gptqmodel` 7.6 -> 8 (compress)"]


def test_what_reaches_a_stage_on_two_ways_is_told_once() -> None:
    known = {"compress/c1": COMPRESS, "compress/c2": changed(COMPRESS, config={"bits": 3}), "tune-lora/t1": TUNE}
    known["tune-lora/t2"] = changed(TUNE, inputs={"compressed": "compress/c2"})
    before = {**TUNE, "stage": "evaluate", "inputs": {"compressed": "compress/c1", "repair": "tune-lora/t1"}}
    after = {**before, "inputs": {"compressed": "compress/c2", "repair": "tune-lora/t2"}}
    assert differences(before, after, known.get) == ["`bits` 4 -> 3 (compress)"]


def test_the_nearest_counts_inputs_by_what_they_were_made_from() -> None:
    known = {
        "compress/c1": COMPRESS,
        "compress/far": changed(COMPRESS, config={"method": "wanda", "sparsity": 0.5, "bits": None}),
        "compress/c2": changed(COMPRESS, config={"bits": 3}),
    }
    documents = [changed(TUNE, inputs={"compressed": name}) for name in ("compress/far", "compress/c1")]
    nearest = Nearest(documents, known.get)
    assert nearest.to(changed(TUNE, inputs={"compressed": "compress/c2"})) == 1
    assert Nearest([], known.get).to(TUNE) is None
