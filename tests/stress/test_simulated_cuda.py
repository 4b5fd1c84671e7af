"""A chain of stages on a simulated CUDA device: it breaks none of CUDA's rules, all of it lies there, and its numbers are those
of the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torch.utils._pytree import tree_leaves

from tests.child import ROOT
from tests.simulated_cuda import compiled_guard

pytestmark = pytest.mark.stress

CHAIN = (
    "eval --model lab --method gptq --bits 3 --samples 16 --tuning-samples 80 --budget 6144 --learning-rates 0.01 "
    "--tasks lab_mc --limit 40 --recovery"
).split()
ON_CPU = ("-c", "from llmrepair.cli.main import main; main()")
MEASURED = {"compress": "output_error", "tune-prompts": "validation_loss", "tune-lora": "validation_loss", "evaluate": "tasks"}


def measured(root: Path) -> dict[str, list[Any]]:
    """Numbers by stage and key."""
    records = {path.parent: json.loads(path.read_text()) for path in sorted(root.glob("*/*/record.json"))}
    return {
        f"{folder.parent.name}/{folder.name}": tree_leaves(record["metrics"][MEASURED[folder.parent.name]])
        for folder, record in records.items()
    }


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled_guard(tmp_path_factory.mktemp("guard"))


@pytest.mark.parametrize("repair", [["idp", "--lengths", "8,8"], ["lora"]], ids=["idp", "lora"])
def test_a_gpu_gives_the_numbers_of_the_cpu(tmp_path: Path, guard: Path, repair: list[str]) -> None:
    seen = tmp_path / "seen.json"
    on_gpu = ("-m", "tests.simulated_cuda.command", str(guard), str(seen))
    for device, command in (("cpu", ON_CPU), ("cuda", on_gpu)):
        line = [sys.executable, *command, *CHAIN, *repair, "--device", device, "--runs", str(tmp_path / device)]
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    of_cpu, of_gpu = measured(tmp_path / "cpu"), measured(tmp_path / "cuda")
    assert list(of_gpu) == list(of_cpu)  # a key does not say where
    assert len(of_cpu) == 3
    for name, numbers in of_cpu.items():
        assert of_gpu[name] == pytest.approx(numbers, rel=1e-3), name
    devices = json.loads(seen.read_text())
    del devices["compress"]  # whose layers are there one after the other
    assert devices == {name.partition("/")[0]: ["cuda"] for name in of_cpu if not name.startswith("compress")}
