"""The same numbers as lm-eval's own model, on real questions: every log-likelihood, every text, every metric.

`make stress` asks 300 items of each task instead of a few.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llmrepair.models.harness import RepairedLM
from llmrepair.models.loading import load_model, load_tokenizer
from llmrepair.models.trees import common_length
from llmrepair.stages.evaluate.stage import EvaluateConfig
from llmrepair.stages.evaluate.tasks.asked import task_identities
from llmrepair.stages.evaluate.tasks.loading import load_tasks
from llmrepair.stages.sources.models import model_folder
from tests.models.test_tree_attention import LLAMA_LIKE, SIZES, random_model

TASKS = ("arc_challenge", "arc_easy", "hellaswag", "lambada_openai", "triviaqa", "webqs", "wikitext")
POSITIONS = 512
WORDS = SIZES | {"vocab_size": 512}  # as many as the tokenizer of stories260k has
RANDOM: dict[str, dict[str, Any]] = {
    "GPT2": WORDS | {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": POSITIONS},
    "Qwen2": WORDS | LLAMA_LIKE | {"vocab_size": 512, "max_position_embeddings": POSITIONS},
    "OPT": WORDS | {"ffn_dim": 64, "word_embed_proj_dim": 32, "max_position_embeddings": POSITIONS, "init_std": 0.3},
}


def made(name: str, stories: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    if name in RANDOM:
        return random_model(name, **RANDOM[name]), load_tokenizer(stories, None)
    folder = stories if name == "stories260k" else str(model_folder(name))
    return load_model(folder, None, "float32", torch.device("cpu")), load_tokenizer(folder, None)


def asked(language_model: HFLM, data: Path, shots: int, limit: int) -> dict[str, Any]:
    tasks = load_tasks(EvaluateConfig(tasks=TASKS, tasks_data=data), task_identities(TASKS, None, data, str))
    for task in tasks["tasks"].values():
        if task.get_config("num_fewshot") != 0:  # wikitext has no examples
            task.set_config(key="num_fewshot", value=shots)
        task.set_fewshot_seed(seed=1234)
    tasks["tasks"]["triviaqa"].set_config(key="generation_kwargs", value={"max_gen_toks": 16}, update=True)
    results = evaluate(lm=language_model, task_dict=tasks, limit=limit, bootstrap_iters=0)
    assert results is not None
    return dict(results)


def agree(shared_data: Path, name: str, shots: int, limit: int, batch_sizes: Sequence[int | None]) -> None:
    model, tokenizer = made(name, str(shared_data / "models" / "stories260k"))
    theirs = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=16)
    rolling = {"wikitext"} if tokenizer.bos_token_id in tokenizer("").input_ids else set()  # which lm-eval begins twice
    expected = asked(theirs, shared_data / "tasks", shots, limit)
    for batch_size in batch_sizes:
        ours = RepairedLM(model, tokenizer, batch_size, theirs.max_length)
        same(asked(ours, shared_data / "tasks", shots, limit), expected, [task for task in TASKS if task not in rolling])


def same(found: dict[str, Any], expected: dict[str, Any], tasks: Sequence[str]) -> None:
    for task in tasks:
        for one, other in zip(found["samples"][task], expected["samples"][task], strict=True):
            assert one["arguments"] == other["arguments"]
            for answer, reference in zip(one["filtered_resps"], other["filtered_resps"], strict=True):
                # lm-eval adds up whole pages in float32, whose steps are 1e-4 at some thousand nats
                if isinstance(reference, str):
                    assert answer == reference or cut_in_a_character(answer, reference)
                else:
                    assert answer == pytest.approx(reference, abs=1e-4, rel=1e-6)
        numbers = {key: value for key, value in expected["results"][task].items() if isinstance(value, float)}
        assert numbers
        assert {key: found["results"][task][key] for key in numbers} == pytest.approx(numbers, rel=1e-5)


def cut_in_a_character(text: str, other: str) -> bool:
    """Whether they part where one has a broken character: random models write bytes that are no text.

    What such bytes look like depends on those that follow, and so does whether there is a stop string among them. lm-eval goes
    on until the last sequence of a batch is done, and looks again.
    """
    shared = common_length(tuple(map(ord, text)), tuple(map(ord, other)))
    return "\ufffd" in (text[shared : shared + 1], other[shared : shared + 1])


@pytest.mark.parametrize(
    "name, shots", [("stories260k", 0), ("lab-opt", 0), *((name, 5) for name in ("lab", "stories260k", *RANDOM))]
)
def test_a_few_items(shared_data: Path, name: str, shots: int) -> None:
    agree(shared_data, name, shots, limit=2, batch_sizes=[None])


@pytest.mark.stress
@pytest.mark.parametrize("shots", [0, 5])
@pytest.mark.parametrize("name", ["stories260k", "lab", "lab-opt", *RANDOM])
def test_hundreds_of_items(shared_data: Path, name: str, shots: int) -> None:
    agree(shared_data, name, shots, limit=300, batch_sizes=[None, 1, 16])
