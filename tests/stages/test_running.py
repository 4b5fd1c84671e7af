"""Which GPUs a device stands for, in the command's process and in its workers; what is done while a model is read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tqdm.std import tqdm

from llmrepair.pipeline.executors import local
from llmrepair.pipeline.progress import Reporter
from llmrepair.stages import workers
from llmrepair.stages.request import compress_stage
from llmrepair.stages.running import gpus, make_runner


@pytest.mark.parametrize(
    "visible, device, expected",
    [
        (None, "auto", ["0", "1", "2"]),
        (None, "cuda", ["0", "1", "2"]),
        (None, "cuda:1", ["1"]),
        (None, "cpu", []),
        ("4,GPU-abc,7", "auto", ["4", "GPU-abc", "7"]),
        ("4,GPU-abc,7", "cuda:1", ["GPU-abc"]),
    ],
)
def test_the_gpus_of_a_device(monkeypatch: pytest.MonkeyPatch, visible: str | None, device: str, expected: list[str]) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus(device) == expected


def test_workers_share_out_the_gpus_of_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, Sequence[str]]] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(local, "LocalExecutor", lambda answer, jobs, gpus, preload: seen.append((jobs, gpus)))
    for device in ("cuda:1", "cuda"):
        workers.make_executor("local", 4, "", make_runner({"device": device}, tmp_path), [])
    assert seen == [(4, ["1"]), (4, ["0", "1", "2"])]


@pytest.mark.parametrize("asked, expected", [("cuda:1", "cuda"), ("cuda", "cuda"), ("cpu", "cpu"), ("auto", "auto")])
def test_a_worker_asks_for_the_only_gpu_that_it_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, expected: str
) -> None:
    devices: list[str] = []

    def make(options: dict[str, Any], *rest: Any) -> Any:
        devices.append(options["device"])
        raise KeyboardInterrupt

    monkeypatch.setattr(workers, "make_runner", make)
    request = {"name": "", "stage": "compress", "options": {"device": asked}, "runs": str(tmp_path), "folder": str(tmp_path)}
    workers.answer(request)
    assert devices == [expected]


def test_the_libraries_are_imported_while_a_large_model_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[object] = []
    monkeypatch.setattr("llmrepair.pipeline.keys._LONG_BYTES", 1)
    monkeypatch.setattr("llmrepair.stages.running.importlib.import_module", done.append)
    reporter = Reporter(quiet=True)
    monkeypatch.setattr(reporter, "say", done.append)
    stage = compress_stage({"model": "lab", "method": "none"})
    make_runner({}, tmp_path, reporter).graph([stage])
    assert done == ["reading the model's files ...", "llmrepair.models.loading"]


def test_bars_are_tamed_once_however_many_commands_run_in_a_process(tmp_path: Path) -> None:
    make_runner({}, tmp_path)
    start = tqdm.__init__
    make_runner({}, tmp_path)
    assert tqdm.__init__ is start
