"""What conjecture tests, comparisons of regimes and probes found, as their artifacts have it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llmrepair.stages.conjecture.stage import RESULT_FILE as CONJECTURE_FILE
from llmrepair.stages.probe.stage import RESULT_FILE as PROBE_FILE
from llmrepair.stages.regimes.stage import RESULT_FILE as REGIMES_FILE
from llmrepair.stages.report.table import compression_label, compression_order, way

if TYPE_CHECKING:
    from llmrepair.stages.report.stage import Examined


def read_verdicts(tests: Sequence[Examined]) -> list[dict[str, Any]]:
    """Verdicts of conjecture tests, and for each task all that was found; `title` says how it was asked."""
    return [{**_verdict(each), **_named(each, tests)} for each in _in_order(tests)]


def _verdict(test: Examined) -> dict[str, Any]:
    found, asked = test.artifact.read_json(CONJECTURE_FILE), way(test.subject.key_document["config"])
    tasks = [{**of_task, "task": name, "title": f"{name}{asked}"} for name, of_task in found["tasks"].items()]
    return {"word": found["verdict"], "sentences": found["sentences"], "seeds": found["seeds"], "tasks": tasks}


def read_regimes(comparisons: Sequence[Examined]) -> list[dict[str, Any]]:
    return [{**each.artifact.read_json(REGIMES_FILE), **_named(each, comparisons)} for each in _in_order(comparisons)]


def read_probes(probes: Sequence[Examined]) -> list[dict[str, Any]]:
    return [{**each.artifact.read_json(PROBE_FILE), **_named(each, probes)} for each in _in_order(probes)]


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
