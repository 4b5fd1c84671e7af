"""A repair put in place on its model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from llmrepair.models.answers import AnswerFile
from llmrepair.models.lora import ADAPTER_FOLDER, with_adapter, with_merged_adapter
from llmrepair.models.prompt_cache import PromptCache, build_prompt_cache, extend_cache
from llmrepair.models.ptune import load_ptune
from llmrepair.models.routing import Router, see_pool_by_token, voting_layers
from llmrepair.models.scorer import Scorer
from llmrepair.models.selection import (
    DocumentSelector,
    EnsembleSelector,
    FixedSelector,
    LossSelector,
    RandomSelector,
    RoutedSelector,
    Score,
    Selector,
    TokenSelector,
)
from llmrepair.models.soft_prompt import load_pool
from llmrepair.models.trees import Text
from llmrepair.pipeline.errors import Problem, WorkError
from llmrepair.stages.evaluate.text_prompts import example_tokens, most_prompt_tokens, prompt_tokens
from llmrepair.stages.tune_prompts import TunePrompts

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from llmrepair.pipeline.artifact import Artifact
    from llmrepair.pipeline.progress import Bar
    from llmrepair.pipeline.stage import Context
    from llmrepair.stages.evaluate.stage import Evaluate, EvaluateConfig

_ROUTED_AT_ONCE = 32


@dataclass(frozen=True)
class Repair:
    """A model with its repair in place."""

    model: PreTrainedModel
    pool: PromptCache | None = None
    """The prompts."""
    selector: Selector | None = None
    begun_by: int | None = None
    """The token for the beginning of a text, where the cached one has it."""
    extra_parameters: int = 0
    """What inference has to hold beside the weights."""

    @property
    def cache(self) -> PromptCache | None:
        """The prompts that are put in front of inputs; None where the model's tokens see the pool by themselves."""
        return None if isinstance(self.selector, TokenSelector) else self.pool


def apply_repair(
    stage: Evaluate, context: Context, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, bar: Bar
) -> Repair:
    """What an evaluation runs on."""
    if stage.config.recovery in ("hard", "icl"):
        return _behind_text(stage, context, model, tokenizer)
    if stage.repair is None:
        return Repair(model)

    def scoring(cache: PromptCache) -> Score:
        return _scoring(context, model, cache, bar)

    folder = repair_folder(context.inputs["repair"])
    return put_in_place(model, stage.config, folder, stage.repair.config.seed, context.runtime.sequences, scoring)


def repair_folder(repair: Artifact) -> Path:
    """Where a repair's peft adapter lies, or its pool of them."""
    return repair.path if repair.stage == TunePrompts.name else repair.path / ADAPTER_FOLDER


def put_in_place(
    model: PreTrainedModel,
    config: EvaluateConfig,
    folder: Path,
    seed: int,
    sequences: int | None,
    scoring: Callable[[PromptCache], Score],
) -> Repair:
    """A model with a repair that was tuned for it.

    Args:
        config: says which repair it is, and how it is put in place.
        folder: of the repair, see `repair_folder`.
        seed: of what is chosen at random.
        sequences: computed at once where prompts are chosen; None for as many as usual.
        scoring: the prompts of a pool -> what scores texts behind them.
    """
    if config.recovery == "lora" and config.lora_merged:
        return Repair(with_merged_adapter(model, folder))
    if config.recovery == "lora":
        before, adapted = model.num_parameters(), with_adapter(model, folder)
        return Repair(adapted, extra_parameters=adapted.num_parameters() - before)
    if config.recovery == "ptune":
        cache, extra_parameters = load_ptune(model, folder)
        return Repair(model, cache, extra_parameters=extra_parameters)
    stored, pool = load_pool(folder)
    prompts = [prompt.to(model.device, model.dtype) for prompt in stored]
    with torch.no_grad():
        cache = build_prompt_cache(model, prompts, pool["input_position"])
    if config.recovery == "idp":
        selector = _router(config, model, cache, sequences or _ROUTED_AT_ONCE)
    else:
        selector = _selector(config, cache, pool["validation_losses"], seed, scoring)
    if isinstance(selector, TokenSelector):
        see_pool_by_token(selector.router)
    used = [prompts[selector.index]] if isinstance(selector, FixedSelector) else prompts
    return Repair(model, cache, selector, extra_parameters=sum(prompt.numel() for prompt in used))


def positions(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """How many tokens the model takes, prompts included."""
    return getattr(model.config, "max_position_embeddings", None) or min(tokenizer.model_max_length, 2048)


def _behind_text(stage: Evaluate, context: Context, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Repair:
    config, say = stage.config, context.reporter.note
    if config.recovery == "hard":
        tokens = prompt_tokens(config.hard_prompt, tokenizer)
    else:
        most = most_prompt_tokens(positions(model, tokenizer))
        tokens, examples = example_tokens(config.tuning_data, stage.tuning_data, config.icl_examples, tokenizer, most)
        say(
            f"{examples} of {config.icl_examples} examples stand in front of each input, {len(tokens)} tokens of at most {most}"
        )
    if not tokens:
        raise WorkError(Problem(f"`{config.tuning_data}` holds no text for examples", "give another with --tuning-data"))
    if unknown := tokens.count(tokenizer.unk_token_id):
        say(f"{unknown} of the {len(tokens)} tokens in front of each input are words that the tokenizer does not know")
    begun_by = tokens[0] if tokens[0] == tokenizer.bos_token_id else None
    return Repair(model, extend_cache(model, None, 0, tokens), begun_by=begun_by)


def _router(config: EvaluateConfig, model: PreTrainedModel, cache: PromptCache, sequences: int) -> Selector:
    layers = voting_layers(config.idp_layers, model.config.num_hidden_layers)
    router = Router(model, cache, layers, config.idp_reduce, config.idp_normalise)
    return (RoutedSelector if config.idp_per == "sequence" else TokenSelector)(router, sequences)


def _selector(
    config: EvaluateConfig, cache: PromptCache, losses: Sequence[float], seed: int, scoring: Callable[[PromptCache], Score]
) -> Selector:
    """What chooses among the prompts of a pool with such held-out losses; an oracle's choices are made of answers, later."""
    if config.select == "best-validation":
        return FixedSelector(losses.index(min(losses)))
    if config.fixed_prompt is not None:
        return FixedSelector(config.fixed_prompt)
    if config.select == "random":
        return RandomSelector(cache.size, seed)
    if config.select == "loss":
        return LossSelector(cache.size, scoring(cache))
    return EnsembleSelector() if config.select == "ensemble" else DocumentSelector({})


def _scoring(context: Context, model: PreTrainedModel, cache: PromptCache, bar: Bar) -> Score:
    """Scores questions, and keeps the scores in a file of their own."""
    scorer = Scorer(model, cache, context.runtime.sequences, AnswerFile(context.work / "questions.jsonl"), bar.advance)

    def score(texts: Sequence[Text]) -> list[tuple[float, bool]]:
        bar.extend(len(texts))
        return scorer.score(texts)

    return score
