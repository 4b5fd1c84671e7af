"""What repairs bring back, what they cost and what they break."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from statistics import median
from typing import Any

from llmrepair.stages.drawing.html import cell, folded, grid, head, table
from llmrepair.stages.drawing.numbers import count_text, difference_text, repair_text
from llmrepair.stages.drawing.svg import Look
from llmrepair.stages.report.figure import Point, cost_panel, flow, look

_SECONDS = "seconds per item"
_NO_CASES = "No task has right and wrong answers of the dense model, of a compressed one and of its repair"


@dataclass(frozen=True)
class Repaired:
    """A repair of a compressed model on a task of which is known what the dense model answers."""

    row: Mapping[str, Any]
    look: Look
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


def cases(document: Mapping[str, Any]) -> str:
    """For each task and compression, cost against recovery and where items went; the first is open."""
    found = [
        folded(f"{task}, {compression}", f"{_costs(case)}<div class=grid>{_flows(case)}</div>", number == 0)
        for number, ((task, compression), case) in enumerate(_cases(document).items())
    ]
    return "".join(found) or f"<p>{_NO_CASES}</p>"


def _cases(document: Mapping[str, Any]) -> dict[tuple[str, str], list[Repaired]]:
    rows = {row["name"]: row for row in document["rows"]}
    found: dict[tuple[str, str], list[Repaired]] = {}
    for column in document["columns"]:
        for comparison in document["comparisons"]:
            if comparison["column"] == column["name"] and "rates" in comparison:
                row = rows[comparison["row"]]
                repaired = Repaired(
                    row, look(document, row["kind"]), comparison["rates"], seconds_per_item(row, column["name"])
                )
                found.setdefault((column["title"], row["compression"]), []).append(repaired)
    return found


def _costs(case: Sequence[Repaired]) -> str:
    parameters = [Point(each.row["extra_parameters"], each.recovered, each.look, str(each)) for each in case]
    seconds = [Point(each.seconds, each.recovered, each.look, str(each)) for each in case if each.seconds is not None]
    return grid(
        [
            cost_panel(parameters, "extra parameters", is_logarithmic=True),
            cost_panel(seconds, _SECONDS, is_logarithmic=False),
        ]
    )


def _flows(case: Iterable[Repaired]) -> str:
    return "".join(
        f"<figure>{flow(each.rates, str(each))}<figcaption>{escape(str(each))}</figcaption></figure>" for each in case
    )


def seconds_per_item(row: Mapping[str, Any], column: str) -> float | None:
    """Wall time of an evaluation, loading and all its tasks included, by its items; of several the median."""
    measured = row["measured"][column]["evaluations"]
    timed = [each for each in row["evaluations"] if each["name"] in measured and each["seconds"] is not None and each["items"]]
    return median(each["seconds"] / each["items"] for each in timed) if timed else None


def comparisons(document: Mapping[str, Any]) -> str:
    heads = ["change", "p, McNemar", "p, Holm", "lost, recovered", "kept, broken", "never known, lucky", "gained, unlearned"]
    heads += ["extra parameters", _SECONDS]
    return table("Repairs, item by item", ["compression", "repair", "task"], heads, _compared(document))


def _compared(document: Mapping[str, Any]) -> Iterator[str]:
    rows = {row["name"]: row for row in document["rows"]}
    titles = {column["name"]: column["title"] for column in document["columns"]}
    for comparison in document["comparisons"]:
        row, difference = rows[comparison["row"]], comparison["difference"]
        if row["kind"] == "none":
            continue
        cells = [head(row), f"<td class=task>{escape(titles[comparison['column']])}</td>"]
        cells.append(cell(difference_text(difference), difference["value"]))
        cells += [cell(f"{p_value:.2g}", p_value) for p_value in (comparison["p_mcnemar"], comparison["p_holm"])]
        pairs = (("lost", "recovered"), ("kept", "broken"), ("never_known", "lucky"), ("gained", "unlearned"))
        cells += [_part_cell(comparison.get("rates"), *pair) for pair in pairs]
        seconds = seconds_per_item(row, comparison["column"])
        cells.append(cell(count_text(row["extra_parameters"]), row["extra_parameters"]))
        cells.append(cell("" if seconds is None else f"{seconds:.3g}", seconds))
        yield f"<tr>{''.join(cells)}</tr>"


def _part_cell(rates: Mapping[str, float] | None, among: str, name: str) -> str:
    """`60, 31.3 (52 %)`, sorted by the share."""
    if rates is None or not rates[among]:
        return cell("0" if rates is not None else "")
    share = rates[name] / rates[among]
    return cell(f"{rates[among]}, {round(rates[name], 1):g} <small>({share:.0%})</small>", share)
