"""python -m tests.simulated_cuda.command GUARD SEEN eval --model lab --device cuda ...: the command line on a simulated device.

SEEN gets the devices of the parameters of all models that were asked something, by stage, as JSON.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any


def main(guard: str, seen: str, *arguments: str) -> int:
    os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "1"  # the device is seen by one thread alone
    ctypes.CDLL(guard, mode=ctypes.RTLD_GLOBAL)  # before torch, which looks for a device once
    from llmrepair.cli.main import run
    from llmrepair.stages.checkpoints import reload
    from tests.child import HERE
    from tests.simulated_cuda.device import SimulatedCuda, install

    install()
    reload.subprocess = HERE  # type: ignore[assignment]  # a process of its own would see no device
    devices = _watched_devices()
    with SimulatedCuda():
        code = run(list(arguments))
    Path(seen).write_text(json.dumps({stage: sorted(each) for stage, each in devices.items()}))
    return code


def _watched_devices() -> dict[str, set[str]]:
    """Fills with the devices of the parameters of the models that each stage asks something."""
    from torch.nn.modules.module import register_module_forward_pre_hook
    from transformers import PreTrainedModel

    from llmrepair.pipeline.stage import Context, Stage

    devices: dict[str, set[str]] = defaultdict(set)
    running: list[str] = []
    original = Stage.run

    def run_stage(stage: Stage, context: Context) -> Any:
        running.append(stage.name)
        return original(stage, context)

    def look(module: Any, arguments: Any) -> None:
        if isinstance(module, PreTrainedModel) and running:
            devices[running[-1]] |= {parameter.device.type for parameter in module.parameters()}

    Stage.run = run_stage  # type: ignore[method-assign]
    register_module_forward_pre_hook(look)
    return devices


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
