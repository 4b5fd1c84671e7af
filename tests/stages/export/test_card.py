"""What a card says of one export, without making one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from llmrepair.stages.drawing.markdown import code, plain
from llmrepair.stages.evaluate.stage import Evaluate
from llmrepair.stages.export.card import _introduction, _limits_of_measurement, _repair, _rows, _title
from llmrepair.stages.export.facts import _is_exported
from llmrepair.stages.export.parts import Parts
from llmrepair.stages.repairs import REPAIRS
from llmrepair.stages.results.evaluation import Evaluation

RECORD = {
    "training_rows": 54,
    "validation_rows": 6,
    "validation_loss": {"without": 2.0, "lora": 1.0},
    "learning_rate": 0.01,
    "extra_parameters": 64,
}


def facts(name: str = "mine", merged: bool = False, **placing: Any) -> dict[str, Any]:
    settings = {"tuning_samples": 60, "tuning_seq_len": 64}
    repair = {"settings": settings, "placing": placing, "tuning_data": {"lab": "seen-qa"}, "metrics": RECORD}
    compression = {"label": "dense", "settings": {"method": "none", "dtype": "bfloat16"}, "quantization": None}
    scores = {"rows": [{"exported": True, "scores": {"t": 1}}], "columns": [{"name": "t", "title": "lab_qa"}]}
    base = {"base_model": {"name": name, "embedded": False}, "recovery": "lora", "merged": merged, "exported": "evaluate/e1"}
    return {**base, "compression": compression, "repair": repair, "scores": scores, "llmrepair": "1"}


def test_the_card_says_how_much_text_there_was() -> None:
    assert _rows(128, 128, 64) == ": 128 rows of 64 tokens"
    assert _rows(16, 128, 64) == ": 16 rows of 64 tokens, all that it holds, of the 128 asked for"
    assert ": 60 rows of 64 tokens" in "".join(_repair(facts()))


def evaluation(name: str, **options: Any) -> Evaluation:
    artifact = SimpleNamespace(name=name, stage=Evaluate.name, key_document={"config": {"recovery": "lora", **options}})
    made_from = {"compressed": SimpleNamespace(name="compress/c1"), "tuned": SimpleNamespace(name="tune-lora/t1")}
    return cast(Evaluation, SimpleNamespace(artifact=artifact, **made_from))


@pytest.mark.parametrize(
    ("is_merged_here", "exported", "marked"),
    [
        (False, {"lora_merged": True}, ["evaluate/beside"]),  # what was measured merged does not lie here
        (True, {"lora_merged": True}, ["evaluate/merged"]),
        (False, {}, ["evaluate/beside"]),
        (True, {}, ["evaluate/beside"]),  # the same sum
    ],
)
def test_the_marked_score_is_that_of_what_lies_in_the_folder(
    is_merged_here: bool, exported: dict[str, Any], marked: list[str]
) -> None:
    every = [evaluation("evaluate/beside"), evaluation("evaluate/merged", lora_merged=True)]
    own = every[1] if exported else every[0]
    parts = SimpleNamespace(
        exported=own.artifact, compressed=own.compressed, tuned=own.tuned, repair=REPAIRS["lora"], placing=exported
    )
    assert [each.artifact.name for each in every if _is_exported(each, cast(Parts, parts), is_merged_here)] == marked


def test_the_card_of_an_evaluation_that_was_merged_describes_its_folder() -> None:
    files = REPAIRS["lora"].files
    beside, merged = facts(lora_merged=True), facts(merged=True, lora_merged=True)
    assert "lora_merged" not in "".join(_repair(beside))
    assert any("Here it lies beside" in limit for limit in files.limits(beside))
    assert not any("Here it lies beside" in limit for limit in files.limits(merged))
    assert not any("beside the weights" in limit for limit in _limits_of_measurement(merged))
    assert any("beside the weights" in limit for limit in _limits_of_measurement(facts(merged=True)))


def test_the_name_of_a_folder_is_no_markup() -> None:
    name = "<script>alert(1)</script> [x](y) `a`"
    assert "<script>" not in _title(facts(name))
    assert "\\[x\\](y)" in _title(facts(name))
    assert _introduction(facts(name)).startswith(f"`` {name} ``")
    assert (plain("my-lab 3.5"), code("my-lab")) == ("my-lab 3.5", "`my-lab`")
