"""What conjecture tests and diagnostics found, as their artifacts have it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llmrepair.pipeline.artifact import Artifact
from llmrepair.stages.conjecture.roles import RESULT_FILE
from llmrepair.stages.results.table import compression_label, compression_order, way


@dataclass(frozen=True)
class Examined:
    """A finished conjecture test or diagnostic of what the report has evaluations of."""

    artifact: Artifact
    subject: Artifact
    """The evaluation or the compressed model that it looks at."""
    compressed: Artifact


def read_verdicts(tests: Sequence[Examined]) -> list[dict[str, Any]]:
    """Verdicts of conjecture tests, and for each task all that was found; `title` says how it was asked."""
    return [{**_verdict(each), **_named(each, tests)} for each in _in_order(tests)]


def _verdict(test: Examined) -> dict[str, Any]:
    found, asked = test.artifact.read_json(RESULT_FILE), way(test.subject.key_document["config"])
    tasks = [{**of_task, "task": name, "title": f"{name}{asked}"} for name, of_task in found["tasks"].items()]
    return {"word": found["verdict"], "sentences": found["sentences"], "seeds": found["seeds"], "tasks": tasks}


def read_results(diagnostics: Sequence[Examined], result_file: str) -> list[dict[str, Any]]:
    """What diagnostics of one kind found."""
    return [{**each.artifact.read_json(result_file), **_named(each, diagnostics)} for each in _in_order(diagnostics)]


def _in_order(those: Sequence[Examined]) -> list[Examined]:
    """As the table of scores has them."""
    return sorted(those, key=lambda each: (*compression_order(each.compressed), each.artifact.key))


def _named(examined: Examined, those: Sequence[Examined]) -> dict[str, str]:
    """The artifact, and the compression; where several are of the same, with the start of a key, which `show` takes."""
    is_alone = Counter(map(_label, those))[_label(examined)] == 1
    label = _label(examined) + ("" if is_alone else f" ({examined.artifact.key[:6]})")
    return {"name": examined.artifact.name, "label": label}


def _label(examined: Examined) -> str:
    return compression_label(examined.compressed)
