"""Metrics beside lm-eval's own, on questions about the lab's people, which the lab model can answer."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from llmrepair.lab.tasks import data_file
from llmrepair.lab.world import NUMBER_OF_VALUES, make_world
from llmrepair.stages.evaluate.stage import EvaluateConfig
from llmrepair.stages.evaluate.tasks.asked import task_identities
from llmrepair.stages.evaluate.tasks.loading import load_tasks
from llmrepair.stages.evaluate.tasks.more_metrics import add_metrics
from tests.conftest import CommandLine

PEOPLE = make_world().held_out[:30]


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """The lab's questions as TriviaQA and WebQuestions ask theirs; every third answer is none that the model gives."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    trivia, web = [], []
    for index, person in enumerate(PEOPLE):
        answers = ["Atlantis", f"the {person.city}!" if index % 3 else "Utopia"]
        question = f"Where was {person.name} born"
        trivia.append({"question": question, "answer": {"value": answers[1], "aliases": answers}})
        web.append({"question": f"{question}?", "answers": answers})
    for name, rows in (("triviaqa", trivia), ("webqs", web), ("webqs_train", web)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def evaluate(llmrepair: CommandLine, folder: Path, *options: object) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    answer = llmrepair("eval", "--method", "none", "--runs", folder / "runs", "--json", *options)
    assert answer.code == 0, answer.err
    files = Path(answer.json["path"]).glob("samples_*.jsonl")
    items = {
        file.stem.removeprefix("samples_").removesuffix("_llmrepair"): list(map(json.loads, file.read_text().splitlines()))
        for file in files
    }
    return answer.json["metrics"], items


def test_normalised_match_on_generated_answers(llmrepair: CommandLine, questions: Path, tmp_path: Path) -> None:
    options = ["--tasks", "triviaqa,webqs_generate", "--tasks-data", questions]
    metrics, items = evaluate(llmrepair, tmp_path, *options)
    trivia, web = metrics["tasks"]["triviaqa"], metrics["tasks"]["webqs_generate"]
    assert trivia["exact_match"]["value"] == 0  # lm-eval's: "the Oslo" is not "Oslo"
    assert set(web) == {"normalised_exact_match", "normalised_f1"}
    for name, scores in (("triviaqa", trivia), ("webqs_generate", web)):
        of_task = items[name]
        right = [item["prediction"].strip(" .") == PEOPLE[item["doc_id"]].city and item["doc_id"] % 3 > 0 for item in of_task]
        assert [item["normalised_exact_match"] == 1 for item in of_task] == right
        assert scores["normalised_exact_match"]["value"] == pytest.approx(sum(right) / 30)
        assert sum(right) >= 18
    assert [item["correct"] for item in items["webqs_generate"]] == right


def test_examples_in_front_come_from_the_training_file(llmrepair: CommandLine, questions: Path, tmp_path: Path) -> None:
    options = ["--tasks", "webqs_generate", "--tasks-data", questions, "--limit", 3]
    zero, few = (evaluate(llmrepair, tmp_path, *options, "--num-fewshot", shots)[1] for shots in (0, 2))
    pairs = zip(zero["webqs_generate"], few["webqs_generate"], strict=True)
    assert all(a["prompt_hash"] != b["prompt_hash"] for a, b in pairs)


def test_lm_evals_own_metrics_stay(questions: Path) -> None:
    config = EvaluateConfig(tasks=("triviaqa",), tasks_data=questions)
    identities = task_identities(config.tasks, None, questions, str)
    stock, ours = (load_tasks(config, identities)["tasks"]["triviaqa"] for _ in range(2))
    add_metrics(ours)
    for document in stock.test_docs() if stock.has_test_docs() else stock.validation_docs():
        for said in ("atlantis", "Atlantis!", "the Atlantis", "", document["answer"]["value"]):
            theirs = stock.process_results(document, [said])
            both = ours.process_results(document, [said])
            assert theirs == {name: both[name] for name in theirs}
            assert set(both) - set(theirs) == {"normalised_exact_match", "normalised_f1"}


def test_bits_of_the_lab_by_hand_from_the_items(llmrepair: CommandLine, tmp_path: Path) -> None:
    options = ["--method", "gptq", "--bits", 3, "--tasks", "lab_qa,lab_mc,lab_reverse"]
    metrics, items = evaluate(llmrepair, tmp_path, *options)
    assert "knowledge_bits" not in metrics["tasks"]["lab_reverse"]
    for task, luck in (("lab_qa", 0), ("lab_mc", 1 / 4)):
        documents = [json.loads(line) for line in data_file(task).read_text().splitlines()]
        of_task = items[task]
        known = 0.0
        for document, item in zip(documents, of_task, strict=True):
            bits = math.log2(NUMBER_OF_VALUES[document["attribute"]])
            assert item["knowledge_bits"] == [item["correct"], bits, luck]
            known += bits if item["correct"] else -bits * luck / (1 - luck)
        score = metrics["tasks"][task]["knowledge_bits"]
        assert score["value"] == pytest.approx(known)
        assert score["low"] < score["value"] < score["high"] <= sum(map(math.log2, NUMBER_OF_VALUES.values())) * 160
        per_parameter = metrics["tasks"][task]["knowledge_bits_per_parameter"]
        assert per_parameter["value"] == pytest.approx(known / metrics["parameters"])
        assert 0 < per_parameter["low"] < per_parameter["high"] < 2
    assert metrics["parameters"] == 238_144
