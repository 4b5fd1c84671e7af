"""The regimes stage on the lab model, with tunings of a few steps."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from llmrepair.models.regimes import KINDS, MEASURES
from llmrepair.stages.diagnostics.regimes.run import _blocks
from llmrepair.stages.request import MAKERS
from tests.conftest import CommandLine

QUICK = ["--method", "rtn", "--budget", 6144, "--tuning-samples", 30, "--lengths", "4,4", "--samples", 8, "--rank", 2]


def test_blocks_hold_each_row_once_and_none_is_short() -> None:
    for count in range(16, 40):
        blocks = list(_blocks([[number] for number in range(count)]))
        assert [row for block in blocks for (row,) in block] == list(range(count))
        assert min(map(len, blocks)) == 8


def test_its_options_make_it_again() -> None:
    for values in ({}, {"bits": 4, "seed": 2, "compared_items": 40}):
        stage = MAKERS["regimes"](values)
        again = MAKERS["regimes"](stage.options())
        assert {name: each.config for name, each in again.inputs().items()} == {
            name: each.config for name, each in stage.inputs().items()
        }
        assert again.config == stage.config


def test_the_lab_model_beside_its_compressed_self(llmrepair: CommandLine, tmp_path: Path) -> None:
    answer = llmrepair("regimes", *QUICK, "--compared-items", 16, "--runs", tmp_path, "--json").json
    found = json.loads((Path(answer["path"]) / "regimes.json").read_text())
    assert found["texts"] == 16
    assert list(found["likeness"]) == ["none", "prompt", "idp", "lora"]
    for of_recovery in found["likeness"].values():
        for kind in KINDS:
            for measure in MEASURES:
                layers = of_recovery[kind][measure]
                assert len(layers) == 4
                assert all(each["low"] <= each["value"] <= each["high"] <= 1.0001 for each in layers)
    assert found["likeness"]["none"]["residual"]["cosine"][0]["value"] > 0.9
    svg = ElementTree.fromstring((Path(answer["path"]) / "regimes.svg").read_text())
    words = "".join(svg.itertext())
    assert all(word in words for word in ("attention maps", "MLP outputs", "residual stream", "compressed", "+ idp"))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--method", "none"], "nothing to compare"),
        (["--compared-text", "nowhere.txt"], "nowhere.txt"),
        (["--compared-items", 4], "--compared-items"),
    ],
)
def test_a_wrong_request(llmrepair: CommandLine, tmp_path: Path, arguments: list[object], message: str) -> None:
    answer = llmrepair("regimes", *arguments, "--runs", tmp_path)
    assert answer.code == 2
    assert message in answer.err
    assert "hint: " in answer.err


def test_the_labs_questions_are_not_asked_of_other_models(llmrepair: CommandLine, shared_data: Path, tmp_path: Path) -> None:
    answer = llmrepair("regimes", "--model", shared_data / "models/stories260k", "--runs", tmp_path)
    assert answer.code == 2
    assert "the lab's questions mean nothing to" in answer.err
