"""What chooses a prompt, and the baselines that need no tuning, by the real command line on the lab."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmrepair.pipeline.store import Store
from llmrepair.stages.plan import read_plan
from llmrepair.stages.request import MAKERS
from llmrepair.stages.running import make_runner
from tests.conftest import CommandLine
from tests.e2e.test_chain import read_samples

TUNING = ["--budget", 12_288, "--tuning-samples", 60, "--lengths", "4,6,6", "--learning-rates", 0.05]
COMPRESSION = ["--bits", 2, "--group-size", 32, "--samples", 16]  # so damaged that prompts differ in what they get right
ASKED = ["--tasks", "lab_qa,lab_mc,lab_text", "--limit", 30]
TASKS = ("lab_qa", "lab_mc", "lab_text")

Answer = dict[str, Any]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def evaluate(llmrepair: CommandLine, runs: Path, *options: object) -> Answer:
    answer = llmrepair("eval", "--runs", runs, "--json", *COMPRESSION, *TUNING, *ASKED, *options)
    assert answer.code == 0, answer.err
    return dict(answer.json) | {"said": answer.err}


def selected(llmrepair: CommandLine, runs: Path, select: str, *options: object) -> Answer:
    return evaluate(llmrepair, runs, "--recovery", "prompt", "--select", select, *options)


def value(sample: dict[str, Any], task: str) -> float:
    """Of one document: whether it is right, or the log-likelihood of a text."""
    return sample["loglikelihoods"][0] if task == "lab_text" else float(sample["correct"])


@pytest.mark.parametrize("way", [[], ["--num-fewshot", 1]])
def test_an_oracle_is_the_best_of_what_each_prompt_gives(llmrepair: CommandLine, runs: Path, way: list[object]) -> None:
    singles = [selected(llmrepair, runs, f"fixed:{prompt}", *way) for prompt in range(3)]
    oracle = selected(llmrepair, runs, "oracle", *way)
    chosen: list[int] = []
    for task in TASKS:
        of_prompts = [read_samples(single, task) for single in singles]
        record = oracle["metrics"]["oracle"][task]
        wins = np.zeros(3)
        for samples in zip(read_samples(oracle, task), *of_prompts, strict=True):
            ours, *theirs = (value(sample, task) for sample in samples)
            assert ours == max(theirs)
            assert samples[0]["prompts"] == [theirs.index(max(theirs))]
            chosen += samples[0]["prompts"]
            wins += np.array(theirs) == max(theirs)
        assert record["best"] == pytest.approx(wins / 30, abs=1e-6)
        scores = [single["metrics"]["tasks"][task][record["metric"]] for single in singles]
        assert record["prompts"] == scores
        best = (min if task == "lab_text" else max)(score["value"] for score in scores)
        assert record["gap"] == oracle["metrics"]["tasks"][task][record["metric"]]["value"] - best
        assert (record["gap"] < 0) if task == "lab_text" else (record["gap"] >= 0)
        assert f"{task} {record['metric']}: the best prompt of each document" in oracle["said"]
    assert oracle["metrics"]["prompt_shares"] == pytest.approx([chosen.count(prompt) / 90 for prompt in range(3)], abs=1e-6)
    assert len(set(chosen)) == 3
    assert oracle["metrics"]["extra_parameters"] == 16 * 64
    assert singles[0]["metrics"]["extra_parameters"] == 4 * 64


def test_an_oracle_asks_everything_once_and_goes_on_where_it_was_killed(
    llmrepair: CommandLine, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmrepair.models.scorer import Scorer

    whole = selected(llmrepair, runs, "oracle", "--limit", 20)
    kept = {task: read_samples(whole, task) for task in TASKS}
    assert llmrepair("rm", whole["key"], "--runs", runs).code == 0
    asked, interruptions = list[Any](), iter([100])

    def counted(real: Any) -> Any:
        def counting(self: Any, cache: Any, choice: Any, rows: Any, *others: Any) -> Any:
            if len(asked) >= 100 and next(interruptions, None):
                raise KeyboardInterrupt
            answers = real(self, cache, choice, rows, *others)
            asked.extend(text for row in rows for tree in row for text in tree.paths)
            return answers

        return counting

    for name in ("_score_rows", "_generate_rows"):
        monkeypatch.setattr(Scorer, name, counted(getattr(Scorer, name)))
    batches = ["--batch-size", 1, "--limit", 20]
    arguments = ["--recovery", "prompt", "--select", "oracle", *batches]
    interrupted = llmrepair("eval", "--runs", runs, *COMPRESSION, *TUNING, *ASKED, *arguments)
    assert interrupted.code == 130
    resumed = selected(llmrepair, runs, "oracle", *batches)
    assert len(asked) > 100
    assert len(asked) == len(set(asked))
    assert resumed["key"] == whole["key"]
    for task in TASKS:
        assert [each["prompts"] for each in read_samples(resumed, task)] == [each["prompts"] for each in kept[task]]


@pytest.mark.parametrize("select", ["random", "loss"])
def test_a_document_gets_what_its_prompt_gives(llmrepair: CommandLine, runs: Path, select: str) -> None:
    singles = [selected(llmrepair, runs, f"fixed:{prompt}") for prompt in range(3)]
    ours = selected(llmrepair, runs, select)
    chosen = set()
    for task in TASKS:
        of_prompts = [read_samples(single, task) for single in singles]
        for sample, *alternatives in zip(read_samples(ours, task), *of_prompts, strict=True):
            (prompt,) = sample["prompts"]
            assert value(sample, task) == pytest.approx(value(alternatives[prompt], task), abs=1e-4)
            assert sample["prediction"] == alternatives[prompt]["prediction"]
            chosen.add(prompt)
    assert len(chosen) > 1
    if select == "random":
        other = selected(llmrepair, runs, select, "--seed", 1)
        assert [s["prompts"] for s in read_samples(other, "lab_qa")] != [s["prompts"] for s in read_samples(ours, "lab_qa")]


def test_a_calibrated_vote_changes_its_mind_and_says_what_it_gains(llmrepair: CommandLine, runs: Path) -> None:
    calibrated = evaluate(llmrepair, runs, "--recovery", "idp", "--idp-calibrate", "centre", "--idp-layers", "tuned")
    inputs = Store(runs).resolve(calibrated["key"]).inputs
    measured, pool = (Store(runs).resolve(inputs[name]) for name in ("measured", "repair"))
    losses, routed = measured.metrics["validation_loss"], measured.metrics["routed_loss"]["centre"]
    assert losses["prompts"] == pytest.approx(pool.metrics["validation_loss"]["prompts"], abs=1e-6)
    assert losses["best_prompt"] - losses["oracle"] == pytest.approx(pool.metrics["diversity"]["oracle_gap"], abs=1e-6)
    record = calibrated["metrics"]["routing"]
    assert record["loss"]["routed"] == pytest.approx(min(routed.values()), abs=1e-9)
    assert record["layers"] == [int(min(routed, key=routed.__getitem__))]
    assert (record["rows"], record["could_vote"]) == (6, 4)
    text = f"layer {record['layers'][0]} of 4 chooses for 6 held-out rows has a loss of {record['loss']['routed']:.4f}"
    assert text in calibrated["said"]
    plain = evaluate(llmrepair, runs, "--recovery", "idp", "--idp-layers", str(record["layers"][0]))
    assert plain["metrics"]["routing"] is None
    chosen = calibrated["metrics"]["prompt_shares"]
    assert max(plain["metrics"]["prompt_shares"]) > max(chosen)
    assert max(chosen) < 0.95


def test_what_is_wrong_with_a_vote_is_told_before_any_work(llmrepair: CommandLine, tmp_path: Path) -> None:
    answer = llmrepair("eval", "--runs", tmp_path, "--recovery", "idp", "--idp-calibrate", "zscore", "--idp-per", "token")
    assert answer.code == 2
    assert "votes of single tokens cannot" in answer.err
    answer = llmrepair("eval", "--runs", tmp_path, "--recovery", "idp", "--idp-layers", "best")
    assert answer.code == 2
    assert "give --idp-layers first, all, tuned, or a list such as 0,2" in answer.err
    assert not list(tmp_path.iterdir())


def test_an_ensemble_averages_what_its_prompts_give(llmrepair: CommandLine, runs: Path) -> None:
    singles = [selected(llmrepair, runs, f"fixed:{prompt}") for prompt in range(3)]
    ours = selected(llmrepair, runs, "ensemble")
    assert ours["metrics"]["prompt_shares"] is None
    for task in ("lab_mc", "lab_text"):
        of_prompts = [read_samples(single, task) for single in singles]
        for sample, *alternatives in zip(read_samples(ours, task), *of_prompts, strict=True):
            means = np.mean([each["loglikelihoods"] for each in alternatives], axis=0)
            assert sample["loglikelihoods"] == pytest.approx(means.tolist(), abs=1e-3)
            assert sample["prompts"] == "ensemble"


@pytest.mark.parametrize("recovery", ["hard", "icl"])
@pytest.mark.parametrize("model", ["lab", "lab-opt"])
def test_texts_in_front_need_no_tuning(llmrepair: CommandLine, runs: Path, model: str, recovery: str) -> None:
    one, other = {
        "hard": (["--hard-prompt", "Pavel Arndt comes from Oslo."], ["--hard-prompt", "Oslo."]),
        "icl": (["--icl-examples", 2], ["--icl-examples", 1]),
    }[recovery]
    first = evaluate(llmrepair, runs, "--model", model, "--recovery", recovery, *one)
    second = evaluate(llmrepair, runs, "--model", model, "--recovery", recovery, *other)
    assert first["key"] != second["key"]
    for answer in (first, second):
        assert set(json.loads((Path(answer["path"]) / "key.json").read_text())["inputs"]) == {"compressed"}
        assert answer["metrics"]["extra_parameters"] == 0
        assert answer["metrics"]["prompt_shares"] is None
        assert {str(sample["prompts"]) for sample in read_samples(answer, "lab_qa")} == {"None"}
    assert first["metrics"]["prompt_tokens"] > second["metrics"]["prompt_tokens"] > 0
    assert first["metrics"]["prompt_tokens"] + first["metrics"]["max_length"] == 256
    assert first["metrics"]["tasks"] != second["metrics"]["tasks"]


def test_examples_come_from_the_tuning_data_and_what_does_not_fit_is_said(
    llmrepair: CommandLine, runs: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text("\n\n".join(["Oslo. Rome. Milano. Bergen."] * 40))
    mine = ["--tuning-data", tmp_path / "text.txt", "--icl-examples", 30]
    answer = evaluate(llmrepair, runs, "--recovery", "icl", *mine)
    assert "16 of 30 examples stand in front of each input, 128 tokens of at most 128" in answer["said"]
    assert "has no effect" not in answer["said"]
    (tmp_path / "text.txt").write_text("Rome. Oslo.")
    assert evaluate(llmrepair, runs, "--recovery", "icl", *mine)["key"] != answer["key"]
    (tmp_path / "text.txt").write_text("\n")
    empty = llmrepair("eval", "--runs", runs, *COMPRESSION, "--recovery", "icl", *mine)
    assert empty.code == 2
    assert "text.txt holds no text" in empty.err


def test_a_merged_adapter_answers_as_one_beside_the_weights(llmrepair: CommandLine, runs: Path) -> None:
    tuning = ["--learning-rates", 0.01, "--rank", 2]
    beside, merged = (evaluate(llmrepair, runs, "--recovery", "lora", *tuning, *way) for way in ([], ["--lora-merged"]))
    for task in ("lab_mc", "lab_text"):
        for one, other in zip(read_samples(beside, task), read_samples(merged, task), strict=True):
            assert one["loglikelihoods"] == pytest.approx(other["loglikelihoods"], abs=1e-3)
    assert merged["metrics"]["extra_parameters"] == 0 < beside["metrics"]["extra_parameters"]
    assert merged["metrics"]["bits_per_weight"] == 32 > beside["metrics"]["bits_per_weight"]
    assert merged["metrics"]["sparsity"] == 0 < beside["metrics"]["sparsity"]
    assert merged["metrics"]["size_bytes"] == 4 * merged["metrics"]["parameters"] > beside["metrics"]["size_bytes"]


PLAN = """
[defaults]
bits = 2
group_size = 32
samples = 16
budget = 12_288
tuning_samples = 60
lengths = [4, 6, 6]
learning_rates = [0.05]
limit = 30
tasks = ["lab_qa", "lab_mc", "lab_text"]
[grid]
recoveries = [
    "none", "hard", "icl", "prompt", "idp",
    { recovery = "prompt", select = "fixed:1" }, { recovery = "prompt", select = "oracle" },
    { recovery = "prompt", select = "ensemble" }, { recovery = "hard", hard_prompt = "Oslo." },
    { recovery = "idp", idp_calibrate = "centre", idp_layers = "tuned" },
    { recovery = "lora", rank = 2 }, { recovery = "lora", rank = 2, lora_merged = true },
]
"""


def test_a_plan_with_all_of_them_and_its_report(llmrepair: CommandLine, runs: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(PLAN)
    runner = make_runner({}, runs)  # in this process, and not in one for each stage as `run` does
    for evaluation in read_plan(tmp_path / "plan.toml").evaluations:
        runner.pull(evaluation)
    report = llmrepair("report", "--runs", runs, "--json", "--html", tmp_path / "report.html")
    assert report.code == 0, report.err
    artifact = Store(runs).resolve(report.json["key"])
    rows = artifact.read_json("report.json")["rows"]
    names = [(row["recovery"], row["detail"]) for row in rows]
    assert len(names) == len(set(names))
    labels = {label for label, _ in names}
    assert {"none", "text prompt", "in-context examples", "one prompt", "prompt 1", "oracle prompt", "IDP"} <= labels
    assert {"prompt ensemble", "LoRA", "LoRA, merged", "IDP, centre"} <= labels
    assert any(label == "text prompt" and "hard_prompt Oslo." in detail for label, detail in names)
    assert next(row for row in rows if row["recovery"] == "LoRA, merged")["bits_per_weight"] == 32


def test_a_repair_on_the_dense_model_is_a_control(llmrepair: CommandLine, runs: Path) -> None:
    """The prompt that was tuned for the compressed model, in front of the dense one; told apart in the report."""
    repaired = evaluate(llmrepair, runs, "--recovery", "prompt")
    control = evaluate(llmrepair, runs, "--recovery", "prompt", "--on-dense")
    dense = evaluate(llmrepair, runs, "--method", "none")
    documents = [Store(runs).resolve(each["key"]).key_document["inputs"] for each in (repaired, control, dense)]
    assert documents[1] == {"compressed": documents[2]["compressed"], "repair": documents[0]["repair"]}
    assert read_samples(control, "lab_qa") != read_samples(dense, "lab_qa")
    again = MAKERS["evaluate"](Store(runs).resolve(control["key"]).record["options"])
    assert make_runner({}, runs).pull(again).cached
    report = llmrepair("report", "--runs", runs, "--json")
    rows = Store(runs).resolve(report.json["key"]).read_json("report.json")["rows"]
    assert ("dense", "one prompt of gptq 2 bits, group 32") in {(row["compression"], row["recovery"]) for row in rows}
