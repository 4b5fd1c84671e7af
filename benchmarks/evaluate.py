"""Wall time of an evaluation beside lm-eval's own model (and peft's, for soft prompts), in one run.

python benchmarks/evaluate.py --data FOLDER [--limit 100] [--repeats 3] [--only hellaswag]

FOLDER holds <task>.jsonl in the columns of the data sets on the Hub. The model is a random Llama with a vocabulary of
32,000, its tokenizer trained on the questions; then `lab`. Both sides run what `lm_eval.evaluate` runs.
"""

from __future__ import annotations

import argparse
import ctypes
import logging
import resource
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from peft import PromptTuningConfig, TaskType, get_peft_model
from tokenizers import ByteLevelBPETokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from llmrepair.models.answers import AnswerFile
from llmrepair.models.harness import RepairedLM
from llmrepair.models.loading import load_model, load_tokenizer
from llmrepair.models.prompt_cache import build_prompt_cache
from llmrepair.models.scorer import Scorer
from llmrepair.models.selection import FixedSelector
from llmrepair.models.trees import Text, common_length
from llmrepair.stages.evaluate.stage import EvaluateConfig
from llmrepair.stages.evaluate.tasks.asked import task_identities
from llmrepair.stages.evaluate.tasks.loading import load_tasks, templates_compiled_once
from llmrepair.stages.sources.models import model_folder

MAX_LENGTH = 1900
PROMPT_TOKENS = 100
SIZES = {
    "23m": {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 6, "num_attention_heads": 6},
    "1b": {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 16},
}


class Case(NamedTuple):
    task: str
    shots: int = 0
    prompted: bool = False
    generates: bool = False


CASES = {
    "arc_easy 0-shot": Case("arc_easy"),
    "arc_challenge 0-shot": Case("arc_challenge"),
    "hellaswag 0-shot": Case("hellaswag"),
    "arc_easy 5-shot": Case("arc_easy", shots=5),
    "hellaswag 5-shot": Case("hellaswag", shots=5),
    "arc_easy 0-shot, soft prompt": Case("arc_easy", prompted=True),
    "wikitext": Case("wikitext"),
    "triviaqa generation": Case("triviaqa", generates=True),
}
LAB_CASES = {"lab_mc": Case("lab_mc"), "lab_text": Case("lab_text"), "lab_qa generation": Case("lab_qa", generates=True)}


class Subject(NamedTuple):
    """What is evaluated."""

    model: LlamaForCausalLM
    tokenizer: PreTrainedTokenizerBase
    max_length: int


def train_tokenizer(data: Path) -> PreTrainedTokenizerFast:
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train([str(path) for path in sorted(data.glob("*.jsonl"))], 32_000, show_progress=False, special_tokens=["<s>"])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer._tokenizer, bos_token="<s>", eos_token="<s>", pad_token="<s>")


def random_llama(size: str, device: str) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=32_000, max_position_embeddings=2048, tie_word_embeddings=True, **SIZES[size])
    return LlamaForCausalLM(config).to(device, torch.bfloat16 if device == "cuda" else torch.float32).eval()


def loaded(case: Case, data: Path) -> dict[str, Any]:
    config = EvaluateConfig(tasks=(case.task,), tasks_data=data)
    tasks = load_tasks(config, task_identities((case.task,), None, data, str))
    for each in tasks["tasks"].values():
        each.set_config(key="num_fewshot", value=case.shots)
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


@contextmanager
def peak_memory(device: str) -> Iterator[list[int]]:
    """Most bytes in use above those at the start, on the GPU, or of the process as seen every 2 ms."""
    peaks = [0]
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        yield peaks
        peaks[0] = torch.cuda.max_memory_allocated() - before
        return
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    before, done = resident_bytes(), threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            peaks[0] = max(peaks[0], resident_bytes() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    yield peaks
    done.set()
    watcher.join()


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


class Result(NamedTuple):
    """One evaluation."""

    seconds: float
    tokens: int
    peak_bytes: int


def run_once(language_model: HFLM, model: LlamaForCausalLM, tasks: dict[str, Any], limit: int) -> Result:
    ours = templates_compiled_once() if isinstance(language_model, RepairedLM) else nullcontext()
    with counting(model) as counts, peak_memory(model.device.type) as peak, ours:
        start = time.perf_counter()
        evaluate(lm=language_model, task_dict=tasks, limit=limit, bootstrap_iters=0)
        seconds = time.perf_counter() - start
    return Result(seconds, sum(counts), peak[0])


def sides(subject: Subject, prompted: bool, batch_size: int) -> dict[str, Callable[[], HFLM]]:
    """Ours with its own choice of a batch and with lm-eval's, and lm-eval's model."""
    model, tokenizer, max_length = subject
    theirs: torch.nn.Module = model
    cache = None
    if prompted:
        theirs = get_peft_model(
            model, PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=PROMPT_TOKENS)
        ).eval()
        with torch.no_grad():
            cache = build_prompt_cache(model, [theirs.get_prompt(1)[0].to(model.dtype)])
    selector = FixedSelector(0) if prompted else None
    return {
        "ours": lambda: RepairedLM(model, tokenizer, None, max_length, cache, selector),
        "same batch": lambda: RepairedLM(model, tokenizer, batch_size, max_length, cache, selector),
        "lm-eval": lambda: HFLM(pretrained=theirs, tokenizer=tokenizer, batch_size=batch_size, max_length=max_length),
    }


def unique_tokens(subject: Subject, tasks: dict[str, Any], limit: int) -> int:
    """Tokens of a task with each common beginning counted once, over all of its texts."""
    unique = 0

    class Counting(Scorer):
        def score(self, texts: Sequence[Text]) -> list[tuple[float, bool]]:
            nonlocal unique
            ordered = sorted({text.tokens[:-1] for text in texts})
            unique = sum(map(len, ordered)) - sum(common_length(a, b) for a, b in pairwise(ordered))
            return [(0.0, False)] * len(texts)

    language_model = RepairedLM(subject.model, subject.tokenizer, None, subject.max_length)
    language_model._scorer = Counting(subject.model, None, None, AnswerFile(None))
    evaluate(lm=language_model, task_dict=tasks, limit=limit, bootstrap_iters=0)
    return unique


def measure(subject: Subject, name: str, case: Case, options: argparse.Namespace) -> None:
    limit = max(1, options.limit // 20) if case.task == "wikitext" else options.limit  # its items are long
    tasks = partial(loaded, case, options.data)
    results: dict[str, list[Result]] = defaultdict(list)
    for _ in range(options.repeats):
        for side, make in sides(subject, case.prompted, options.batch_size).items():
            results[side].append(run_once(make(), subject.model, tasks(), limit))
    print(line(name, results, None if case.generates else unique_tokens(subject, tasks(), limit)), flush=True)


def line(case: str, results: dict[str, list[Result]], unique: int | None) -> str:
    ours, same, theirs = results["ours"], results["same batch"], results["lm-eval"]
    ratio = statistics.median(b.seconds / a.seconds for a, b in zip(ours, theirs, strict=True))
    computed = f"{ours[0].tokens} tokens, lm-eval {theirs[0].tokens}"
    computed += f", unique {unique} ({ours[0].tokens / unique:.2f})" if unique else ""
    peak = f"same batch: peak {same[0].peak_bytes / 1e6:.0f} MB, lm-eval {theirs[0].peak_bytes / 1e6:.0f} MB"
    seconds = f"{min(a.seconds for a in ours):.2f} s, lm-eval {min(b.seconds for b in theirs):.2f} s"
    return f"{case:29} {ratio:5.2f} x  ({seconds})  {computed}  {peak}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16, help="of lm-eval's model")
    parser.add_argument("--size", choices=tuple(SIZES), default="23m")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="float32 on a CPU, bfloat16 on a GPU")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    random = Subject(random_llama(options.size, options.device), train_tokenizer(options.data), MAX_LENGTH)
    where = f"{options.size}, {options.device}, {torch.get_num_threads()} threads"
    print(f"{where}, {options.limit} items; lm-eval in batches of {options.batch_size}")
    folder = str(model_folder("lab"))
    lab = Subject(load_model(folder, None, "float32", torch.device(options.device)), load_tokenizer(folder, None), 128)
    for subject, cases in ((random, CASES), (lab, LAB_CASES)):
        for name, case in cases.items():
            if options.only in name:
                measure(subject, name, case, options)


if __name__ == "__main__":
    main()
