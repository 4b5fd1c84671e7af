"""`factrecall` as lm-eval runs it: a document is a fact, and its requests are all choices behind each of its paraphrases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask

from llmrepair.stages.evaluate.tasks import factrecall


class FactRecallTask(ConfigurableTask):
    """Reads the folder that `dataset_kwargs` names."""

    def __init__(self, config: dict[str, Any]):
        super().__init__(config={name: value for name, value in config.items() if name != "class"})

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        assert dataset_kwargs is not None
        self.dataset = {"test": Dataset.from_list(factrecall.read(Path(dataset_kwargs["folder"])).documents)}

    def construct_requests(self, doc: dict[str, Any], ctx: str, **kwargs: Any) -> list[Instance]:
        """What lm-eval makes of one prompt, for each: `ctx` holds the first, and whatever a chat template puts around it."""
        before, _, after = ctx.rpartition(doc["prompts"][0])
        requests: list[Instance] = []
        for prompt in doc["prompts"]:
            requests += super().construct_requests(doc, before + prompt + after, **kwargs)
        for index, request in enumerate(requests):
            request.idx = index
        return requests


def task_config(folder: Path) -> dict[str, Any]:
    """What lm-eval loads as the task."""
    return {
        "task": factrecall.FACTRECALL,
        "class": FactRecallTask,
        "dataset_kwargs": {"folder": str(folder)},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{prompts[0]}}",
        "doc_to_choice": "choices",
        "doc_to_target": "gold",
        "num_fewshot": 0,  # sentences to complete; an example could be the fact itself in other words
        "process_results": factrecall.score,
        "metric_list": [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in factrecall.METRICS],
        "metadata": {"version": 1.0},
    }
