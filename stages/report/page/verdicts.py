"""Forgotten or displaced: what conjecture tests found, and how far it can be trusted.

What a task has not, such as controls, or answers that are right or wrong, is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from llmrepair.stages.conjecture.roles import DAMAGED
from llmrepair.stages.drawing.html import bar, cell, folded, grid, link, share_cell, table
from llmrepair.stages.drawing.numbers import CHANGES_NOTE, difference_text, interval_text
from llmrepair.stages.report.page.evidence import evidence_card, evidence_table
from llmrepair.stages.report.verdict_figure import FATES, fates_panel, index_panel, judged

_QUESTION = (
    "Is what compression took gone, or still there and only out of reach? The same repairs also went through models whose "
    "truth is known: one that was never told, and one that only hides what it knows. The displacement index is 0 where "
    "prompts bring back as little as of the first, and 1 where they bring back as much as of the second. In brackets 95 % "
    "intervals."
)


def verdicts(document: Mapping[str, Any], store: str) -> str:
    if not document["verdicts"]:
        return ""
    sections = "".join(_verdict(verdict, store) for verdict in document["verdicts"])
    rows, meaning = judged(document["verdicts"]), f"<p class=notes>{_QUESTION}</p>"
    if len(rows) > 1:
        content = grid([index_panel(rows), fates_panel(rows)], "grid wide") + meaning + sections
    else:
        content = sections + meaning
    return f"<h2>Forgotten or displaced?</h2>{content}"


def _verdict(verdict: Mapping[str, Any], store: str) -> str:
    heading = f"<h3>{escape(verdict['label'])}: {escape(verdict['word'])}</h3>"
    said = {task["sentence"] for task in verdict["tasks"]}
    tasks = "".join(map(_on_task, verdict["tasks"]))
    tasks += "".join(f"<p>{escape(sentence)}</p>" for sentence in verdict["sentences"] if sentence not in said)
    seeds = ", ".join(map(str, verdict["seeds"]))
    source = f"<p class=notes>Tuning seeds {seeds}; {link(verdict['name'], store, 'all numbers and every item')}</p>"
    return f"<section class=verdict>{heading}{tasks}{source}</section>"


def _on_task(task: Mapping[str, Any]) -> str:
    model = task.get("models", {}).get(DAMAGED, {})
    sentence = f"<p class=sentence>{escape(task['sentence'])}</p>"
    tables = "".join([_items(task), evidence_table(task), _fates(task), _rates(task), _undone(task), _tests(task)])
    numbers = folded(f"{task['title']}: repairs, controls and tests", tables) if tables else ""
    return "".join(
        [
            sentence,
            evidence_card(task),
            _shares(model),
            _index(task),
            _untuned(task),
            _agreement(model),
            _readable(task),
            numbers,
        ]
    )


def _shares(model: Mapping[str, Any]) -> str:
    shares = (model.get("shares") or {}).items()
    parts = [(name, FATES[name], share["value"], f"{share['low']:.0%} to {share['high']:.0%}") for name, share in shares]
    return bar(parts) if parts else ""


def _index(task: Mapping[str, Any]) -> str:
    displacement = task.get("displacement")
    if displacement is None or displacement["index"] is None:
        return ""
    nets = {
        words: interval_text(displacement["net"][name], 0, 100)
        for name, words in (
            ("model", "of what this model lost"),
            ("erased", "of the model that was never told"),
            ("displaced", "of the one that only hides it"),
        )
        if name in displacement["net"]
    }
    beyond = "placebos" if "evidence" in task else "luck"
    said = ", ".join(f"{net} % {words}" for words, net in nets.items())
    index = interval_text(displacement["index"], 2)
    return f"<p>Displacement index <strong>{index}</strong>: beyond {beyond}, a prompt brings back {said}.</p>"


def _untuned(task: Mapping[str, Any]) -> str:
    if (found := task.get("untuned")) is None:
        return ""
    recovery, added = (interval_text(found[name], 0, 100) for name in ("recovery", "tuning_adds"))
    return (
        f"<p>The prompt brings back {recovery} % of the lost items before it is tuned: they were at the edge, and any change "
        f"may tip them over. Tuning adds {added} points.</p>"
    )


def _agreement(model: Mapping[str, Any]) -> str:
    if (found := model.get("agreement")) is None:
        return ""
    return (
        f"<p>Of the items that the prompt or LoRA brings back, {found['jaccard']:.0%} come back with both (Jaccard index); "
        f"were they drawn at random it would be {found['by_chance']:.0%} (p = {found['p_value']:.2g}).</p>"
    )


def _readable(task: Mapping[str, Any]) -> str:
    if "floor" not in (found := task.get("readable") or {}):  # none, or held against random labels, as once it was
        return ""
    probe, floor = (interval_text(found[name], 0, 100) for name in ("probe", "floor"))
    return (
        f"<p>A linear probe reads {probe} % of the lost items off the hidden states that the prompt does not bring back; of "
        f"a model that was never told of them it is {floor} %.</p>"
    )


def _items(task: Mapping[str, Any]) -> str:
    counts = task.get("models", {}).get(DAMAGED, {}).get("items")
    if counts is None:
        return ""
    words = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items())
    left_out = task["overlap"]["items"] - task["items"]
    more = f"; {left_out} were left out, because the tuning text holds them" if left_out else ""
    return f"<p>{task['items']} items: {words}{more}.</p>"


def _fates(task: Mapping[str, Any]) -> str:
    rows = []
    for name, found in task.get("models", {}).items():
        if (shares := found.get("shares")) is not None:
            agreement = found.get("agreement") or {}
            overlaps = [agreement.get(key) for key in ("jaccard", "by_chance")]
            counts = found["items"]["lost"], found.get("common")
            cells = [cell("" if count is None else str(count), count) for count in counts]
            cells += [share_cell(shares.get(fate)) for fate in FATES]
            cells += [cell("" if overlap is None else f"{overlap:.2f}", overlap) for overlap in overlaps]
            rows.append(f"<tr><th scope=row>{_model(name)}</th>{''.join(cells)}</tr>")
    heads = ["lost", "of the model's lost", *FATES, "Jaccard, prompt and LoRA", "by chance"]
    return table(f"{task['title']}: what became of lost items", ["model"], heads, rows) if rows else ""


def _rates(task: Mapping[str, Any]) -> str:
    rows = [
        f"<tr><th scope=row>{_model(name)}</th><td>{escape(repair)}</td>"
        + "".join(share_cell(rates.get(rate)) for rate in ("recovery", "regression", "luck"))
        + "</tr>"
        for name, found in task.get("models", {}).items()
        for repair, rates in found.get("rates", {}).items()
    ]
    heads = ["lost, recovered", "kept, broken", "never known, lucky"]
    return table(f"{task['title']}: rates of repairs", ["model", "repair"], heads, rows) if rows else ""


def _undone(task: Mapping[str, Any]) -> str:
    """Where no answer is right or wrong."""
    rows = [
        f"<tr><th scope=row>{_model(name)}</th><td>{escape(repair)}</td>{share_cell(share)}</tr>"
        for name, found in task.get("models", {}).items()
        for repair, share in found.get("undone", {}).items()
    ]
    return table(f"{task['title']}: damage undone", ["model", "repair"], ["share of the damage"], rows) if rows else ""


def _model(name: str) -> str:
    return "this model" if name == DAMAGED else f"{escape(name)} (control)"


def _tests(task: Mapping[str, Any]) -> str:
    heads = ["change", "p, McNemar", "p, Holm", "smallest effect, points", "noise floor, points", "A/A called different"]
    rows = list(_test_rows(task))
    tests = table(f"{task['title']}: tests of repairs", ["repair"], heads, rows)
    return f"{tests}<p class=notes>{escape(CHANGES_NOTE)}</p>" if rows else ""


def _test_rows(task: Mapping[str, Any]) -> Iterator[str]:
    for repair, test in task.get("tests", {}).items():
        difference, noise = test["difference"], test["noise_floor"] or {}
        cells = [cell(difference_text(difference), difference["value"])]
        cells += [cell("" if p is None else f"{p:.2g}", p) for p in (test["p_value"], test.get("p_holm"))]
        points = (test["smallest_effect"], noise.get("difference"), noise.get("significant"))
        for number, unit in zip(points, ("", "", " %"), strict=True):
            cells.append(cell("" if number is None else f"{100 * number:.1f}{unit}", number))
        yield f"<tr><th scope=row>{escape(repair)}</th>{''.join(cells)}</tr>"
