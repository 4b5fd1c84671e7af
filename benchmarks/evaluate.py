"""Wall time of an evaluation beside lm-eval's own model (and peft's, for soft prompts), in one run.

python benchmarks/evaluate.py --data FOLDER [--limit 100] [--repeats 3] [--only hellaswag]

FOLDER holds <task>.jsonl in the columns of the data sets on the Hub. The model is a random Llama of 28 M parameters with a
vocabulary of 32,000, its tokenizer trained on the questions. Both sides run what `lm_eval.evaluate` runs.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from peft import PromptTuningConfig, TaskType, get_peft_model
from tokenizers import ByteLevelBPETokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from llmrepair.models.answers import AnswerFile
from llmrepair.models.harness import RepairedLM
from llmrepair.models.prompt_cache import build_prompt_cache
from llmrepair.models.scorer import Scorer
from llmrepair.models.selection import FixedSelector
from llmrepair.models.trees import Text, common_length
from llmrepair.stages.evaluate.loading import load_tasks
from llmrepair.stages.evaluate.stage import EvaluateConfig
from llmrepair.stages.evaluate.tasks import task_identities

MAX_LENGTH = 1900
PROMPT_TOKENS = 100
CASES: dict[str, tuple[str, int, bool]] = {
    "arc_easy 0-shot": ("arc_easy", 0, False),
    "arc_challenge 0-shot": ("arc_challenge", 0, False),
    "hellaswag 0-shot": ("hellaswag", 0, False),
    "arc_easy 5-shot": ("arc_easy", 5, False),
    "hellaswag 5-shot": ("hellaswag", 5, False),
    "arc_easy 0-shot, soft prompt": ("arc_easy", 0, True),
    "wikitext": ("wikitext", 0, False),
    "triviaqa generation": ("triviaqa", 0, False),
}


def train_tokenizer(data: Path) -> PreTrainedTokenizerFast:
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train([str(path) for path in sorted(data.glob("*.jsonl"))], 32_000, show_progress=False, special_tokens=["<s>"])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer._tokenizer, bos_token="<s>", eos_token="<s>", pad_token="<s>")


def random_llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 6, "num_attention_heads": 6}
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=32_000, max_position_embeddings=2048, tie_word_embeddings=True, **sizes)
    ).eval()


def loaded(task: str, data: Path, shots: int) -> dict[str, Any]:
    config = EvaluateConfig(tasks=(task,), tasks_data=data)
    tasks = load_tasks(config, task_identities((task,), None, data, str))
    for each in tasks["tasks"].values():
        each.set_config(key="num_fewshot", value=shots)
        each.set_fewshot_seed(seed=1234)
    return tasks


@contextmanager
def counting(model: torch.nn.Module) -> Iterator[list[int]]:
    """How many tokens go through the layers of a model, padding included."""
    counts: list[int] = []

    def count(module: torch.nn.Module, arguments: Any, options: dict[str, Any]) -> None:
        hidden = arguments[0] if arguments else options["hidden_states"]
        counts.append(hidden.shape[0] * hidden.shape[1])

    hook = model.model.layers[0].register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield counts
    finally:
        hook.remove()


class Side(NamedTuple):
    """One of the two that are compared."""

    name: str
    make: Callable[[], HFLM]


def run_once(side: Side, model: LlamaForCausalLM, tasks: dict[str, Any], limit: int) -> tuple[float, int]:
    """Seconds of an evaluation, and tokens computed in it."""
    language_model = side.make()
    with counting(model) as counts:
        start = time.perf_counter()
        evaluate(lm=language_model, task_dict=tasks, limit=limit, bootstrap_iters=0)
        return time.perf_counter() - start, sum(counts)


def sides(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, prompted: bool, batch_size: int) -> list[Side]:
    """Ours with its own choice of a batch, and lm-eval's with `batch_size`."""
    if not prompted:
        return [
            Side("ours", lambda: RepairedLM(model, tokenizer, None, MAX_LENGTH)),
            Side("lm-eval", lambda: HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, max_length=MAX_LENGTH)),
        ]
    config = PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=PROMPT_TOKENS)
    peft_model = get_peft_model(model, config).eval()
    with torch.no_grad():
        cache = build_prompt_cache(model, [peft_model.get_prompt(1)[0]])
    return [
        Side("ours", lambda: RepairedLM(model, tokenizer, None, MAX_LENGTH, cache, FixedSelector(0))),
        Side("lm-eval", lambda: HFLM(pretrained=peft_model, tokenizer=tokenizer, batch_size=batch_size, max_length=MAX_LENGTH)),
    ]


def unique_tokens(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tasks: dict[str, Any], limit: int) -> int:
    """Tokens of a task with each common beginning counted once, over all of its texts."""
    unique = 0

    class Counting(Scorer):
        def score(self, texts: Sequence[Text]) -> list[tuple[float, bool]]:
            nonlocal unique
            ordered = sorted({text.tokens[:-1] for text in texts})
            unique = sum(map(len, ordered)) - sum(common_length(a, b) for a, b in pairwise(ordered))
            return [(0.0, False)] * len(texts)

    language_model = RepairedLM(model, tokenizer, None, MAX_LENGTH)
    language_model._scorer = Counting(model, None, None, AnswerFile(None))
    evaluate(lm=language_model, task_dict=tasks, limit=limit, bootstrap_iters=0)
    return unique


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16, help="of lm-eval's model")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    tokenizer, model = train_tokenizer(options.data), random_llama()
    print(f"{torch.get_num_threads()} threads; {options.limit} items, lm-eval in batches of {options.batch_size}")
    for case, (task, shots, prompted) in CASES.items():
        if options.only not in case:
            continue
        limit = max(1, options.limit // 20) if task == "wikitext" else options.limit  # its items are long
        times, tokens = defaultdict(list), {}
        for _ in range(options.repeats):
            for side in sides(model, tokenizer, prompted, options.batch_size):
                seconds, tokens[side.name] = run_once(side, model, loaded(task, options.data, shots), limit)
                times[side.name].append(seconds)
        ratio = statistics.median(theirs / ours for ours, theirs in zip(times["ours"], times["lm-eval"], strict=True))
        line = f"{case:30} {min(times['ours']):7.2f} s  lm-eval {min(times['lm-eval']):7.2f} s  ratio {ratio:5.2f}"
        line += f"  tokens {tokens['ours']}, lm-eval {tokens['lm-eval']}"
        if task != "triviaqa":
            unique = unique_tokens(model, tokenizer, loaded(task, options.data, shots), limit)
            line += f", unique {unique} ({tokens['ours'] / unique:.2f})"
        print(line, flush=True)


if __name__ == "__main__":
    main()
