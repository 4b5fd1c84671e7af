"""Wall time of an evaluation beside lm-eval's own model (and peft's, for soft prompts), in one run.

python benchmarks/evaluate.py --data FOLDER [--limit 100] [--repeats 3] [--only hellaswag]

FOLDER holds <task>.jsonl in the columns of the data sets on the Hub. The model is a random Llama of 28 M parameters with a
vocabulary of 32,000, its tokenizer trained on the questions. Both sides run what `lm_eval.evaluate` runs.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from peft import PromptTuningConfig, TaskType, get_peft_model
from tokenizers import ByteLevelBPETokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from llmrepair.models.harness import RepairedLM
from llmrepair.models.prompt_cache import build_prompt_cache
from llmrepair.models.selection import FixedSelector
from llmrepair.stages.evaluate.tasks import load_config

PROMPT_TOKENS = 100
CASES: dict[str, tuple[str, int, bool]] = {
    "arc_easy 0-shot": ("arc_easy", 0, False),
    "arc_challenge 0-shot": ("arc_challenge", 0, False),
    "hellaswag 0-shot": ("hellaswag", 0, False),
    "arc_easy 5-shot": ("arc_easy", 5, False),
    "hellaswag 5-shot": ("hellaswag", 5, False),
    "arc_easy 0-shot, soft prompt": ("arc_easy", 0, True),
    "wikitext": ("wikitext", 0, False),  # pages of some thousand tokens: a twentieth of the items
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
    tasks = TaskManager(include_defaults=False).load([load_config(task, data, {})])
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


def timed(language_model: HFLM, tasks: Callable[[], dict[str, Any]], limit: int) -> tuple[float, dict[str, Any]]:
    task_dict = tasks()
    start = time.perf_counter()
    results = evaluate(lm=language_model, task_dict=task_dict, limit=limit, bootstrap_iters=0)
    return time.perf_counter() - start, results["results"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16, help="of lm-eval's model")
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    tokenizer, model = train_tokenizer(options.data), random_llama()
    prompt = model.get_input_embeddings().weight[:PROMPT_TOKENS].detach().clone()
    for name, (task, shots, prompted) in CASES.items():
        if options.only not in name:
            continue
        cache = None
        theirs_model = model
        if prompted:
            with torch.no_grad():
                cache = build_prompt_cache(model, [prompt])
            config = PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=PROMPT_TOKENS)
            theirs_model = get_peft_model(model, config).eval()
            theirs_model.prompt_encoder["default"].embedding.weight.data = prompt
        times: dict[str, list[float]] = {"ours": [], "theirs": []}
        scores = {}
        for _ in range(options.repeats):
            for side in times:
                if side == "ours":
                    lm: HFLM = RepairedLM(model, tokenizer, "auto", 1900, cache, FixedSelector(0) if cache else None)
                else:
                    lm = HFLM(pretrained=theirs_model, tokenizer=tokenizer, batch_size=options.batch_size, max_length=1900)
                with counting(model) as counts:
                    seconds, scores[side] = timed(
                        lm,
                        lambda: loaded(task, options.data, shots),
                        max(1, options.limit // (20 if task == "wikitext" else 1)),
                    )
                times[side].append(seconds)
                if len(times[side]) == 1:
                    print(f"    {side}: {seconds:.2f} s, {sum(counts)} tokens in {len(counts)} passes", file=sys.stderr)
        ratio = statistics.median(b / a for a, b in zip(times["ours"], times["theirs"], strict=True))
        print(
            f"{name:32} ours {min(times['ours']):6.2f} s  lm-eval {min(times['theirs']):6.2f} s  ratio {ratio:.2f}", flush=True
        )


if __name__ == "__main__":
    main()
