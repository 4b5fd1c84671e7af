"""Texts to calibrate with, to tune on and to compare by: the lab's, a file's, or a data set's of the Hub."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmrepair.pipeline.errors import Problem, RequestError
from llmrepair.pipeline.reading import json_lines, reading, utf8_text
from llmrepair.stages.sources.hub import hub_commit, hub_data_location, looks_like_hub_id
from llmrepair.stages.sources.lab import lab_texts

if TYPE_CHECKING:
    from llmrepair.pipeline.keys import DigestCache
    from llmrepair.pipeline.progress import Reporter

LAB_TEXT = "lab"
FEWEST_TEXTS = 16
"""To compare models by."""
_NAMED_TEXTS = {"c4": "allenai/c4:en", "wikitext2": "Salesforce/wikitext:wikitext-2-raw-v1"}
"""Short names of data sets on the Hub."""
_HINTS = {
    ".txt": "give text in UTF-8, its documents between empty lines",
    ".jsonl": "each line is a JSON object whose field `text` is the text",
}
_TEXT_SUFFIXES = tuple(_HINTS)


def text_problem(data: str, option: str) -> Problem | None:
    """What keeps `data` from being a source of text, as far as its name and place tell."""
    if data == LAB_TEXT or (not data.endswith(_TEXT_SUFFIXES) and looks_like_hub_id(data.partition(":")[0])):
        return None
    hint = (
        f"give {option} `lab`, `c4`, `wikitext2`, a .txt file, a .jsonl file with a field `text`, "
        "or a Hub data set as `name` or `name:config`"
    )
    if not data.endswith(_TEXT_SUFFIXES):
        return Problem(f"`{data}` is no source of text", hint)
    return None if Path(data).is_file() else Problem(f"there is no file `{data}`", hint)


def resolve_text(data: str, digests: DigestCache, option: str) -> dict[str, Any]:
    """What pins a source of text, for a key.

    Args:
        data: as the user gave it.
        option: the config field that names it.

    Raises:
        RequestError: a Hub data set that neither the Hub nor the local cache knows, or a file that holds something else.
    """
    if data == LAB_TEXT:
        return {"lab": "seen-qa"}
    if data.endswith(_TEXT_SUFFIXES):
        path = Path(data)
        with reading(f"`{data}`", "give a text file that can be read", option):
            fault = digests.found(path, f"no text in {path.suffix}", _fault)
            identity = {"file": digests.digest(path), "format": path.suffix}
        if fault is not None:
            raise RequestError(Problem(f"{data}{fault}", _HINTS[path.suffix], option))
        return identity
    name, _, config = _NAMED_TEXTS.get(data, data).partition(":")
    try:
        return {"hub": name, "config": config, "commit": hub_commit(name, None, "dataset")}
    except RequestError as error:
        other = f"--{option.replace('_', '-')}"
        hint = f"check the name and the network, or give {other} a .txt file, or a .jsonl file with a field `text`"
        raise RequestError(Problem(error.problems[0].message, hint, option)) from error


def text_libraries(*identities: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The libraries that sources of text, as `resolve_text` has them, are read with."""
    return ("datasets",) if any(identity is not None and "hub" in identity for identity in identities) else ()


def tell_fewer(reporter: Reporter, data: str, found: int, asked: int, what: str) -> None:
    """Says so where a source of text holds less than was asked for."""
    if found < asked:
        reporter.note(f"`{data}` holds text for {found} of the {asked} {what} that were asked for")


def text_problems(data: str, identity: Mapping[str, Any], option: str) -> list[Problem]:
    """Says so if a file holds fewer texts than are needed to compare models by."""
    if "file" not in identity:
        return []
    found = len(list(islice(load_texts(data, identity), FEWEST_TEXTS)))
    return [too_few_texts(data, found, option)] if found < FEWEST_TEXTS else []


def too_few_texts(data: str, found: int, option: str) -> Problem:
    message = f"`{data}` holds {found} texts, and {FEWEST_TEXTS} are the least"
    return Problem(message, f"give more text with --{option.replace('_', '-')}", option)


def load_texts(data: str, identity: Mapping[str, Any]) -> Iterator[str]:
    """The texts of a source, one document each; a .txt file's documents stand between empty lines.

    Args:
        data: as the user gave it.
        identity: what `resolve_text` made of it.

    Raises:
        RequestError: the source holds no text where it should.
    """
    if data == LAB_TEXT:
        yield from lab_texts()
    elif data.endswith(_TEXT_SUFFIXES):
        yield from _documents(Path(data))
    else:
        from datasets import load_dataset

        location = hub_data_location(identity["hub"], identity["commit"])
        rows = load_dataset(**location, name=identity["config"] or None, split="train", streaming=True)
        yield from filter(str.strip, (_text_field(row, f"an entry of `{data}`") for row in rows))


def _text_field(row: Mapping[str, Any], place: str) -> str:
    text = row.get("text")
    if not isinstance(text, str):
        raise RequestError(Problem(f"{place} has no field `text`", _HINTS[".jsonl"]))
    return text


def _fault(path: Path) -> str | None:
    """What is wrong with a file of text, to be put behind its name."""
    try:
        return None if sum(bool(text.strip()) for text in _documents(path)) else " holds no text"
    except RequestError as error:
        return str(error).removeprefix(str(path))


def _documents(path: Path) -> Iterator[str]:
    """The texts of a file.

    Raises:
        RequestError: something in it is none.
    """
    hint = _HINTS[path.suffix]
    if path.suffix == ".txt":
        paragraphs = utf8_text(path, hint).split("\n\n")
        yield from (" ".join(paragraph.split()) for paragraph in paragraphs if paragraph.strip())
    else:
        yield from (_text_field(row, f"{path}:{number}") for number, row in json_lines(path, hint))
