"""Tokens per second of tuning prompts and LoRA beside peft and transformers' Trainer, in one run.

python benchmarks/tune.py [--size 10m] [--steps 20] [--repeats 5] [--device cuda]

Both sides start from the same values, take the same rows in the same order, in the same batches and with the same learning
rates, and end with losses that differ by less than 1 %. The machine may have other work: runs alternate, and what counts is
the median of the ratios of neighbours. A token is one of text; what a prompt adds is not counted. The model is a random Llama
with a vocabulary of 32,000; then `lab` itself.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import PromptTuningConfig, TaskType, get_peft_model
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import SequentialSampler
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Trainer, TrainingArguments

from llmrepair.models.head import loss_in_parts
from llmrepair.models.loading import load_model
from llmrepair.models.lora import new_adapter
from llmrepair.models.prompt_training import prompt_logits
from llmrepair.models.soft_prompt import vocabulary_prompt
from llmrepair.models.training import (
    LogitsOf,
    Recipe,
    learning_rate,
    mean_loss,
    next_token_loss,
    plain_logits,
    predicting,
    rows_of_step,
    train,
)
from llmrepair.stages.sources.models import model_folder

VOCABULARY = 32_000
SIZES = {
    "10m": {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4, "num_attention_heads": 4},
    "100m": {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12},
    "1b": {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 16},
}
RANK = 8


class Case(NamedTuple):
    """What is tuned: a prompt of so many tokens, or LoRA where there is none; `rows` of `seq_len` tokens a step."""

    prompt: int
    seq_len: int
    rows: int = 16

    def __str__(self) -> str:
        what = f"prompt of {self.prompt} tokens" if self.prompt else f"LoRA of rank {RANK}"
        return f"{what}, {self.rows} x {self.seq_len} tokens a step"


CASES = (Case(16, 64), Case(64, 64), Case(100, 128), Case(0, 64), Case(0, 128))


class Tuned(NamedTuple):
    seconds: float
    loss: float
    """Over all rows, at the end."""


def random_rows(vocabulary: int, count: int, length: int) -> torch.Tensor:
    """Rows [N, L] of words of which few are frequent."""
    frequencies = 1 / torch.arange(1, vocabulary + 1)
    return frequencies.multinomial(count * length, replacement=True, generator=torch.manual_seed(1)).view(count, length)


def ours(model: PreTrainedModel, rows: torch.Tensor, case: Case, recipe: Recipe) -> Tuned:
    if case.prompt:
        prompt = torch.nn.Parameter(vocabulary_prompt(model, case.prompt, 0, []))
        parameters, logits_of = [prompt], prompt_logits(model, prompt, case.prompt)
    else:
        adapted = lora(model)
        parameters, logits_of = [p for p in adapted.parameters() if p.requires_grad], plain_logits(adapted)

    loss_sum = loss_in_parts(model, logits_of, next_token_loss)
    with tempfile.TemporaryDirectory() as folder:
        seconds = timed(
            lambda: train(parameters, loss_sum, rows, rows[:1], recipe, case.rows, Path(folder) / "state", lambda *step: None)
        )
    return Tuned(seconds, final_loss(logits_of, rows, case))


def peft_and_trainer(model: PreTrainedModel, rows: torch.Tensor, case: Case, recipe: Recipe) -> Tuned:
    if case.prompt:
        config = PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=case.prompt)
        adapted = get_peft_model(model, config)
        adapted.prompt_encoder.default.embedding.weight.data.copy_(vocabulary_prompt(model, case.prompt, 0, []))
    else:
        adapted = lora(model)
    steps = [rows_of_step(len(rows), case.rows, recipe.seed, step) for step in range(recipe.steps)]
    data = [{"input_ids": row, "labels": row, "attention_mask": torch.ones_like(row)} for row in rows[torch.cat(steps)].cpu()]
    optimizer = torch.optim.AdamW(
        [p for p in adapted.parameters() if p.requires_grad], lr=recipe.learning_rate, weight_decay=0.0
    )
    schedule = LambdaLR(optimizer, lambda step: learning_rate(recipe, step) / recipe.learning_rate)
    trainer = InOrder(adapted, arguments(case, recipe, model), train_dataset=data, optimizers=(optimizer, schedule))
    seconds = timed(trainer.train)

    def logits_of(some: torch.Tensor) -> torch.Tensor:
        keep = predicting(some, case.prompt)
        return adapted(input_ids=some, attention_mask=torch.ones_like(some), logits_to_keep=keep).logits

    return Tuned(seconds, final_loss(logits_of, rows, case))


class InOrder(Trainer):
    """Takes the rows as they come."""

    def _get_train_sampler(self, *arguments: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)


def arguments(case: Case, recipe: Recipe, model: PreTrainedModel) -> TrainingArguments:
    return TrainingArguments(
        output_dir=tempfile.gettempdir(),
        max_steps=recipe.steps,
        per_device_train_batch_size=case.rows,
        max_grad_norm=1.0,
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=model.device.type == "cpu",
    )


def lora(model: PreTrainedModel) -> Any:
    torch.manual_seed(0)
    return new_adapter(model, RANK)


@torch.no_grad()
def final_loss(logits_of: LogitsOf, rows: torch.Tensor, case: Case) -> float:
    return mean_loss(lambda some: next_token_loss(logits_of(some), some), rows, case.rows)


def timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def models(size: str, device: str) -> Iterator[tuple[str, Callable[[], PreTrainedModel]]]:
    """Name and maker: LoRA changes a model for good."""
    dtype = "bfloat16" if device == "cuda" else "float32"

    def random_llama() -> PreTrainedModel:
        torch.manual_seed(0)
        config = LlamaConfig(vocab_size=VOCABULARY, max_position_embeddings=2048, tie_word_embeddings=True, **SIZES[size])
        return LlamaForCausalLM(config).to(device, getattr(torch, dtype)).eval().requires_grad_(False)

    yield f"random Llama, {size}", random_llama
    yield "lab", lambda: load_model(str(model_folder("lab")), None, dtype, torch.device(device))


def compare(make: Callable[[], PreTrainedModel], case: Case, steps: int, repeats: int) -> str:
    recipe = Recipe(steps, 0.01 if case.prompt else 0.001, case.rows, 0)
    rows = random_rows(make().config.vocab_size, 8 * case.rows, case.seq_len).to(make().device)
    sides = (ours, peft_and_trainer)
    pairs = [[side(make(), rows, case, recipe) for side in sides] for _ in range(repeats + 1)][1:]  # the first warms up
    tokens = steps * case.rows * case.seq_len
    speeds = [tokens / statistics.median(pair[side].seconds for pair in pairs) for side in (0, 1)]
    ratio = statistics.median(theirs.seconds / ours.seconds for ours, theirs in pairs)
    apart = max(abs(ours.loss / theirs.loss - 1) for ours, theirs in pairs)
    return f"{case!s:<46} {speeds[0]:>9,.0f} {speeds[1]:>9,.0f} {ratio:>7.2f} {100 * apart:>12.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="10m")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args()
    for name, make in models(options.size, options.device):
        print(f"{name:<46} {'ours':>9} {'theirs':>9} {'ratio':>7} {'losses, %':>12}   tokens per second")
        for case in CASES:
            print(compare(make, case, options.steps, options.repeats), flush=True)


if __name__ == "__main__":
    main()
