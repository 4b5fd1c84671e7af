"""Wrong requests end with exit code 2, one sentence and a hint each, before any work; and real models from other places."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llmrepair.cli.main import COMMANDS
from llmrepair.stages.sources.models import model_folder
from tests.child import run_in_child
from tests.conftest import Answer, CommandLine

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def model_with(folder: Path, **config: Any) -> Path:
    """A copy of the lab model with another config.json."""
    source = model_folder("lab")
    assert source is not None
    shutil.copytree(source, folder)
    known = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(known | config))
    return folder


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["eval", "--bitz", 3], "--bitz"),
        (["frobnicate"], "frobnicate"),
        (["evl"], "did you mean `llmrepair eval`?"),
        (["eval", "--device", "gpu"], "`gpu` is no value of --device\n"),
        (["lab"], "command"),
        (["compress", "--bits", 5], "5 bits"),
        (["compress", "--bits", "three"], "`three` is no value of --bits"),
        (["compress", "--method", "foo"], "`foo` is no value of --method"),
        (["compress", "--sparsity", 1.5, "--method", "wanda"], "--sparsity"),
        (["compress", "--group-size", 0], "group size"),
        (["compress", "--group-size", 24], "a group size of 24 does not divide"),
        (["compress", "--method", "wanda", "--pattern", "2:4", "--sparsity", 0.7], "2:4"),
        (["compress", "--seq-len", 1000], "256 positions"),
        (["compress", "--calibration", "nowhere.txt"], "nowhere.txt"),
        (["compress", "--model", "./nowhere"], "no model folder"),
        (["compress", "--model", "/"], "config.json"),
        (["control"], "which control is wanted"),
        (["control", "--control", "forgotten"], "`forgotten` is no value of --control"),
        (["control", "--control", "erased", "--control-share", 0], "--control-share"),
        (["tune-prompts", "--lengths", "a,b"], "--lengths"),
        (["tune-prompts", "--lengths", "300"], "364 positions"),
        (["tune-prompts", "--budget", 5000], "a budget of 5000 tokens is too small: 6 trials of one step"),
        (["eval", "--recovery", "prompt", "--objective", "lm,magic"], "--objective"),
        (["tune-lora", "--objective", "lm,distill"], "tune-lora has one objective"),
        (["tune-lora", "--size", "huge"], "--size"),
        (["tune-lora", "--rank", 0], "--rank"),
        (["tune-lora", "--learning-rates", "-1"], "--learning-rates"),
        (["eval", "--tasks", "no_such_task"], "no task `no_such_task`"),
        (["eval", "--tasks", "hellaswag", "--tasks-data", "."], "hellaswag.jsonl"),
        (["eval", "--tasks-data", "./nowhere"], "nowhere"),
        (["eval", "--recovery", "magic"], "--recovery"),
        (["eval", "--recovery", "idp", "--idp-layers", "9"], "no layer 9"),
        (["eval", "--recovery", "idp", "--idp-layers", "x"], "--idp-layers"),
        (["eval", "--recovery", "prompt", "--select", "fixed:7"], "no prompt 7 in a pool of 3"),
        (["eval", "--recovery", "prompt", "--select", "best"], "`best` is no way to choose a prompt"),
        (["eval", "--recovery", "hard", "--hard-prompt", " "], "an empty text"),
        (["eval", "--recovery", "hard", "--hard-prompt", "Oslo. " * 70], "a text prompt of 140 tokens is longer than 128"),
        (["eval", "--recovery", "icl", "--icl-examples", 0], "--icl-examples"),
        (["eval", "--recovery", "icl", "--tuning-data", "nowhere.txt"], "nowhere.txt"),
        (["eval", "--batch-size", 0], "--batch-size"),
        (["eval", "--device", "cuda:x"], "--device"),
        (["eval", "--device", "cuda:99"], "`cuda:99` cannot be used"),
        (["report"], "no evaluation"),
        (["report", "--html", "nowhere/report.html"], "no folder"),
        (["report", "--csv", "-", "--latex", "-"], "--latex - and --csv - cannot share standard output"),
        (["show", "abc"], "no folder `runs`"),
        (["ls", "--runs", "nowhere"], "no folder `nowhere`"),
        (["lab", "train", "--model", "gpt"], "no lab model"),
    ],
)
def test_a_wrong_request(
    llmrepair: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[object], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = llmrepair(*arguments)
    assert answer.code == 2
    assert message in answer.err
    assert "error: " in answer.err
    assert "hint: " in answer.err
    assert "Traceback" not in answer.err
    assert answer.out == ""
    assert not list(tmp_path.glob("runs/[a-z]*/*"))


def test_all_that_is_wrong_is_told_at_once(llmrepair: CommandLine, tmp_path: Path) -> None:
    wrong = ["--bits", 5, "--model", "./nowhere", "--lengths", "0", "--tasks", "no_such_task", "--calibration", "nowhere.txt"]
    answer = llmrepair("eval", "--runs", tmp_path / "runs", "--json", *wrong)
    assert answer.code == 2
    assert len(answer.json["errors"]) == 5 == answer.err.count("error: ") == answer.err.count("hint: ")


@pytest.mark.parametrize("architecture", ["BertForMaskedLM", "T5ForConditionalGeneration"])
def test_a_model_that_is_no_causal_lm(llmrepair: CommandLine, tmp_path: Path, architecture: str) -> None:
    folder = model_with(tmp_path / "model", architectures=[architecture])
    answer = llmrepair("eval", "--model", folder, "--runs", tmp_path / "runs")
    assert answer.code == 2
    assert f"is no causal language model ({architecture})" in answer.err


def test_a_model_that_is_quantised_in_a_way_that_is_not_read(llmrepair: CommandLine, tmp_path: Path) -> None:
    folder = model_with(tmp_path / "model", quantization_config={"quant_method": "awq", "bits": 4})
    answer = llmrepair("eval", "--model", folder, "--method", "none", "--runs", tmp_path / "runs")
    assert answer.code == 2
    assert "is quantised by awq, which cannot be read here" in answer.err


def test_a_tuning_that_diverges_fails_with_a_hint(llmrepair: CommandLine, tmp_path: Path) -> None:
    quick = ["--budget", 2048, "--tuning-samples", 20, "--learning-rates", "1e30", "--runs", tmp_path]
    answer = llmrepair("tune-lora", *quick)
    assert answer.code == 1
    assert "hint: give smaller ones with --learning-rates" in answer.err
    assert not list((tmp_path / "tune-lora").iterdir())


def test_pickled_weights_are_refused(llmrepair: CommandLine, tmp_path: Path) -> None:
    folder = model_with(tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    answer = llmrepair("compress", "--model", folder, "--runs", tmp_path / "runs")
    assert answer.code == 2
    assert "safetensors" in answer.err


def test_a_copy_of_a_model_has_the_same_key(llmrepair: CommandLine, tmp_path: Path) -> None:
    folder = model_with(tmp_path / "model")
    shutil.copy(model_folder("lab") / "config.json", folder)  # type: ignore[operator]
    options = ["compress", "--method", "rtn", "--seq-len", 128, "--dtype", "float32", "--runs", tmp_path / "runs", "--json"]
    first = llmrepair(*options)
    again = llmrepair(*options, "--model", folder)
    assert again.json["cached"]
    assert again.json["key"] == first.json["key"]


@pytest.mark.parametrize("method", ["gptq", "none"])
@pytest.mark.parametrize("recovery", ["none", "prompt", "idp", "ptune", "lora"])
def test_a_real_model_on_real_tasks(
    llmrepair: CommandLine, tmp_path_factory: pytest.TempPathFactory, shared_data: Path, method: str, recovery: str
) -> None:
    runs = tmp_path_factory.getbasetemp() / "real"
    quick = ["--budget", 4096, "--tuning-samples", 40, "--tuning-seq-len", 64, "--seq-len", 128]
    quick += ["--lengths", "4,8", "--learning-rates", 0.01, "--limit", 3]
    model = ["--model", shared_data / "models" / "stories260k", "--method", method, "--bits", 3, "--recovery", recovery]
    tasks = ["--tasks", "wikitext,lambada_openai,arc_easy", "--tasks-data", shared_data / "tasks"]
    answer = llmrepair("eval", *model, *tasks, *quick, "--runs", runs, "--json")
    assert answer.code == 0, answer.err
    assert set(answer.json) == {"stage", "key", "path", "cached", "seconds", "metrics"}
    scores = answer.json["metrics"]["tasks"]
    assert scores["wikitext"]["bits_per_byte"]["value"] > 1
    assert 0 <= scores["lambada_openai"]["acc"]["value"] <= 1
    assert scores["arc_easy"]["acc"]["n"] == 3


def cached(home: Path, kind: str, name: str) -> Path:
    """A folder of the Hub's cache for the files of a model or data set, laid out as the Hub's client does."""
    repository = home / "hub" / f"{kind}--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    return repository / "snapshots" / COMMIT


def cached_data_set(home: Path, name: str, file: str, lines: list[dict[str, Any]]) -> None:
    folder = cached(home, "datasets", name)
    folder.mkdir(parents=True)
    (folder / file).write_text("".join(json.dumps(line) + "\n" for line in lines))


HUB = {
    "model": ["--model", "someone/tiny", "--method", "none", "--limit", 5],
    "model by commit": ["--model", "someone/tiny", "--method", "none", "--limit", 5, "--revision", COMMIT],
    "data": ["--calibration", "someone/texts", "--seq-len", 16, "--method", "rtn", "--tasks", "lambada_openai"],
    "group": ["--method", "none", "--include-path", "tasks", "--tasks", "words"],
    "no model": ["--model", "someone/else"],
    "no calibration": ["--calibration", "someone/nothing"],
    "no task": ["--tasks", "sciq"],
    "no tasks": ["--tasks", "mmlu_stem,sciq,ai2_arc"],
}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a Hub cache, in which `HUB` was run; each command line has a store of its own.

    In a process of their own, as libraries read where the cache is when they are imported; in one, as that takes seconds.
    """
    folder = tmp_path_factory.mktemp("hub")
    home, source = folder / "home", model_folder("lab")
    assert source is not None
    shutil.copytree(source, cached(home, "models", "someone/tiny"))
    cached_data_set(home, "someone/texts", "train.jsonl", [{"text": "Oslo Rome Paris. " * 20}] * 3)
    cached_data_set(home, "EleutherAI/lambada_openai", "test.jsonl", [{"text": "Ada Abel comes from Oslo"}] * 4)
    (folder / "tasks").mkdir()
    group = "group: words\ntask: [lambada_openai]\naggregate_metric_list: [{metric: acc}]\n"
    (folder / "tasks" / "words.yaml").write_text(group)
    lines = {name: ["eval", *options, "--runs", name.partition(" by ")[0], "--json"] for name, options in HUB.items()}
    said = run_in_child(lines, folder, HF_HOME=str(home), HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1")
    (folder / "said.json").write_text(json.dumps(said))
    return folder


@pytest.fixture
def hub_answers(hub: Path) -> dict[str, Answer]:
    return {name: Answer(*said) for name, said in json.loads((hub / "said.json").read_text()).items()}


def key_documents(runs: Path, stage: str) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in runs.glob(f"{stage}/*/key.json")]


def test_a_hub_id_works_offline_from_the_cache_and_is_pinned_to_its_commit(hub: Path, hub_answers: dict[str, Answer]) -> None:
    assert hub_answers["model"].code == 0, hub_answers["model"].err
    sources = [document["sources"]["model"] for document in key_documents(hub / "model", "compress")]
    assert sources == [{"hub": "someone/tiny", "commit": COMMIT}]
    assert not hub_answers["model"].json["cached"]
    assert hub_answers["model by commit"].json["cached"]


def test_data_sets_of_the_hub_work_offline_from_the_cache(hub: Path, hub_answers: dict[str, Answer]) -> None:
    assert hub_answers["data"].code == 0, hub_answers["data"].err
    assert hub_answers["data"].json["metrics"]["tasks"]["lambada_openai"]["acc"]["n"] == 4
    (compress,) = key_documents(hub / "data", "compress")
    assert compress["sources"]["calibration"] == {"hub": "someone/texts", "config": "", "commit": COMMIT}
    (evaluate,) = key_documents(hub / "data", "evaluate")
    assert evaluate["sources"]["tasks"]["lambada_openai"]["commit"] == COMMIT


@pytest.mark.parametrize("name", ["no calibration", "no task"])
def test_a_data_set_that_is_nowhere(hub_answers: dict[str, Answer], name: str) -> None:
    answer = hub_answers[name]
    assert answer.code == 2
    assert "is neither a local path, nor in the local Hub cache" in answer.err
    assert "Traceback" not in answer.err


def test_all_data_sets_that_are_nowhere_are_told_once(hub_answers: dict[str, Answer]) -> None:
    answer = hub_answers["no tasks"]
    assert answer.code == 2
    assert [answer.err.count(f"data set `{name}`") for name in ("cais/mmlu", "allenai/sciq", "allenai/ai2_arc")] == [1, 1, 1]


def test_a_group_works_offline_from_the_cache(hub: Path, hub_answers: dict[str, Answer]) -> None:
    assert hub_answers["group"].code == 0, hub_answers["group"].err
    path = hub / hub_answers["group"].json["path"]
    source = json.loads((path / "key.json").read_text())["sources"]["tasks"]["lambada_openai"]
    assert source["commit"] == COMMIT
    assert list(source["definition"]) == ["words.yaml"]
    results = json.loads((path / "results_llmrepair.json").read_text())
    assert results["groups"]["words"]["sample_len"] == 4
    assert results["configs"]["lambada_openai"]["dataset_path"] == "EleutherAI/lambada_openai"
    assert str(hub) not in json.dumps(results)


def test_a_hub_id_that_is_nowhere(hub_answers: dict[str, Answer]) -> None:
    answer = hub_answers["no model"]
    assert answer.code == 2
    assert "model `someone/else` is neither a local path, nor in the local Hub cache" in answer.err
    assert "Traceback" not in answer.err


def test_help_names_every_command(llmrepair: CommandLine) -> None:
    out = llmrepair("--help").out
    assert all((name in out) or entry.hidden for name, entry in COMMANDS.items())
    assert "--group-size" in llmrepair("eval", "--help").out


def test_help_imports_nothing_heavy() -> None:
    check = "import sys; from llmrepair.cli.main import run; run(['eval', '--help']); print({'torch', 'peft'} & {*sys.modules})"
    answer = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines()[-1] == "set()"
