"""The report's section on probes of hidden states."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from llmrepair.stages.drawing.html import cell, folded, grid, link, share_cell, table
from llmrepair.stages.drawing.layers import Series, layer_plot, legend
from llmrepair.stages.drawing.svg import Drawing, Look

_PROBES = (
    "A linear probe learns facts about some people from what a layer makes of a question, and is asked about others. It reads "
    "the first word of an answer, whether or not the model says it. Of a model that was never told, it reads what guessing "
    "gives. In the control task words are random: what it reads there was memorised from others of the same first name, which "
    "facts do not allow. A probe learns from few facts, so what it does not read may still be there. Layer 0 is what goes into "
    "the first one."
)
_READ = (("accuracy", "probe", Look("blue", "square")), ("control", "control task", Look("grey")))


def section(found: Sequence[Mapping[str, Any]], kinds: Mapping[str, Any], store: str) -> str:
    """Which facts are readable, layer by layer, of each compressed model."""
    plots = grid(map(_probe_plot, found))
    numbers = folded("The numbers", table("Probes, layer by layer", ["compression"], _PROBE_HEADS, _probe_rows(found)))
    sentences = "".join(f"<li>{_probe_sentence(probe, store)}</li>" for probe in found)
    strip = legend(_probe_series(found[0]))
    return f"<h2>Is it still readable inside?</h2><p>{_PROBES}</p><ul>{sentences}</ul>{strip}{plots}{numbers}"


def _probe_series(probe: Mapping[str, Any]) -> list[Series]:
    return [Series(name, look, [layer[key] for layer in probe["layers"]]) for key, name, look in _READ]


def _probe_plot(probe: Mapping[str, Any]) -> Drawing:
    levels = {"first word said": _first_word_said(probe)["value"], "guessing": probe["chance"]}
    return layer_plot(f"{probe['label']}: share of facts", _probe_series(probe), 0, (0, 1.08), levels)


def _probe_sentence(probe: Mapping[str, Any], store: str) -> str:
    first = _first_word_said(probe)
    said = f"the model says the first word of {_percent(first)} of {first['n']} answers"
    read = f"the probe of its best layer ({probe['best_layer']}) reads {_scores(probe['best'])}, guessing {probe['chance']:.1%}"
    unsaid = ""
    if probe["unsaid"] is not None:
        unsaid = f"; of the {probe['unsaid']['accuracy']['n']} that it does not say, {_scores(probe['unsaid'])}"
    return f"{escape(probe['label'])}: {said}, {read}{unsaid} ({link(probe['name'], store, 'all numbers')})"


def _first_word_said(probe: Mapping[str, Any]) -> Mapping[str, Any]:
    """Stores still hold probes in which it is called `said`, as the whole answer is elsewhere."""
    found: Mapping[str, Any] = probe["first_word_said"] if "first_word_said" in probe else probe["said"]
    return found


def _scores(scores: Mapping[str, Any]) -> str:
    return f"{_percent(scores['accuracy'])} (control task {_percent(scores['control'])})"


def _percent(share: Mapping[str, float]) -> str:
    return f"{share['value']:.0%} [{100 * share['low']:.0f}, {100 * share['high']:.0f}]"


_PROBE_HEADS = ("layer", "probe", "control task", "selectivity")


def _probe_rows(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for probe in found:
        for number, layer in enumerate(probe["layers"]):
            shares = "".join(share_cell(layer[name]) for name in ("accuracy", "control", "selectivity"))
            yield f"<tr><th scope=row>{escape(probe['label'])}</th>{cell(str(number), number)}{shares}</tr>"
