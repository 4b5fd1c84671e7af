"""Texts to calibrate with, to tune on and to compare by: the lab's, a file's, or a data set's of the Hub."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmrepair.pipeline.errors import Problem, RequestError, WorkError
from llmrepair.stages.sources.hub import hub_commit, hub_data_location, looks_like_hub_id
from llmrepair.stages.sources.lab import lab_texts

if TYPE_CHECKING:
    from llmrepair.pipeline.progress import Reporter

LAB_TEXT = "lab"
_NAMED_TEXTS = {"c4": "allenai/c4:en", "wikitext2": "Salesforce/wikitext:wikitext-2-raw-v1"}
"""Short names of data sets on the Hub."""
_TEXT_SUFFIXES = (".txt", ".jsonl")


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


def resolve_text(data: str, option: str, digest: Callable[[Path], str]) -> dict[str, Any]:
    """What pins a source of text, for a key.

    Args:
        option: its name, which an error says.

    Raises:
        RequestError: a Hub data set that neither the Hub nor the local cache knows.
    """
    if data == LAB_TEXT:
        return {"lab": "seen-qa"}
    if data.endswith(_TEXT_SUFFIXES):
        return {"file": digest(Path(data)), "format": Path(data).suffix}
    name, _, config = _NAMED_TEXTS.get(data, data).partition(":")
    try:
        return {"hub": name, "config": config, "commit": hub_commit(name, None, "dataset")}
    except RequestError as error:
        hint = f"check the name and the network, or give {option} a .txt file, or a .jsonl file with a field `text`"
        raise RequestError(Problem(error.problems[0].message, hint, option.strip("-").replace("-", "_"))) from error


def text_libraries(*identities: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The libraries that sources of text, as `resolve_text` has them, are read with."""
    return ("datasets",) if any(identity is not None and "hub" in identity for identity in identities) else ()


def tell_fewer(reporter: Reporter, data: str, found: int, asked: int, what: str) -> None:
    """Says so where a source of text holds less than was asked for."""
    if found < asked:
        reporter.note(f"`{data}` holds text for {found} of the {asked} {what} that were asked for")


def load_texts(data: str, identity: dict[str, Any]) -> Iterator[str]:
    """The texts of a source, one document each; a .txt file's documents stand between empty lines.

    Args:
        data: as the user gave it.
        identity: what `resolve_text` made of it.

    Raises:
        WorkError: the source holds no text where it should.
    """
    if data == LAB_TEXT:
        yield from lab_texts()
    elif data.endswith(".txt"):
        paragraphs = Path(data).read_text(encoding="utf-8").split("\n\n")
        yield from (" ".join(paragraph.split()) for paragraph in paragraphs if paragraph.strip())
    elif data.endswith(".jsonl"):
        with Path(data).open(encoding="utf-8") as lines:
            yield from (_text_field(json.loads(line), data) for line in lines if line.strip())
    else:
        from datasets import load_dataset

        location = hub_data_location(identity["hub"], identity["commit"])
        rows = load_dataset(**location, name=identity["config"] or None, split="train", streaming=True)
        yield from filter(str.strip, (_text_field(row, data) for row in rows))


def _text_field(row: dict[str, Any], data: str) -> str:
    text = row.get("text")
    if not isinstance(text, str):
        raise WorkError(Problem(f"an entry of `{data}` has no field `text`", "rename the field that holds the text to `text`"))
    return text
