"""What a conjecture test found, as its artifact has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmrepair.stages.conjecture.stage import DAMAGED, RESULT_FILE

if TYPE_CHECKING:
    from llmrepair.pipeline.artifact import Artifact


def read_verdict(artifact: Artifact) -> dict[str, Any]:
    """The verdict, and for each task its sentence, the displacement index and the shares of lost items, where it has them."""
    found = artifact.read_json(RESULT_FILE)
    tasks = [
        {
            "task": name,
            "sentence": of_task["sentence"],
            "index": (of_task.get("displacement") or {}).get("index"),
            "shares": of_task["models"][DAMAGED].get("shares") or {},
        }
        for name, of_task in found["tasks"].items()
    ]
    return {"name": artifact.name, "word": found["verdict"], "sentences": found["sentences"], "tasks": tasks}
