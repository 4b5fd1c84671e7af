"""llmrepair regimes --model lab --method gptq --bits 3"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from llmrepair.lab.world import make_world
from llmrepair.models.prompt_cache import begun_once
from llmrepair.models.prompted import PromptedModel
from llmrepair.models.regimes import KINDS, MEASURES, activations, block_sums, measures
from llmrepair.models.selection import pad_rows
from llmrepair.models.text import text_encoder
from llmrepair.pipeline.artifact import write_json
from llmrepair.pipeline.errors import Problem, WorkError
from llmrepair.pipeline.stage import Context
from llmrepair.stages.diagnostics.regimes.figure import regimes_figure
from llmrepair.stages.drawing.svg import Look
from llmrepair.stages.repairs.placed import Placing
from llmrepair.stages.sources.loading import load_weights
from llmrepair.stages.sources.texts import FEWEST_TEXTS, LAB_TEXT, load_texts, tell_fewer, too_few_texts

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

    from llmrepair.stages.diagnostics.regimes.stage import Regimes
    from llmrepair.stages.repairs.base import Repair

_BLOCK = 8
"""Texts that are computed at once; their number also says how many blocks intervals are made of."""


def run(stage: Regimes, context: Context) -> dict[str, Any]:
    dense, tokenizer = load_weights(stage.dense, context, "dense")
    dense.set_attn_implementation("eager")
    rows = [tokens[: stage.config.compared_tokens] for tokens in map(text_encoder(tokenizer), _texts(stage))]
    if len(rows) < FEWEST_TEXTS:
        raise WorkError(too_few_texts(stage.config.compared_text, len(rows), "compared_text"))

    tell_fewer(context.reporter, stage.config.compared_text, len(rows), stage.config.compared_items, "texts")
    found = {}
    with context.reporter.bar("comparing", total=len(stage.repairs) * len(rows)) as bar:
        for repair in stage.repairs:
            sums = []
            repaired = _repaired(stage, context, repair, tokenizer)
            for block in _blocks([begun_once(row, repaired.bos) for row in rows]):
                sums.append(_sums(PromptedModel(dense), repaired, *pad_rows(block, dense.device)))
                bar.advance(len(block))
            if not np.isfinite(sums).all():
                message = f"with recovery `{repair.name}`, what one of both models computes is no finite number"
                raise WorkError(Problem(message, "give --dtype bfloat16 or float32, or compress less"))
            found[repair.name] = _estimates(np.array(sums))
    seed = next(tuning.config.seed for tuning in stage.tunings.values())
    document = {"texts": len(rows), "tokens": sum(map(len, rows)), "seed": seed, "likeness": found}
    write_json(context.folder / "regimes.json", document)
    looks = {repair.name: Look(repair.colour, repair.shape) for repair in stage.repairs}
    figure = regimes_figure(found, looks, stage.compressed.label())
    (context.folder / "regimes.svg").write_text(figure, encoding="utf-8")
    return {name: _last_layer(each) for name, each in found.items()} | {"texts": len(rows)}


def _texts(stage: Regimes) -> list[str]:
    config = stage.config
    if config.compared_text == LAB_TEXT:
        questions = (question for person in make_world().held_out for question in person.questions())
        return [question.prompt() for question in islice(questions, config.compared_items)]
    return list(islice(load_texts(config.compared_text, stage.text), config.compared_items))


def _blocks(rows: Sequence[list[int]]) -> Iterator[Sequence[list[int]]]:
    """Rows by eights; a rest that is too short for a block of its own goes with the last one."""
    starts = range(0, len(rows) - _BLOCK + 1, _BLOCK)
    for start in starts:
        yield rows[start : len(rows) if start == starts[-1] else start + _BLOCK]


def _repaired(stage: Regimes, context: Context, repair: Repair, tokenizer: PreTrainedTokenizerBase) -> PromptedModel:
    """The compressed model with a repair, as an evaluation with no further options has it."""
    model, _ = load_weights(stage.compressed, context)
    model.set_attn_implementation("eager")
    tuned = stage.tunings[repair.tuning.name] if repair.tuning is not None else None
    placed = repair.place(
        Placing(
            model=model,
            tokenizer=tokenizer,
            options=repair.options()(),
            tuned=repair.files.stored(context.inputs[tuned.name].path) if tuned is not None else None,
            seed=tuned.config.seed if tuned is not None else 0,
            scoring=_no_scoring,
            sequences=context.runtime.sequences,
        )
    )
    return PromptedModel(placed.model, placed.cache, placed.selector, placed.last)


def _no_scoring(cache: Any) -> Any:
    raise AssertionError("neither IDP nor the prompt with the lowest held-out loss scores texts")


def _sums(dense: PromptedModel, repaired: PromptedModel, input_ids: torch.Tensor, mask: torch.Tensor) -> list[Any]:
    """[kinds, L, 5] of a block."""
    left_out = int(repaired.bos is not None)
    one, other = (activations(model, input_ids, mask, left_out) for model in (dense, repaired))
    return [[block_sums(*layer) for layer in zip(one[kind], other[kind], strict=True)] for kind in KINDS]


def _estimates(sums: NDArray[np.float64]) -> dict[str, dict[str, list[dict[str, float]]]]:
    """Kind -> measure -> each layer's estimate, of sums [m, kinds, L, 5]."""
    found = {}
    for number, kind in enumerate(KINDS):
        layers = [measures(sums[:, number, layer]) for layer in range(sums.shape[2])]
        found[kind] = {measure: [layer[measure]._asdict() for layer in layers] for measure in MEASURES}
    return found


def _last_layer(found: dict[str, dict[str, list[dict[str, float]]]]) -> dict[str, Any]:
    return {f"{kind}, {name}": layers[-1] for kind, of_kind in found.items() for name, layers in of_kind.items()}
