"""What everything that runs stages does: it opens the store, looks at the machine, and keeps libraries quiet."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import warnings
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from llmrepair.pipeline.errors import Problem
from llmrepair.pipeline.graph import Explain, as_it_is
from llmrepair.pipeline.imports import no_garbage_collection
from llmrepair.pipeline.progress import Reporter
from llmrepair.pipeline.runner import Runner
from llmrepair.pipeline.stage import Runtime
from llmrepair.pipeline.store import Store
from llmrepair.stages.request import validated


def make_runner(values: Mapping[str, Any], runs: Path, reporter: Reporter | None = None, explain: Explain = as_it_is) -> Runner:
    (runtime,) = validated(values, Runtime)
    _quiet_libraries()
    runner = Runner(Store(runs), runtime, reporter or Reporter(), device_problems, explain, free_device_memory)
    runner.store.digests.while_reading = partial(_import_libraries, runner.reporter)
    return runner


def _import_libraries(reporter: Reporter) -> None:
    """A model that was never seen before is about to be worked with."""
    with reporter.busy("reading the model's files ..."), no_garbage_collection():
        importlib.import_module("llmrepair.models.loading")


def device_problems(runtime: Runtime) -> list[Problem]:
    """Says so if the device that was asked for is not there."""
    if runtime.device in ("auto", "cpu"):
        return []
    import torch

    try:
        torch.empty(0, device=runtime.device)
    except (RuntimeError, AssertionError) as error:  # the latter from a torch without CUDA
        reason = str(error).splitlines()[0].rstrip(".")
        return [Problem(f"device `{runtime.device}` cannot be used: {reason}", "give --device auto or --device cpu")]
    return []


def free_device_memory(runtime: Runtime) -> int | None:
    """Bytes left of the GPU that the stages would use; None where they would use none."""
    from llmrepair.models.loading import pick_device

    device = pick_device(runtime.device)
    if device.type != "cuda":
        return None
    import torch

    return torch.cuda.mem_get_info(device)[0]


def gpus(device: str) -> list[str]:
    """The GPUs that a device stands for, as in CUDA_VISIBLE_DEVICES: one for `cuda:1`, all for `auto` and `cuda`, else none."""
    import torch

    if device != "auto" and not device.startswith("cuda"):
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    numbers = [str(number) for number in range(torch.cuda.device_count())]
    names = visible.split(",")[: len(numbers)] if visible else numbers
    _, _, number = device.partition(":")
    return names[int(number) :][:1] if number else names


@cache
def _quiet_libraries() -> None:
    """What the libraries say is for their developers; what a user needs to know we say ourselves."""
    quiet = {
        "LLM_COMPRESSOR_LOG_LEVEL": "ERROR",
        "TRANSFORMERS_VERBOSITY": "error",
        "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    for name, value in quiet.items():
        os.environ.setdefault(name, value)
    for name in "lm_eval lm-eval transformers peft datasets httpx huggingface_hub torch torch.utils._pytree torchao".split():
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    _tame_bars()


def _tame_bars() -> None:
    """llm-compressor shows its layers in tqdm bars: they vanish when done, and are off where there is no terminal."""
    from tqdm.std import tqdm

    start = tqdm.__init__

    def start_tamed(bar: Any, *arguments: Any, **options: Any) -> None:
        hidden = options.get("disable") or not sys.stderr.isatty()
        start(bar, *arguments, **(options | {"leave": False, "disable": hidden}))

    tqdm.__init__ = start_tamed
