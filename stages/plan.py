"""A plan: a TOML file with a grid of models x compressions x recoveries x tasks x seeds -> the stages that it asks for.

name = "first-look"               # links in runs/named/first-look; default: the file's name

[defaults]                        # for every cell; options are written as on the command line, `_` for `-`
budget = 2_000_000

[grid]                            # one cell per combination
models = ["lab", "lab-opt"]
compressions = [{ method = "gptq", bits = 3 }, { method = "sparsegpt", sparsity = 0.5 }]
recoveries = ["none", "idp", { recovery = "lora", rank = 4 }]
tasks = ["lab_qa", "lab_mc"]
seeds = [0, 1, 2]

[[exclude]]                       # leaves out the cells in which all of this is so
model = "lab-opt"
recovery = ["prompt", "idp"]

[[include]]                       # one more cell
method = "gptq"
bits = 2

[conjecture]                      # also: forgotten or displaced? For each model, compression and tasks of the grid
seeds = [0, 1, 2]                 # default: the grid's; further options as in [defaults]

[diagnostics.probe]               # also: this diagnostic of each model and compression, and tasks and seeds where it has them;
penalties = [0.01, 0.1]           # its options, and as in [defaults]; one that compares repairs takes the grid's
"""

from __future__ import annotations

import difflib
import itertools
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from llmrepair.pipeline.errors import Problem, RequestError
from llmrepair.pipeline.graph import Explain
from llmrepair.pipeline.reading import reason, utf8_text
from llmrepair.pipeline.stage import Runtime, Stage
from llmrepair.pipeline.toml_lines import Place, line_of
from llmrepair.stages.conjecture.stage import Conjecture, ConjectureConfig
from llmrepair.stages.diagnostics import DIAGNOSTICS
from llmrepair.stages.evaluate.stage import Evaluate
from llmrepair.stages.request import (
    EVALUATION,
    MAKERS,
    SET_BY_CONJECTURE,
    Values,
    configs_of,
    conjecture_stage,
    evaluate_stage,
    options_of,
)

AXES = {"models": "model", "compressions": "method", "recoveries": "recovery", "tasks": "tasks", "seeds": "seed"}
"""Axis of the grid -> the option that an entry stands for if it is no table."""
OPTIONS = frozenset(name for config in configs_of(EVALUATION) for name in config.model_fields)
_TABLES = ("name", "defaults", "grid", "include", "exclude", "conjecture", "diagnostics")
_CONJECTURE_OPTIONS = (OPTIONS | ConjectureConfig.model_fields.keys()) - SET_BY_CONJECTURE
_AnyStage = TypeVar("_AnyStage", bound=Stage)
MOST_CELLS = 10_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Plan:
    """What a file asks for."""

    name: str
    evaluations: list[Evaluate]
    conjectures: list[Conjecture]
    diagnostics: list[Stage]
    trusts_remote_code: bool
    notes: list[str]
    explain: Explain
    """Puts the line and key in front of what is wrong with one of the stages."""

    @property
    def targets(self) -> list[Stage]:
        """All that it leads to, inputs too: what was removed is missed by reports and exports, so it is made again."""
        return [stage for asked in (*self.evaluations, *self.conjectures, *self.diagnostics) for stage in _with_inputs(asked)]


@dataclass(frozen=True)
class Setting:
    """An option's value and where it was written."""

    value: Any
    place: Place | str
    """Of the plan; an option of the command line by its name."""


Options = dict[str, Setting]


@dataclass(frozen=True)
class Cell:
    """The options of one evaluation, or conjecture test."""

    options: Options
    place: Place


def read_plan(path: Path, given: Values = MappingProxyType({}), most_cells: int = MOST_CELLS) -> Plan:
    """Reads a plan.

    Args:
        given: options of the command line, in place of what the plan says of them.
        most_cells: that its grid may have.

    Raises:
        RequestError: with all that is wrong with it, by line and key.
    """
    return _Reader(path, given, most_cells).plan()


class _Reader:
    """Collects what is wrong on the way, so that it can all be told at once."""

    def __init__(self, path: Path, given: Values, most_cells: int):
        self._path, self._most_cells = path, most_cells
        self._given = {name: Setting(value, f"--{name.replace('_', '-')}") for name, value in given.items()}
        self._problems: dict[Problem, int] = {}  # -> line
        hint = "give a TOML file; see https://toml.io for how it is written"
        self._text = utf8_text(path, hint)
        try:
            self._document = tomllib.loads(self._text)
        except (ValueError, RecursionError) as error:
            raise RequestError(Problem(f"{path} is no TOML: {reason(error)}", hint)) from error

    def plan(self) -> Plan:
        document = self._document
        self._check_names(document, _TABLES, ())
        name = document.get("name", _folder_name(self._path.stem))
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            self._wrong(("name",), f"`{name}` is no name for a folder", "give letters, digits, `.`, `_` and `-`")
        cells, notes = self._without_excluded(list(self._grid()))
        tests, _ = self._without_excluded(list(self._conjectures()))
        included = enumerate(self._tables("include"))
        cells += [self._cell(("include", index), self._defaults(), options) for index, options in included]
        looks = {name: self._without_excluded(list(self._diagnostics(name)))[0] for name in self._diagnostics_asked()}
        self._stop_if_wrong()
        every = [*cells, *tests, *itertools.chain(*looks.values())]
        if not every:
            self._wrong((), "the plan asks for nothing", "give it a table [grid], or [[include]] a cell")
        evaluations, conjectures = self._stages(evaluate_stage, cells), self._stages(conjecture_stage, tests)
        diagnostics = [pair for name, of_name in looks.items() for pair in self._stages(MAKERS[name], of_name)]
        self._stop_if_wrong()
        trusts = any(c.options["trust_remote_code"].value for c in every if "trust_remote_code" in c.options)
        explain = self._explainer([*evaluations, *conjectures, *diagnostics])
        asked = [each for each, _ in evaluations], [each for each, _ in conjectures], [each for each, _ in diagnostics]
        return Plan(self._run_name(name), *asked, trusts, notes, explain)

    def _run_name(self, name: str) -> str:
        """Of the plan and what was given in place of what it says: each model has a run, which `gc` keeps."""
        return "-".join([name, *(_folder_name(str(setting.value)) for setting in self._given.values())])

    def _explainer(self, asked: Sequence[tuple[Stage, Cell]]) -> Explain:
        cells = {id(stage): cell for target, cell in asked for stage in _with_inputs(target)}

        def explain(stage: Stage, problem: Problem) -> Problem:
            return self._placed(cells[id(stage)], problem)[0]

        return explain

    def _defaults(self) -> Options:
        return self._options(self._document.get("defaults", {}), ("defaults",))

    def _cell(self, place: Place, *parts: Options) -> Cell:
        return Cell(_joined((*parts, self._given)), place)

    def _grid(self) -> Iterator[Cell]:
        if "grid" not in self._document:
            return
        axes = self._axes()
        self._check_size(axes)
        defaults = self._defaults()
        self._check_overlaps(axes)
        for combination in itertools.product(*axes.values()):
            yield self._cell(("grid",), defaults, *combination)

    def _axes(self) -> dict[str, list[Options]]:
        grid = self._document.get("grid", {})
        if not self._is_table(grid, ("grid",)):
            return {}
        self._check_names(grid, tuple(AXES), ("grid",))
        asked = [axis for axis, option in AXES.items() if axis in grid and option not in self._given]
        return {axis: list(self._axis(grid[axis], axis)) for axis in asked}

    def _conjectures(self) -> Iterator[Cell]:
        """One test for each model, compression and tasks of the grid, over its seeds; what is not compressed has none."""
        if "conjecture" not in self._document:
            return
        axes, place = self._axes(), ("conjecture",)
        given = self._options(self._document["conjecture"], place, _CONJECTURE_OPTIONS)
        seeds = [options["seed"].value for options in axes.get("seeds", [])]
        first = {name: setting for name, setting in self._defaults().items() if name in _CONJECTURE_OPTIONS}
        first |= {"seeds": Setting(seeds, ("grid", "seeds"))} if seeds else {}
        for combination in itertools.product(*(axes[axis] for axis in ("models", "compressions", "tasks") if axis in axes)):
            cell = self._cell(place, first, *combination, given)
            if "method" not in cell.options or cell.options["method"].value != "none":
                yield cell

    def _diagnostics_asked(self) -> list[str]:
        asked, place = self._document.get("diagnostics", {}), ("diagnostics",)
        if not self._is_table(asked, place):
            return []
        self._check_names(asked, tuple(DIAGNOSTICS), place)
        return [name for name in asked if name in DIAGNOSTICS]

    def _diagnostics(self, name: str) -> Iterator[Cell]:
        """One for each model and compression of the grid, and for its tasks and seeds where these are options of it."""
        diagnostic, axes, place = DIAGNOSTICS[name], self._axes(), ("diagnostics", name)
        known = options_of(diagnostic)
        given = self._options(self._document["diagnostics"][name], place, known)
        first = {option: setting for option, setting in self._defaults().items() if option in known}
        if "recoveries" in known:
            first |= self._compared(axes.pop("recoveries", []), known)
        varied = [entries for axis, entries in axes.items() if AXES[axis] in known - given.keys()]
        for combination in itertools.product(*varied):
            cell = self._cell(place, first, *combination, given)
            if "method" not in cell.options or cell.options["method"].value != "none" or not diagnostic.needs_compression:
                yield cell

    def _compared(self, recoveries: Sequence[Options], known: frozenset[str]) -> Options:
        """The grid's recoveries side by side, with the options that stand beside them."""
        names = [each["recovery"].value for each in recoveries if "recovery" in each]
        beside = {name: setting for name, setting in _joined(recoveries).items() if name in known}
        return beside | {"recoveries": Setting([name for name in names if name != "none"], ("grid", "recoveries"))}

    def _axis(self, entries: Any, axis: str) -> Iterator[Options]:
        if not isinstance(entries, list) or not entries:
            self._wrong(("grid", axis), "an axis of the grid is a list", f"write `{axis} = [...]` with at least one entry")
            return
        for index, entry in enumerate(entries):
            place: Place = ("grid", axis, index)
            if isinstance(entry, dict):
                yield self._options(entry, place)
            else:
                yield {AXES[axis]: Setting(entry, place)}

    def _check_size(self, axes: Mapping[str, list[Options]]) -> None:
        if (cells := prod(map(len, axes.values()))) > self._most_cells:
            sizes = " x ".join(f"{len(entries):,} {axis}" for axis, entries in axes.items())
            hint = f"take some out; if all are meant, give --max-cells {cells}"
            self._wrong(("grid",), f"the grid has {cells:,} cells ({sizes}), and {self._most_cells:,} are the most", hint)
            self._stop_if_wrong()

    def _check_overlaps(self, axes: Mapping[str, list[Options]]) -> None:
        set_by: dict[str, str] = {}
        for axis, entries in axes.items():
            for option, setting in ((option, setting) for options in entries for option, setting in options.items()):
                if set_by.setdefault(option, axis) != axis:
                    hint = "give an option in one axis only"
                    self._wrong(setting.place, f"`{option}` is also set by `{set_by[option]}`", hint)

    def _tables(self, name: str) -> Iterator[Options]:
        tables = self._document.get(name, [])
        if not isinstance(tables, list):
            self._wrong((name,), f"`{name}` is a list of tables", f"write [[{name}]]")
            return
        for index, table in enumerate(tables):
            yield self._options(table, (name, index))

    def _without_excluded(self, cells: list[Cell]) -> tuple[list[Cell], list[str]]:
        notes = []
        for index, condition in enumerate(self._tables("exclude")):
            left = [cell for cell in cells if not _matches(cell.options, condition)]
            if len(left) == len(cells):
                notes.append(f"{self._path}:{line_of(self._text, ('exclude', index))}: no cell is excluded by this")
            cells = left
        return cells, notes

    def _options(self, table: Any, place: Place, known: frozenset[str] = OPTIONS) -> Options:
        if not self._is_table(table, place):
            return {}
        self._check_names(table, tuple(sorted(known)), place)
        return {name: Setting(value, (*place, name)) for name, value in table.items()}

    def _is_table(self, value: Any, place: Place) -> bool:
        if not isinstance(value, dict):
            self._wrong(place, f"`{value}` is no table", "write options as `name = value`")
        return isinstance(value, dict)

    def _check_names(self, table: Mapping[str, Any], known: tuple[str, ...], place: Place) -> None:
        for name in [name for name in table if name not in known]:
            if name.replace("-", "_") in Runtime.model_fields:
                hint = f"a plan says what to compute and not how: give --{name.replace('_', '-')} to `llmrepair run`"
            else:
                near = difflib.get_close_matches(name.replace("-", "_"), known, n=1)
                hint = f"did you mean `{near[0]}`?" if near else f"give one of {', '.join(known)}"
            self._wrong((*place, name), f"there is no `{name}` here", hint)

    def _stages(self, make: Callable[[Values], _AnyStage], cells: Sequence[Cell]) -> list[tuple[_AnyStage, Cell]]:
        stages = []
        for cell in cells:
            try:
                stages.append((make({name: setting.value for name, setting in cell.options.items()}), cell))
            except RequestError as error:
                for problem in error.problems:
                    placed, line = self._placed(cell, problem)
                    self._problems[placed] = line
        return stages

    def _placed(self, cell: Cell, problem: Problem) -> tuple[Problem, int]:
        """A problem with line and key of the option that it is about, and that line; 0 of one of the command line."""
        setting = cell.options.get(problem.option or "")
        return self._at(setting.place if setting is not None else cell.place, problem.message, problem.hint)

    def _at(self, place: Place | str, message: str, hint: str) -> tuple[Problem, int]:
        if isinstance(place, str):
            return Problem(f"{place}: {message}", hint), 0
        line = line_of(self._text, place)
        key = f"`{_dotted(place)}`: " if place else ""
        return Problem(f"{self._path}:{line}: {key}{message}", hint), line

    def _wrong(self, place: Place | str, message: str, hint: str) -> None:
        problem, line = self._at(place, message, hint)
        self._problems[problem] = line

    def _stop_if_wrong(self) -> None:
        if self._problems:
            raise RequestError(*sorted(self._problems, key=lambda problem: self._problems[problem]))


def _with_inputs(stage: Stage) -> Iterator[Stage]:
    yield stage
    for upstream in stage.inputs().values():
        yield from _with_inputs(upstream)


def _joined(parts: Sequence[Options]) -> Options:
    """Options of which the later ones count."""
    return {name: setting for options in parts for name, setting in options.items()}


def _matches(cell: Options, condition: Options) -> bool:
    """Whether the plan sets, in this cell, every option to what the condition says, or to one of a list."""
    return all(
        name in cell and cell[name].value in (wanted.value if isinstance(wanted.value, list) else [wanted.value])
        for name, wanted in condition.items()
    )


def _folder_name(stem: str) -> str:
    """A file's name as a folder of links is called: without spaces and whatever else a shell would trip over."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._") or "plan"


def _dotted(place: Place) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")
