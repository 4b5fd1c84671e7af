"""What a choice among soft prompts costs, beside one cached prompt, peft's PromptTuning, LoRA and a pass per prompt.

python benchmarks/idp.py [--size 100m] [--repeats 7] [--batch-sizes 1,8] [--contexts 32,200,1000]
python benchmarks/idp.py --device cuda --size 7b

The model is a random Llama. Each ratio is the median of pairs: in every round each side runs once, one after the other, with
the sides in another order each time. A prefill is a forward pass over inputs without padding; decoding is what `generate`
takes for each token after the first, with --decode (always on a GPU).
"""

from __future__ import annotations

import argparse
import copy
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from peft import LoraConfig, PromptTuningConfig, TaskType, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from llmrepair.models.prompt_cache import build_prompt_cache
from llmrepair.models.prompted import PromptedModel
from llmrepair.models.routing import Router
from llmrepair.models.selection import FixedSelector, RoutedSelector

VOCABULARY = 32_000
PROMPTS = 4
SIZES = {
    "23m": {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 6, "num_attention_heads": 6},
    "100m": {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 10, "num_attention_heads": 12},
    "7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
}
IDP, CACHED, PEFT, LORA, SEPARATE = "IDP", "one cached prompt", "peft prompt", "LoRA", f"{PROMPTS} passes"
RATIOS = {"a": (IDP, CACHED), "b": (CACHED, PEFT), "c": (IDP, LORA), "d": (SEPARATE, IDP)}
BOUNDS = {"a": 1.10, "b": 0.75}
DECODED = 16
Side = Callable[[torch.Tensor], Any]
Case = tuple[str, int, int]
"""What is measured, the batch and the context."""


def random_llama(size: str, device: str) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=VOCABULARY, max_position_embeddings=2048, **SIZES[size])
    torch.set_default_dtype(torch.bfloat16 if device == "cuda" else torch.float32)
    with torch.device(device):
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    return model.eval().requires_grad_(False)


def models(options: argparse.Namespace) -> dict[str, Any]:
    """One model for each side; all have `generate` and can be called."""
    model = random_llama(options.size, options.device)
    adapted = LoraConfig(r=8, target_modules="all-linear", task_type=TaskType.CAUSAL_LM)
    tuned = PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=options.prompt_tokens)
    shape = (options.prompt_tokens, model.config.hidden_size)
    prompts = [0.02 * torch.randn(shape, device=model.device, dtype=model.dtype) for _ in range(PROMPTS)]
    pool = build_prompt_cache(model, prompts)
    return {
        IDP: PromptedModel(model, pool, RoutedSelector(Router(model, pool), max(options.batch_sizes))),
        CACHED: PromptedModel(model, build_prompt_cache(model, prompts[:1]), FixedSelector(0)),
        PEFT: get_peft_model(copy.copy(model), tuned).eval().to(model.dtype),
        LORA: get_peft_model(copy.deepcopy(model), adapted).eval().to(model.dtype),
        SEPARATE: [PromptedModel(model, pool, FixedSelector(index)) for index in range(PROMPTS)],
    }


def prefills(sides: dict[str, Any]) -> dict[str, Side]:
    def separate(ids: torch.Tensor) -> None:
        for side in sides[SEPARATE]:
            side(ids)

    return {name: partial(_call, side) for name, side in sides.items() if name != SEPARATE} | {SEPARATE: separate}


def _call(model: Any, ids: torch.Tensor) -> Any:
    return model(input_ids=ids, attention_mask=torch.ones_like(ids))


def timed(side: Side, ids: torch.Tensor) -> float:
    _wait(ids)
    start = time.perf_counter()
    side(ids)
    _wait(ids)
    return time.perf_counter() - start


def _wait(ids: torch.Tensor) -> None:
    if ids.is_cuda:
        torch.cuda.synchronize()


def decoded(model: Any, ids: torch.Tensor) -> float:
    """Seconds for each token after the first."""

    def generate(tokens: int, ids: torch.Tensor) -> None:
        settings = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False, "pad_token_id": 0}
        model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **settings)

    return (timed(partial(generate, 1 + DECODED), ids) - timed(partial(generate, 1), ids)) / DECODED


def measure(sides: dict[str, Callable[[torch.Tensor], float]], batch: int, context: int, options: argparse.Namespace) -> Any:
    """Seconds of each side in each round; a round before the first is not counted."""
    ids = torch.randint(3, VOCABULARY, (batch, context), device=options.device)
    seconds: dict[str, list[float]] = defaultdict(list)
    for number in range(options.repeats + 1):
        for name in random.sample(sorted(sides), len(sides)):
            took = sides[name](ids)
            if number:
                seconds[name].append(took)
    return seconds


def ratios(seconds: dict[str, list[float]]) -> dict[str, float]:
    return {
        name: statistics.median(a / b for a, b in zip(seconds[one], seconds[other], strict=True))
        for name, (one, other) in RATIOS.items()
        if one in seconds
    }


def line(case: Case, seconds: dict[str, list[float]], found: dict[str, float]) -> str:
    what, batch, context = case
    times = "  ".join(f"{1000 * statistics.median(seconds[name]):9.1f}" for name in seconds_order(seconds))
    return f"{what:8} {batch:5} {context:7}  " + "  ".join(f"({name}) {found[name]:5.2f}" for name in found) + f"   {times}"


def seconds_order(seconds: dict[str, list[float]]) -> list[str]:
    return [name for name in (IDP, CACHED, PEFT, LORA, SEPARATE) if name in seconds]


def verdict(name: str, results: dict[Case, dict[str, float]]) -> str:
    """Whether a bound holds: (a) everywhere, (b) at a context of 200."""
    counted = {case: found[name] for case, found in results.items() if case[0] == "prefill" and (name == "a" or case[2] == 200)}
    one, other = RATIOS[name]
    missed = [f"{value:.2f} at batch {batch}, context {context}" for (_, batch, context), value in counted.items()]
    missed = [text for text, value in zip(missed, counted.values(), strict=True) if value > BOUNDS[name]]
    says = (
        f"missed: {', '.join(missed)}"
        if missed
        else f"holds, at most {max(counted.values()):.2f}"
        if counted
        else "not measured"
    )
    return f"({name}) {one} / {other} <= {BOUNDS[name]:.2f}: {says}"


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=tuple(SIZES), default="100m")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="float32 on a CPU, bfloat16 on a GPU")
    parser.add_argument("--batch-sizes", type=numbers, default=[1, 8])
    parser.add_argument("--contexts", type=numbers, default=[32, 200, 1000])
    parser.add_argument("--prompt-tokens", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--decode", action="store_true", help=f"also {DECODED} tokens one by one")
    options = parser.parse_args()
    with torch.inference_mode():
        run(options)


def run(options: argparse.Namespace) -> None:
    sides = models(options)
    weights = sum(parameter.numel() for parameter in sides[IDP].model.parameters())
    print(f"{weights / 1e6:.0f} M parameters, {options.device}, {torch.get_num_threads()} threads, ", end="")
    print(f"{PROMPTS} prompts of {options.prompt_tokens} tokens, {options.repeats} rounds")
    print(*(f"({name}) {one} / {other}" for name, (one, other) in RATIOS.items()), sep="; ")
    print(f"then milliseconds: {', '.join((IDP, CACHED, PEFT, LORA, SEPARATE))}")
    measured: dict[str, dict[str, Any]] = {"prefill": {name: partial(timed, side) for name, side in prefills(sides).items()}}
    if options.decode or options.device == "cuda":
        measured["decode"] = {name: partial(decoded, side) for name, side in sides.items() if name != SEPARATE}
    results: dict[Case, dict[str, float]] = {}
    for what, of_sides in measured.items():
        for batch in options.batch_sizes:
            for context in options.contexts:
                seconds = measure(of_sides, batch, context, options)
                results[what, batch, context] = ratios(seconds)
                print(line((what, batch, context), seconds, results[what, batch, context]), flush=True)
    print(*(verdict(name, results) for name in BOUNDS), sep="\n")


if __name__ == "__main__":
    main()
