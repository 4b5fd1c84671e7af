"""`conjecture`: was what compression took forgotten, or only displaced?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llmrepair.cli.options import DEFAULT_RUNS, JSON_OPTION, RUNS_OPTION, with_options
from llmrepair.cli.output import print_json, print_table
from llmrepair.pipeline.artifact import Artifact
from llmrepair.pipeline.pull import pull_all
from llmrepair.pipeline.stage import Runtime
from llmrepair.stages.conjecture.roles import DAMAGED, RESULT_FILE
from llmrepair.stages.conjecture.stage import arms
from llmrepair.stages.drawing.numbers import CHANGES_NOTE
from llmrepair.stages.request import TEST, conjecture_stage, notes
from llmrepair.stages.running import make_runner
from llmrepair.stages.workers import local_executor


@with_options({**TEST, "Running": [Runtime]})
def conjecture(values: Mapping[str, Any], runs: RUNS_OPTION = DEFAULT_RUNS, as_json: JSON_OPTION = False) -> None:
    stage = conjecture_stage(values)
    runner = make_runner(values, runs)
    for text in notes(stage.damaged.compressed, values):
        runner.reporter.note(text)
    (outcome,) = pull_all(runner, [stage], local_executor)
    if as_json:
        print_json(outcome.as_json())
    else:
        print_conjecture(outcome.artifact)


def print_conjecture(artifact: Artifact) -> None:
    """The verdict first, then for each task rates, shares and tests, or what texts cost."""
    found: Mapping[str, Any] = artifact.read_json(RESULT_FILE)
    print(f"{found['verdict']}\n")
    for text in found["sentences"]:
        print(text)
    for task, result in found["tasks"].items():
        (_print_texts if result["kind"] == "texts" else _print_answers)(task, result)
    seeds = ", ".join(map(str, found["seeds"]))
    if any(result["kind"] == "answers" for result in found["tasks"].values()):
        print(f"\n{CHANGES_NOTE}")
    print(f"\nshares in % with 95 % intervals, over items and tuning seeds ({seeds}); everything is in {artifact.path}")


def _print_answers(task: str, result: Mapping[str, Any]) -> None:
    print(f"\n{_items_text(task, result)}\n")
    if "evidence" in result:
        _print_evidence(result)
    print_table(_RATE_HEADS, _rate_rows(result), right=_RATE_HEADS[2:])
    if result["untuned"] is not None:
        print(f"\n{_untuned_text(result['untuned'])}")
    if result["readable"] is not None:
        print(f"\n{_readable_text(result['readable'])}")
    print()
    print_table(_TEST_HEADS, _test_rows(result), right=_TEST_HEADS[1:])


_EVIDENCE_HEADS = ("model", "robustly lost", "prompt, right", "placebos, right", "beyond placebos", "Lambda")


def _print_evidence(result: Mapping[str, Any]) -> None:
    """What the second rule went by."""
    for step in result["verdict"]["path"]:
        print(f"{step['asks']} {step['finds']}{'; this decides' if step['decides'] else ''}")
    print()
    print_table(_EVIDENCE_HEADS, list(_evidence_rows(result["evidence"])), right=_EVIDENCE_HEADS[1:])
    print()


def _evidence_rows(found: Mapping[str, Any]) -> Iterator[list[str]]:
    for model, recovery in found["recovery"].items():
        if recovery is not None:
            undone = (found["damage"].get(model) or {}).get("undone")
            shares = (recovery["repair"], recovery["placebos"], recovery["corrected"], undone)
            yield [model, f"{recovery['lost']:.0f}", *map(_percent, shares)]


def _items_text(task: str, result: Mapping[str, Any]) -> str:
    counts = result["models"][DAMAGED]["items"]
    text = f"{task}: {result['items']} items, " + ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in counts.items())
    left_out = result["overlap"]["items"] - result["items"]
    return text + (f"; {left_out} were left out, the tuning text holds them" if left_out else "")


def _untuned_text(untuned: Mapping[str, Any]) -> str:
    return (
        f"of the lost, the prompt brings back {_percent(untuned['recovery'])} % before it is tuned: they were at the edge, and "
        f"any change may tip them over; tuning adds {_percent(untuned['tuning_adds'])} points"
    )


def _readable_text(readable: Mapping[str, Any]) -> str:
    return (
        f"of the lost, a linear probe reads {_percent(readable['probe'])} % off the hidden states that the prompt does not "
        f"bring back; of a model that was never told of them it is {_percent(readable['floor'])} %"
    )


_LATENT = next(arm.name for _, arm in arms() if arm.role == "latent")
"""The arm beside which the shares of fates stand: with it all of them are known."""
_RATE_HEADS = (
    "model",
    "repair",
    "lost",
    "the same",
    "lost, recovered",
    "kept, broken",
    "never known, lucky",
    "latent",
    "erased",
)


def _rate_rows(result: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for model, found in result["models"].items():
        for repair, rates in found["rates"].items():
            shares = found["shares"] if repair == _LATENT else None
            cells = [_percent(rates[name]) for name in ("recovery", "regression", "luck")]
            counts = map(str, (found["items"]["lost"], found["common"]))
            fates = (_percent(shares[name]) if shares else "" for name in ("latent", "erased"))
            rows.append([model, repair, *counts, *cells, *fates])
    return rows


def _percent(share: Mapping[str, float] | None) -> str:
    return f"{100 * share['value']:.1f} [{100 * share['low']:.1f}, {100 * share['high']:.1f}]" if share is not None else "-"


_TEST_HEADS = ("repair", "change, points", "p", "p (Holm)", "smallest effect, points", "noise, points")


def _test_rows(result: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for repair, test in result["tests"].items():
        noise = test["noise_floor"]
        p_values = [f"{test[name]:.2g}" for name in ("p_value", "p_holm")]
        effects = [f"{100 * test['smallest_effect']:.1f}", f"{100 * noise['difference']:.1f}" if noise else "-"]
        value, low, high = (100 * test["difference"][name] for name in ("value", "low", "high"))
        rows.append([repair, f"{value:+.1f} [{low:+.1f}, {high:+.1f}]", *p_values, *effects])
    return rows


def _print_texts(task: str, result: Mapping[str, Any]) -> None:
    metrics = list(result["dense"])
    heads = ("model", "repair", "damage undone", *(metric.replace("_", " ") for metric in metrics))
    print(f"\n{task}: {result['items']} texts\n")
    print_table(heads, [["dense", "", "", *_values(result["dense"])], *_text_rows(result)], right=heads[2:])


def _text_rows(result: Mapping[str, Any]) -> Iterator[list[str]]:
    for model, found in result["models"].items():
        for repair, scores in found["scores"].items():
            undone = "" if repair == "none" else _percent(found["undone"][repair])
            yield [model, repair, undone, *_values(scores)]


def _values(scores: Mapping[str, float]) -> list[str]:
    return [f"{value:,.{1 if value >= 100 else 3}f}" for value in scores.values()]
