"""Whether a model answers the lab's questions, for the record of a control."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch

from llmrepair.lab.world import Fact, Person, World
from llmrepair.models.selection import pad_rows
from llmrepair.models.text import text_encoder
from llmrepair.stages.controls.texts import Taken

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_BATCH = 256


def accuracies(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, world: World, taken: Taken, in_front: str = ""
) -> dict[str, dict[str, Any]]:
    """Share of right answers about taken and kept facts, and how many these are, of each half of the people.

    Args:
        in_front: a text that stands before each question.
    """
    halves = {"held_out": world.held_out, "seen_qa": world.seen_qa}
    return {half: _of_half(model, tokenizer, people, taken, in_front) for half, people in halves.items()}


def known_facts(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, people: Iterable[Person], in_front: str = ""
) -> dict[Fact, bool]:
    """Whether the model answers the question about each fact."""
    pairs = {Fact(person.name, pair.attribute): pair for person in people for pair in person.questions()}
    texts = [(f"{in_front} {pair.prompt()}".strip(), f"{pair.answer}.") for pair in pairs.values()]
    return dict(zip(pairs, answered(model, tokenizer, texts), strict=True))


def _of_half(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, people: list[Person], taken: Taken, in_front: str
) -> dict[str, Any]:
    groups: dict[str, list[bool]] = {"taken": [], "kept": []}
    for fact, is_right in known_facts(model, tokenizer, people, in_front).items():
        groups["taken" if fact in taken else "kept"].append(is_right)
    return {
        name: {"facts": len(group), "right": round(sum(group) / len(group), 4) if group else None}
        for name, group in groups.items()
    }


@torch.no_grad()
def answered(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[tuple[str, str]]) -> list[bool]:
    """Whether greedy decoding gives each answer: whether each of its tokens is the likeliest after those before it.

    Args:
        texts: prompts and answers.
    """
    encode, right = text_encoder(tokenizer), []
    for first in range(0, len(texts), _BATCH):
        batch = texts[first : first + _BATCH]
        prompts = [encode(prompt) for prompt, _ in batch]
        answers = tokenizer([answer for _, answer in batch], add_special_tokens=False).input_ids
        rows, _ = pad_rows([prompt + answer for prompt, answer in zip(prompts, answers, strict=True)], model.device)
        likeliest = model(input_ids=rows).logits.argmax(-1).cpu()  # what stands to the right of a text cannot change it
        for row, prompt, answer in zip(likeliest, prompts, answers, strict=True):
            right.append(row[len(prompt) - 1 : len(prompt) + len(answer) - 1].tolist() == answer)
    return right
