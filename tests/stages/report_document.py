"""A small report.json by hand: two tasks, one compression, names that mean something to HTML, LaTeX, Markdown and CSV."""

from __future__ import annotations

from typing import Any

ODD = 'a_b|c<i>&"x", 50% $1 #2 {3} \\4'


def score(value: float, low: float | None = None, high: float | None = None, n: int = 100) -> dict[str, Any]:
    return {"value": value, "stderr": None, "low": low, "high": high, "n": n}


def row(name: str, compression: str, kind: str, recovery: str, seeds: list[int], scores: dict[str, Any]) -> dict[str, Any]:
    evaluations = [
        {
            "name": f"evaluate/{name}{seed}",
            "inputs": {"compressed": f"compress/{compression[:4]}"},
            "seed": seed,
            "prompt_shares": [0.25, 0.75] if kind == "idp" else None,
            "items": 100,
            "seconds": 2.0,
            **{"runtime": {}, "machine": {}, "versions": {"torch": "2"}, "git": None},
        }
        for seed in seeds or [None]
    ]
    names = [evaluation["name"] for evaluation in evaluations]
    return {
        "name": name,
        "compression": compression,
        "kind": kind,
        "recovery": recovery,
        "compressed": compression,
        "detail": "",
        "settings": {"bits": 3, "odd": ODD},
        **{"extra_parameters": 1024 * (kind != "none"), "size_bytes": 2000, "bits_per_weight": 3.25, "sparsity": 0.5},
        "seeds": seeds,
        "keys": names,
        "evaluations": evaluations,
        "scores": scores,
        "measured": {
            column: {"metrics": {metric: scores[column], "other": score(7.0)}, "seeds": len(names), "evaluations": names}
            for column, metric in (("qa", "exact_match"), ("text", "word_perplexity"))
            if column in scores
        },
    }


def comparison(name: str, value: float, p_value: float, p_holm: float) -> dict[str, Any]:
    difference = {"value": value, "low": value - 0.1, "high": value + 0.1, "p_value": p_value, "n": 100}
    rates = {
        "lost": 20,
        "recovered": 5.0,
        "kept": 70,
        "broken": 7.0,
        "never_known": 6,
        "lucky": 1.0,
        "gained": 4,
        "unlearned": 2.0,
    }
    return {
        "row": name,
        "baseline": "plain",
        "column": "qa",
        "difference": difference,
        "p_mcnemar": p_value,
        "p_holm": p_holm,
        "is_significant": p_holm <= 0.05,
        "rates": rates,
    }


def document() -> dict[str, Any]:
    columns = [
        {"name": "qa", "title": ODD, "asked": "qa", "tasks": ["qa"], "metric": "exact_match", "higher_is_better": True},
        {
            "name": "text",
            "title": "text",
            "asked": "text",
            "tasks": ["text"],
            "metric": "word_perplexity",
            "higher_is_better": False,
        },
    ]
    rows = [
        row("dense", "dense", "none", "none", [], {"qa": score(0.9, 0.8, 0.95), "text": score(12.5)}),
        row("plain", "gptq 3 bits", "none", "none", [], {"qa": score(0.74, 0.7, 0.8), "text": score(110.0, 100.0, 120.0)}),
        row("idp", "gptq 3 bits", "idp", "IDP", [0, 1], {"qa": score(0.71, 0.6, 0.8)}),
        row("lora", "gptq 3 bits", "lora", "LoRA", [0], {"qa": score(0.9, 0.85, 0.95), "text": score(20.0)}),
    ]
    comparisons = [
        comparison("plain", -0.16, 0.001, 0.001),
        comparison("idp", -0.03, 0.4, 0.4),
        comparison("lora", 0.16, 0.01, 0.02),
    ]
    del comparisons[0]["rates"]
    return {
        "title": f"{ODD}: compressed and repaired",
        "model": ODD,
        "verdicts": [],
        "findings": ["<b>found</b>"],
        "columns": columns,
        "rows": rows,
        "comparisons": comparisons,
    }
