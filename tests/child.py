"""Several command lines in one child process, and checkpoints that the process that wrote them loads again."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
Said = tuple[int, str, str]
"""Exit code, standard output and standard error."""


def run_in_child(command_lines: Mapping[str, Sequence[object]], folder: Path, **environment: str) -> dict[str, Said]:
    """Runs named command lines one after another in one process, which imports what is heavy once.

    Args:
        command_lines: `{NAME}` in an argument is the key that the command line of this name, with --json, answered.
        folder: where it runs.
    """
    lines = {name: [str(argument) for argument in line] for name, line in command_lines.items()}
    script = f"import sys; sys.path.append({str(ROOT)!r}); from tests.child import main; main(sys.argv[1])"
    command = [sys.executable, "-c", script, json.dumps(lines)]
    done = subprocess.run(command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, check=True)
    return {name: tuple(said) for name, said in json.loads(done.stdout.splitlines()[-1]).items()}


def main(command_lines: str) -> None:
    from llmrepair.cli.main import run
    from llmrepair.stages.checkpoints import reload

    reload.subprocess = HERE  # type: ignore[assignment]
    said: dict[str, Said] = {}
    for name, arguments in json.loads(command_lines).items():
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run([_with_keys(argument, said) for argument in arguments])
        said[name] = (code, out.getvalue(), err.getvalue())
    sys.stdout.write(json.dumps(said))


def _with_keys(argument: str, said: Mapping[str, Said]) -> str:
    for name in said:
        if f"{{{name}}}" in argument:
            argument = argument.replace(f"{{{name}}}", json.loads(said[name][1])["key"])
    return argument


def _reload(command: Sequence[str], **_: Any) -> subprocess.CompletedProcess[str]:
    """What the process that loads a checkpoint would answer, from this one."""
    from llmrepair.stages.checkpoints import reload

    try:
        found = reload.main(**json.loads(command[-1]))
    except Exception as error:
        return subprocess.CompletedProcess(command, 1, "", f"{type(error).__name__}: {error}")
    return subprocess.CompletedProcess(command, 0, json.dumps(asdict(found)), "")


HERE = SimpleNamespace(run=_reload)
"""In the place of `subprocess` in `llmrepair.stages.checkpoints.reload`."""
