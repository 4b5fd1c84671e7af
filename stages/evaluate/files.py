"""Names of the files of an evaluation's artifact."""

from __future__ import annotations

# lm-eval's tools expect a date behind the last underscore. Nothing in an artifact changes from run to run, so ours is a word.
RESULTS_FILE = "results_llmrepair.json"


def samples_file(task: str) -> str:
    return f"samples_{task.replace('/', '_')}_llmrepair.jsonl"
