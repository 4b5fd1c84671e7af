"""Rules that no single module can keep: which way imports point, and that every option has one role."""

from __future__ import annotations

import re

import pytest
from pydantic import BaseModel

from llmrepair.pipeline.stage import Runtime, StageConfig
from llmrepair.stages.diagnostics import DIAGNOSTICS
from llmrepair.stages.repairs import REPAIRS, TUNINGS
from llmrepair.stages.request import TEST, configs_of
from tests.architecture import ROOT, arrows, floors, modules, room, rooms

ALLOWED = {
    "api": {"stages"},
    "cli": {"stages", "pipeline", "lab"},
    "stages": {"models", "pipeline", "lab"},
    "lab": set[str](),
    "models": set[str](),
    "pipeline": set[str](),
}
SHARED = {"sources", "statistics", "drawing", "checkpoints", "results"}
"""Rooms of `stages` that are there to be shared."""
FACES = {"base", "items", "config", "stage", "files", "options", "placed", "headline", "roles", "verdict"}
"""Modules of a stage's room that others may know; those of its sub-folders too. All others are its inside."""
CONFIGS: list[type[StageConfig]] = [
    each
    for each in dict.fromkeys(
        [*configs_of(TEST), *(each.config() for each in (*TUNINGS.values(), *DIAGNOSTICS.values()))]
        + [repair.options() for repair in REPAIRS.values()]
    )
    if issubclass(each, StageConfig)
]


@pytest.mark.parametrize("package", list(ALLOWED))
def test_imports_point_one_way(package: str) -> None:
    found = {room(other).partition("/")[0] for module in modules() for other in arrows()[module] if room(module) == package}
    assert found <= ALLOWED[package] | {package}


def test_no_module_is_above_itself() -> None:
    floors(arrows())


def test_there_are_few_floors() -> None:
    assert max(floors(rooms()).values()) <= 10


def test_the_picture_in_contributing_is_the_house() -> None:
    picture, level, drawn = re.search(r"```text\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL), 0, {}
    assert picture is not None
    for line in picture[1].splitlines():
        level = int(line[0]) if line[0].isdigit() else level
        drawn |= {name.partition("/")[0]: level for name in re.findall(r"\S+/(?=\s|$)|stages/\S*", line)}
    assert drawn == {name.removeprefix("stages/"): height for name, height in floors(rooms()).items()}


def test_stages_has_folders_and_few_files() -> None:
    files = {path.name for path in (ROOT / "stages").glob("*.py")} - {"__init__.py"}
    assert files == {"request.py", "plan.py", "loaded.py", "running.py", "workers.py"}


def test_nothing_knows_the_inside_of_another_stage() -> None:
    strangers = {
        (module, other)
        for module, used in arrows().items()
        for other in used
        if room(module).startswith("stages/") and room(other).startswith("stages/") and room(other) != room(module)
        if room(other).removeprefix("stages/") not in SHARED
        if other.rpartition(".")[2] not in FACES and modules()[other].name != "__init__.py"
    }
    assert not strangers


@pytest.mark.parametrize("config", CONFIGS)
def test_every_field_has_exactly_one_role(config: type[StageConfig]) -> None:
    fields = set(config.model_fields)
    assert config.references <= fields
    assert not fields & set(Runtime.model_fields)
    identity = set(config().identity())
    assert identity == fields - config.references - config().without_effect() - config().at_default()


@pytest.mark.parametrize("config", [*CONFIGS, Runtime])
def test_every_field_has_a_default_and_a_description(config: type[BaseModel]) -> None:
    config()
    assert all(field.description for field in config.model_fields.values())
