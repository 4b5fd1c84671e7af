"""`factrecall` on files as LAMA and ParaRel publish them, filled with the lab's world, which the lab model knows."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM, AutoTokenizer

from llmrepair.lab.world import ATTRIBUTES, make_world
from llmrepair.pipeline.errors import RequestError, WorkError
from llmrepair.stages.evaluate.tasks.factrecall import folder_problem, prompt_of, read, score
from llmrepair.stages.evaluate.tasks.factrecall_task import task_config
from llmrepair.stages.sources.models import model_folder
from tests.conftest import CommandLine

Rows = list[dict[str, Any]]


def write(path: Path, rows: Rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def lama(folder: Path, facts: dict[str, list[tuple[str, str]]], patterns: dict[str, list[str]]) -> Path:
    """LAMA's files, with the first pattern of a relation as its template, and ParaRel's with all."""
    write(folder / "relations.jsonl", [{"relation": name, "template": of[0] + " ."} for name, of in patterns.items()])
    for name, pairs in facts.items():
        rows = [{"sub_label": subject, "obj_label": object, "predicate_id": name, "evidences": []} for subject, object in pairs]
        write(folder / "TREx" / f"{name}.jsonl", rows)
    for name, of in patterns.items():
        write(folder / "graphs_json" / f"{name}.jsonl", [{"pattern": pattern + ".", "tense": "past"} for pattern in of])
    return folder


@pytest.fixture
def lab_facts(tmp_path: Path) -> Path:
    patterns = {
        name: [statement.format(name="[X]", **{name: "[Y]"})[:-1] for statement in ATTRIBUTES[name].statements]
        for name in ("city", "employer")
    }
    facts = {name: [(person.name, getattr(person, name)) for person in make_world().held_out] for name in patterns}
    return lama(tmp_path / "lama", facts, patterns)


@pytest.mark.parametrize(
    "pattern, prompt",
    [
        ("[X] was born in [Y] .", "[X] was born in"),
        ("[X], who was born in [Y]", "[X], who was born in"),
        ("The capital of [X] is [Y].", "The capital of [X] is"),
        ("[X],  a type of [Y].", "[X], a type of"),
        ("[X]'s capital, [Y].", "[X]'s capital,"),
        ("[Y] is the capital of [X].", None),
        ("[X] plays [Y] music .", None),
        ("The [Y]-owned [X]", None),
        ("[X] is a [Y].", None),
        ("[X]'s profession is an [Y].", None),
        ("[Y] and [X] are [Y]", None),
        ("born in [Y]", None),
    ],
)
def test_an_object_must_come_last(pattern: str, prompt: str | None) -> None:
    assert prompt_of(pattern) == prompt


def test_documents_of_published_files(tmp_path: Path) -> None:
    facts = {
        "P19": [("Ada", "Oslo"), ("Ada", "Rome"), ("Bo", "Lima"), ("Bo", "Lima"), ("Cy", "Oslo")],
        "P37": [("Peru", "Spanish"), ("Wales", "Welsh")],
        "P31": [("cat", "animal"), ("oak", "tree")],
        "P99": [("one", "same"), ("two", "same")],
    }
    patterns = {
        "P19": ["[X] was born in [Y]", "[X] comes from [Y]", "[Y] is where [X] was born"],
        "P37": ["The official language of [X] is [Y]"],
        "P31": ["[X] is a [Y]"],
        "P99": ["[X] is [Y]"],
    }
    found = read(lama(tmp_path, facts, patterns))
    assert found.left_out == ["P31", "P99"]  # no template, and nothing to choose from
    documents = {(each["subject"], each["object"]): each for each in found.documents}
    assert len(documents) == len(found.documents) == 6
    assert documents["Ada", "Oslo"]["choices"] == ["Lima", "Oslo"]  # Rome is right as well
    assert documents["Cy", "Oslo"]["choices"] == ["Lima", "Oslo", "Rome"]
    assert documents["Cy", "Oslo"]["prompts"] == ["Cy was born in", "Cy comes from"]
    assert documents["Wales", "Welsh"]["prompts"] == ["The official language of Wales is"]
    assert all(each["choices"][each["gold"]] == each["object"] for each in found.documents)
    assert [each["relation"] for each in found.documents] == ["P19", "P37", "P19", "P37", "P19", "P19"]


def test_one_file_of_facts_and_patterns_beside_the_template(tmp_path: Path) -> None:
    pairs = [(f"person {index}", f"city {index % 150}") for index in range(300)]
    patterns = [f"[X] lives{' very' * index} near [Y]" for index in range(8)]
    published = lama(tmp_path / "published", {"P1": pairs}, {"P1": patterns})
    own = tmp_path / "own"
    write(own / "relations.jsonl", [{"relation": "P1", "template": patterns[0], "patterns": patterns[1:]}])
    write(own / "trex_facts.jsonl", [{"relation": "P1", "subject": subject, "object": object} for subject, object in pairs])
    documents = read(own).documents
    assert documents == read(published).documents
    assert all(len(each["choices"]) == len(set(each["choices"])) == 100 for each in documents)
    assert len({tuple(each["choices"]) for each in documents}) > 100  # not the same wrong ones for all
    assert {len(each["prompts"]) for each in documents} == {4}
    assert all(each["prompts"][0] == f"{each['subject']} lives near" for each in documents)


def test_a_folder_that_is_not_the_one(tmp_path: Path) -> None:
    assert "no relations.jsonl and no TREx/" in folder_problem(tmp_path).message  # type: ignore[union-attr]
    folder = lama(tmp_path / "lama", {"P1": [("Ada", "Oslo"), ("Bo", "Rome")]}, {"P1": ["[X] is in [Y]"]})
    assert folder_problem(folder) is None
    (folder / "TREx" / "P1.jsonl").write_text('{"sub_label": "Ada", "obj_label": "Oslo"}\n{"sub_label": "Bo"}\n')
    with pytest.raises(RequestError, match=r"P1.jsonl:2 is not"):
        read(folder)
    write(folder / "relations.jsonl", [{"relation": "P1"}])
    assert "relations.jsonl:1 is not" in folder_problem(folder).message  # type: ignore[union-attr]
    nothing_to_ask = lama(tmp_path / "none", {"P1": [("Ada", "Oslo"), ("Bo", "Rome")]}, {"P1": ["[X] is a [Y]"]})
    with pytest.raises(WorkError, match="no relation with"):
        read(nothing_to_ask)


def test_the_score_of_a_fact_by_hand() -> None:
    document = {"choices": ["Oslo", "Constantinople", "Rome"], "gold": 1}
    loglikelihoods = [[-3.0, -2.0, -4.0], [-2.0, -3.0, -4.0], [-2.0, -28.0, -7.0]]
    metrics = score(document, [(value, False) for row in loglikelihoods for value in row])
    # likeliest: Constantinople, Oslo, Oslo; per character: Constantinople twice, then Oslo
    assert metrics == {
        "acc": pytest.approx(1 / 3),
        "acc_norm": pytest.approx(2 / 3),
        "consistent_acc": 0,
        "consistency": pytest.approx(1 / 3),
        "chance": pytest.approx(1 / 3),
    }
    assert "consistency" not in score(document, [(value, False) for value in loglikelihoods[0]])


@given(st.lists(st.lists(st.floats(-50, -1), min_size=3, max_size=3), min_size=2, max_size=5), st.integers(0, 2))
def test_consistency_is_the_share_of_pairs_that_agree(loglikelihoods: list[list[float]], gold: int) -> None:
    document = {"choices": ["a", "bb", "ccc"], "gold": gold}
    metrics = score(document, [(value, False) for row in loglikelihoods for value in row])
    answers = [row.index(max(row)) for row in loglikelihoods]
    pairs = list(combinations(answers, 2))
    assert metrics["consistency"] == pytest.approx(sum(a == b for a, b in pairs) / len(pairs))
    assert metrics["acc"] == pytest.approx(answers.count(gold) / len(answers))
    assert metrics["consistent_acc"] == (set(answers) == {gold})
    if metrics["consistent_acc"]:
        assert metrics["consistency"] == metrics["acc"] == 1


def agrees_with_transformers(folder: Path | None, documents: Rows, items: Rows) -> None:
    assert folder is not None
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for document, item in zip(documents, items, strict=True):
        expected = [loglikelihood(model, tokenizer, p, c) for p in document["prompts"] for c in document["choices"]]
        assert item["loglikelihoods"] == pytest.approx(expected, abs=1e-4)


@torch.no_grad()
def loglikelihood(model: Any, tokenizer: Any, prompt: str, choice: str) -> float:
    """Nats of a choice behind a prompt, one forward pass each, nothing shared."""
    context = tokenizer(prompt).input_ids
    whole = torch.tensor([tokenizer(f"{prompt} {choice}").input_ids])
    assert whole[0, : len(context)].tolist() == context
    log_probabilities = model(whole).logits[0, :-1].log_softmax(-1)
    return log_probabilities.gather(1, whole[0, 1:, None])[len(context) - 1 :].sum().item()


def items_of(answer: Any) -> Rows:
    return [json.loads(line) for line in (Path(answer["path"]) / "samples_factrecall_llmrepair.jsonl").read_text().splitlines()]


def by_hand(items: Rows, documents: Rows) -> dict[str, float]:
    """The metrics from the log-likelihoods in the items, written anew."""
    values: dict[str, list[float]] = defaultdict(list)
    for item, document in zip(items, documents, strict=True):
        size = len(document["choices"])
        rows = [item["loglikelihoods"][start : start + size] for start in range(0, len(item["loglikelihoods"]), size)]
        answers = [document["choices"][row.index(max(row))] for row in rows]
        values["acc"].append(answers.count(document["object"]) / len(answers))
        values["consistent_acc"].append(float(set(answers) == {document["object"]}))
        values["consistency"] += [sum(a == b for a, b in combinations(answers, 2)) / math.comb(len(answers), 2)]
    return {name: sum(each) / len(each) for name, each in values.items()}


def test_the_lab_model_knows_its_facts(llmrepair: CommandLine, lab_facts: Path, tmp_path: Path) -> None:
    options = ["--tasks", "factrecall", "--tasks-data", lab_facts, "--limit", 20, "--method", "none", "--json"]
    answer = llmrepair("eval", *options, "--runs", tmp_path / "runs")
    assert answer.code == 0, answer.err
    scores = answer.json["metrics"]["tasks"]["factrecall"]
    assert {name: each["n"] for name, each in scores.items()} == dict.fromkeys(scores, 20)  # a limit counts facts
    assert scores["acc"]["value"] > 0.9
    assert scores["consistency"]["value"] > 0.85
    assert scores["chance"]["value"] < 0.03

    documents, items = read(lab_facts).documents[:20], items_of(answer.json)
    assert {name: scores[name]["value"] for name in ("acc", "consistent_acc", "consistency")} == pytest.approx(
        by_hand(items, documents)
    )
    assert [item["correct"] for item in items] == [item["consistent_acc"] == 1 for item in items]
    assert {item["prediction"] for item in items} == {None}  # there is one per paraphrase
    agrees_with_transformers(model_folder("lab"), documents[:2], items[:2])
    shown = f"{100 * scores['consistent_acc']['value']:.1f} ["  # what the paired comparisons are about
    assert shown in llmrepair("report", "--runs", tmp_path / "runs").out


def test_a_model_that_knows_nothing_is_near_chance(llmrepair: CommandLine, shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "knowledge"
    options = ["--tasks", "factrecall", "--tasks-data", folder, "--limit", 12, "--method", "none", "--json"]
    answer = llmrepair("eval", "--model", shared_data / "models" / "stories260k", *options, "--runs", tmp_path / "runs")
    assert answer.code == 0, answer.err
    assert "note: `factrecall` leaves out P31, P527" in answer.err
    scores = answer.json["metrics"]["tasks"]["factrecall"]
    assert scores["acc"]["value"] < 0.2
    items, documents = items_of(answer.json), read(folder).documents[:12]
    assert len({document["relation"] for document in documents}) == 12
    agrees_with_transformers(shared_data / "models" / "stories260k", documents[:3], items[:3])
    assert {name: scores[name]["value"] for name in ("acc", "consistent_acc", "consistency")} == pytest.approx(
        by_hand(items, documents)
    )


def test_no_folder(llmrepair: CommandLine, tmp_path: Path) -> None:
    for data, message in (([], "no data on the Hub"), (["--tasks-data", tmp_path], "holds no relations.jsonl and no TREx")):
        answer = llmrepair("eval", "--tasks", "factrecall", *data, "--runs", tmp_path / "runs")
        assert answer.code == 2
        assert message in answer.err
        assert "hint: " in answer.err
        assert "dl.fbaipublicfiles.com/LAMA" in answer.err


def test_what_stands_around_the_first_prompt_stands_around_all(lab_facts: Path) -> None:
    task = TaskManager(include_defaults=False).load([task_config(lab_facts)])["tasks"]["factrecall"]
    document = task.test_docs()[0]
    context = f"<user>{document['prompts'][0]}</user>"
    requests = task.construct_requests(document, context, metadata=("factrecall", 0, 1), apply_chat_template=True)
    expected = [(f"<user>{prompt}</user>", choice) for prompt in document["prompts"] for choice in document["choices"]]
    assert [request.args for request in requests] == expected
    assert [request.idx for request in requests] == list(range(len(expected)))
