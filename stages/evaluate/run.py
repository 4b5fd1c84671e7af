"""llmrepair eval --model lab --method gptq --bits 3 --recovery idp --tasks lab_qa"""

from __future__ import annotations

import contextlib
import os
import random
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lm_eval.evaluator import evaluate

from llmrepair.models.harness import RepairedLM
from llmrepair.models.loading import meta_model
from llmrepair.pipeline.artifact import write_json
from llmrepair.pipeline.stage import Context
from llmrepair.stages.compressed import load_compressed
from llmrepair.stages.evaluate import factrecall
from llmrepair.stages.evaluate.factrecall import FACTRECALL
from llmrepair.stages.evaluate.files import RESULTS_FILE, samples_file
from llmrepair.stages.evaluate.knowledge import with_bits_per_parameter
from llmrepair.stages.evaluate.loading import load_tasks, templates_compiled_once, told
from llmrepair.stages.evaluate.more_metrics import add_metrics
from llmrepair.stages.evaluate.repair import Repair, apply_repair
from llmrepair.stages.evaluate.results import results_document
from llmrepair.stages.evaluate.samples import (
    plain,
    samples_with_ours,
    scores_of_group,
    scores_of_task,
    selection_shares,
    write_samples,
)

if TYPE_CHECKING:
    from lm_eval.tasks.manager import TaskDict
    from transformers import PreTrainedModel

    from llmrepair.stages.evaluate.stage import Evaluate, EvaluateConfig

SEEDS = {"random_seed": 0, "numpy_seed": 1234, "torch_seed": 1234, "fewshot_seed": 1234}
"""Those of lm-eval's command line."""
_ROUTED_AT_ONCE = 32
BOOTSTRAP_ITERATIONS = 1000
"""For standard errors of what is no mean; lm-eval's 100,000 take minutes, and change them by about 2 %."""


def run(stage: Evaluate, context: Context) -> dict[str, Any]:
    config = stage.config
    model, tokenizer = load_compressed(stage.compressed, context)
    parameters = _parameters(stage, context)
    repair = apply_repair(model, config, context.inputs.get("repair"), context.runtime.sequences or _ROUTED_AT_ONCE)
    asked = load_tasks(config, stage.task_identities)
    for task in asked["tasks"].values():
        add_metrics(task)
    if FACTRECALL in asked["tasks"] and config.tasks_data is not None:
        for text in factrecall.notes(config.tasks_data):
            context.reporter.note(text)

    with context.reporter.bar("scoring") as bar:
        language_model = RepairedLM(
            repair.model,
            tokenizer,
            context.runtime.sequences,
            _max_length(model, tokenizer, repair),
            repair.cache,
            repair.selector,
            context.work / "answers.jsonl",
            on_start=bar.extend,
            on_progress=bar.advance,
        )
        results = ask(language_model, asked, config)

    settings = SEEDS | {"bootstrap_iters": BOOTSTRAP_ITERATIONS}
    write_json(context.folder / RESULTS_FILE, plain(results_document(results, language_model, stage, settings)))
    samples = {name: samples_with_ours(results["samples"][name], language_model.selections, name) for name in asked["tasks"]}
    for name, of_task in samples.items():
        write_samples(context.folder / samples_file(name), of_task)
    metrics = {
        "tasks": {
            name: with_bits_per_parameter(scores_of_task(task, results), parameters) for name, task in asked["tasks"].items()
        },
        "parameters": parameters,
        "groups": {name: scores_of_group(group) for name, group in results.get("groups", {}).items()},
        "extra_parameters": repair.extra_parameters,
        "size_bytes": context.inputs["compressed"].metrics["size_bytes"],
        "max_length": language_model.max_length,
        "prompt_shares": selection_shares(language_model.selections, repair.pool.size) if repair.pool is not None else None,
    }
    return dict(plain(metrics))


def ask(language_model: RepairedLM, asked: TaskDict, config: EvaluateConfig) -> dict[str, Any]:
    """lm-eval's results, with seeds, examples and chat turns as on its command line."""
    random.seed(SEEDS["random_seed"])
    np.random.seed(SEEDS["numpy_seed"])
    torch.manual_seed(SEEDS["torch_seed"])
    for task in asked["tasks"].values():
        if config.num_fewshot is not None and task.get_config("num_fewshot") != 0:
            task.set_config(key="num_fewshot", value=config.num_fewshot)
        elif task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=SEEDS["fewshot_seed"])
    os.environ["DISABLE_MULTIPROC"] = "1"  # so few bootstrap iterations are not worth a pool of processes
    # lm-eval and some tasks print
    with told("the tasks cannot be asked"), templates_compiled_once(), contextlib.redirect_stdout(sys.stderr):
        return evaluate(
            lm=language_model,
            task_dict=asked,
            limit=config.limit,
            bootstrap_iters=BOOTSTRAP_ITERATIONS,
            system_instruction=config.system,
            apply_chat_template=config.apply_chat_template,
            fewshot_as_multiturn=config.apply_chat_template,
        )


def _max_length(model: PreTrainedModel, tokenizer: Any, repair: Repair) -> int:
    """Positions left for the input: a prompt takes its own."""
    positions = getattr(model.config, "max_position_embeddings", None) or min(tokenizer.model_max_length, 2048)
    return positions - (repair.pool.length if repair.pool is not None else 0)


def _parameters(stage: Evaluate, context: Context) -> int:
    """How many the architecture has; a packed checkpoint would bring scales and zero points of its own."""
    location, revision = stage.compressed.checkpoint(context.inputs["compressed"])
    shapes = meta_model(location, revision, stage.compressed.config.trust_remote_code)
    return sum(parameter.numel() for parameter in shapes.parameters())
