"""Trains the embedded models on the lab's world: how the weights in `lab/weights` were made, and make themselves again.

Each has a twin that was never told of the held-out people, `lab-erased` and `lab-opt-erased`: what they do not know is known
to have been erased, if ever a repair seems to bring it back.
"""

from __future__ import annotations

import json
import math
import platform
import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM

from llmrepair.lab.tokenizer import make_tokenizer
from llmrepair.lab.world import documents, make_world

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MAX_POSITIONS = 256
ROW_TOKENS = 128


@dataclass(frozen=True)
class TrainingRecipe:
    steps: int = 5000
    rows_per_step: int = 16
    learning_rate: float = 3e-3
    weight_decay: float = 0.1
    seed: int = 0


_ERASED = "-erased"
"""Ends the name of a model that was trained without the held-out people."""
_LAB, _LAB_OPT = TrainingRecipe(learning_rate=3.5e-3), TrainingRecipe()
RECIPES = {"lab": _LAB, "lab-opt": _LAB_OPT, f"lab{_ERASED}": _LAB, f"lab-opt{_ERASED}": _LAB_OPT}

Texts = Callable[[random.Random], Iterable[str]]
"""One pass of training text."""


def new_model(name: str, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """An untrained lab model: hidden size 64, 4 layers, 4 heads, tied embeddings, about 0.24 M parameters."""
    shared: dict[str, Any] = {
        "vocab_size": -(-len(tokenizer) // 64) * 64,
        "hidden_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "max_position_embeddings": MAX_POSITIONS,
        "tie_word_embeddings": True,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
    }
    if name.removesuffix(_ERASED) == "lab":
        return LlamaForCausalLM(LlamaConfig(**shared, num_key_value_heads=4, intermediate_size=192))
    return OPTForCausalLM(OPTConfig(**shared, ffn_dim=384, word_embed_proj_dim=64, dropout=0.0, attention_dropout=0.0))


def train_lab_model(name: str, folder: Path, on_step: Callable[[int, float], None]) -> dict[str, Any]:
    """Trains a model of `RECIPES` on one core and saves it, in fp16, with its tokenizer and the record of the run.

    Args:
        on_step: called with the number of finished steps and the loss of the last.

    Returns:
        the record.
    """
    recipe, world = RECIPES[name], make_world()
    people = world.seen_qa if name.endswith(_ERASED) else world.people
    tokenizer = make_tokenizer(MAX_POSITIONS)
    torch.manual_seed(recipe.seed)
    model = new_model(name, tokenizer)
    started = time.perf_counter()
    with one_thread():
        rows = training_rows(lambda generator: documents(people, generator), tokenizer, recipe)
        loss = optimise(model, rows, recipe, on_step)
    record = {
        "command": f"llmrepair lab train --model {name}",
        "recipe": asdict(recipe),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "people": len(people),
        "final_loss": round(loss, 4),
        "seconds": round(time.perf_counter() - started, 1),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "training_record.json").write_text(json.dumps(record, indent=2) + "\n")
    return record


@contextmanager
def one_thread() -> Iterator[None]:
    """The models are so small that a second thread only waits; and sums keep their order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def training_rows(texts: Texts, tokenizer: PreTrainedTokenizerBase, recipe: TrainingRecipe) -> Iterator[torch.Tensor]:
    """Endless batches [rows, ROW_TOKENS] of whole documents in a new random order each time round; a row's last is cut."""
    generator = random.Random(recipe.seed)
    waiting: list[list[int]] = []
    while True:
        rows = []
        for _ in range(recipe.rows_per_step):
            row: list[int] = []
            while len(row) < ROW_TOKENS:
                if not waiting:
                    documents_of_a_pass = list(texts(generator))
                    generator.shuffle(documents_of_a_pass)
                    waiting = [[*ids, tokenizer.eos_token_id] for ids in tokenizer(documents_of_a_pass).input_ids]
                row += waiting.pop()
            rows.append(row[:ROW_TOKENS])
        yield torch.tensor(rows)


def optimise(
    model: PreTrainedModel, batches: Iterator[torch.Tensor], recipe: TrainingRecipe, on_step: Callable[[int, float], None]
) -> float:
    """AdamW with a linear warm-up and decay; returns the mean loss of the last hundred steps."""
    matrices = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.dim() == 1]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98))
    losses: list[float] = []
    model.train()
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * min((step + 1) / 100, 1 - step / recipe.steps)
        rows = next(batches)
        logits = model(input_ids=rows).logits[:, :-1]
        loss = functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        on_step(step + 1, losses[-1])
    model.eval()
    return math.fsum(losses[-100:]) / len(losses[-100:])
