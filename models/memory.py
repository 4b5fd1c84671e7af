"""How much fits in memory at once, and what it looks like when it does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import torch

from llmrepair.models.failures import Failure

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Past these a pass is not faster: the cores, or the GPU, have all they can do.
_MOST_TOKENS = {"cpu": 4096, "cuda": 16384}
_MOST_GENERATED_ROWS = {"cpu": 64, "cuda": 256}
_CPU_BYTES = 2 * 1024**3
_GPU_SHARE = 0.5  # of what the weights leave free: this is an estimate
_OUT_OF_MEMORY = ("can't allocate memory", "CUDA error: out of memory", "STATUS_ALLOC_FAILED", "CUBLAS_STATUS_NOT_INITIALIZED")
"""How it is told by errors without a class of their own: the CPU's, and those of CUDA, cuBLAS and cuDNN. cuBLAS is not
initialised where it found no memory for itself."""

Result = TypeVar("Result")


class DoesNotFit(Failure):
    """A text is longer than the model or the memory allows."""


def text_does_not_fit(tokens: int) -> DoesNotFit:
    """One text alone is too much for the memory."""
    hint = "take a device with more memory, or --dtype bfloat16"
    return DoesNotFit(f"one text of {tokens} tokens does not fit in memory", hint)


def most_tokens(model: PreTrainedModel) -> int:
    """Tokens of one forward pass, from the shapes of the model and the memory of its device; the same on every run.

    What is counted per token are its logits, in case it is scored, and the widest hidden states of a layer.
    """
    logits = 2 * model.config.get_text_config().vocab_size * model.dtype.itemsize
    fits = _free_bytes(model) // (logits + _hidden_bytes(model))
    return max(1, min(fits, _MOST_TOKENS.get(model.device.type, _MOST_TOKENS["cpu"])))


def most_generated_rows(model: PreTrainedModel, length: int) -> int:
    """Sequences that are generated at once, `length` tokens each in the end, whose keys and values are kept."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    kept = 2 * config.num_hidden_layers * heads * head_dim * model.dtype.itemsize
    fits = _free_bytes(model) // (length * (kept + _hidden_bytes(model)))
    return max(1, min(fits, _MOST_GENERATED_ROWS.get(model.device.type, _MOST_GENERATED_ROWS["cpu"])))


def is_out_of_memory(error: Exception) -> bool:
    """Whether a computation failed for want of memory, on a GPU or on the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _OUT_OF_MEMORY)


def fitting(compute: Callable[[int], Result], rows: torch.Tensor, at_once: int) -> tuple[Result, int]:
    """What is computed of rows [N, L], all anew with half as many at once where so many do not fit in memory.

    Args:
        compute: rows at once -> the result; it can be called again after it ran out of memory.

    Returns:
        the result, and how many rows at once did fit.

    Raises:
        DoesNotFit: one row alone is too much.
    """
    while True:
        try:
            return compute(at_once), at_once
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        at_once = min(at_once, len(rows)) // 2  # not where the error is caught: what it refers to holds memory
        if not at_once:
            raise text_does_not_fit(rows.shape[1])


def _hidden_bytes(model: PreTrainedModel) -> int:
    """The widest hidden states of one token in one layer."""
    config = model.config.get_text_config()
    between = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    return (8 * config.hidden_size + 4 * between) * model.dtype.itemsize


def _free_bytes(model: PreTrainedModel) -> int:
    if model.device.type != "cuda":
        return _CPU_BYTES
    weights = sum(parameter.nbytes for parameter in model.parameters())
    return int(_GPU_SHARE * (torch.cuda.get_device_properties(model.device).total_memory - weights))
