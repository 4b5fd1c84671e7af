"""Command-line options made from the stages' configs, so that an option, its default and its help are written once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from llmrepair.pipeline.errors import Problem, RequestError
from llmrepair.pipeline.stage import Runtime

Panels = Mapping[str, Sequence[type[BaseModel]]]

DEFAULT_RUNS = Path("runs")


def _folder(given: str | Path) -> Path:
    """Without a name it would be the current folder, among whatever is there."""
    if not str(given):
        raise RequestError(Problem("an empty text is no folder of artifacts", "give --runs DIR, or leave it out"))
    return Path(given)


RUNS_OPTION = Annotated[
    Path,
    typer.Option(
        "--runs",
        envvar="LLMREPAIR_RUNS",
        help="folder of artifacts",
        metavar="PATH",
        parser=_folder,
        rich_help_panel="Running",
    ),
]
ANY_VERSION_OPTION = Annotated[
    bool,
    typer.Option("--any-version", help=str(Runtime.model_fields["any_version"].description), rich_help_panel="Running"),
]
JSON_OPTION = Annotated[
    bool, typer.Option("--json", help="print one JSON object on standard output", rich_help_panel="Running")
]


def with_options(panels: Panels) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command an option for each field of each config; the command receives those that were given, as `values`.

    Values stay strings: the configs read them, so that all that is wrong is told at once and in one way.

    Args:
        panels: heading of a group of options -> the configs whose fields they are. A field that several configs have
            becomes one option.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        parameters = _parameters(panels)

        def wrapper(**arguments: Any) -> None:
            given = {name: arguments.pop(name) for name in parameters}
            command(values={name: value for name, value in given.items() if value is not None}, **arguments)

        own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "values"]
        everything = [*own, *parameters.values()]
        wrapper.__signature__ = inspect.Signature(everything)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in everything}
        return wrapper

    return decorate


def _parameters(panels: Panels) -> dict[str, inspect.Parameter]:
    parameters: dict[str, inspect.Parameter] = {}
    every = [(panel, config) for panel, configs in panels.items() for config in configs]
    for panel, config in every:
        for name, field in config.model_fields.items():
            if name not in parameters:
                defaults = [other.model_fields[name].default for other in _last(name, [each for _, each in every])]
                parameters[name] = _parameter(name, field, panel, list(dict.fromkeys(defaults)))
    return parameters


def _last(name: str, configs: Sequence[type[BaseModel]]) -> list[type[BaseModel]]:
    """Those with a field, but for what others of them extend."""
    having = [config for config in configs if name in config.model_fields]
    return [one for one in having if not any(one is not other and issubclass(other, one) for other in having)]


def _parameter(name: str, field: FieldInfo, panel: str, defaults: list[Any]) -> inspect.Parameter:
    is_flag = field.annotation is bool
    shown = " or ".join(_shown(default) for default in defaults if default not in (None, PydanticUndefined, False))
    described = (field.description or "").replace("[", "\\[")  # which opens markup
    option = typer.Option(
        f"--{name.replace('_', '-')}",
        help=f"{described}  \\[default: {shown}]" if shown else described,
        metavar=None if is_flag else _metavar(field),
        show_default=False,
        rich_help_panel=panel,
    )
    kind: Any = Annotated[bool | None if is_flag else str | None, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)


def _shown(default: Any) -> str:
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)


def _metavar(field: FieldInfo) -> str:
    if field.annotation in (int, int | None):
        return "N"
    if field.annotation is float:
        return "X"
    if field.annotation in (Path, Path | None):
        return "DIR"
    choices = get_args(field.annotation)
    return "|".join(choices) if choices and all(isinstance(choice, str) for choice in choices) else "TEXT"
