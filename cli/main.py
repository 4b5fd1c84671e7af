"""Assembles the command line. Every way for a command to end is here."""

from __future__ import annotations

import atexit
import difflib
import errno
import gc
import importlib
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from llmrepair import __version__
from llmrepair.cli.output import print_problems
from llmrepair.pipeline.errors import (
    INTERRUPTED,
    LlmrepairError,
    Problem,
    RequestError,
    WorkError,
    disk_is_full,
    says_disk_is_full,
)
from llmrepair.pipeline.reading import reason
from llmrepair.stages.diagnostics import DIAGNOSTICS
from llmrepair.stages.repairs import MEASURED, TUNINGS


class Entry(NamedTuple):
    """Where a command is; its module is imported when it is run, so that `--help` answers at once."""

    module: str
    function: str
    help: str
    stage: str | None = None
    """Of a command that makes one stage: the function is told which."""
    hidden: bool = False


def _stage(name: str, words: str, hidden: bool = False) -> Entry:
    return Entry("stage_commands", "command", words, name, hidden)


_EVAL_HELP = "Score the compressed model, with or without a repair, on lm-eval tasks."
COMMANDS = {
    "demo": Entry("demo", "demo", "Compress, repair, evaluate and report the embedded model."),
    "compress": _stage("compress", "Quantise or prune a model and save the checkpoint."),
    "control": _stage("control", "Make a model whose truth is known, in the place of a compressed one."),
    **{tuning.name: _stage(tuning.name, tuning.help) for tuning in TUNINGS.values()},
    **{name: _stage(name, "Measure what was tuned, as `eval` does by itself.", hidden=True) for name in MEASURED},
    "eval": _stage("evaluate", _EVAL_HELP),
    "evaluate": _stage("evaluate", _EVAL_HELP, hidden=True),
    "conjecture": Entry("conjecture", "conjecture", "Test whether what compression took was forgotten, or only displaced."),
    **{diagnostic.name: _stage(diagnostic.name, diagnostic.help) for diagnostic in DIAGNOSTICS.values()},
    "ask": Entry("ask", "ask", "Ask a compressed or repaired model a question, and see how sure it is of each token."),
    "report": Entry("report", "report", "Print a table of all finished evaluations of a model, and write it as HTML."),
    "export": Entry("export", "export", "Write a model with its repair for transformers, peft and vLLM, and a model card."),
    "run": Entry("plan_commands", "run", "Compute a plan: a grid of models, compressions, recoveries, tasks and seeds."),
    "plan": Entry("plan_commands", "plan", "Show the stages of a plan: which are cached, and why the others are not."),
    "ls": Entry("store_commands", "list_artifacts", "List finished artifacts."),
    "show": Entry("store_commands", "show", "Show what an artifact was made from and went into, and what was measured."),
    "why": Entry("store_commands", "why", "Say in words why two artifacts have different keys."),
    "rm": Entry("store_commands", "remove", "Remove an artifact."),
    "gc": Entry("store_commands", "collect_garbage", "Remove what no named run leads to; says first what would go."),
    "verify": Entry("store_commands", "verify", "Read all artifacts and put aside those whose checksums are wrong."),
    "lab": Entry("lab", "lab_app", "Make the embedded models and their task data again."),
}


class _LazyGroup(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, name: str) -> TyperCommand | None:
        """A stand-in that is enough for the list of commands."""
        entry = COMMANDS.get(name)
        return TyperCommand(name, help=entry.help, hidden=entry.hidden) if entry is not None else None

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, _load(name) if name is not None else command, rest


def _load(name: str) -> Any:
    entry = COMMANDS[name]
    target = getattr(importlib.import_module(f"llmrepair.cli.{entry.module}"), entry.function)
    if entry.stage is not None:
        target = target(entry.stage)
    if isinstance(target, typer.Typer):
        return typer.main.get_command(target)
    single = typer.Typer(add_completion=False, context_settings=_HELP)
    single.command(name, help=entry.help)(target)
    return typer.main.get_command(single)


TRACEBACK = "--traceback"
_HELP = {"help_option_names": ["-h", "--help"]}
app = typer.Typer(
    cls=_LazyGroup,
    add_completion=False,
    context_settings=_HELP,
    help="Compress a language model, repair it, and find out whether what compression took was forgotten or only displaced.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    traceback: Annotated[
        bool, typer.Option(TRACEBACK, help="With an error, show where it arose; may stand anywhere, or set LLMREPAIR_DEBUG=1.")
    ] = False,
) -> None:
    """Makes a group of what has no command of its own."""


def main() -> None:
    atexit.register(gc.freeze)  # or Python looks for garbage among all that the libraries made, a second for nothing
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Runs a command line; returns the exit code."""
    as_json = "--json" in arguments
    shows_traceback = TRACEBACK in arguments or bool(os.environ.get("LLMREPAIR_DEBUG"))
    arguments = [argument for argument in arguments if argument != TRACEBACK]  # which may stand anywhere
    try:
        code = typer.main.get_command(app).main(arguments or ["--help"], prog_name="llmrepair", standalone_mode=False) or 0
    except Exception as error:
        if shows_traceback:
            traceback.print_exc()
        problems, code = _told(error)
        print_problems(problems, as_json)
        return code
    if code == INTERRUPTED:
        print("\ninterrupted; what is finished is kept, and the same command goes on from there", file=sys.stderr)
    return code


def _told(error: Exception) -> tuple[Sequence[Problem], int]:
    """What ended a command, and its exit code."""
    if isinstance(error, LlmrepairError):
        return error.problems, error.exit_code
    if isinstance(error, typer.TyperException):
        return [_usage_problem(error)], RequestError.exit_code
    if says_disk_is_full(error):
        return [disk_is_full("the command")], WorkError.exit_code
    if isinstance(error, OSError) and error.filename is not None and error.errno in _REFUSED:
        hint = "choose a folder that you may write to with --runs DIR, or another place for the file"
        return [Problem(f"`{error.filename}` cannot be used: {error.strerror}", hint)], RequestError.exit_code
    message = f"llmrepair failed where it should not have ({reason(error)}): this is a bug"
    return [Problem(message, f"report it with the traceback in {_written_traceback()}")], WorkError.exit_code


_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG)
"""What a file system says of places that a command was told to use."""


def _written_traceback() -> str:
    """Where the traceback of the error that is being handled lies."""
    with tempfile.NamedTemporaryFile("w", prefix="llmrepair-", suffix=".txt", encoding="utf-8", delete=False) as log:
        traceback.print_exc(file=log)
    return log.name


def _usage_problem(error: typer.TyperException) -> Problem:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "llmrepair"
    message = error.format_message().rstrip(".")
    if context is not None and (unknown := re.fullmatch("No such command '(.+)'", message)):
        near = difflib.get_close_matches(unknown[1], context.command.list_commands(context), n=1)
        if near:
            return Problem(message, f"did you mean `{command} {near[0]}`?")
    return Problem(message, f"see `{command} --help`")
