"""llmrepair probe --model lab --method gptq --bits 3"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from llmrepair.models.finite import NotFinite
from llmrepair.models.probe import cross_validated, fit_probe, last_states
from llmrepair.models.text import text_encoder
from llmrepair.pipeline.artifact import write_json
from llmrepair.pipeline.errors import Problem, WorkError
from llmrepair.pipeline.stage import Context
from llmrepair.stages.diagnostics.probe.facts import Facts, lab_facts
from llmrepair.stages.diagnostics.probe.files import ITEMS_FILE, RESULT_FILE
from llmrepair.stages.sources.loading import load_weights
from llmrepair.stages.statistics.scores import mean_score

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from llmrepair.stages.diagnostics.probe.stage import Probes

_AT_ONCE = 64


class Seen(NamedTuple):
    """What the model makes of n questions."""

    facts: Facts
    states: torch.Tensor
    """[L + 1, n, d] at their last tokens."""
    next_tokens: torch.Tensor
    """[n], its own."""


class Reading(NamedTuple):
    """What the probe of a layer read."""

    penalty: float
    training_accuracy: float
    """Of people that it was trained on, when they were left out of that."""
    right: NDArray[np.bool_]
    """[n], of each tested fact."""


def run(stage: Probes, context: Context) -> dict[str, Any]:
    model, tokenizer = load_weights(stage.compressed, context)
    training, tested = (_see(facts, model, tokenizer, context) for facts in lab_facts())
    tokens = torch.tensor([_token(word, tokenizer) for word in tested.facts.words])
    embeddings = _output_embeddings(model)[tokens]
    said = (tested.next_tokens == tokens[tested.facts.asked().right]).numpy()

    layers, penalties = [], stage.config.penalties
    control, control_tested = (_relabelled(seen, stage.config.probe_seed) for seen in (training, tested))
    with context.reporter.bar("fitting probes", total=len(tested.states)) as bar:
        for layer in range(len(tested.states)):
            reading = _read(layer, training, tested, embeddings, penalties)
            layers.append((reading, _read(layer, control, control_tested, embeddings, penalties)))
            bar.advance()

    best = max(range(len(layers)), key=lambda layer: layers[layer][0].training_accuracy)
    found = {"best_layer": best, "best": _scores(*layers[best]), "first_word_said": asdict(mean_score(said)), "unsaid": None}
    chance = 1 / tested.facts.asked().possible.sum(1)
    found["chance"] = chance.mean().item()
    if not said.all():
        found["unsaid"] = _scores(*(each._replace(right=each.right[~said]) for each in layers[best]))
    write_json(context.folder / RESULT_FILE, {**found, "layers": [_layer(*both, tested.facts) for both in layers]})
    with (context.folder / ITEMS_FILE).open("w", encoding="utf-8") as file:
        lines = _item_lines(tested.facts, said, chance.tolist(), *layers[best], [reading for reading, _ in layers])
        file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    return found


def _see(facts: Facts, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, context: Context) -> Seen:
    rows = list(map(text_encoder(tokenizer), (fact.question.prompt() for fact in facts.facts)))
    try:
        states, said = last_states(model, rows, context.runtime.sequences or _AT_ONCE)
    except NotFinite as error:
        raise WorkError(Problem(str(error), error.hint)) from error
    return Seen(facts, states.cpu(), said.cpu())  # where float64 is


def _relabelled(seen: Seen, seed: int) -> Seen:
    return seen._replace(facts=seen.facts.relabelled(seed))


def _token(word: str, tokenizer: PreTrainedTokenizerBase) -> int:
    """The lab's tokenizer has one token for each word."""
    (token,) = tokenizer(word, add_special_tokens=False).input_ids
    return int(token)


def _output_embeddings(model: PreTrainedModel) -> torch.Tensor:
    head: Any = model.get_output_embeddings()
    return head.weight.detach().cpu()


def _read(layer: int, training: Seen, tested: Seen, embeddings: torch.Tensor, penalties: Sequence[float]) -> Reading:
    states, words, asked = training.states[layer], training.facts.asked(), tested.facts.asked()
    penalty, accuracy = cross_validated(states, words, embeddings, training.facts.people, penalties)
    probe = fit_probe(states, words, embeddings, penalty)
    right = probe.read(tested.states[layer], asked.possible) == asked.right
    return Reading(penalty, accuracy, right.numpy())


def _scores(reading: Reading, control: Reading) -> dict[str, Any]:
    """Shares of the tested facts with 95 % intervals; selectivity is what the probe reads beyond what it can memorise."""
    return {
        "accuracy": asdict(mean_score(reading.right)),
        "control": asdict(mean_score(control.right)),
        "selectivity": asdict(mean_score(reading.right.astype(float) - control.right)),
    }


def _layer(reading: Reading, control: Reading, facts: Facts) -> dict[str, Any]:
    attributes = np.array([fact.question.attribute for fact in facts.facts])
    return {
        **_scores(reading, control),
        "by_attribute": {name: asdict(mean_score(reading.right[attributes == name])) for name in facts.vocabulary},
        "training_accuracy": reading.training_accuracy,
        "penalties": {"facts": reading.penalty, "control": control.penalty},
    }


def _item_lines(
    facts: Facts,
    said: NDArray[np.bool_],
    chance: Sequence[float],
    best: Reading,
    control: Reading,
    layers: Sequence[Reading],
) -> Iterator[dict[str, Any]]:
    """What was read of each tested fact: by the probe of the best layer and by that of its control task, and at which layers;
    how likely a guess is right; and whether the model's next token is the first word of the answer."""
    for number, fact in enumerate(facts.facts):
        yield {
            "prompt": fact.question.prompt(),
            "answer": fact.question.answer,
            "attribute": fact.question.attribute,
            "first_word_said": bool(said[number]),
            "chance": chance[number],
            "read": bool(best.right[number]),
            "control": bool(control.right[number]),
            "read_at": [layer for layer, reading in enumerate(layers) if reading.right[number]],
        }
