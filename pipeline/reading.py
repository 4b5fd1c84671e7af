"""Reading what a user has written: whatever a library makes of it, the error is one sentence that names the file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmrepair.pipeline.errors import LlmrepairError, Problem, RequestError, is_out_of_memory, says_disk_is_full

_LONGEST_REASON = 240


@contextmanager
def reading(what: str, hint: str, option: str | None = None) -> Iterator[None]:
    """Nothing but a file, and what is in it, can be wrong in here.

    Args:
        what: the file, as it is told.
        option: of the command line that names it.

    Raises:
        RequestError: for all that is raised.
    """
    try:
        yield
    except LlmrepairError:
        raise
    except BaseException as error:
        if not (isinstance(error, Exception) or _is_panic(error)) or is_out_of_memory(error) or says_disk_is_full(error):
            raise
        raise RequestError(Problem(f"{what} cannot be read: {reason(error)}", getattr(error, "hint", hint), option)) from error


def read_object(path: Path, what: str, hint: str, option: str | None = None) -> dict[str, Any]:
    """The JSON object that a file holds.

    Raises:
        RequestError: it holds none.
    """
    with reading(what, hint, option):
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError("it is no JSON object")
        return value


def reason(error: BaseException) -> str:
    """What an error says, in half a sentence."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return f"it is no UTF-8 at byte {error.start}"
    if isinstance(error, json.JSONDecodeError):
        return f"it is no JSON: {error}"
    if isinstance(error, KeyError):
        return f"it has no `{error.args[0] if error.args else ''}`"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror + (f" ({Path(error.filename).name})" if isinstance(error.filename, str) else "")
    said = " ".join(str(error).split()).rstrip(".")
    said = f"{said[:_LONGEST_REASON]} ..." if len(said) > _LONGEST_REASON else said
    is_sentence = isinstance(error, ValueError) or hasattr(error, "hint")  # as what `models` raises
    return said if is_sentence and said else f"{type(error).__name__}: {said}".removesuffix(": ")


def _is_panic(error: BaseException) -> bool:
    """Whether it is how libraries in Rust fail where they did not expect to; it is no `Exception`."""
    return type(error).__name__ == "PanicException"


def utf8_text(path: Path, hint: str, option: str | None = None) -> str:
    """The content of a text file, with lines that end in a line feed.

    Raises:
        RequestError: it is none; names the line.
    """
    with reading(f"`{path}`", hint, option):
        content = path.read_bytes()
    try:
        return content.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise RequestError(Problem(f"{path}:{line} is no UTF-8", hint, option)) from error


def json_lines(path: Path, hint: str, option: str | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and content of each line that is not empty.

    Raises:
        RequestError: a line is no JSON object; names it.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, _object_of(line, f"{path}:{number}", hint, option)


def _object_of(line: bytes, place: str, hint: str, option: str | None) -> dict[str, Any]:
    try:
        value = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        what = "UTF-8" if isinstance(error, UnicodeDecodeError) else "JSON"
        raise RequestError(Problem(f"{place} is no {what}", hint, option)) from error
    if not isinstance(value, dict):
        raise RequestError(Problem(f"{place} is no JSON object", hint, option))
    return value
