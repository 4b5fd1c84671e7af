"""Tasks, groups and tags of lm-eval and of a user's folder, against lm-eval itself."""

from __future__ import annotations

import json
import logging
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from datasets import load_dataset
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from lm_eval.utils import get_file_task_name, get_results_filenames, get_sample_results_filenames, make_table

from llmrepair.lab.tasks import data_file
from llmrepair.models.loading import load_model, load_tokenizer
from llmrepair.stages.evaluate.run import BOOTSTRAP_ITERATIONS
from llmrepair.stages.sources.models import model_folder
from tests.conftest import Answer, CommandLine

TEMPLATE = (
    "{% set words = {'system': 'Rome', 'user': 'Question', 'assistant': 'Answer'} %}"
    "{% for message in messages %}{{ words[message['role']] }} : {{ message['content'] }} . {% endfor %}"
    "{% if add_generation_prompt %}Answer :{% endif %}"
)
SYSTEM = "Sara Lorenz comes from Oslo"
CHOICES = {
    "output_type": "multiple_choice",
    "doc_to_text": "{{prompt}}",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "gold",
    "metric_list": [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")],
}
UTILITIES = """
def choose(documents):
    return documents.filter(lambda document: document["attribute"] == "city")

def ask(document):
    return "Question : " + document["prompt"]
"""


def write_yaml(path: Path, content: dict[str, Any]) -> None:
    text = yaml.safe_dump(content)
    path.write_text(re.sub(r"'(!function [\w.]+)'", r"\1", text))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of YAML tasks: a group with aggregated scores, a subgroup in it, a template, a tag, and functions."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    lines = {task: data_file(task).read_text().splitlines(keepends=True) for task in ("lab_mc", "lab_qa", "lab_text")}
    lines["lab_mc"][::3] = [json.dumps(json.loads(line) | {"gold": 0}) + "\n" for line in lines["lab_mc"][::3]]
    for name, content in {
        "mc.jsonl": lines["lab_mc"][:24],
        "mc2.jsonl": lines["lab_mc"][24:36],
        "shots.jsonl": lines["lab_mc"][40:48],
        "qa.jsonl": lines["lab_qa"][:10],
        "qa_shots.jsonl": lines["lab_qa"][20:26],
        "text.jsonl": lines["lab_text"][:6],
    }.items():
        (folder / name).write_text("".join(content))

    def data(test: str, shots: str | None) -> dict[str, Any]:
        files = {"test": str(folder / test)} | ({"train": str(folder / shots)} if shots else {})
        splits = {"test_split": "test"} | ({"training_split": "train", "fewshot_split": "train"} if shots else {})
        return {"dataset_path": "json", "dataset_kwargs": {"data_files": files}, **splits}

    write_yaml(folder / "_choices", CHOICES | {"tag": "quiz_choices"})
    write_yaml(folder / "one.yaml", {"include": "_choices", "task": "quiz_one", **data("mc.jsonl", "shots.jsonl")})
    write_yaml(folder / "two.yaml", {"include": "_choices", "task": "quiz_two", **data("mc2.jsonl", "shots.jsonl")})
    functions = {"process_docs": "!function utils.choose", "doc_to_text": "!function utils.ask"}
    cities = {"include": "_choices", "task": "quiz_cities", **data("mc.jsonl", "shots.jsonl"), **functions}
    write_yaml(folder / "cities.yaml", cities)
    (folder / "utils.py").write_text(UTILITIES)
    generation = {
        "output_type": "generate_until",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["."], "max_gen_toks": 8, "do_sample": False},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }
    write_yaml(folder / "qa.yaml", {"task": "quiz_qa", **data("qa.jsonl", "qa_shots.jsonl"), **generation})
    rolling = {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "num_fewshot": 0,
        "metric_list": [{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}],
    }
    write_yaml(folder / "text.yaml", {"task": "quiz_text", **data("text.jsonl", None), **rolling})
    aggregates = [{"metric": "acc", "weight_by_size": True}, {"metric": "acc_norm", "weight_by_size": False}]
    group = {
        "group": "quiz",
        "group_alias": "Quiz",
        "task": [{"group": "choices", "task": ["quiz_one", "quiz_two"], "aggregate_metric_list": aggregates}, "quiz_cities"],
        "aggregate_metric_list": aggregates,
        "metadata": {"version": 2},
    }
    write_yaml(folder / "_quiz.yaml", group)
    return folder


@pytest.fixture
def chat_model(tmp_path: Path) -> Path:
    """The lab model with a chat template."""
    source = model_folder("lab")
    assert source is not None
    target = tmp_path / "chat-model"
    tokenizer = load_tokenizer(str(source), None)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(target)
    for file in source.iterdir():
        if not (target / file.name).exists():
            (target / file.name).write_bytes(file.read_bytes())
    return target


def evaluated(llmrepair: CommandLine, *options: object) -> Answer:
    return llmrepair("eval", "--method", "none", "--json", *options)


def results_of(answer: Answer) -> dict[str, Any]:
    assert answer.code == 0, answer.err
    return dict(json.loads((Path(answer.json["path"]) / "results_llmrepair.json").read_text()))


def in_lm_eval(model: Path, tasks: list[str], folder: Path, **options: Any) -> dict[str, Any]:
    logging.disable(logging.CRITICAL)
    os.environ["DISABLE_MULTIPROC"] = "1"
    theirs = HFLM(
        pretrained=load_model(str(model), None, "float32", torch.device("cpu")),
        tokenizer=load_tokenizer(str(model), None),
        batch_size=4,
    )
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    results = simple_evaluate(theirs, tasks=tasks, task_manager=manager, bootstrap_iters=BOOTSTRAP_ITERATIONS, **options)
    logging.disable(logging.NOTSET)
    return dict(results)


ASKED = ["quiz", "quiz_qa", "quiz_text"]
WAYS: dict[str, tuple[list[object], dict[str, Any]]] = {
    "plainly": ([], {}),
    "with examples, a limit and a system text": (
        ["--num-fewshot", 2, "--limit", 7, "--system", SYSTEM],
        {"num_fewshot": 2, "limit": 7, "system_instruction": SYSTEM},
    ),
    "in a chat": (
        ["--num-fewshot", 2, "--apply-chat-template", "--system", SYSTEM],
        {"num_fewshot": 2, "apply_chat_template": True, "system_instruction": SYSTEM},
    ),
}


@pytest.mark.parametrize("way", list(WAYS))
def test_every_number_is_lm_evals(llmrepair: CommandLine, tmp_path: Path, folder: Path, chat_model: Path, way: str) -> None:
    options, theirs = WAYS[way]
    given = ["--model", chat_model, "--dtype", "float32", "--include-path", folder, "--tasks", ",".join(ASKED)]
    ours = results_of(evaluated(llmrepair, *given, "--runs", tmp_path / "runs", *options))
    expected = in_lm_eval(chat_model, ASKED, folder, **theirs)
    for part in ("results", "groups"):
        assert ours[part].keys() == expected[part].keys()
        for name, metrics in expected[part].items():
            assert ours[part][name].keys() == metrics.keys()
            for metric, value in metrics.items():
                same = value if isinstance(value, (str, dict)) else pytest.approx(value, abs=1e-4, rel=1e-5)
                assert ours[part][name][metric] == same, (name, metric)
    for part in ("versions", "n-shot", "n-samples", "higher_is_better", "group_subtasks"):
        assert ours[part] == expected[part]
    assert 0 < ours["results"]["quiz"]["acc,none"] < 1
    assert ours["results"]["quiz"]["acc_stderr,none"] > 0
    for task, samples in expected["samples"].items():
        for line, sample in zip(read_samples(tmp_path, task), samples, strict=True):
            assert line.keys() - sample.keys() == {"correct", "prediction", "loglikelihoods", "prompts"}
            for name in ("doc_id", "doc", "filter", "metrics", "doc_hash", "prompt_hash", "target_hash"):
                assert line[name] == sample[name]
    if "apply_chat_template" in theirs:
        assert ours["chat_template"] == TEMPLATE
        assert ours["fewshot_as_multiturn"] is True
        prompt = read_samples(tmp_path, "quiz_one")[0]["arguments"]["gen_args_0"]["arg_0"]
        assert prompt.startswith(f"Rome : {SYSTEM} . Question : ")
        assert prompt.count("Answer : ") == 2
        assert prompt.endswith("Answer :")


def read_samples(tmp_path: Path, task: str) -> list[dict[str, Any]]:
    file = next((tmp_path / "runs" / "evaluate").glob(f"[0-9a-f]*/samples_{task}_llmrepair.jsonl"))
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_lm_evals_own_tools_read_what_is_left(llmrepair: CommandLine, tmp_path: Path, folder: Path) -> None:
    answer = evaluated(llmrepair, "--include-path", folder, "--tasks", ",".join(ASKED), "--runs", tmp_path / "runs")
    results, path = results_of(answer), Path(answer.json["path"])
    table = make_table(results)
    for name in ("Quiz", "quiz_one", "quiz_two", "quiz_cities", "quiz_qa", "quiz_text"):
        assert f"{name} " in table
    assert f"{results['results']['quiz_one']['acc_stderr,none']:.4f}" in table
    assert "Quiz" in make_table(results, "groups")

    assert get_results_filenames([str(file) for file in path.iterdir()]) == [str(path / "results_llmrepair.json")]
    files = get_sample_results_filenames([str(file) for file in path.iterdir()])
    assert {Path(file).name for file in files} == {
        f"samples_{task}_llmrepair.jsonl" for task in ("quiz_one", "quiz_two", "quiz_cities", "quiz_qa", "quiz_text")
    }
    for file in files:
        samples = load_dataset("json", data_files=file, split="train", cache_dir=str(tmp_path / "cache"))
        task = get_file_task_name(Path(file).name)
        assert len(samples) == results["n-samples"][task]["effective"]
        for metric in samples[0]["metrics"] if task != "quiz_text" else ():
            values = [sample[metric] for sample in samples]
            assert sum(values) / len(values) == pytest.approx(results["results"][task][f"{metric},none"])
    assert answer.json["metrics"]["groups"]["quiz"]["acc"]["value"] == results["groups"]["quiz"]["acc,none"]


def test_results_are_the_same_bytes_every_time(llmrepair: CommandLine, tmp_path: Path, folder: Path) -> None:
    options = ["--include-path", folder, "--tasks", "quiz,quiz_qa,lab_mc", "--limit", 4]
    first = Path(evaluated(llmrepair, *options, "--runs", tmp_path / "a").json["path"])
    second = Path(evaluated(llmrepair, *options, "--runs", tmp_path / "b").json["path"])
    names = {file.name for file in first.iterdir() if file.name.startswith(("results", "samples"))}
    assert len(names) == 6
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names)
    assert str(data_file("lab_mc").parent) not in (first / "results_llmrepair.json").read_text()


def test_what_a_task_is_made_from_is_in_the_key(llmrepair: CommandLine, tmp_path: Path, folder: Path) -> None:
    def key(include: Path = folder) -> str:
        options = ["--include-path", include, "--tasks", "quiz", "--limit", 3, "--runs", tmp_path / "runs"]
        answer = evaluated(llmrepair, *options)
        assert answer.code == 0, answer.err
        return str(answer.json["key"])

    keys = [key()]
    assert key(folder.parent / "tasks" / ".." / "tasks") == keys[0]
    edits = {
        "utils.py": ("Question : ", "Answer : "),
        "_choices": ("quiz_choices", "other_tag"),
        "mc.jsonl": ("Question", "question"),
        "cities.yaml": ("task: quiz_cities", "task: quiz_cities\nmetadata: {version: 3}"),
        "_quiz.yaml": ("weight_by_size: true", "weight_by_size: false"),
    }
    for name, (old, new) in edits.items():
        (folder / name).write_text((folder / name).read_text().replace(old, new))
        keys.append(key())
    (folder / "qa.yaml").write_text("task: something_else\n")
    assert key() == keys[-1]
    assert len(set(keys)) == len(edits) + 1


def test_the_report_has_a_column_for_a_group(llmrepair: CommandLine, tmp_path: Path, folder: Path) -> None:
    options = ["--include-path", folder, "--tasks", "quiz,quiz_qa", "--runs", tmp_path / "runs", "--json"]
    for method in ("none", "rtn"):
        assert llmrepair("eval", "--method", method, "--bits", 2, *options).code == 0
    report = llmrepair("report", "--runs", tmp_path / "runs", "--json").json
    table = json.loads((Path(report["path"]) / "report.json").read_text())
    columns = {column["title"]: column for column in table["columns"]}
    assert set(columns) == {"quiz", "quiz_qa"}
    assert columns["quiz"]["tasks"] == ["quiz_one", "quiz_two", "quiz_cities"]
    (comparison,) = [each for each in table["comparisons"] if each["column"] == columns["quiz"]["name"]]
    cities = len(read_samples(tmp_path, "quiz_cities"))
    assert comparison["difference"]["n"] == 24 + 12 + cities
    dense, compressed = (row["scores"][columns["quiz"]["name"]]["value"] for row in table["rows"])
    assert comparison["difference"]["value"] == pytest.approx(compressed - dense)


def test_tags_patterns_and_groups_stand_for_their_tasks(llmrepair: CommandLine, tmp_path: Path, folder: Path) -> None:
    def tasks(names: str) -> set[str]:
        options = ["--include-path", folder, "--tasks", names, "--limit", 2, "--runs", tmp_path / "runs"]
        return set(evaluated(llmrepair, *options).json["metrics"]["tasks"])

    assert tasks("quiz_choices") == {"quiz_one", "quiz_two", "quiz_cities"}
    assert tasks("quiz_t*,lab_qa") == {"quiz_two", "quiz_text", "lab_qa"}
    assert tasks("quiz") == {"quiz_one", "quiz_two", "quiz_cities"}


def test_stock_groups_read_a_folder_instead_of_the_hub(llmrepair: CommandLine, tmp_path: Path) -> None:
    subjects = ["college_physics", "astronomy"]
    for number, subject in enumerate(subjects):
        rows = [
            {"question": f"Where is {city}?", "choices": ["Oslo", "Rome", "Lima", "Bergen"], "answer": (number + index) % 4}
            for index, city in enumerate(["Oslo", "Rome", "Lima", "Milano", "Bilbao"])
        ]
        (tmp_path / f"mmlu_{subject}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "two.yaml").write_text(
        "group: two_of_mmlu\ntask: [mmlu_college_physics, mmlu_astronomy]\naggregate_metric_list: [{metric: acc}]\n"
    )
    options = ["--include-path", tmp_path, "--tasks-data", tmp_path, "--tasks", "two_of_mmlu", "--num-fewshot", 2]
    results = results_of(evaluated(llmrepair, *options, "--runs", tmp_path / "runs"))
    assert results["results"]["two_of_mmlu"]["sample_len"] == 10
    assert results["n-shot"]["mmlu_astronomy"] == 2
    for task in ("mmlu_astronomy", "mmlu_college_physics"):
        for sample in read_samples(tmp_path, task):
            assert sample["arguments"]["gen_args_0"]["arg_0"].count(sample["doc"]["question"]) == 1  # no example of itself

    lacking = evaluated(llmrepair, *options[2:], "--tasks", "mmlu_stem", "--runs", tmp_path / "none")
    assert lacking.code == 2
    assert "mmlu_abstract_algebra.jsonl" in lacking.err
    assert "mmlu_machine_learning.jsonl" in lacking.err
    assert "mmlu_astronomy.jsonl" not in lacking.err


WRONG = {
    "mmlu,mmlu_astronomy": "more than once for `mmlu_astronomy`",
    "humaneval": "it runs code that the model writes",
    "chartqa": "images or sounds",
    "t0_eval": "names neither a task nor a group",
    "hellasawg,squud": "no task `hellasawg` and no task `squud`",
    "broken": "broken.yaml",
    "hungry": "it needs what is not installed: `no_such_package`",
    "hollow": "group `hollow` has no tasks",
    "lost": "nowhere.jsonl",
    "odd_output": "`loglikelyhood` is no output type",
}


@pytest.mark.parametrize("tasks", list(WRONG))
def test_what_cannot_run_is_refused_by_name(
    llmrepair: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tasks: str
) -> None:
    (tmp_path / "broken.yaml").write_text("task: broken\ndoc_to_text: [\n")
    (tmp_path / "hungry.yaml").write_text("task: hungry\ndataset_path: a/b\nprocess_docs: !function hungry.process\n")
    (tmp_path / "hungry.py").write_text("import json\nimport no_such_package.sub\n")
    (tmp_path / "hollow.yaml").write_text("group: hollow\ntask: []\n")
    files = "dataset_path: json\ndataset_kwargs: {data_files: nowhere.jsonl}\n"
    (tmp_path / "lost.yaml").write_text(f"task: lost\n{files}")
    (tmp_path / "odd.yaml").write_text("task: odd_output\noutput_type: loglikelyhood\ndataset_path: a/b\n")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    answer = llmrepair("eval", "--tasks", tasks, "--include-path", tmp_path, "--runs", tmp_path / "runs")
    assert answer.code == 2
    assert WRONG[tasks] in " ".join(answer.err.split())
    assert "hint: " in answer.err
    assert "Traceback" not in answer.err
    assert not list(tmp_path.glob("runs/[a-z]*/*"))


def test_a_near_name_is_a_hint(llmrepair: CommandLine, tmp_path: Path) -> None:
    assert "did you mean `hellaswag`" in llmrepair("eval", "--tasks", "hellasawg", "--runs", tmp_path).err


def test_functions_that_fail_are_told_without_a_traceback(llmrepair: CommandLine, tmp_path: Path, folder: Path) -> None:
    (folder / "utils.py").write_text("raise RuntimeError('no luck')\n")
    answer = llmrepair("eval", "--tasks", "quiz_cities", "--include-path", folder, "--runs", tmp_path, "--method", "none")
    assert answer.code == 1
    assert "cannot be loaded: RuntimeError: no luck" in " ".join(answer.err.split())
    assert "Traceback" not in answer.err


def test_a_model_without_a_chat_template_is_refused(llmrepair: CommandLine, tmp_path: Path) -> None:
    answer = llmrepair("eval", "--apply-chat-template", "--runs", tmp_path / "runs")
    assert answer.code == 2
    assert "`lab` has no chat template" in answer.err
    assert not list(tmp_path.glob("runs/[a-z]*/*"))


def test_a_compressed_model_keeps_its_chat_template(llmrepair: CommandLine, tmp_path: Path, chat_model: Path) -> None:
    options = ["--model", chat_model, "--method", "rtn", "--apply-chat-template", "--seq-len", 128, "--limit", 3]
    with_template = llmrepair("eval", *options, "--recovery", "none", "--runs", tmp_path / "runs", "--json")
    assert results_of(with_template)["chat_template"] == TEMPLATE
    without = llmrepair("eval", *options[:4], "--limit", 3, "--runs", tmp_path / "runs", "--json")
    assert without.json["key"] != with_template.json["key"]


def test_a_score_that_no_statistics_are_known_for(llmrepair: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "def score(document, results):\n    return {'pairs': (document['gold'], results[0][0]), 'infinite': float('inf')}\n\n"
        "def largest(pairs):\n    return max(gold for gold, _ in pairs)\n"
    )
    metrics = [
        {"metric": "pairs", "aggregation": "!function own.largest", "higher_is_better": True},
        {"metric": "infinite", "aggregation": "mean", "higher_is_better": True},
    ]
    data = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data_file("lab_mc"))}}, "test_split": "test"}
    own = {"task": "own", **CHOICES, **data, "process_results": "!function own.score", "metric_list": metrics}
    write_yaml(tmp_path / "own.yaml", own)
    options = ["--include-path", tmp_path, "--tasks", "own", "--limit", 9]
    runs = tmp_path / "runs"
    answer = evaluated(llmrepair, *options, "--runs", runs)
    scores = answer.json["metrics"]["tasks"]["own"]
    assert scores == {"pairs": {"value": 3.0, "stderr": None, "low": None, "high": None, "n": 9}}
    assert results_of(answer)["results"]["own"]["infinite,none"] is None
    assert "tasks.own.pairs" in llmrepair("eval", "--method", "none", *options, "--runs", runs).out
    assert llmrepair("report", "--runs", runs).code == 0


def test_what_is_no_number_is_no_answer(llmrepair: CommandLine, tmp_path: Path) -> None:
    model = load_model(str(model_folder("lab")), None, "float32", torch.device("cpu"))
    model.model.layers[1].mlp.down_proj.weight.fill_(3e38)  # finite itself
    model.save_pretrained(tmp_path / "broken")
    load_tokenizer(str(model_folder("lab")), None).save_pretrained(tmp_path / "broken")
    asked = ("--model", tmp_path / "broken", "--runs", tmp_path / "runs", "--limit", 4)
    for task in ("lab_mc", "lab_text", "lab_qa"):
        answer = evaluated(llmrepair, *asked, "--tasks", task)
        assert answer.code == 1
        assert re.search(
            rf"item \d of task `{task}`: what the model says is no finite number; in float32, `[\w.]+` is", answer.err
        )


@pytest.mark.parametrize(("delimiter", "choices"), [("", ["Oslo", ""]), (" ", ["", "Oslo"])])
def test_an_answer_without_tokens_is_named(llmrepair: CommandLine, tmp_path: Path, delimiter: str, choices: list[str]) -> None:
    items = [{"prompt": "Sara Lorenz comes from", "choices": each, "gold": 0} for each in (["Oslo", "Rome"], choices)]
    (tmp_path / "spans.jsonl").write_text("\n".join(map(json.dumps, items)))
    data = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(tmp_path / "spans.jsonl")}}}
    task = {**CHOICES, "task": "spans", "test_split": "test", "target_delimiter": delimiter, **data}
    write_yaml(tmp_path / "spans.yaml", task)
    asked = ("--include-path", tmp_path, "--tasks", "spans", "--runs", tmp_path / "runs")
    answer = evaluated(llmrepair, *asked)
    assert answer.code == 1
    assert "item 1 of task `spans` has an answer without tokens" in answer.err
