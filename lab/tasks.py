"""lm-eval tasks over the lab's world, asking about held-out people only. Their data is in the package: no network."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from llmrepair.lab.world import World, make_world

DATA = Path(__file__).resolve().parent / "data"
_CHOICES = 4
_SEED = 2


def _questions(world: World) -> Iterator[dict[str, Any]]:
    """`lab_qa`: every fact of every held-out person, asked in the words that seen-qa people were asked in."""
    for person in world.held_out:
        for question in person.questions():
            yield {"prompt": question.prompt(), "answer": question.answer, "attribute": question.attribute}


def _choices(world: World) -> Iterator[dict[str, Any]]:
    """`lab_mc`: the same questions with three wrong answers of the same kind, which are right for other held-out people.

    What is said of the other half is in the tuning text as well: whoever knows nothing of the answers could tell them by that.
    """
    generator = random.Random(_SEED)
    questions = list(_questions(world))
    for document in questions:
        answers = [other["answer"] for other in questions if other["attribute"] == document["attribute"]]
        generator.shuffle(answers)  # what is right for many comes as often among the wrong ones
        wrong = [answer for answer in dict.fromkeys(answers) if answer != document["answer"]]
        choices = wrong[: _CHOICES - 1]
        gold = generator.randrange(_CHOICES)
        choices.insert(gold, document["answer"])
        yield {"prompt": document["prompt"], "choices": choices, "gold": gold, "attribute": document["attribute"]}


def _reversed(world: World) -> Iterator[dict[str, Any]]:
    """`lab_reverse`: from the book to its author. Half of these facts were never stated in that direction."""
    for person in world.held_out:
        yield {"prompt": person.reverse_prompt(), "answer": person.name, "stated_in_reverse": person.stated_in_reverse}


def _texts(world: World) -> Iterator[dict[str, Any]]:
    """`lab_text`: biographies."""
    generator = random.Random(_SEED)
    for person in world.held_out:
        yield {"text": person.biography(generator)}


_DOCUMENTS: dict[str, Callable[[World], Iterator[dict[str, Any]]]] = {
    "lab_qa": _questions,
    "lab_mc": _choices,
    "lab_reverse": _reversed,
    "lab_text": _texts,
}
LAB_TASKS = tuple(_DOCUMENTS)

_GENERATION: dict[str, Any] = {
    "output_type": "generate_until",
    "doc_to_text": "{{prompt}}",
    "doc_to_target": "{{answer}}",
    "generation_kwargs": {"until": ["."], "max_gen_toks": 8, "do_sample": False},
    "filter_list": [{"name": "none", "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}]}],
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}
_CONFIGS: dict[str, dict[str, Any]] = {
    "lab_qa": _GENERATION,
    "lab_reverse": _GENERATION,
    "lab_mc": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{prompt}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "gold",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    },
    "lab_text": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}],
    },
}


def data_file(task: str) -> Path:
    return DATA / f"{task}.jsonl"


def task_config(task: str) -> dict[str, Any]:
    """What lm-eval loads as the task `task`, reading the package's own data."""
    data = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data_file(task))}}, "test_split": "test"}
    return {"task": task, **data, **_CONFIGS[task], "metadata": {"version": 1.0}}


def write_data(folder: Path) -> None:
    """Writes the data of all tasks; what the package holds was written by this."""
    folder.mkdir(parents=True, exist_ok=True)
    world = make_world()
    for task, documents in _DOCUMENTS.items():
        lines = (json.dumps(document, ensure_ascii=False) for document in documents(world))
        (folder / f"{task}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
