"""A small report.json by hand: two tasks, one compression, names that mean something to HTML, LaTeX, Markdown and CSV."""

from __future__ import annotations

from typing import Any

from llmrepair.stages.repairs import REPAIRS
from llmrepair.stages.results.table import kinds

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
            "routing": {"loss": {"routed": 2.0, "best_prompt": 2.002, "oracle": 1.996}} if kind == "idp" else None,
            "oracle_gap": 0.006 if kind == "idp" else None,
            "is_bound": False,
            "scores": {column: score["value"] for column, score in scores.items()},
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
    difference = {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 100}
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
        "probes": [],
        "regimes": [],
        "findings": ["<b>found</b>"],
        "columns": columns,
        "rows": rows,
        "comparisons": comparisons,
        "kinds": kinds(REPAIRS.values()),
    }


def estimate(value: float, half: float = 0.05, **more: Any) -> dict[str, Any]:
    return {"value": value, "low": value - half, "high": value + half, **more}


def rates(recovery: float, regression: float, luck: float | None) -> dict[str, Any]:
    return {
        "recovery": estimate(recovery),
        "regression": estimate(regression),
        "luck": None if luck is None else estimate(luck),
    }


def damaged(lost: int, displaced: float, latent: float) -> dict[str, Any]:
    """What a conjecture test finds of a model with 200 items."""
    fates = {"displaced": displaced, "latent": latent, "erased": 1 - displaced - latent}
    return {
        "items": {"lost": lost, "kept": 190 - lost, "never_known": 10, "gained": 0},
        "common": min(lost, 60),
        "rates": {name: rates(recovery, 0.03, None) for name, recovery in (("prompt", displaced), ("lora", latent))},
        "shares": {name: estimate(share) for name, share in fates.items()},
        "agreement": {"jaccard": 0.4, "by_chance": 0.1, "p_value": 0.003},
    }


def task(name: str, word: str, index: dict[str, Any] | None) -> dict[str, Any]:
    """What a conjecture test finds of a task whose items are right or wrong; without controls if there is no index."""
    controls = {"erased": damaged(190, 0.01, 0.01), "displaced": damaged(190, 0.98, 0.01)} if index is not None else {}
    test = {
        "difference": estimate(0.1),
        "p_value": 0.01,
        "p_holm": 0.02,
        "discordance": 0.2,
        "smallest_effect": 0.04,
        "noise_floor": {"difference": 0.015, "significant": 0.03, "resamplings": 200},
    }
    net = {"model": estimate(0.4), "erased": estimate(0.01, 0.01), "displaced": estimate(0.98, 0.02)}
    return {
        "task": name,
        "title": f"{name}, first 200",
        "verdict": {"word": word, "why": "there are no controls of this model <i>"},
        "sentence": f"40 % of {name} come back <i>",
        "items": 200,
        "overlap": {"items": 204, "entity": 4},
        "displacement": {"index": index, "separation": estimate(0.97), "net": net} if index is not None else None,
        "models": {"model": damaged(60, 0.4, 0.2), **controls},
        "untuned": {"recovery": estimate(0.08), "tuning_adds": estimate(0.17)},
        "readable": {"probe": estimate(0.12), "floor": estimate(0.05)},
        "tests": {"prompt": test, "lora": {**test, "noise_floor": None}},
    }


def by_second_rule(of_task: dict[str, Any]) -> dict[str, Any]:
    """The same task as the second rule judges it."""
    flow = {"regained": 21.0, "broken": 17.0, "gained": 1.0, "net": estimate(0.07)}
    of_model = {"lost": 24.0, "repair": estimate(0.12), "placebos": estimate(0.02), "corrected": estimate(0.1)}
    evidence = {
        "phrasings": 1,
        "subjects": 50,
        "placebos": 8,
        "called_lost": 55.0,
        "lost": 24.0,
        "edge": estimate(0.56),
        "flows": {"lost": 55.0, "repair": flow, "placebos": flow, "difference": estimate(0.0), "equivalence_p": 0.03},
        "shape": None,
        "recovery": {"model": of_model, "erased": None, "displaced": of_model},
        "damage": {"model": {"undone": estimate(0.08), "damage": estimate(3.2), "sharpening": 1.0}},
        "fates": {"latent": estimate(0.5), "erased": None},
    }
    path = [
        {"asks": "are fewer than 30 items robustly lost?", "finds": "40 are", "decides": False},
        {"asks": "is half or more at the edge <i>?", "finds": "56% is", "decides": True},
    ]
    judged = {"word": "edge", "why": "half or more is right when it is asked another way", "path": path}
    return {**of_task, "verdict": judged, "evidence": evidence}


def unjudged(name: str) -> dict[str, Any]:
    """A task without right and wrong answers."""
    return {
        "task": name,
        "title": name,
        "verdict": {"word": "undetermined", "why": "no answer is right or wrong"},
        "sentence": f"{name} has no right or wrong answers",
        "models": {"model": {"undone": {"prompt": estimate(0.25), "lora": None}}},
    }


def verdict(label: str, word: str, *tasks: dict[str, Any]) -> dict[str, Any]:
    sentences = [task["sentence"] for task in tasks]
    return {
        "name": f"conjecture/{label[:4]}",
        "label": label,
        "word": word,
        "sentences": sentences,
        "seeds": [0, 1],
        "tasks": list(tasks),
    }


def probe(label: str, best: float) -> dict[str, Any]:
    layers = [
        {"accuracy": estimate(best * share, n=640), "control": estimate(0.15, n=640), "selectivity": estimate(0.1, n=640)}
        for share in (0.05, 0.3, 1.0)
    ]
    return {
        "name": f"probe/{label[:4]}",
        "label": label,
        "best_layer": 2,
        "best": layers[2],
        "first_word_said": estimate(best, 0.02, n=640),
        "unsaid": {**layers[0], "accuracy": estimate(0.36, n=53)},
        "chance": 0.026,
        "layers": layers,
    }


def regimes(label: str) -> dict[str, Any]:
    def layers(start: float) -> list[dict[str, float]]:
        return [estimate(start - 0.01 * number, 0.002) for number in range(4)]

    likeness = {
        recovery: {kind: {measure: layers(start) for measure in ("cosine", "cka")} for kind in ("attention", "mlp", "residual")}
        for recovery, start in (("none", 0.99), ("prompt", 0.96), ("idp", 0.95), ("lora", 0.985))
    }
    return {"name": f"regimes/{label[:4]}", "label": label, "texts": 64, "tokens": 640, "seed": 0, "likeness": likeness}


def examined_document() -> dict[str, Any]:
    """A document with all that a report can hold; one verdict lies far out, and one has no index."""
    return document() | {
        "verdicts": [
            verdict("gptq 3 bits", "mixed", task("qa", "mixed", estimate(0.43, 0.12)), unjudged("text")),
            verdict(ODD, "undetermined", task("qa", "undetermined", estimate(0.6, 2.0))),
            verdict("wanda 50%", "undetermined", task("qa", "undetermined", None)),
        ],
        "probes": [probe("dense", 0.98), probe(ODD, 0.8)],
        "regimes": [regimes("gptq 3 bits"), regimes(ODD)],
    }
