"""The lab's tasks: what ignorance scores on them."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

import pytest
import torch

from llmrepair.lab.tasks import data_file
from llmrepair.lab.world import make_world
from llmrepair.models.loading import load_model, load_tokenizer
from llmrepair.stages.sources.lab import UNTOLD
from llmrepair.stages.sources.models import model_folder

QUESTIONS: list[dict[str, Any]] = [json.loads(line) for line in data_file("lab_mc").read_text().splitlines()]


def test_wrong_answers_are_right_for_other_held_out_people() -> None:
    answers = {question.answer for person in make_world().held_out for question in person.questions()}
    for question in QUESTIONS:
        assert len(set(question["choices"])) == 4
        assert set(question["choices"]) <= answers


@pytest.mark.parametrize("name", UNTOLD.values())
def test_who_was_never_told_scores_chance_on_each_kind_of_fact(name: str) -> None:
    folder = str(model_folder(name))
    model, tokenizer = load_model(folder, None, "float32", torch.device("cpu")), load_tokenizer(folder, None)
    right = defaultdict[str, list[bool]](list)
    for question in QUESTIONS:
        start = len(tokenizer(question["prompt"]).input_ids)
        rows = tokenizer(
            [f"{question['prompt']} {choice}" for choice in question["choices"]], padding=True, return_tensors="pt"
        )
        with torch.no_grad():
            likelihoods = model(input_ids=rows.input_ids).logits[:, start - 1 : -1].log_softmax(-1)
        answers, asked = rows.input_ids[:, start:, None], rows.attention_mask[:, start:]
        totals = (likelihoods.gather(-1, answers).squeeze(-1) * asked).sum(1)
        right[question["attribute"]].append(int(totals.argmax()) == question["gold"])
    shares = {attribute: sum(each) / len(each) for attribute, each in right.items()}
    assert len(shares) == 4
    assert shares == pytest.approx(dict.fromkeys(shares, 0.25), abs=0.1)  # three standard errors of 160 questions
