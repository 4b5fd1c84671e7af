"""Pages of commands for mkdocs: options come from the code, so they are never out of date."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from llmrepair.cli.main import COMMANDS, _load

_FOLDER, _INDEX = "commands", "commands/index.md"
_DEFAULT = re.compile(r"\s*\[default: (.*)\]$")
_VISIBLE = [name for name, entry in COMMANDS.items() if not entry.hidden]


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Puts a page for each command into the navigation."""
    section = next(each["Commands"] for each in config.nav or [] if isinstance(each, dict) and "Commands" in each)
    section += [{name: f"{_FOLDER}/{name}.md"} for name in _VISIBLE]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """A page for each command that has none that was written."""
    for name in _VISIBLE:
        if files.get_file_from_path(f"{_FOLDER}/{name}.md") is None:
            files.append(File.generated(config, f"{_FOLDER}/{name}.md", content=f"# {name}\n\n{COMMANDS[name].help}\n"))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Adds the options to the page of a command, and all commands to their index."""
    place = PurePosixPath(page.file.src_uri)
    if place.as_posix() == _INDEX:
        return f"{markdown}\n\n{_table(('command', ''), _commands())}\n"
    if place.parent.as_posix() != _FOLDER:
        return markdown
    return "\n\n".join([markdown, *_sections(place.stem, _load(place.stem))]) + "\n"


def _commands() -> Iterator[list[str]]:
    for name in _VISIBLE:
        yield [f"[`{name}`]({name}.md)", _plain(COMMANDS[name].help)]


def _sections(name: str, command: Any) -> Iterator[str]:
    """How a command is called and its options by panel; of a group, those of each of its commands."""
    if hasattr(command, "commands"):
        for each, inner in command.commands.items():
            yield f"## {name} {each}\n\n{_plain(inner.help or '')}"
            yield from _options(f"{name} {each}", inner, "###")
        return
    yield "## Usage"
    yield from _options(name, command, "##")


def _options(name: str, command: Any, heading: str) -> Iterator[str]:
    shown = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
    arguments = [parameter for parameter in shown if parameter.param_type_name == "argument"]
    panels: dict[str, list[Any]] = {}
    for option in (parameter for parameter in shown if parameter.param_type_name == "option"):
        panels.setdefault(option.rich_help_panel or "Options", []).append(option)
    usage = " ".join(["llmrepair", name, *map(_argument, arguments), *["[OPTIONS]"] * bool(panels)])
    yield f"```text\n{usage}\n```"
    if arguments:
        yield _table(("argument", ""), [[f"`{each.metavar or each.name.upper()}`", _plain(each.help)] for each in arguments])
    for panel, options in panels.items():
        yield f"{heading} {panel}"
        yield _table(("option", "", "default"), map(_row, options))


def _argument(argument: Any) -> str:
    name = f"{argument.metavar or argument.name.upper()}{'...' * (argument.nargs == -1)}"
    return name if argument.required else f"[{name}]"


def _row(option: Any) -> list[str]:
    text = (option.help or "").replace("\\[", "[")
    told = _DEFAULT.search(text)
    default = told[1] if told else _shown(option.default)
    variable = f"; or the variable `{option.envvar}`" if option.envvar else ""
    metavar = "" if option.is_flag else f" {option.metavar or option.name.upper()}"
    return [f"`{option.opts[0]}{metavar}`", _plain(_DEFAULT.sub("", text)) + variable, f"`{default}`" if default else ""]


def _shown(default: Any) -> str:
    return "" if default in (None, False) or callable(default) else str(default)


def _plain(text: str) -> str:
    """Text of the help, which is no Markdown but for its code."""
    parts = text.replace("\\[", "[").split("`")
    parts[::2] = [re.sub(r"([*_<\[|])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)


def _table(heads: tuple[str, ...], rows: Any) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
