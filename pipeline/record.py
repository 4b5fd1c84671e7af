"""What was true while a stage ran: time, memory, versions, machine, git state. Recorded beside the result, not in its key."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llmrepair.pipeline.stage import Needs, Runtime, Stage

PACKAGES = (
    "llmrepair torch transformers peft llmcompressor compressed-tensors lm_eval datasets tokenizers safetensors numpy".split()
)


class Recorder:
    """Starts its clock and memory meter when made.

    Args:
        interrupted_before: whether the same work was begun before and cut off.
    """

    def __init__(self, interrupted_before: bool) -> None:
        _reset_peak_memory()
        self._interrupted_before = interrupted_before
        self._started = datetime.now(UTC)
        self._clock = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._clock

    def record(
        self, stage: Stage, runtime: Runtime, metrics: dict[str, Any], estimate: Needs, peaks: Sequence[int]
    ) -> dict[str, Any]:
        """All that is recorded.

        Args:
            estimate: what the stage was expected to need.
            peaks: bytes that this process held together with others that the stage started.
        """
        return {
            "label": stage.label(),
            "tags": stage.tags(),
            "options": stage.options(),
            "metrics": metrics,
            "started": self._started.isoformat(timespec="seconds"),
            "seconds": round(self.seconds, 3),
            "interrupted_before": self._interrupted_before,
            "after_interruption": stage.after_interruption,
            "peak_memory_bytes": peak_memory(peaks),
            "estimated_bytes": asdict(estimate),
            "runtime": runtime.model_dump(),
            "machine": _machine(),
            "versions": {"python": platform.python_version()} | _versions(),
            "git": _git_state(),
            "command": sys.argv,
        }


def peak_memory(with_others: Sequence[int] = ()) -> dict[str, int]:
    """Most memory held at once since the last `Recorder`, in bytes: of this machine, and of each GPU that was used."""
    peaks = {"host": max(host_peak_memory(), *with_others, 0)}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        peaks |= {f"cuda:{i}": torch.cuda.max_memory_allocated(i) for i in range(torch.cuda.device_count())}
    return peaks


def _reset_peak_memory() -> None:
    with contextlib.suppress(OSError):  # not Linux, or not allowed: the peak is then the process's so far
        Path("/proc/self/clear_refs").write_text("5")
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


def host_peak_memory() -> int:
    """Most bytes that this process has held at once."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _machine() -> dict[str, Any]:
    machine: dict[str, Any] = {"system": platform.platform(), "processor": platform.machine()}
    torch = sys.modules.get("torch")
    if torch is not None:
        machine["threads"] = torch.get_num_threads()
        if torch.cuda.is_available():
            machine["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return machine


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def _git_state() -> dict[str, Any] | None:
    """Commit of the checkout that this code runs from; None when it was installed from a package."""
    folder = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):  # no git, or not its checkout
        return None
