"""The real command line on the embedded models: compress -> tune -> evaluate -> report."""

from __future__ import annotations

import csv
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from llmrepair.pipeline import graph as graph_module
from llmrepair.pipeline.artifact import write_json
from llmrepair.pipeline.code import code_digests
from llmrepair.pipeline.keys import KEY_SCHEME, document_key
from llmrepair.pipeline.runner import Runner
from llmrepair.pipeline.stage import Stage
from llmrepair.pipeline.store import Store
from llmrepair.stages.conjecture.stage import Conjecture
from llmrepair.stages.diagnostics.probe.stage import Probes
from llmrepair.stages.diagnostics.regimes.stage import Regimes
from tests.conftest import Answer, CommandLine
from tests.stages.report import report_document

TUNING = ["--budget", 8192, "--tuning-samples", 60, "--learning-rates", 0.01]
QUICK = [*TUNING, "--lengths", "4,6", "--virtual-tokens", 5]
SUFFIXES = {".json", ".jsonl", ".safetensors", ".txt", ".html", ".jinja", ".md"}
FIELDS = {"stage", "key", "path", "cached", "seconds", "metrics"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for this file, so that its tests share upstream stages as a user's commands do."""
    return tmp_path_factory.mktemp("runs")


def evaluate(llmrepair: CommandLine, runs: Path, *options: object) -> dict[str, Any]:
    answer = llmrepair("eval", "--runs", runs, "--json", "--limit", 40, *QUICK, *options)
    assert answer.code == 0, answer.err
    return dict(answer.json)


def read_samples(answer: dict[str, Any], task: str) -> list[dict[str, Any]]:
    lines = (Path(answer["path"]) / f"samples_{task}_llmrepair.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def stages(answer: Answer) -> list[str]:
    return [line.split()[0] for line in answer.err.splitlines() if line.split()]


@pytest.mark.parametrize("model", ["lab", "lab-opt"])
@pytest.mark.parametrize("recovery", ["none", "prompt", "idp", "ptune", "lora"])
def test_every_recovery_on_every_task(llmrepair: CommandLine, runs: Path, model: str, recovery: str) -> None:
    answer = evaluate(llmrepair, runs, "--model", model, "--recovery", recovery, "--tasks", "lab")
    assert set(answer) == FIELDS
    assert answer["stage"] == "evaluate"
    assert set(answer["metrics"]["tasks"]) == {"lab_mc", "lab_qa", "lab_reverse", "lab_text"}
    extra = answer["metrics"]["extra_parameters"]
    assert extra in {"none": [0], "prompt": [4 * 64, 6 * 64], "idp": [10 * 64], "ptune": [5 * 512]}.get(recovery, [extra])
    assert (extra == 0) == (recovery == "none")

    samples = {task: read_samples(answer, task) for task in answer["metrics"]["tasks"]}
    for task in ("lab_qa", "lab_mc", "lab_reverse"):
        correct = [sample["correct"] for sample in samples[task]]
        metric = next(iter(answer["metrics"]["tasks"][task].values()))
        assert metric["value"] == pytest.approx(sum(correct) / 40)
        assert metric["low"] <= metric["value"] <= metric["high"]
    for task, of_task in samples.items():
        assert len(of_task) == 40
        for sample in of_task:
            assert bool(sample["prompts"]) == (recovery in ("prompt", "idp"))
            assert (sample["loglikelihoods"] is None) == (task in ("lab_qa", "lab_reverse"))
    assert all(len(sample["loglikelihoods"]) == 4 for sample in samples["lab_mc"])
    assert all(sample["correct"] == (sample["prediction"] == int(sample["target"])) for sample in samples["lab_mc"])


def test_a_second_run_is_cached_and_runtime_options_do_not_change_that(llmrepair: CommandLine, runs: Path) -> None:
    first = evaluate(llmrepair, runs, "--recovery", "idp")
    again = evaluate(llmrepair, runs, "--recovery", "idp", "--batch-size", 7, "--device", "cpu")
    assert again["cached"]
    assert again["key"] == first["key"]
    assert again["metrics"] == first["metrics"]


UPSTREAM = [["--bits", 4], ["--group-size", 32], ["--samples", 30], ["--seed", 1], ["--budget", 10240], ["--lengths", "6,4"]]
COMPUTED = [
    ["--objective", "distill"],
    *(["--idp-reduce", "max"], ["--idp-normalise", "length"], ["--idp-per", "token"], ["--idp-layers", "all"]),
    *(["--limit", 39], ["--num-fewshot", 1]),
]


def key_of(llmrepair: CommandLine, runs: Path, *options: object) -> str:
    """Of the evaluation that a command line asks for, which is not computed."""
    asked: list[str] = []

    def look(runner: Runner, stage: Stage) -> None:
        asked.extend(runner.graph([stage]).targets)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Runner, "pull", look)
        assert llmrepair("eval", "--runs", runs, "--limit", 40, *QUICK, *options).code == 130
    return asked[0].removeprefix("evaluate/")


@pytest.mark.parametrize("change", UPSTREAM)
def test_options_of_stages_before_it_change_the_key(llmrepair: CommandLine, runs: Path, change: list[object]) -> None:
    """They are computed elsewhere."""
    assert key_of(llmrepair, runs, "--recovery", "idp", *change) != key_of(llmrepair, runs, "--recovery", "idp")


@pytest.mark.parametrize("change", COMPUTED)
def test_options_that_change_the_result_change_the_key(llmrepair: CommandLine, runs: Path, change: list[object]) -> None:
    base = evaluate(llmrepair, runs, "--recovery", "idp")
    assert base["key"] == key_of(llmrepair, runs, "--recovery", "idp")
    assert evaluate(llmrepair, runs, "--recovery", "idp", *change)["key"] != base["key"]


def test_a_cached_chain_imports_nothing_heavy(llmrepair: CommandLine, runs: Path) -> None:
    evaluate(llmrepair, runs, "--method", "none")
    arguments = ["eval", "--runs", str(runs), "--json", "--limit", "40", "--method", "none"]
    check = (
        f"import sys; from llmrepair.cli.main import run; run({arguments}); print({{'torch', 'lm_eval'}} & {{*sys.modules}})"
    )
    answer = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert '"cached": true' in answer.stdout
    assert answer.stdout.splitlines()[-1] == "set()"


def test_the_order_of_tasks_does_not_matter(llmrepair: CommandLine, runs: Path) -> None:
    one = evaluate(llmrepair, runs, "--tasks", "lab_mc,lab_qa")
    assert evaluate(llmrepair, runs, "--tasks", "lab_qa,lab_mc,lab_qa")["key"] == one["key"]


def test_options_without_effect_are_noted_and_do_not_change_the_key(llmrepair: CommandLine, runs: Path) -> None:
    one = llmrepair("eval", "--runs", runs, "--method", "none", "--json", "--limit", 40)
    other = llmrepair("eval", "--runs", runs, "--method", "none", "--json", "--limit", 40, "--bits", 2)
    assert one.json["key"] == other.json["key"]
    assert "--bits has no effect with --method none" in other.err
    assert "note" not in one.err


def test_edited_code_computes_again(llmrepair: CommandLine, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = evaluate(llmrepair, runs, "--recovery", "idp")
    real = graph_module.code_digests

    def edited(modules: tuple[str, ...]) -> dict[str, str]:
        digests = real(modules)
        return {**digests, "llmrepair.models.routing": "edited"} if "llmrepair.models.routing" in digests else digests

    monkeypatch.setattr(graph_module, "code_digests", edited)
    answer = llmrepair("eval", "--runs", runs, "--json", "--limit", 40, *QUICK, "--recovery", "idp")
    assert answer.json["key"] != base["key"]
    assert set(stages(answer)) - {"note:"} == {"evaluate"}  # routing is no part of compressing or tuning


def test_tuning_text_holds_nobody_who_is_scored_and_the_record_says_so(llmrepair: CommandLine, runs: Path) -> None:
    for command, options in {
        "tune-prompts": ["--lengths", "4,6"],
        "tune-lora": [],
        "tune-ptune": ["--virtual-tokens", 5],
    }.items():
        metrics = llmrepair(command, "--runs", runs, "--json", *TUNING, *options).json["metrics"]
        sweeps = metrics["trials"] if command == "tune-prompts" else [metrics["trials"]]
        assert metrics["tokens"] == 1024 * sum(trial["steps"] for trials in sweeps for trial in trials) <= 8192
        assert metrics["tested_people_in_tuning_text"] == 0
        assert metrics["training_rows"] == 54


def test_a_pool_of_shards_and_objectives_says_how_much_its_prompts_differ(llmrepair: CommandLine, runs: Path) -> None:
    options = ["--lengths", "4,4", "--shards", "--objective", "lm,mixed", "--initialisations", "vocabulary,text"]
    answer = llmrepair("tune-prompts", "--runs", runs, "--json", *TUNING, *options)
    metrics = answer.json["metrics"]
    assert [[trial["initialisation"] for trial in trials] for trials in metrics["trials"]] == [["vocabulary", "text"]] * 2
    assert all((trial["steps"], len(trial["looks"])) == (2, 1) for trials in metrics["trials"] for trial in trials)
    assert (metrics["steps_per_trial"], metrics["tokens"]) == (2, 8192)
    assert sum(metrics["diversity"]["best_shares"]) == pytest.approx(1)
    assert "held-out rows on which each prompt is the best: " in answer.err
    chosen, next_token = (
        min(trial["validation_loss"] for trial in metrics["trials"][1]),
        metrics["validation_loss"]["prompts"][1],
    )
    assert chosen < 0.6 * next_token  # the mixed loss of the second prompt is no measure to compare it with the first by


def test_a_size_and_what_it_stands_for_are_one_artifact(llmrepair: CommandLine, runs: Path) -> None:
    for command, small in {"tune-lora": ["--rank", 2], "tune-ptune": ["--virtual-tokens", 8]}.items():
        key = llmrepair(command, "--runs", runs, "--json", *TUNING, "--size", "small").json["key"]
        again = llmrepair(command, "--runs", runs, "--json", *TUNING, "--size", "large", *small).json
        assert again["cached"]
        assert again["key"] == key


def test_tuning_goes_on_where_it_was_killed(llmrepair: CommandLine, runs: Path, tmp_path: Path) -> None:
    from llmrepair.models import training

    whole = evaluate(llmrepair, runs, "--recovery", "prompt")
    shutil.copytree(runs / "compress", tmp_path / "compress")
    steps = 0
    take_step = training._take_step

    def dying(*arguments: Any) -> float:
        nonlocal steps
        steps += 1
        if steps == 7:
            raise KeyboardInterrupt
        return take_step(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_take_step", dying)
        patch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
        answer = llmrepair("tune-prompts", "--runs", tmp_path, *TUNING, "--lengths", "4,6")
    assert answer.code == 130
    assert "interrupted" in answer.err
    assert [path.name for path in (tmp_path / "tune-prompts").iterdir()] == []

    resumed = evaluate(llmrepair, tmp_path, "--recovery", "prompt")
    assert resumed["key"] == whole["key"]
    name = llmrepair("tune-prompts", "--runs", tmp_path, "--json", *TUNING, "--lengths", "4,6").json["key"]
    for prompt in ("prompt-0", "prompt-1"):
        weights = Path("tune-prompts", name, prompt, "adapter_model.safetensors")
        assert (runs / weights).read_bytes() == (tmp_path / weights).read_bytes()


def test_tokens_that_choose_for_themselves(llmrepair: CommandLine, runs: Path) -> None:
    """On scored, generated and running text; what was chosen is in the record and in every item."""
    options = ["--recovery", "idp", "--tasks", "lab_mc,lab_qa,lab_text", "--idp-layers", "0,1"]
    answer = evaluate(llmrepair, runs, *options, "--idp-per", "token")
    assert sum(answer["metrics"]["prompt_shares"]) == pytest.approx(1, abs=1e-5)
    assert min(answer["metrics"]["prompt_shares"]) > 0
    chosen = [set(sample["prompts"]) for task in answer["metrics"]["tasks"] for sample in read_samples(answer, task)]
    assert all(chosen)
    assert set.union(*chosen) == {0, 1}
    assert answer["metrics"]["max_length"] == evaluate(llmrepair, runs, *options)["metrics"]["max_length"]
    assert answer["metrics"]["extra_parameters"] == 10 * 64


@pytest.mark.parametrize("task, method", [("lab_mc", "_score_rows"), ("lab_qa", "_generate_rows")])
def test_evaluation_goes_on_where_it_was_killed(
    llmrepair: CommandLine, runs: Path, tmp_path: Path, task: str, method: str
) -> None:
    from llmrepair.models.scorer import Scorer

    options = ["--tasks", task, "--recovery", "idp", "--batch-size", 4]
    whole = evaluate(llmrepair, runs, *options)
    for stage in ("compress", "tune-prompts"):
        shutil.copytree(runs / stage, tmp_path / stage)
    real = getattr(Scorer, method)
    texts: list[Any] = []

    def counting(self: Scorer, cache: Any, choice: Any, rows: Any, *others: Any) -> Any:
        answers = real(self, cache, choice, rows, *others)
        texts.extend(text for row in rows for tree in row for text in tree.paths)
        return answers

    def dying(*arguments: Any) -> Any:
        if texts:
            raise KeyboardInterrupt
        return counting(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scorer, method, dying)
        assert llmrepair("eval", "--runs", tmp_path, "--limit", 40, *QUICK, *options).code == 130
        before = len(texts)
        patch.setattr(Scorer, method, counting)
        resumed = evaluate(llmrepair, tmp_path, *options)
    assert 0 < before < len(texts) == len(set(texts))
    assert resumed["key"] == whole["key"]
    for name in ("results_llmrepair.json", f"samples_{task}_llmrepair.jsonl"):
        assert (Path(resumed["path"]) / name).read_bytes() == (Path(whole["path"]) / name).read_bytes()
    record = json.loads((Path(resumed["path"]) / "record.json").read_text())
    assert record["interrupted_before"]
    assert record["after_interruption"] == "goes on from the items already scored"


def test_nothing_is_unpickled(llmrepair: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("something was unpickled")

    for module, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(module, name, refuse)
    for recovery in ("idp", "lora", "ptune"):
        evaluate(llmrepair, tmp_path, "--recovery", recovery, "--samples", 16)
    assert llmrepair("report", "--runs", tmp_path).code == 0
    assert {path.suffix for path in tmp_path.rglob("*/*") if path.is_file() and ".locks" not in path.parts} <= SUFFIXES


def test_report_ls_and_show(llmrepair: CommandLine, runs: Path, tmp_path: Path) -> None:
    for method in ("none", "gptq"):
        evaluate(llmrepair, runs, "--method", method)
    evaluate(llmrepair, runs, "--recovery", "idp")
    html = tmp_path / "report.html"
    text = llmrepair("report", "--runs", runs, "--html", html)
    assert text.code == 0, text.err
    assert "lab_qa" in text.out
    assert "gptq 3 bits" in text.out
    assert "do not decide between forgotten and displaced" in " ".join(text.out.split())
    page = html.read_text()
    assert "<svg" in page
    assert "http" not in page

    assert f'href="{os.path.relpath(runs, tmp_path)}/evaluate/' in page
    table = llmrepair("report", "--runs", runs, "--markdown", "-", "--latex", tmp_path / "t.tex", "--csv", tmp_path / "t.csv")
    assert table.out.startswith("## lab: compressed and repaired\n\n| compression |")
    assert "\\toprule" in (tmp_path / "t.tex").read_text()
    lines = list(csv.DictReader((tmp_path / "t.csv").open()))
    repaired = evaluate(llmrepair, runs, "--recovery", "idp")
    found = [
        line for line in lines if line["recovery"] == "IDP" and "lab_qa" in line["task"] and line["metric"] == "exact_match"
    ]
    assert repaired["metrics"]["tasks"]["lab_qa"]["exact_match"]["value"] in [float(line["value"]) for line in found]
    assert all((runs / key).is_dir() for line in found for key in line["keys"].split())

    drawn = llmrepair("report", "--runs", runs, "--figure", tmp_path / "figure.svg")
    assert (drawn.code, "no conjecture test of `lab`" in drawn.err, "hint: run `llmrepair conjecture`" in drawn.err) == (
        2,
        1,
        1,
    )
    report = llmrepair("report", "--runs", runs, "--json").json
    assert set(report) == FIELDS
    assert report["cached"]
    listed = llmrepair("ls", "--runs", runs, "--json").json["artifacts"]
    assert report["key"] in {artifact["key"] for artifact in listed}
    shown = llmrepair("show", report["key"][:10], "--runs", runs, "--json").json
    assert shown["key_document"]["stage"] == "report"
    assert report["key"] in llmrepair("ls", "--runs", runs).out
    assert "peak_memory_bytes" in llmrepair("show", report["key"], "--runs", runs).out


RECORD = {"label": "", "started": "", "seconds": 0.0, "size_bytes": 0, "tags": {"model": "lab"}, "options": {}, "metrics": {}}


def publish(store: Store, stage: type[Stage], inputs: dict[str, str], file: str, found: object, **code: str) -> None:
    """An artifact of a stage that was not run."""
    document = {"stage": stage.name, "inputs": inputs, "code": code_digests((stage.code,)) | code, "scheme": KEY_SCHEME}
    document |= {"config": {}, "sources": {}}
    name = f"{stage.name}/{document_key(document)}"
    with store.draft(name) as draft:
        write_json(draft / file, found)
        store.publish(draft, name, document, RECORD)


def test_the_report_begins_with_verdicts_and_holds_what_is_inside(llmrepair: CommandLine, runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs, tmp_path / "runs")
    store = Store(tmp_path / "runs")
    answers = {role: evaluate(llmrepair, store.root, "--method", method) for role, method in ROLES.items()}
    compressed = {"compressed": store.resolve(answers["model"]["key"]).inputs["compressed"]}
    found = {"verdict": "mixed", "sentences": ["Of 60 a third"], "seeds": [0]}
    found["tasks"] = {"lab_qa": report_document.task("lab_qa", "mixed", report_document.estimate(0.43))}
    asked = {role: f"evaluate/{answer['key']}" for role, answer in answers.items()}
    publish(store, Conjecture, asked, "conjecture.json", found)
    publish(store, Conjecture, asked, "conjecture.json", {"of": "another day"}, code="old")
    publish(store, Conjecture, {**asked, "model prompt 0": "evaluate/0123456789abcdef"}, "conjecture.json", {"input": "gone"})
    publish(store, Regimes, compressed, "regimes.json", report_document.regimes(""))
    publish(store, Probes, compressed, "probe.json", report_document.probe("", 0.8))
    publish(store, Probes, {"compressed": "compress/0123456789abcdef"}, "probe.json", {"of": "another model"})
    files = ["--html", tmp_path / "report.html", "--figure", tmp_path / "figure.svg"]
    answer = llmrepair("report", "--runs", store.root, *files)
    assert answer.out.startswith("Of 60 a third\n"), answer.err
    assert "do not decide" not in answer.out
    page = (tmp_path / "report.html").read_text()
    assert (
        page.index("gptq 3 bits: mixed")
        < page.index("<h2>Found</h2>")
        < page.index("gptq 3 bits: the model says the first word of 80%")
    )
    assert "<summary>gptq 3 bits</summary>" in page.partition("Does it work as before?")[2]
    assert "gptq 3 bits, lab_qa, first 40" in (tmp_path / "figure.svg").read_text()


ROLES = {"dense": "none", "model": "gptq"}


def test_repairs_that_differ_in_their_seed_are_one_row(llmrepair: CommandLine, tmp_path: Path) -> None:
    compression = ("--method", "rtn", "--samples", 16)
    plain = evaluate(llmrepair, tmp_path, *compression)
    lora = (*compression, "--recovery", "lora", "--rank")
    repaired = [evaluate(llmrepair, tmp_path, *lora, 1, "--seed", seed) for seed in (0, 1)]
    evaluate(llmrepair, tmp_path, *lora, 2)
    report = json.loads((Path(llmrepair("report", "--runs", tmp_path, "--json").json["path"]) / "report.json").read_text())
    _, row, other = report["rows"]
    assert (row["seeds"], row["detail"], other["seeds"], other["detail"]) == ([0, 1], "rank 1", [0], "rank 2")
    score = row["scores"][report["columns"][0]["name"]]
    shares = [answer["metrics"]["tasks"]["lab_qa"]["exact_match"]["value"] for answer in (*repaired, plain)]
    assert score["value"] == pytest.approx(sum(shares[:2]) / 2)
    assert score["low"] <= score["value"] <= score["high"]
    difference = report["comparisons"][0]["difference"]
    assert difference["value"] == pytest.approx(score["value"] - shares[2])
    text = llmrepair("report", "--runs", tmp_path).out
    assert "rank 1, 2 seeds" in " ".join(text.split())


def test_the_report_leaves_out_what_old_code_made(llmrepair: CommandLine, runs: Path, tmp_path: Path) -> None:
    evaluate(llmrepair, runs, "--method", "none")
    shutil.copytree(runs, tmp_path / "runs")
    for file in (tmp_path / "runs").glob("compress/*/key.json"):
        document = json.loads(file.read_text())
        document["code"] = {"module": "old"}
        file.write_text(json.dumps(document))
    answer = llmrepair("report", "--runs", tmp_path / "runs")
    assert answer.code == 2
    assert "left out" in answer.err


REGIME = {"none": (0.99, 1.0), "gptq": (0.75, 0.93), "sparsegpt": (0.60, 0.88), "gptq 2": (0.15, 0.50)}


@pytest.mark.parametrize("model", ["lab", "lab-opt"])
@pytest.mark.parametrize("compression", list(REGIME))
def test_the_embedded_models_are_damaged_as_much_as_they_should(
    llmrepair: CommandLine, runs: Path, model: str, compression: str
) -> None:
    options = ["--method", "gptq", "--bits", 2, "--group-size", 32] if compression == "gptq 2" else ["--method", compression]
    answer = llmrepair("eval", "--runs", runs, "--json", "--model", model, *options)
    low, high = REGIME[compression]
    assert low <= answer.json["metrics"]["tasks"]["lab_qa"]["exact_match"]["value"] <= high
