"""How often the conjecture test comes out right where it is known what became of the facts.

    OMP_NUM_THREADS=1 python benchmarks/known_truth.py [--models lab,lab-opt] [--seeds 10] [--budget 200000] [--runs runs]

The model under test is itself a control, of other random draws than the two that the index is measured between; each tuning
seed is a test of its own. `right` counts the seeds whose verdict is the truth's word: of `mixture` those whose index interval
also holds 0.5, of `overwritten` those in which at least half of what LoRA brings back is latent, whatever the verdict is.
`null` is the share of A/A comparisons, between answers of different seeds, that McNemar's test calls significant.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmrepair.pipeline.pull import pull_all
from llmrepair.pipeline.runner import Runner
from llmrepair.stages.conjecture.roles import DAMAGED, RESULT_FILE
from llmrepair.stages.controls import CONTROLS
from llmrepair.stages.request import conjecture_stage
from llmrepair.stages.running import make_runner
from llmrepair.stages.workers import local_executor

OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "erased": {"control_share": 0.95},  # else it would be one of the two controls that it is measured between
}
TASK = "lab_qa"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", default="lab,lab-opt")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--budget", type=int, default=200_000, help="tokens that each repair is tuned on")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    runner = make_runner({}, arguments.runs)
    for model in arguments.models.split(","):
        for truth in (kind.name for kind in CONTROLS.values() if kind.expected is not None):
            options = {"budget": arguments.budget, **OPTIONS.get(truth, {})}
            values = {"model": model, "control": truth, "control_seed": 1, **options}
            print(json.dumps({"model": model, "truth": truth} | tried(runner, truth, values, arguments.seeds)), flush=True)


def tried(runner: Runner, truth: str, values: Mapping[str, Any], seeds: int) -> dict[str, Any]:
    """A test of each seed, and one of all."""
    every = [[seed] for seed in range(seeds)] + [list(range(seeds))]
    stages = [
        conjecture_stage({**values, "seeds": of_test, "controls": "erased,displaced", "tasks": TASK}) for of_test in every
    ]
    *single, together = [
        each.artifact.read_json(RESULT_FILE)["tasks"][TASK] for each in pull_all(runner, stages, local_executor)
    ]
    indices = [each["displacement"]["index"] for each in single]
    return {
        "right": sum(is_right(truth, each) for each in single),
        "seeds": seeds,
        "verdicts": Counter(each["verdict"]["word"] for each in single),
        "index": [index and round(index["value"], 3) for index in indices],
        "of_all_seeds": {"verdict": together["verdict"]["word"], "index": together["displacement"]["index"]},
        "shares": {name: round(share["value"], 3) for name, share in together["models"][DAMAGED]["shares"].items()},
        "null": {name: test["noise_floor"]["significant"] for name, test in together["tests"].items() if test["noise_floor"]},
    }


def is_right(truth: str, found: Mapping[str, Any]) -> bool:
    word, index, expected = found["verdict"]["word"], found["displacement"]["index"], CONTROLS[truth].expected
    if expected == "latent":
        model = found["models"][DAMAGED]
        return bool(model["shares"]["latent"]["value"] >= model["rates"]["lora"]["recovery"]["value"] / 2)
    if expected == "mixed":
        return bool(word == "mixed" and index["low"] <= 0.5 <= index["high"])
    return bool(word == expected)


if __name__ == "__main__":
    main()
