"""Numbers that left the floating-point range: who asks is told which text, and which layer was the first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from llmrepair.models.failures import Failure
from llmrepair.models.prompt_cache import ENSEMBLE, PromptCache, forward_with_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from llmrepair.models.trees import Tokens


class NotFinite(Failure):
    """What a model says of a text is no finite number.

    Args:
        prompt, tokens: the text, and what stands in front of it.
    """

    def __init__(self, model: PreTrainedModel, cache: PromptCache | None, prompt: int, tokens: Tokens):
        self.prompt, self.tokens = prompt, tokens
        prompts = range(cache.size) if cache is not None and prompt == ENSEMBLE else [prompt]
        found = (first_not_finite(model, cache, each, tokens) for each in prompts)
        layer = next((name for name in found if name is not None), None)
        where = f"{layer} is the first whose output is not finite" if layer is not None else "each layer's output is finite"
        kind = str(model.dtype).removeprefix("torch.")
        super().__init__(f"what the model says is no finite number; in {kind}, {where}", _hint(model.dtype))

    def about(self, task: str, item: int) -> NotFinite:
        """The same, with what was asked."""
        self.args = (f"item {item} of task `{task}`: {self}",)
        return self


def _hint(dtype: torch.dtype) -> str:
    if dtype == torch.float16:
        return "numbers above 65,504 do not fit into float16: give --dtype bfloat16"
    return "the weights may be damaged, or too much was taken from them; compress less, or give --dtype float32"


@torch.no_grad()
def first_not_finite(model: PreTrainedModel, cache: PromptCache | None, prompt: int, tokens: Tokens) -> str | None:
    """The first layer, in the order in which they end, whose output for a text behind a prompt is not finite; None for none."""
    ids = torch.tensor([tokens], device=model.device)
    if cache is not None and (layer := _first_cached(cache, prompt)) is not None:
        return f"layer {layer} of the prompt"
    found: list[str] = []
    hooks = [module.register_forward_hook(_remembering(name, found)) for name, module in model.named_modules() if name]
    try:
        if cache is None:
            model(input_ids=ids)
        else:
            forward_with_prompt(model, cache, torch.tensor([prompt], device=ids.device), ids, torch.ones_like(ids))
    finally:
        for hook in hooks:
            hook.remove()
    return f"`{found[0]}`" if found else None


def _first_cached(cache: PromptCache, prompt: int) -> int | None:
    states = ((keys[prompt], values[prompt]) for keys, values in cache.layers)
    return next((layer for layer, parts in enumerate(states) if not all(map(_is_finite, parts))), None)


def _remembering(name: str, found: list[str]) -> Any:
    def remember(module: torch.nn.Module, arguments: Any, output: Any) -> None:
        parts = output if isinstance(output, tuple) else (output,)
        if not all(map(_is_finite, parts)):
            found.append(name)

    return remember


def _is_finite(value: Any) -> bool:
    """Also of what is no tensor of numbers."""
    return not isinstance(value, torch.Tensor) or not value.is_floating_point() or bool(value.isfinite().all())


@contextmanager
def watching(model: PreTrainedModel, cache: PromptCache | None, texts: Sequence[tuple[int, Tokens]]) -> Iterator[None]:
    """While a model goes on with texts, each in as many neighbouring rows: ends it at the first logits that are not finite.

    To draw from such ends in an error that says nothing, and on a GPU in one that nothing can follow.
    """

    def look(module: torch.nn.Module, arguments: Any, logits: torch.Tensor) -> None:
        finite = logits[:, -1].isfinite().all(-1)
        if not finite.all():
            hook.remove()  # the text is about to be asked again
            raise NotFinite(model, cache, *texts[int(finite.int().argmin()) * len(texts) // len(finite)])

    hook = model.get_output_embeddings().register_forward_hook(look)
    try:
        yield
    finally:
        hook.remove()
