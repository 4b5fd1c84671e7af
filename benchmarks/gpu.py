"""The targets for one GPU: what is reached beside what is wanted, in at most eight minutes.

python benchmarks/gpu.py --out FOLDER [--only scoring] [--limit-s 480]
python benchmarks/gpu.py --out FOLDER --device cpu --size tiny      the dry run, in less than a minute

Models have random weights at the shapes of real ones and are made on the device: nothing is downloaded. FOLDER gets
gpu.json and gpu.md, which are written anew with each number, and gpu.log with all that the libraries say. The sections are
functions of `gpu_sections.py` and run in one process. Each has its own limit; if one takes the process down or hangs, those
after it run in another. Sections that need what is not installed are left out.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

LIBRARIES = "torch triton transformers peft lm_eval llmcompressor compressed-tensors tokenizers safetensors numpy".split()
LIMITS = {
    "ceilings": 120,  # with the import of the libraries
    "equality": 60,
    "compression": 240,
    "scoring": 150,
    "prompts": 60,
    "tuning": 90,
    "generation": 60,
    "start": 60,
    "one_billion": 60,
    "experts": 60,
}
"""Section -> its limit in seconds; in the order in which they run, the most important first."""

Measured = dict[str, dict[str, Any]]
"""Section -> name of a number -> the number."""


class Target(NamedTuple):
    """What is wanted of a number: `bound` at least, or at most."""

    what: str
    value: Callable[[Measured], float]
    bound: float
    at_most: bool = False

    def found(self, measured: Measured) -> float | None:
        with suppress(KeyError):
            return self.value(measured)
        return None

    def verdict(self, value: float | None) -> str:
        if value is None:
            return "not measured"
        return "met" if (value <= self.bound if self.at_most else value >= self.bound) else "missed"


def number(section: str, name: str) -> Callable[[Measured], float]:
    return lambda measured: measured[section][name]


def share_of_ceiling(shots: int) -> Callable[[Measured], float]:
    return lambda measured: measured["scoring"][f"{shots}-shot, TFLOP/s"] / measured["ceilings"]["bf16 product, TFLOP/s"]


TARGETS = (
    Target("GPTQ of 7 B in 4 bits, 128 x 2048 tokens, s", number("compression", "compress, s"), 120, at_most=True),
    Target("scoring, 0-shot, times as fast as lm-eval's hf", number("scoring", "0-shot, times as fast"), 3),
    Target("scoring, 5-shot, times as fast as lm-eval's hf", number("scoring", "5-shot, times as fast"), 6),
    Target("scoring, 0-shot, share of the device's bf16 FLOP/s", share_of_ceiling(0), 0.5),
    Target("scoring, 5-shot, share of the device's bf16 FLOP/s", share_of_ceiling(5), 0.5),
    Target("scoring behind IDP of 4 prompts / one prompt", number("prompts", "scoring, IDP / one prompt"), 1.05, at_most=True),
    Target(
        "a pass behind IDP / one prompt, small batches too", number("prompts", "IDP / one prompt, at most"), 1.05, at_most=True
    ),
    Target("prompt tuning, times as fast as peft", number("tuning", "prompt, times as fast"), 1.5),
    Target("LoRA, times as fast as peft", number("tuning", "LoRA, times as fast"), 1.5),
    Target("first number of a cold `eval`, s", number("start", "first number, s"), 15, at_most=True),
    Target("scores in float32, apart from a CPU's, nats", number("equality", "float32, nats apart"), 1e-3, at_most=True),
)


@dataclass
class Outcome:
    """What became of a section."""

    state: str = "not run"
    said: str = ""
    """Why it did not get to its end."""
    seconds: float = 0.0
    measured: dict[str, Any] = field(default_factory=dict)


@dataclass
class Report:
    """All that is known by now."""

    folder: Path
    about: dict[str, Any]
    outcomes: dict[str, Outcome]

    def write(self) -> None:
        self._replace("gpu.json", json.dumps(self._document(), indent=2) + "\n")
        self._replace("gpu.md", "".join(line + "\n" for line in self._lines()))

    def _replace(self, name: str, text: str) -> None:
        temporary = self.folder / f"{name}.writing"
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(self.folder / name)

    def _targets(self) -> list[dict[str, Any]]:
        measured = {name: outcome.measured for name, outcome in self.outcomes.items()}
        rows = []
        for target in TARGETS:
            value = target.found(measured)
            verdict = "not at this size" if self.about["size"] != "7b" else target.verdict(value)
            rows.append(
                {"what": target.what, "wanted": target.bound, "at_most": target.at_most, "reached": value, "verdict": verdict}
            )
        return rows

    def _document(self) -> dict[str, Any]:
        sections = {name: asdict(outcome) for name, outcome in self.outcomes.items()}
        return {**self.about, "targets": self._targets(), "sections": sections}

    def _lines(self) -> Iterator[str]:
        yield from (f"- {name}: {shown(value)}" for name, value in self.about.items())
        yield from ("", "| target | wanted | reached | |", "|---|--:|--:|---|")
        for row in self._targets():
            bound = f"{'at most' if row['at_most'] else 'at least'} {row['wanted']:g}"
            yield f"| {row['what']} | {bound} | {shown(row['reached'])} | {row['verdict']} |"
        for name, outcome in self.outcomes.items():
            why = f" ({outcome.said.splitlines()[-1]})" if outcome.said else ""
            yield from ("", f"## {name}: {outcome.state}, {outcome.seconds:.0f} s{why}")
            if outcome.measured:
                yield from ("", "| | |", "|---|--:|")
                yield from (f"| {what} | {shown(value)} |" for what, value in outcome.measured.items())


def shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {shown(each)}" for name, each in value.items())
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return "" if value is None else str(value)


def work(names: list[str], options: argparse.Namespace, folder: Path, sender: Connection) -> None:
    """Runs sections, and sends what comes of them. What this process starts ends with it."""
    os.setpgrp()
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    log = os.open(options.out / "gpu.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    here = str(Path(__file__).parent)
    sys.path[:] = [*(path for path in sys.path if path != here), here]  # libraries have an `evaluate` of their own
    import gpu_sections

    sender.send(("about", gpu_sections.machine(options.device)))
    for name in names:
        print(f"\n== {name}", flush=True)
        bench = gpu_sections.Bench(options.device, options.size, folder, lambda *number: sender.send(("number", number)))
        start = time.perf_counter()
        state, said = outcome_of(partial(getattr(gpu_sections, name), bench), gpu_sections.LeftOut)
        gpu_sections.clean_up()
        sender.send(("ended", (state, said, time.perf_counter() - start)))


def outcome_of(section: Callable[[], None], left_out: type[Exception]) -> tuple[str, str]:
    try:
        section()
    except (ModuleNotFoundError, left_out) as error:
        return "left out", str(error)
    except BaseException as error:
        traceback.print_exc()
        return "failed", f"{type(error).__name__}: {error}"
    return "done", ""


def run_until_it_breaks(names: list[str], report: Report, options: argparse.Namespace, folder: Path, end: float) -> list[str]:
    """Runs sections in a process of their own until they are through or one has taken it down; those that are left."""
    waiting, context = list(names), get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(names, options, folder, sender))
    process.start()
    sender.close()
    begun = time.monotonic()
    while waiting:
        now, outcome = time.monotonic(), report.outcomes[waiting[0]]
        try:
            if not receiver.poll(max(0.0, min(end, begun + LIMITS[waiting[0]]) - now)):
                outcome.state, outcome.said = "failed", f"stopped after {time.monotonic() - begun:.0f} s"
                break
            kind, value = receiver.recv()
        except EOFError:
            process.join()
            outcome.state, outcome.said = "failed", f"the process ended with {process.exitcode}"
            break
        if kind == "about":
            report.about |= value
        elif kind == "number":
            outcome.measured[value[0]] = value[1]
        else:
            outcome.state, outcome.said, outcome.seconds = value
            print(f"{waiting.pop(0):12} {outcome.state:9} {outcome.seconds:6.1f} s  {outcome.said}", flush=True)
            begun = time.monotonic()
        report.write()
    for end_it in (partial(os.killpg, process.pid, signal.SIGKILL), process.kill):
        with suppress(ProcessLookupError):
            end_it()
    process.join()
    if waiting:
        broken = waiting.pop(0)
        outcome.seconds = time.monotonic() - begun
        print(f"{broken:12} {outcome.state:9} {outcome.seconds:6.1f} s  {outcome.said}", flush=True)
    return waiting


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for library in LIBRARIES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[library] = importlib.metadata.version(library)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda", help="float32 on a CPU, bfloat16 on a GPU")
    parser.add_argument("--size", choices=("tiny", "1b", "7b"), default="7b", help="of the models that are measured")
    parser.add_argument("--only", action="append", choices=tuple(LIMITS), help="one section; may be given several times")
    parser.add_argument("--limit-s", type=float, default=480, help="of all sections together")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + options.limit_s
    waiting = [name for name in LIMITS if name in (options.only or LIMITS)]
    about = {"device": options.device, "size": options.size, "versions": versions(), "command": " ".join(sys.argv)}
    report = Report(options.out, about, {name: Outcome() for name in waiting})
    report.write()
    with tempfile.TemporaryDirectory() as folder:
        while waiting and time.monotonic() < end:
            waiting = run_until_it_breaks(waiting, report, options, Path(folder), end)
    for name in waiting:
        report.outcomes[name].said = "no time was left"
    report.write()
    print((options.out / "gpu.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
