"""llmrepair eval --model lab --method gptq --bits 3 --recovery idp --tasks lab_qa"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lm_eval.evaluator import evaluate
from lm_eval.tasks import TaskManager

from llmrepair.models.harness import RepairedLM
from llmrepair.models.lora import with_adapter
from llmrepair.models.prompt_cache import PromptCache, build_prompt_cache
from llmrepair.models.routing import Router, voting_layers
from llmrepair.models.selection import FixedSelector, RoutedSelector, Selector
from llmrepair.models.soft_prompt import load_pool
from llmrepair.pipeline.artifact import Artifact, write_json
from llmrepair.pipeline.stage import Context
from llmrepair.stages.compressed import load_compressed
from llmrepair.stages.evaluate.items import ITEMS_FILE, items_of_task, scores_of_task, selection_shares
from llmrepair.stages.evaluate.tasks import load_config

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from llmrepair.stages.evaluate.stage import Evaluate, EvaluateConfig

_SEED = 1234


def run(stage: Evaluate, context: Context) -> dict[str, Any]:
    config = stage.config
    model, tokenizer = load_compressed(stage.compressed, context)
    repair = apply_repair(model, config, context.inputs.get("repair"), context.runtime.batch_size)
    tasks = [load_config(task, config.tasks_data, stage.task_identities[task]) for task in config.tasks]

    with context.reporter.bar("scoring") as bar:
        language_model = RepairedLM(
            repair.model,
            tokenizer,
            context.runtime.batch_size,
            _max_length(model, tokenizer, repair),
            repair.cache,
            repair.selector,
            context.work / "answers.jsonl",
            on_start=bar.extend,
            on_progress=bar.advance,
        )
        results = ask(language_model, tasks, config)

    items = [item for task in config.tasks for item in items_of_task(task, results, language_model.selections)]
    with (context.folder / ITEMS_FILE).open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(item, ensure_ascii=False) + "\n" for item in items)
    write_json(context.folder / "tasks.json", {task: _settings(results, task) for task in config.tasks})
    return {
        "tasks": {task: scores_of_task(task, results) for task in config.tasks},
        "extra_parameters": repair.extra_parameters,
        "size_bytes": context.inputs["compressed"].metrics["size_bytes"],
        "max_length": language_model.max_length,
        "prompt_shares": selection_shares(items, repair.cache.size) if repair.cache is not None else None,
    }


def ask(language_model: RepairedLM, tasks: list[dict[str, Any]], config: EvaluateConfig) -> dict[str, Any]:
    """lm-eval's results of tasks given inline, seeded as `lm_eval` seeds on its command line."""
    random.seed(0)
    np.random.seed(_SEED)
    torch.manual_seed(_SEED)
    loaded = TaskManager(include_defaults=False).load(tasks)
    for task in loaded["tasks"].values():
        if config.num_fewshot is not None and task.get_config("num_fewshot") != 0:
            task.set_config(key="num_fewshot", value=config.num_fewshot)
        elif task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=_SEED)
    return evaluate(lm=language_model, task_dict=loaded, limit=config.limit, bootstrap_iters=0)  # the intervals are ours


@dataclass(frozen=True)
class Repair:
    """A model with its repair in place."""

    model: PreTrainedModel
    cache: PromptCache | None = None
    selector: Selector | None = None
    extra_parameters: int = 0


def apply_repair(model: PreTrainedModel, config: EvaluateConfig, repair: Artifact | None, batch_size: int) -> Repair:
    if repair is None:
        return Repair(model)
    if config.recovery == "lora":
        return Repair(with_adapter(model, repair.path), extra_parameters=repair.metrics["extra_parameters"])
    prompts, pool = load_pool(repair.path)
    prompts = [prompt.to(model.device, model.dtype) for prompt in prompts]
    cache = _prompt_cache(model, prompts, pool["input_position"])
    if config.recovery == "prompt":
        losses = pool["validation_losses"]
        best = losses.index(min(losses))
        return Repair(model, cache, FixedSelector(best), prompts[best].numel())
    layers = voting_layers(config.idp_layers, model.config.num_hidden_layers)
    selector = RoutedSelector(Router(model, cache, layers, config.idp_reduce), batch_size)
    return Repair(model, cache, selector, sum(prompt.numel() for prompt in prompts))


@torch.no_grad()
def _prompt_cache(model: PreTrainedModel, prompts: list[torch.Tensor], start: int) -> PromptCache:
    return build_prompt_cache(model, prompts, start)


def _max_length(model: PreTrainedModel, tokenizer: Any, repair: Repair) -> int:
    """Positions left for the input: a prompt takes its own."""
    positions = getattr(model.config, "max_position_embeddings", None) or min(tokenizer.model_max_length, 2048)
    return positions - (repair.cache.length if repair.cache is not None else 0)


def _settings(results: dict[str, Any], task: str) -> dict[str, Any]:
    """How lm-eval asked: few-shot examples, version, templates."""
    config = {name: value for name, value in results["configs"][task].items() if not callable(value)}
    return json.loads(json.dumps({"version": results["versions"].get(task), "config": config}, default=str))
