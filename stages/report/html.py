"""The report as one HTML file that needs nothing from anywhere. Each function gives one section of the template."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from statistics import median
from string import Template
from typing import Any
from urllib.parse import quote

from llmrepair.pipeline.units import bytes_text
from llmrepair.stages.evaluate.labels import RECOVERIES
from llmrepair.stages.report.figure import Point, cost_panel, flow, score_panel
from llmrepair.stages.report.files import TEMPLATE
from llmrepair.stages.report.text import count_text, difference_text, footnotes, repair_text, score_text, significant

_SECONDS = "seconds per item"
_NO_CASES = "No task has right and wrong answers of the dense model, of a compressed one and of its repair"


def render_html(document: Mapping[str, Any], store: str) -> str:
    """
    Args:
        document: what report.json holds.
        store: the folder of artifacts as seen from the file, for links.
    """
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(document["title"]),
        verdicts="".join(_verdict(verdict, store) for verdict in document["verdicts"]),
        findings="".join(f"<li>{escape(sentence)}</li>" for sentence in document["findings"]),
        scores=_scores(document),
        notes="".join(f"<li>{escape(note)}</li>" for note in footnotes(document)),
        figures="".join(_box(score_panel(document, column), f"plot of {column['title']}") for column in document["columns"]),
        legend=_legend(document),
        cases="".join(_cases(document)) or f"<p>{_NO_CASES}</p>",
        comparisons=_comparisons(document),
        selection=_selection(document),
        settings="".join(_settings(row, store) for row in document["rows"]),
        versions=_versions(document),
    )


def _verdict(verdict: Mapping[str, Any], store: str) -> str:
    tasks = "".join(map(_verdict_on, verdict["tasks"])) or "".join(f"<p>{escape(each)}</p>" for each in verdict["sentences"])
    link = f'<a href="{quote(store)}/{verdict["name"]}/">all numbers</a>'
    return f"<section class=verdict><h2>Forgotten or displaced: {escape(verdict['word'])}</h2>{tasks}<p>{link}</p></section>"


def _verdict_on(task: Mapping[str, Any]) -> str:
    index = task["index"]
    said = f"<p>Displacement index {index['value']:.2f} [{index['low']:.2f}, {index['high']:.2f}]</p>" if index else ""
    shares = [(name, share["value"], f"{share['low']:.0%} to {share['high']:.0%}") for name, share in task["shares"].items()]
    return f"<p class=sentence>{escape(task['sentence'])}</p>{said}" + (_bar(shares) if shares else "")


def _bar(shares: Iterable[tuple[str, float, str]]) -> str:
    """Name, share and what else is said of it -> a bar of parts, and the same in words."""
    shares = list(shares)
    parts = "".join(
        f'<i class="part{number % 6}" style="flex:{share:.4f}" title="{escape(f"{name} {share:.1%}")}"></i>'
        for number, (name, share, _) in enumerate(shares)
    )
    words = "".join(
        f"<li><i class=part{number % 6}></i>{escape(name)} {share:.0%}{f' <small>{escape(more)}</small>' if more else ''}</li>"
        for number, (name, share, more) in enumerate(shares)
    )
    return f"<div class=bar aria-hidden=true>{parts}</div><ul class=parts>{words}</ul>"


def _table(caption: str, words: Sequence[str], numbers: Sequence[str], rows: Iterable[str]) -> str:
    """A table that sorts by a click on a head. Heads of columns with words and of those with numbers, and rows are HTML."""
    heads = [*((head, "") for head in words), *((head, " class=number") for head in numbers)]
    head = "".join(f"<th scope=col{kind}><button type=button>{each}</button></th>" for each, kind in heads)
    table = f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return _box(table, caption)


def _box(content: str, label: str) -> str:
    """What is too wide scrolls in here, by keys too."""
    return f'<div class=scroll tabindex=0 role=region aria-label="{escape(label)}">{content}</div>'


def _cell(words: str, number: float | None = None) -> str:
    """A number in words, sorted by its value."""
    return f'<td class=number data-value="{"" if number is None else number}">{words}</td>'


def _head(row: Mapping[str, Any]) -> str:
    return f"<th scope=row>{escape(row['compression'])}</th><td>{escape(repair_text(row))}</td>"


def _scores(document: Mapping[str, Any]) -> str:
    columns, marked = document["columns"], significant(document)
    metrics = [c["metric"] + ("" if c["higher_is_better"] else ", lower is better") for c in columns]
    heads = [f"{escape(c['title'])}<br><small>{escape(said)}</small>" for c, said in zip(columns, metrics, strict=True)]
    heads += ["extra parameters", "size", "bits per weight", "zeros"]
    return _table("Scores", ["compression", "repair"], heads, (_score_row(row, columns, marked) for row in document["rows"]))


def _score_row(row: Mapping[str, Any], columns: Iterable[Mapping[str, Any]], marked: set[tuple[str, str]]) -> str:
    cells = [_head(row)]
    for column in columns:
        score = row["scores"].get(column["name"])
        mark = "<sup>*</sup>" if (row["name"], column["name"]) in marked else ""
        cells.append(_cell(score_text(score, column) + mark, score and score["value"]))
    cells += [
        _cell(count_text(row["extra_parameters"]), row["extra_parameters"]),
        _cell(bytes_text(row["size_bytes"]), row["size_bytes"]),
        _cell(f"{row['bits_per_weight']:.2f}", row["bits_per_weight"]),
        _cell(f"{row['sparsity']:.1%}", row["sparsity"]),
    ]
    return f"<tr>{''.join(cells)}</tr>"


def _legend(document: Mapping[str, Any]) -> str:
    kinds = dict.fromkeys(row["kind"] for row in document["rows"])
    dot = '<svg viewBox="0 0 12 12" aria-hidden="true"><circle cx="6" cy="6" r="5" class="{}"/></svg>'
    return "".join(f"<li>{dot.format(kind)}{escape(RECOVERIES[kind])}</li>" for kind in kinds)


@dataclass(frozen=True)
class Repaired:
    """A repair of a compressed model on a task of which is known what the dense model answers."""

    row: Mapping[str, Any]
    rates: Mapping[str, Any]
    seconds: float | None
    """Per item, of its evaluations."""

    @property
    def recovered(self) -> float:
        """Share of lost items; 0 where none were lost."""
        return float(self.rates["recovered"] / max(1, self.rates["lost"]))

    def __str__(self) -> str:
        recovered, broken = (
            f"{round(self.rates[name], 1):g} of {self.rates[among]}"
            for name, among in (("recovered", "lost"), ("broken", "kept"))
        )
        return f"{repair_text(self.row)}: recovers {recovered} lost items, breaks {broken} kept ones"


def _cases(document: Mapping[str, Any]) -> Iterator[str]:
    """For each task and compression, cost against recovery and where items went; the first is open."""
    rows = {row["name"]: row for row in document["rows"]}
    cases: dict[tuple[str, str], list[Repaired]] = {}
    for column in document["columns"]:
        for comparison in document["comparisons"]:
            if comparison["column"] == column["name"] and "rates" in comparison:
                row = rows[comparison["row"]]
                repaired = Repaired(row, comparison["rates"], seconds_per_item(row, column["name"]))
                cases.setdefault((column["title"], row["compression"]), []).append(repaired)
    for number, ((task, compression), case) in enumerate(cases.items()):
        yield (
            f"<details{' open' * (number == 0)}><summary>{escape(task)}, {escape(compression)}</summary>"
            f"<div class=grid>{_costs(case)}</div><div class=grid>{_flows(case)}</div></details>"
        )


def _costs(case: Sequence[Repaired]) -> str:
    parameters = [Point(each.row["extra_parameters"], each.recovered, each.row["kind"], str(each)) for each in case]
    seconds = [Point(each.seconds, each.recovered, each.row["kind"], str(each)) for each in case if each.seconds is not None]
    panels = [
        cost_panel(parameters, "extra parameters", is_logarithmic=True),
        cost_panel(seconds, _SECONDS, is_logarithmic=False),
    ]
    return "".join(f"<figure>{panel}</figure>" for panel in panels)


def _flows(case: Iterable[Repaired]) -> str:
    return "".join(
        f"<figure>{flow(each.rates, str(each))}<figcaption>{escape(str(each))}</figcaption></figure>" for each in case
    )


def seconds_per_item(row: Mapping[str, Any], column: str) -> float | None:
    """Wall time of an evaluation, loading and all its tasks included, by its items; of several the median."""
    measured = row["measured"][column]["evaluations"]
    timed = [each for each in row["evaluations"] if each["name"] in measured and each["seconds"] is not None and each["items"]]
    return median(each["seconds"] / each["items"] for each in timed) if timed else None


def _comparisons(document: Mapping[str, Any]) -> str:
    rows = {row["name"]: row for row in document["rows"]}
    titles = {column["name"]: column["title"] for column in document["columns"]}
    heads = ["change", "p, McNemar", "p, Holm", "lost, recovered", "kept, broken", "never known, lucky", "gained, unlearned"]
    body = []
    for comparison in document["comparisons"]:
        row, difference = rows[comparison["row"]], comparison["difference"]
        if row["kind"] == "none":
            continue
        cells = [_head(row), f"<td>{escape(titles[comparison['column']])}</td>"]
        cells.append(_cell(difference_text(difference), difference["value"]))
        cells += [_cell(f"{p_value:.2g}", p_value) for p_value in (comparison["p_mcnemar"], comparison["p_holm"])]
        pairs = (("lost", "recovered"), ("kept", "broken"), ("never_known", "lucky"), ("gained", "unlearned"))
        cells += [_part_cell(comparison.get("rates"), *pair) for pair in pairs]
        seconds = seconds_per_item(row, comparison["column"])
        cells += [
            _cell(count_text(row["extra_parameters"]), row["extra_parameters"]),
            _cell("" if seconds is None else f"{seconds:.3g}", seconds),
        ]
        body.append(f"<tr>{''.join(cells)}</tr>")
    heads += ["extra parameters", _SECONDS]
    return _table("Repairs, item by item", ["compression", "repair", "task"], heads, body)


def _part_cell(rates: Mapping[str, float] | None, among: str, name: str) -> str:
    """`60, 31.3 (52 %)`, sorted by the share."""
    if rates is None or not rates[among]:
        return _cell("0" if rates is not None else "")
    share = rates[name] / rates[among]
    return _cell(f"{rates[among]}, {round(rates[name], 1):g} <small>({share:.0%})</small>", share)


def _selection(document: Mapping[str, Any]) -> str:
    """How often each prompt of a pool was chosen, by seed: the prompts of one seed are not those of another."""
    lines = []
    for row in document["rows"]:
        for evaluation in row["evaluations"]:
            shares = evaluation["prompt_shares"]
            if shares is not None and (row["kind"] == "idp" or max(shares) < 1):
                bar = _bar((f"prompt {number}", share, "") for number, share in enumerate(shares))
                lines.append(f"<tr>{_head(row)}<td>{evaluation['seed']}</td><td class=shares>{bar}</td></tr>")
    if not lines:
        return ""
    table = _table("How often each prompt was chosen", ["compression", "repair", "seed", "prompts"], [], lines)
    return f"<h2>How often each prompt was chosen</h2>{table}"


def _settings(row: Mapping[str, Any], store: str) -> str:
    values = {
        name: each if isinstance(each, str) else json.dumps(each, ensure_ascii=False) for name, each in row["settings"].items()
    }
    settings = "".join(f"<tr><th scope=row>{escape(name)}</th><td>{escape(each)}</td></tr>" for name, each in values.items())
    evaluations = "".join(_evaluation(evaluation, store) for evaluation in row["evaluations"])
    heads = "".join(
        f"<th scope=col>{head}</th>" for head in ("seed", "evaluation", "made of", "items", "seconds", "git commit")
    )
    title = f"{row['compression']} · {repair_text(row)}"
    artifacts = _box(f"<table><thead><tr>{heads}</tr></thead><tbody>{evaluations}</tbody></table>", f"artifacts of {title}")
    table = _box(f"<table><tbody>{settings}</tbody></table>", f"settings of {title}")
    return f"<details><summary>{escape(title)}</summary>{artifacts}{table}</details>"


def _evaluation(evaluation: Mapping[str, Any], store: str) -> str:
    seed = "" if evaluation["seed"] is None else evaluation["seed"]
    made_of = "<br>".join(_link(name, store) for name in evaluation["inputs"].values())
    seconds = "interrupted" if evaluation["seconds"] is None else f"{evaluation['seconds']:.1f}"
    commit = (evaluation["git"] or {}).get("commit") or ""
    cells = (seed, _link(evaluation["name"], store), made_of, evaluation["items"], seconds, escape(commit[:10]))
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _link(name: str, store: str) -> str:
    return f'<a href="{quote(store)}/{name}/">{name}</a>'


def _versions(document: Mapping[str, Any]) -> str:
    """On what evaluations were made, and how many of them."""
    made = Counter(
        json.dumps({name: evaluation[name] for name in ("versions", "machine", "runtime", "git")}, indent=2, ensure_ascii=False)
        for row in document["rows"]
        for evaluation in row["evaluations"]
    )
    return "".join(f"<h3>{number} evaluations</h3><pre>{escape(each)}</pre>" for each, number in made.most_common())
