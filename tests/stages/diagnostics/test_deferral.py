"""The deferral stage on the lab model: which items it reads, what it tells right, and what it finds where nothing is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from llmrepair.pipeline.artifact import Artifact
from llmrepair.stages.diagnostics import DIAGNOSTICS
from llmrepair.stages.diagnostics.choices import distinct, read_task
from llmrepair.stages.repairs import REPAIRS
from llmrepair.stages.request import MAKERS
from llmrepair.stages.results.table import kinds
from tests.conftest import CommandLine

QUICK = ["--method", "rtn", "--bits", 3, "--budget", 6144, "--tuning-samples", 30, "--lengths", "4,4", "--limit", 160]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def test_its_options_make_it_again() -> None:
    for values in ({}, {"bits": 4, "seed": 2, "recoveries": "prompt,lora", "select": "random", "rank": 2, "limit": 40}):
        stage = MAKERS["deferral"](values)
        again = MAKERS["deferral"](stage.options())
        assert list(again.inputs()) == list(stage.inputs())
        for name, each in stage.inputs().items():
            assert again.inputs()[name].config.identity() == each.config.identity()


def test_each_prompt_of_a_pool_is_asked_alone() -> None:
    stage = MAKERS["deferral"]({"recoveries": "idp,lora", "lengths": "4,4"})
    assert list(stage.inputs()) == ["compressed", "dense", "model", "idp", "lora", "idp, part 0", "idp, part 1"]
    assert {name: stage.inputs()[name].options()["select"] for name in ("idp, part 0", "idp, part 1")} == {
        "idp, part 0": "fixed:0",
        "idp, part 1": "fixed:1",
    }


def test_choices_that_read_the_same_count_once(tmp_path: Path) -> None:
    asked = {f"gen_args_{number}": {"arg_0": "Who?", "arg_1": choice} for number, choice in enumerate(("a", "b", "a"))}
    sample: dict[str, Any] = {"arguments": asked, "loglikelihoods": [-1.0, None, -1.0]}
    assert distinct(sample).tolist() == [-1.0, -1e4]
    lines = [
        sample | {"doc_id": 0, "filter": "none", "correct": True, "prediction": 0},
        sample | {"doc_id": 1, "filter": "none", "correct": False, "prediction": 1, "loglikelihoods": None},
    ]
    (tmp_path / "samples_task_llmrepair.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    task = read_task({"dense": Artifact("evaluate", "0", tmp_path)}, "task")
    assert task is not None
    assert task.answers["dense"].loglikelihoods is None  # of a task some of whose items are no choices
    assert task.answers["dense"].right.tolist() == [True, False]
    assert task.subjects == [("item 0",), ("item 1",)]


def told_right(row: dict[str, Any], dense: dict[str, Any]) -> None:
    real, nothing = row["confidences"]["margin"], row["confidences"]["shuffled"]
    assert real["kept_from_lost"]["low"] > 0.55
    assert nothing["kept_from_lost"]["low"] < 0.5 < nothing["kept_from_lost"]["high"]
    assert real["skill"]["low"] > 0.1
    assert nothing["skill"]["low"] < 0 < nothing["skill"]["high"]
    assert real["e_aurc"]["value"] < nothing["e_aurc"]["value"]
    assert row["curves"]["margin"]["cascade"][-1] == pytest.approx(dense["accuracy"]["value"], abs=1e-6)


def test_on_the_lab_a_margin_tells_what_is_lost_and_a_shuffled_one_nothing(llmrepair: CommandLine, runs: Path) -> None:
    answer = llmrepair("deferral", *QUICK, "--runs", runs, "--json").json
    found = json.loads((Path(answer["path"]) / "deferral.json").read_text())
    (task,) = found["tasks"]
    assert (task["task"], task["items"], task["subjects"]) == ("lab_mc", 160, 40)
    dense, compressed = task["rows"]
    assert dense["accuracy"]["value"] > compressed["accuracy"]["value"]
    assert "skill" not in dense["confidences"]["margin"]
    told_right(compressed, dense)
    assert list(compressed["confidences"]) == ["margin", "probability", "entropy", "mass", "learned", "shuffled"]

    printed = llmrepair("deferral", *QUICK, "--runs", runs)
    assert "lab_mc, 160 items about 40 subjects; right: dense" in printed.out
    assert "kept from lost" in printed.out and "compressed  margin" in printed.out

    named = {**found, "name": "deferral/0", "label": "rtn 3 bits"}
    page = DIAGNOSTICS["deferral"].section([named], kinds(REPAIRS.values()), "..")
    assert page.count("<svg") == 3 and "Does it know when it is wrong?" in page
    assert "% of the items asked of the dense model come within one point of it" in page


@pytest.mark.stress
def test_on_the_lab_the_prompts_of_a_pool_agree_on_what_is_right(llmrepair: CommandLine, runs: Path) -> None:
    answer = llmrepair("deferral", *QUICK, "--recoveries", "idp", "--runs", runs, "--json").json
    (task,) = json.loads((Path(answer["path"]) / "deferral.json").read_text())["tasks"]
    dense, compressed, repaired = task["rows"]
    assert [row["label"] for row in task["rows"]] == ["dense", "compressed", "+ IDP"]
    told_right(repaired, dense)
    assert list(repaired["confidences"]) == [*list(compressed["confidences"])[:4], "agreement", "learned", "shuffled"]
    change = repaired["confidences"]["margin"]["e_aurc_change"]
    assert change["value"] == pytest.approx(_excess(repaired) - _excess(compressed))
    assert change["low"] < change["value"] < change["high"]
    words = "".join(ElementTree.fromstring((Path(answer["path"]) / "deferral.svg").read_text()).itertext())
    assert all(word in words for word in ("+ IDP", "wrong among the answered", "share deferred"))


def _excess(row: dict[str, Any]) -> float:
    return float(row["confidences"]["margin"]["e_aurc"]["value"])


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--method", "none"], "nothing to compare"),
        (["--recovery", "idp"], "the diagnostic itself sets --recovery"),
        (["--recoveries", "magic"], "`magic` is no value of --recoveries"),
        (["--tasks", "lab_qa,lab_text"], "lab_qa, lab_text has no choices to compare"),
    ],
)
def test_a_wrong_request(llmrepair: CommandLine, runs: Path, arguments: list[object], message: str) -> None:
    answer = llmrepair("deferral", "--method", "rtn", *arguments, "--runs", runs)
    assert answer.code == 2
    assert message in answer.err
    assert "hint: " in answer.err


PLAN = """
[grid]
compressions = ["none", "rtn"]
recoveries = ["none", { recovery = "lora", rank = 2 }]
tasks = ["lab_mc"]
seeds = [0, 1]

[diagnostics.deferral]
limit = 40

[diagnostics.probe]
"""


def test_a_plan_asks_for_it(llmrepair: CommandLine, runs: Path, tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(PLAN)
    stages = llmrepair("plan", tmp_path / "study.toml", "--runs", runs, "--json").json["stages"]
    labels = sorted(each["label"] for each in stages if each["stage"] == "deferral")
    assert len(labels) == 2 and all("LoRA" in label and "rtn" in label for label in labels)  # of two seeds
    tunings = [each["label"] for each in stages if each["stage"] == "tune-lora"]
    assert len(tunings) == 4 and all("rank 2" in label for label in tunings)  # those of the grid: of both models and seeds
    assert sum(each["stage"] == "probe" for each in stages) == 2  # of the dense model too, which has no seeds

    (tmp_path / "wrong.toml").write_text(PLAN.replace("limit", "limits").replace("probe", "probes"))
    answer = llmrepair("plan", tmp_path / "wrong.toml", "--runs", runs)
    assert answer.code == 2
    assert "`diagnostics.deferral.limits`: there is no `limits` here" in answer.err
    assert "did you mean `probe`?" in answer.err
