"""llmrepair eval --model lab --method gptq --bits 3 --recovery idp --tasks lab_qa"""

from __future__ import annotations

import contextlib
import os
import random
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lm_eval.evaluator import evaluate

from llmrepair.models.harness import RepairedLM
from llmrepair.models.loading import meta_model, share_of_zeros
from llmrepair.models.selection import DocumentSelector, EnsembleSelector
from llmrepair.pipeline.artifact import write_json
from llmrepair.pipeline.stage import Context
from llmrepair.stages.evaluate.choices import choice_notes
from llmrepair.stages.evaluate.files import RESULTS_FILE, samples_file
from llmrepair.stages.evaluate.oracle import ask_oracle, gap_text
from llmrepair.stages.evaluate.placing import placing_of
from llmrepair.stages.evaluate.results import results_document
from llmrepair.stages.evaluate.samples import (
    Selections,
    plain,
    samples_with_ours,
    scores_of_group,
    scores_of_task,
    selection_shares,
    write_samples,
)
from llmrepair.stages.evaluate.tasks import factrecall
from llmrepair.stages.evaluate.tasks.factrecall import FACTRECALL
from llmrepair.stages.evaluate.tasks.knowledge import with_bits_per_parameter
from llmrepair.stages.evaluate.tasks.loading import example_notes, load_tasks, templates_compiled_once, told
from llmrepair.stages.evaluate.tasks.more_metrics import add_metrics
from llmrepair.stages.repairs.placed import Placed, positions
from llmrepair.stages.sources.loading import load_weights

if TYPE_CHECKING:
    from lm_eval.tasks.manager import TaskDict

    from llmrepair.stages.evaluate.stage import Evaluate, EvaluateConfig

SEEDS = {"random_seed": 0, "numpy_seed": 1234, "torch_seed": 1234, "fewshot_seed": 1234}
"""Those of lm-eval's command line."""
BOOTSTRAP_ITERATIONS = 1000
"""For standard errors of what is no mean; lm-eval's 100,000 take minutes, and change them by about 2 %."""


def run(stage: Evaluate, context: Context) -> dict[str, Any]:
    config = stage.config
    model, tokenizer = load_weights(stage.compressed, context)
    parameters = _parameters(stage, context)
    asked = load_tasks(config, stage.task_identities)
    for task in asked["tasks"].values():
        add_metrics(task)
    if FACTRECALL in asked["tasks"] and config.tasks_data is not None:
        for text in factrecall.notes(config.tasks_data):
            context.reporter.note(text)

    for text in example_notes(asked["tasks"], config.num_fewshot):
        context.reporter.note(text)
    with context.reporter.bar("scoring") as bar:
        placed = stage.repair.place(placing_of(stage, context, model, tokenizer, bar))
        prompt_tokens = (placed.pool.length if placed.pool is not None else 0) + (placed.last is not None)
        language_model = RepairedLM(
            placed.model,
            tokenizer,
            context.runtime.sequences,
            positions(model, tokenizer) - prompt_tokens,
            placed.cache,
            placed.selector,
            placed.last,
            stage.config.lm_eval_compatible,
            context.work / "answers.jsonl",
            on_start=bar.extend,
            on_progress=bar.advance,
        )
        if not language_model.takes_trees:
            context.reporter.note("texts that begin alike are computed one by one, for this model says other things of a tree")
        oracle: dict[str, Any] | None = None
        if isinstance(placed.selector, DocumentSelector) and placed.cache is not None:
            asking = partial(ask, language_model, asked, config)
            results, oracle = ask_oracle(language_model, asked["tasks"], placed.cache.size, asking)
        else:
            results = ask(language_model, asked, config)
    for name, record in (oracle or {}).items():
        context.reporter.say(gap_text(name, record))
    shares = _shares(language_model.selections, placed)
    for text in choice_notes(shares, placed.selector, context.inputs.get("repair")):
        context.reporter.note(text)

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
        "extra_parameters": placed.extra_parameters,
        "prompt_tokens": prompt_tokens,
        **_weights(placed, context),
        "max_length": language_model.max_length,
        "prompt_shares": shares,
        "routing": placed.routing,
        "oracle": oracle,
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


def _shares(selections: Selections, placed: Placed) -> list[float] | None:
    """How often each prompt was chosen; None where nothing is chosen."""
    if placed.pool is None or placed.selector is None or isinstance(placed.selector, EnsembleSelector):
        return None
    return selection_shares(selections, placed.pool.size)


def _weights(placed: Placed, context: Context) -> dict[str, Any]:
    """What the weights take, and how many are zero: as they were compressed, or as they are once a repair has changed them."""
    measured, model = context.inputs["compressed"].metrics, placed.model
    if not placed.changes_weights:
        return {name: measured[name] for name in ("size_bytes", "bits_per_weight", "sparsity")}
    return {
        "size_bytes": sum(parameter.nbytes for parameter in model.parameters()),
        "bits_per_weight": 8.0 * model.dtype.itemsize,
        "sparsity": round(share_of_zeros(model), 6),
    }


def _parameters(stage: Evaluate, context: Context) -> int:
    """How many the architecture has; a packed checkpoint would bring scales and zero points of its own."""
    location, revision = stage.compressed.checkpoint(context.inputs["compressed"])
    shapes = meta_model(location, revision, stage.compressed.config.trust_remote_code)
    return sum(parameter.numel() for parameter in shapes.parameters())
