"""The probe stage on the lab model: its facts, its control task, its files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmrepair.lab.world import make_world
from llmrepair.stages.diagnostics.probe.facts import lab_facts
from tests.conftest import CommandLine


def test_facts_are_about_other_people_than_those_that_probes_learn_from() -> None:
    training, tested = lab_facts()
    assert {fact.person.name for fact in training.facts} == {person.name for person in make_world().seen_qa}
    assert {fact.person.name for fact in tested.facts} == {person.name for person in make_world().held_out}
    assert len(tested.people.unique()) == 160
    asked = tested.asked()
    assert asked.possible.gather(1, asked.right[:, None]).all()
    assert set(asked.possible.sum(1).tolist()) == {len(words) for words in tested.vocabulary.values()}


def test_the_control_task_draws_the_same_word_for_the_same_first_name_only() -> None:
    training, tested = (facts.relabelled(0) for facts in lab_facts())
    drawn: dict[tuple[str, str], set[str]] = {}
    for fact in (*training.facts, *tested.facts):
        drawn.setdefault((fact.person.name.split()[0], fact.question.attribute), set()).add(fact.word)
        assert fact.word in training.vocabulary[fact.question.attribute]
    assert all(len(words) == 1 for words in drawn.values())
    assert len({next(iter(words)) for words in drawn.values()}) > 100
    assert tested.relabelled(1) != tested
    real = {fact.question.prompt(): fact.word for fact in lab_facts()[1].facts}
    assert sum(fact.word == real[fact.question.prompt()] for fact in tested.facts) < 40  # by chance 16


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def test_the_last_layer_of_the_dense_lab_model_is_read_and_the_embeddings_are_not(llmrepair: CommandLine, runs: Path) -> None:
    asked = ["probe", "--method", "none", "--penalties", "0.01", "--runs", runs, "--json"]
    answer = llmrepair(*asked).json
    found = json.loads((Path(answer["path"]) / "probe.json").read_text())
    assert answer["metrics"]["best_layer"] == found["best_layer"] == 4
    assert found["best"]["accuracy"]["value"] > 0.9
    assert found["best"]["selectivity"]["low"] > 0.5
    assert found["first_word_said"]["value"] > 0.99
    first = found["layers"][0]  # the embedding of the colon, which all questions end with
    assert first["accuracy"]["value"] < 0.06
    assert abs(first["selectivity"]["value"]) < 0.05

    items = [json.loads(line) for line in (Path(answer["path"]) / "items.jsonl").read_text().splitlines()]
    lab_qa = [json.loads(line) for line in (Path(__file__).parents[3] / "lab/data/lab_qa.jsonl").read_text().splitlines()]
    assert [{name: item[name] for name in ("prompt", "answer", "attribute")} for item in items] == lab_qa
    assert sum(item["read"] for item in items) == round(640 * found["best"]["accuracy"]["value"])
    assert all(item["read"] == (4 in item["read_at"]) for item in items)
    unsaid = [item["read"] for item in items if not item["first_word_said"]]
    assert found["unsaid"]["accuracy"]["n"] == len(unsaid)

    again = llmrepair(*asked)
    assert again.json["cached"]
    assert llmrepair("show", again.json["key"], "--runs", runs).code == 0


def test_of_a_model_that_was_never_told_no_more_is_read_than_guessed(llmrepair: CommandLine, runs: Path) -> None:
    """Its control task is no such floor: words of a first name are memorised."""
    answer = llmrepair("probe", "--control", "erased", "--penalties", "0.01", "--runs", runs, "--json").json
    found = answer["metrics"]
    assert found["best"]["accuracy"]["low"] < found["chance"] < found["best"]["accuracy"]["high"]
    assert found["best"]["control"]["low"] > 5 * found["chance"]


def test_other_models_are_refused(llmrepair: CommandLine, shared_data: Path, runs: Path) -> None:
    answer = llmrepair("probe", "--model", shared_data / "models/stories260k", "--method", "none", "--runs", runs)
    assert answer.code == 2
    assert "never read" in answer.err
    assert "hint: give --model lab or lab-opt" in answer.err
