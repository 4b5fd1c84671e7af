"""Rules that no single module can keep: which way imports point, and that every option has one role."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmrepair.pipeline.stage import Runtime, StageConfig
from llmrepair.stages.compress import CompressConfig
from llmrepair.stages.conjecture import ConjectureConfig
from llmrepair.stages.control import ControlConfig
from llmrepair.stages.evaluate import EvaluateConfig
from llmrepair.stages.probe import ProbesConfig
from llmrepair.stages.regimes import RegimesConfig
from llmrepair.stages.tune_lora import TuneLoraConfig
from llmrepair.stages.tune_prompts import TunePromptsConfig
from llmrepair.stages.tune_ptune import TunePtuneConfig

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = {
    "api": {"models", "stages"},
    "cli": {"cli", "stages", "pipeline", "lab"},
    "stages": {"stages", "models", "pipeline", "lab"},
    "lab": {"lab", "models"},
    "models": {"models"},
    "pipeline": {"pipeline"},
}
CONFIGS = (
    CompressConfig,
    ControlConfig,
    TunePromptsConfig,
    TuneLoraConfig,
    TunePtuneConfig,
    EvaluateConfig,
    ConjectureConfig,
    ProbesConfig,
    RegimesConfig,
)


def imported_packages(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        yield from (name.split(".")[1] for name in names if name.startswith("llmrepair."))


@pytest.mark.parametrize("package", list(ALLOWED))
def test_imports_point_one_way(package: str) -> None:
    found = {name for path in (ROOT / package).rglob("*.py") for name in imported_packages(path)}
    assert found <= ALLOWED[package]


@pytest.mark.parametrize("config", CONFIGS)
def test_every_field_has_exactly_one_role(config: type[StageConfig]) -> None:
    fields = set(config.model_fields)
    assert config.references <= fields
    assert not fields & set(Runtime.model_fields)
    identity = set(config().identity())
    assert identity | config.references == fields
    assert not identity & config.references


@pytest.mark.parametrize("config", CONFIGS)
def test_every_field_has_a_default_and_a_description(config: type[StageConfig]) -> None:
    config()
    assert all(field.description for field in config.model_fields.values())
