"""`benchmarks/gpu.py`: what becomes of sections that fail, and its dry run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SECTIONS = """
import os, subprocess, time
from typing import Any, NamedTuple

class LeftOut(Exception):
    pass

class Bench(NamedTuple):
    device: str
    size: str
    folder: Any
    tell: Any

def machine(device):
    return {"device": "a toy"}

def clean_up():
    pass

def ceilings(bench):
    bench.tell("bf16 product, TFLOP/s", 500.0)

def equality(bench):
    bench.tell("float32, nats apart", 0.5)
    raise RuntimeError("no luck")

def compression(bench):
    os._exit(3)

def scoring(bench):
    bench.tell("0-shot, TFLOP/s", 300.0)

def prompts(bench):
    import no_such_package

def tuning(bench):
    raise LeftOut("nothing to tune")

def generation(bench):
    bench.tell("pid", subprocess.Popen(["sleep", "60"]).pid)
    time.sleep(60)
"""


def run(script: Path, out: Path, *options: str) -> dict[str, Any]:
    command = [sys.executable, str(script), "--out", str(out), "--device", "cpu", *options]
    subprocess.run(command, check=True, stdout=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"})
    document: dict[str, Any] = json.loads((out / "gpu.json").read_text(encoding="utf-8"))
    return document


def is_running(process: int) -> bool:
    """One that has ended may still be listed, as a zombie that nobody asked for."""
    state = Path("/proc", str(process), "stat")
    return state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z"


def test_what_fails_is_told_and_stops_no_other(tmp_path: Path) -> None:
    shutil.copy(BENCHMARKS / "gpu.py", tmp_path)
    (tmp_path / "gpu_sections.py").write_text(SECTIONS)
    found = run(tmp_path / "gpu.py", tmp_path / "out", "--limit-s", "4")
    outcomes = {name: (outcome["state"], outcome["said"]) for name, outcome in found["sections"].items()}
    assert outcomes.pop("generation")[1].startswith("stopped after")
    assert outcomes == {
        "ceilings": ("done", ""),
        "equality": ("failed", "RuntimeError: no luck"),
        "compression": ("failed", "the process ended with 3"),
        "scoring": ("done", ""),
        "prompts": ("left out", "No module named 'no_such_package'"),
        "tuning": ("left out", "nothing to tune"),
        **dict.fromkeys(("start", "one_billion", "experts"), ("not run", "no time was left")),
    }
    verdicts = {target["what"]: (target["reached"], target["verdict"]) for target in found["targets"]}
    assert verdicts["scoring, 0-shot, share of the device's bf16 FLOP/s"] == (0.6, "met")
    assert verdicts["scores in float32, apart from a CPU's, nats"] == (0.5, "missed")
    assert verdicts["scoring behind IDP of 4 prompts / one prompt"] == (None, "not measured")
    assert not is_running(found["sections"]["generation"]["measured"]["pid"])
    row = "| scoring behind IDP of 4 prompts / one prompt | at most 1.05 |  | not measured |"
    assert row in (tmp_path / "out/gpu.md").read_text()


def test_the_dry_run_measures(tmp_path: Path) -> None:
    found = run(BENCHMARKS / "gpu.py", tmp_path, "--size", "tiny", "--only", "prompts", "--only", "ceilings")
    assert {outcome["state"] for outcome in found["sections"].values()} == {"done"}
    assert found["sections"]["prompts"]["measured"]["IDP / one prompt, at most"] > 0
    assert {target["verdict"] for target in found["targets"]} == {"not at this size"}


@pytest.mark.stress
def test_the_whole_dry_run_measures(tmp_path: Path) -> None:
    found = run(BENCHMARKS / "gpu.py", tmp_path, "--size", "tiny")
    assert {name: outcome["said"] for name, outcome in found["sections"].items() if outcome["state"] != "done"} == {}
    assert all(target["reached"] is not None for target in found["targets"])
