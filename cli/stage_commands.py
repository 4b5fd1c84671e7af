"""One stage each, and whatever it needs: `compress`, `control`, the tunings, `eval`, `probe`, `regimes`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llmrepair.cli.options import JSON_OPTION, RUNS_OPTION, Panels, with_options
from llmrepair.cli.output import console, flat, print_json
from llmrepair.cli.running import DEFAULT_RUNS, make_runner
from llmrepair.pipeline.stage import Outcome, Runtime, Stage
from llmrepair.stages.compress import CompressConfig
from llmrepair.stages.control import ControlConfig
from llmrepair.stages.evaluate import EvaluateConfig
from llmrepair.stages.graph import (
    compress_stage,
    control_stage,
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
_CONTROL: Panels = {"Control": ControlConfig, **_COMPRESS}
_WEIGHTS: Panels = {"Compression": CompressConfig, "Control": ControlConfig, "Running": Runtime}
_PROMPTS: Panels = {"Prompts": TunePromptsConfig, **_WEIGHTS}
_LORA: Panels = {"LoRA": TuneLoraConfig, **_WEIGHTS}
_PTUNE: Panels = {"Virtual tokens": TunePtuneConfig, **_WEIGHTS}
_PROBE: Panels = {"Probes": ProbesConfig, **_WEIGHTS}
_REGIMES: Panels = {"Comparison": RegimesConfig, "Tuning": TunePromptsConfig, "LoRA": TuneLoraConfig, **_WEIGHTS}
_EVALUATE: Panels = {
    "Evaluation": EvaluateConfig,
    "Tuning": TunePromptsConfig,
    "LoRA": TuneLoraConfig,
    "Virtual tokens": TunePtuneConfig,
    **_WEIGHTS,
}


def _command(build: Callable[[Mapping[str, Any]], Stage], panels: Panels) -> Callable[..., None]:
    """A command that makes one stage."""

    @with_options(panels)
    def command(values: Mapping[str, Any], runs: RUNS_OPTION = DEFAULT_RUNS, as_json: JSON_OPTION = False) -> None:
        _pull(build, values, runs, as_json)

    return command


compress = _command(compress_stage, _COMPRESS)
control = _command(control_stage, _CONTROL)
tune_prompts = _command(tune_prompts_stage, _PROMPTS)
tune_lora = _command(tune_lora_stage, _LORA)
tune_ptune = _command(tune_ptune_stage, _PTUNE)
evaluate = _command(evaluate_stage, _EVALUATE)
probe = _command(probe_stage, _PROBE)
regimes = _command(regimes_stage, _REGIMES)


def _pull(build: Callable[[Mapping[str, Any]], Any], values: Mapping[str, Any], runs: Path, as_json: bool) -> None:
    stage = build(values)
    runner = make_runner(values, runs)
    for text in notes(stage, values):
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
