"""What is inside: probes of hidden states, and how alike models work to the dense one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from llmrepair.stages.layer_plot import Series, layer_plot, legend
from llmrepair.stages.regimes.figure import KINDS, MEASURES, recovery_name, regimes_panels
from llmrepair.stages.report.page.elements import cell, folded, grid, link, share_cell, table
from llmrepair.stages.svg import Drawing

_PROBES = (
    "A linear probe learns facts about some people from what a layer makes of a question, and is asked about others. What "
    "it reads beyond the control task, whose words are random, stands there to be read, whether or not the model says it. A"
    " probe learns from few facts, so what it does not read may still be there. Layer 0 is what goes into the first one."
)
_REGIMES = (
    "How alike a model works to the dense one on the same tokens, layer by layer: 1 is the same. Where the line of a repair"
    " lies above that of the compressed model, the repair brings back the dense model's way of working; where it lies "
    "below, the model answers in another way. An input behind a prompt sees other tokens than one without, so distance "
    "alone is no sign of another way to the fact. Bands are 95 % intervals; scales differ from plot to plot."
)
_READ = (("accuracy", "probe", "prompt"), ("control", "control task", "none"))


def probes(document: Mapping[str, Any], store: str) -> str:
    """Which facts are readable, layer by layer, of each compressed model."""
    if not document["probes"]:
        return ""
    plots = grid(map(_probe_plot, document["probes"]))
    numbers = folded("The numbers", table("Probes, layer by layer", ["compression"], _PROBE_HEADS, _probe_rows(document)))
    sentences = "".join(f"<li>{_probe_sentence(probe, store)}</li>" for probe in document["probes"])
    strip = legend(_probe_series(document["probes"][0]))
    return f"<h2>Is it still readable inside?</h2><p>{_PROBES}</p><ul>{sentences}</ul>{strip}{plots}{numbers}"


def _probe_series(probe: Mapping[str, Any]) -> list[Series]:
    return [Series(name, kind, [layer[key] for layer in probe["layers"]]) for key, name, kind in _READ]


def _probe_plot(probe: Mapping[str, Any]) -> Drawing:
    levels = {"the model says it": probe["said"]["value"]}
    return layer_plot(f"{probe['label']}: share of facts", _probe_series(probe), 0, (0, 1.08), levels)


def _probe_sentence(probe: Mapping[str, Any], store: str) -> str:
    said = f"the model says {_percent(probe['said'])} of {probe['said']['n']} facts"
    read = f"the probe of its best layer ({probe['best_layer']}) reads {_scores(probe['best'])}, guessing {probe['chance']:.1%}"
    unsaid = ""
    if probe["unsaid"] is not None:
        unsaid = f"; of the {probe['unsaid']['accuracy']['n']} that it does not say, {_scores(probe['unsaid'])}"
    return f"{escape(probe['label'])}: {said}, {read}{unsaid} ({link(probe['name'], store, 'all numbers')})"


def _scores(scores: Mapping[str, Any]) -> str:
    return f"{_percent(scores['accuracy'])} (control task {_percent(scores['control'])})"


def _percent(share: Mapping[str, float]) -> str:
    return f"{share['value']:.0%} [{100 * share['low']:.0f}, {100 * share['high']:.0f}]"


_PROBE_HEADS = ("layer", "probe", "control task", "selectivity")


def _probe_rows(document: Mapping[str, Any]) -> Iterator[str]:
    for probe in document["probes"]:
        for number, layer in enumerate(probe["layers"]):
            shares = "".join(share_cell(layer[name]) for name in ("accuracy", "control", "selectivity"))
            yield f"<tr><th scope=row>{escape(probe['label'])}</th>{cell(str(number), number)}{shares}</tr>"


def regimes(document: Mapping[str, Any], store: str) -> str:
    """Likeness to the dense model, of each compressed model and its repairs; the first is open."""
    if not document["regimes"]:
        return ""
    found = "".join(_regimes(each, store, number == 0) for number, each in enumerate(document["regimes"]))
    return f"<h2>Does it work as before?</h2><p>{_REGIMES}</p>{found}"


def _regimes(found: Mapping[str, Any], store: str, is_open: bool) -> str:
    (strip,), *rows = regimes_panels(found["likeness"])
    panels = grid(panel for row in rows for panel in row)
    heads = ["layer", *map(recovery_name, found["likeness"])]
    title = f"{found['label']}: likeness to the dense model"
    numbers = folded("The numbers", table(title, ["activations", "measure"], heads, _likeness_rows(found["likeness"])))
    source = (
        f"<p class=notes>{found['tokens']} tokens of {found['texts']} texts; repairs of tuning seed {found['seed']}; "
        f"{link(found['name'], store, 'all numbers')}</p>"
    )
    return folded(str(found["label"]), f"{strip}{panels}{numbers}{source}", is_open)


def _likeness_rows(likeness: Mapping[str, Any]) -> Iterator[str]:
    for kind, kind_name in KINDS.items():
        for measure, measure_name in MEASURES.items():
            series = [of_recovery[kind][measure] for of_recovery in likeness.values()]
            for number, layer in enumerate(zip(*series, strict=True), 1):
                cells = cell(str(number), number) + "".join(map(_likeness_cell, layer))
                yield f"<tr><th scope=row>{kind_name}</th><td>{measure_name}</td>{cells}</tr>"


def _likeness_cell(likeness: Mapping[str, float]) -> str:
    value, low, high = (likeness[name] for name in ("value", "low", "high"))
    return cell(f"{value:.3f} <small>[{low:.3f}, {high:.3f}]</small>", value)
