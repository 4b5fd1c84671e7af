"""`compress`, `tune-prompts`, `tune-lora`, `tune-ptune`, `eval`, `probe`, `regimes`: one stage each, and whatever it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llmrepair.cli.options import JSON_OPTION, RUNS_OPTION, Panels, with_options
from llmrepair.cli.output import console, flat, print_json
from llmrepair.cli.running import DEFAULT_RUNS, make_runner
from llmrepair.pipeline.stage import Outcome, Runtime
from llmrepair.stages.compress import CompressConfig
from llmrepair.stages.evaluate import EvaluateConfig
from llmrepair.stages.graph import (
    compress_stage,
    evaluate_stage,
    notes,
    probe_stage,
    regimes_stage,
    tune_lora_stage,
    tune_prompts_stage,
    tune_ptune_stage,
)
from llmrepair.stages.probe import ProbesConfig
from llmrepair.stages.regimes import RegimesConfig
from llmrepair.stages.tune_lora import TuneLoraConfig
from llmrepair.stages.tune_prompts import TunePromptsConfig
from llmrepair.stages.tune_ptune import TunePtuneConfig

_COMPRESS: Panels = {"Compression": CompressConfig, "Running": Runtime}
_PROMPTS: Panels = {"Prompts": TunePromptsConfig, **_COMPRESS}
_LORA: Panels = {"LoRA": TuneLoraConfig, **_COMPRESS}
_PTUNE: Panels = {"Virtual tokens": TunePtuneConfig, **_COMPRESS}
_PROBE: Panels = {"Probes": ProbesConfig, **_COMPRESS}
_REGIMES: Panels = {"Comparison": RegimesConfig, "Tuning": TunePromptsConfig, "LoRA": TuneLoraConfig, **_COMPRESS}
_EVALUATE: Panels = {
    "Evaluation": EvaluateConfig,
    "Tuning": TunePromptsConfig,
    "LoRA": TuneLoraConfig,
    "Virtual tokens": TunePtuneConfig,
    **_COMPRESS,
}


@with_options(_COMPRESS)
def compress(values: Mapping[str, Any], runs: RUNS_OPTION = DEFAULT_RUNS, as_json: JSON_OPTION = False) -> None:
    _pull(compress_stage, values, runs, as_json)


@with_options(_PROMPTS)
def tune_prompts(values: Mapping[str, Any], runs: RUNS_OPTION = DEFAULT_RUNS, as_json: JSON_OPTION = False) -> None:
    _pull(tune_prompts_stage, values, runs, as_json)


@with_options(_LORA)
def tune_lora(values: Mapping[str, Any], runs: RUNS_OPTION = DEFAULT_RUNS, as_json: JSON_OPTION = False) -> None:
    _pull(tune_lora_stage, values, runs, as_json)


@with_options(_PTUNE)
def tune_ptune(values: Mapping[str, Any], runs: RUNS_OPTION = DEFAULT_RUNS, as_json: JSON_OPTION = False) -> None:
    _pull(tune_ptune_stage, values, runs, as_json)


@with_options(_EVALUATE)
def evaluate(values: Mapping[str, Any], runs: RUNS_OPTION = DEFAULT_RUNS, as_json: JSON_OPTION = False) -> None:
    _pull(evaluate_stage, values, runs, as_json)


@with_options(_PROBE)
def probe(values: Mapping[str, Any], runs: RUNS_OPTION = DEFAULT_RUNS, as_json: JSON_OPTION = False) -> None:
    _pull(probe_stage, values, runs, as_json)


@with_options(_REGIMES)
def regimes(values: Mapping[str, Any], runs: RUNS_OPTION = DEFAULT_RUNS, as_json: JSON_OPTION = False) -> None:
    _pull(regimes_stage, values, runs, as_json)


def _pull(build: Callable[[Mapping[str, Any]], Any], values: Mapping[str, Any], runs: Path, as_json: bool) -> None:
    stage = build(values)
    runner = make_runner(values, runs)
    for text in notes(stage):
        runner.reporter.note(text)
    outcome = runner.pull(stage)
    if as_json:
        print_json(outcome.as_json())
    else:
        _print_outcome(outcome)


def _print_outcome(outcome: Outcome) -> None:
    out = console()
    for name, value in flat(outcome.artifact.metrics):
        out.print(f"{name:<44} {value}", markup=False)
    out.print(f"{'path':<44} {outcome.artifact.path}", markup=False, soft_wrap=True)
