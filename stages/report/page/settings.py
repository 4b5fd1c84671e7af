"""How everything was made: settings, seeds, keys, versions and machines."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from html import escape
from typing import Any

from llmrepair.stages.drawing.html import box, link
from llmrepair.stages.drawing.numbers import repair_text


def settings(document: Mapping[str, Any], store: str) -> str:
    return "".join(_of_row(row, store) for row in document["rows"])


def _of_row(row: Mapping[str, Any], store: str) -> str:
    values = {
        name: each if isinstance(each, str) else json.dumps(each, ensure_ascii=False) for name, each in row["settings"].items()
    }
    lines = "".join(f"<tr><th scope=row>{escape(name)}</th><td>{escape(each)}</td></tr>" for name, each in values.items())
    evaluations = "".join(_evaluation(evaluation, store) for evaluation in row["evaluations"])
    heads = "".join(
        f"<th scope=col>{head}</th>" for head in ("seed", "evaluation", "made of", "items", "seconds", "git commit")
    )
    title = f"{row['compression']} · {repair_text(row)}"
    artifacts = box(f"<table><thead><tr>{heads}</tr></thead><tbody>{evaluations}</tbody></table>", f"artifacts of {title}")
    table = box(f"<table><tbody>{lines}</tbody></table>", f"settings of {title}")
    return f"<details><summary>{escape(title)}</summary>{artifacts}{table}</details>"


def _evaluation(evaluation: Mapping[str, Any], store: str) -> str:
    seed = "" if evaluation["seed"] is None else evaluation["seed"]
    made_of = "<br>".join(link(name, store) for name in evaluation["inputs"].values())
    seconds = "interrupted" if evaluation["seconds"] is None else f"{evaluation['seconds']:.1f}"
    commit = (evaluation["git"] or {}).get("commit") or ""
    cells = (seed, link(evaluation["name"], store), made_of, evaluation["items"], seconds, escape(commit[:10]))
    return f"<tr>{''.join(f'<td>{each}</td>' for each in cells)}</tr>"


def versions(document: Mapping[str, Any]) -> str:
    """On what evaluations were made, and how many of them."""
    made = Counter(
        json.dumps({name: evaluation[name] for name in ("versions", "machine", "runtime", "git")}, indent=2, ensure_ascii=False)
        for row in document["rows"]
        for evaluation in row["evaluations"]
    )
    return "".join(f"<h3>{number} evaluations</h3><pre>{escape(each)}</pre>" for each, number in made.most_common())
