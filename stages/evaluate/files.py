"""Names of the files of an evaluation's artifact."""

from __future__ import annotations

RESULTS_FILE = "results.json"


def samples_file(task: str) -> str:
    return f"samples_{task.replace('/', '_')}.jsonl"
