"""`conjecture` on real evaluations of the embedded model, small."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from llmrepair.cli.main import run
from tests.conftest import CommandLine

SMALL = "--method magnitude --sparsity 0.8 --seeds 3 --limit 40 --lengths 4 --tuning-samples 60 --budget 8192".split()
SMALL += ["--rule", "second", "--placebos", "2"]
ASKED = ["conjecture", *SMALL, "--controls", "", "--tasks", "lab_qa,lab_text"]
PLAN = """
[defaults]
budget = 8192
tuning_samples = 60
lengths = [4]
limit = 40
tasks = ["lab_qa", "lab_text"]

[conjecture]
method = "magnitude"
sparsity = 0.8
seeds = [3]
rule = "second"
placebos = 2
controls = []
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("conjecture")
    assert run([*ASKED, "--runs", str(folder / "runs")]) == 0
    (folder / "study.toml").write_text(PLAN)
    return folder


@pytest.fixture
def folder(finished: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(finished)
    return finished


def test_it_makes_all_that_it_needs(finished: Path) -> None:
    made = Counter(path.parent.name for path in (finished / "runs").glob("*/????????????????"))
    # dense and compressed, each alone; the compressed one behind the prompt, untuned and tuned, IDP, oracle, LoRA and placebos
    tuned = {"tune-prompts": 2, "tune-lora": 1, "tune-placebo": 2}
    assert made == {"compress": 2, **tuned, "evaluate": 2 + 5 + 2, "probe": 1, "conjecture": 1}


def test_a_plan_asks_for_the_same(folder: Path, llmrepair: CommandLine) -> None:
    answer = llmrepair("plan", "study.toml", "--json").json
    assert (len(answer["stages"]), answer["to_do"]) == (18, 0)


def test_what_was_just_computed_is_not_called_cached(finished: Path, tmp_path: Path, llmrepair: CommandLine) -> None:
    shutil.copytree(finished / "runs", tmp_path / "runs")
    shutil.rmtree(tmp_path / "runs" / "conjecture")
    answers = [llmrepair(*ASKED, "--runs", tmp_path / "runs", "--json").json for _ in range(2)]
    assert [answer["cached"] for answer in answers] == [False, True]
    assert answers[0]["seconds"] > 0
    assert answers[0]["metrics"] == answers[1]["metrics"]


def test_the_verdict_and_its_numbers_are_in_the_answer(folder: Path, llmrepair: CommandLine) -> None:
    answer = llmrepair(*ASKED, "--json").json
    assert answer["stage"] == "conjecture"
    assert answer["cached"]
    assert answer["metrics"]["verdict"] == "undetermined"
    assert list(answer["metrics"]["tasks"]) == ["lab_qa", "lab_text"]
    found = answer["metrics"]["tasks"]["lab_qa"]
    assert found["items"] == 40
    assert sum(share["value"] for share in found["shares"].values()) == pytest.approx(1)
    lines = [json.loads(line) for line in (Path(answer["path"]) / "items.jsonl").read_text().splitlines()]
    assert Counter(line["task"] for line in lines) == {"lab_qa": 40, "lab_text": 40}
    assert sum(line["class"] == "lost" for line in lines) == found["lost"] > 0


def test_of_texts_it_says_what_each_repair_undoes(folder: Path, llmrepair: CommandLine) -> None:
    found = llmrepair(*ASKED, "--json").json["metrics"]["tasks"]["lab_text"]
    assert found["verdict"] == "undetermined"  # nothing in lab_text is right or wrong
    assert found["damage"]["low"] > 0
    assert list(found["undone"]) == ["untuned", "prompt", "idp", "oracle", "lora"]
    lines = llmrepair(*ASKED).out.splitlines()
    assert any(line.startswith("lab_text: undetermined, because it has no right or wrong answers") for line in lines)
    heads = next(line for line in lines if "damage undone" in line)
    assert heads.endswith("word perplexity  bits per byte")
    rows = [row.split() for row in lines[lines.index(heads) + 1 :][:7]]
    assert [row[:2] for row in rows[1:]] == [["model", name] for name in ("none", "untuned", "prompt", "idp", "oracle", "lora")]
    dense, damaged, lora = (float(rows[number][-1]) for number in (0, 1, 6))
    undone = found["undone"]["lora"]
    assert undone["value"] == pytest.approx((damaged - lora) / (damaged - dense), abs=0.01)
    assert undone["low"] <= undone["value"] <= undone["high"]


def test_a_report_holds_it(folder: Path, llmrepair: CommandLine) -> None:
    assert llmrepair("report", "--model", "lab", "--html", "report.html").code == 0
    page = (folder / "report.html").read_text()
    assert "lab_text: undetermined, because it has no right or wrong answers" in page
    assert "one prompt, untuned" in page
    assert "<ul class=parts></ul>" not in page
    assert "placebos, mean of each" in page
    (document,) = (json.loads(path.read_text()) for path in (folder / "runs").glob("report/*/report.json"))
    assert "placebo" not in " ".join(row["recovery"] for row in document["rows"])  # they are on the card


def test_a_report_names_a_verdict_whose_evaluation_is_gone(folder: Path, llmrepair: CommandLine) -> None:
    shutil.copytree(folder / "runs", folder / "others")
    (test,) = (folder / "others" / "conjecture").iterdir()
    gone = json.loads((test / "key.json").read_text())["inputs"]["model lora 3"]
    assert llmrepair("rm", gone, "--runs", "others").code == 0
    said = llmrepair("report", "--runs", "others")
    assert f"note: 1 left out, for `{gone}` is gone" in said.err
    assert f"`conjecture/{test.name}` (lab magnitude 80%: forgotten or displaced, on lab_qa, lab_text)" in said.err


def test_what_is_printed_begins_with_the_verdict(folder: Path, llmrepair: CommandLine) -> None:
    lines = llmrepair(*ASKED).out.splitlines()
    assert lines[0] == "undetermined"
    assert lines[2].startswith("Of the ")
    assert "are at the edge: behind a placebo they are right. " in lines[2]
    assert any(line.startswith("are fewer than 30 items robustly lost? ") for line in lines)
    heads = next(line for line in lines if line.startswith("model  repair"))
    rows = lines[lines.index(heads) + 1 :][:5]
    assert [row.split()[1] for row in rows] == ["untuned", "prompt", "idp", "oracle", "lora"]
    assert any(line.startswith("of the lost, a linear probe reads ") for line in lines)
    assert any(line.startswith("of the lost, the prompt brings back ") for line in lines)


def test_show_and_help_know_it(folder: Path, llmrepair: CommandLine) -> None:
    (key,) = [path.name for path in (folder / "runs" / "conjecture").iterdir()]
    assert "tasks.lab_qa.shares.erased" in llmrepair("show", key).out
    assert "--controls" in llmrepair("conjecture", "--help").out


def test_what_the_test_sets_itself_is_refused(folder: Path, llmrepair: CommandLine) -> None:
    answer = llmrepair(*ASKED, "--recovery", "idp", "--seed", 1)
    assert answer.code == 2
    assert "error: the conjecture test itself sets --recovery" in answer.err
    assert "hint: leave it out" in answer.err
