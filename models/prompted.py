"""A model with a pool of soft prompts in front of it, used like one of transformers.

Shapes: B sequences, T input tokens padded on either side, V the vocabulary, R sequences returned for each input, N new tokens.
"""

from __future__ import annotations

from itertools import chain, compress
from typing import TYPE_CHECKING, Any

import torch

from llmrepair.models.ensemble import averaging, mean_log_probabilities, members
from llmrepair.models.prompt_cache import PromptCache, options_behind
from llmrepair.models.selection import Selector
from llmrepair.models.transfer import sent

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.modeling_outputs import CausalLMOutputWithPast


class PromptedModel:
    """A causal language model whose every input stands behind a prompt of a pool.

    The prompts are cached: no request pays for their tokens, and none of their positions shows in what comes out.

    Args:
        model: on its device; a peft model as well.
        cache: the prompts; None for a model without any.
        selector: chooses among them, from an input's tokens; it may be left out where every call says its `choice`.
    """

    def __init__(self, model: PreTrainedModel, cache: PromptCache | None = None, selector: Selector | None = None):
        self.model = model
        self.cache = cache
        self.selector = selector

    def __getattr__(self, name: str) -> Any:
        """All else, such as `config` and `device`, is the model's own."""
        if name == "model":  # before `__init__`, as when it is copied
            raise AttributeError(name)
        return getattr(self.model, name)

    def choose(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """The prompt [B] of each of the inputs [B, T].

        Raises:
            ValueError: there is no selector.
        """
        return sent(self._selected(input_ids, _mask(input_ids, attention_mask)), input_ids.device)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        choice: torch.Tensor | None = None,
        **options: Any,
    ) -> CausalLMOutputWithPast:
        """What the model says of inputs [B, T]; its logits [B, T, V] are those of the inputs alone.

        Args:
            attention_mask: [B, T], 1 at tokens and 0 at padding; None for no padding.
            choice: [B], the prompt of each, or `ENSEMBLE`: logits are then mean log-probabilities; None: the selector's.
            options: for the model's own `forward`, such as `labels`. It keeps no keys and values.
        """
        mask = _mask(input_ids, attention_mask)
        if self.cache is None:
            return self.model(input_ids=input_ids, attention_mask=mask.long(), use_cache=False, **options)
        choices = self._choices(input_ids, mask, choice)
        passes = (
            self.model(input_ids=input_ids, **options_behind(self.cache.chosen(each), mask), **options) for each in choices
        )
        output = next(passes)
        if len(choices) > 1:
            output.logits = mean_log_probabilities(chain([output.logits], (other.logits for other in passes)))
            output.loss = None  # it was that of one prompt
        output.past_key_values = None
        return output

    __call__ = forward

    @torch.no_grad()
    def generate(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        choice: torch.Tensor | None = None,
        **options: Any,
    ) -> torch.Tensor:
        """Token ids [B * R, T + N]: the inputs [B, T] as they were given, and what the model puts behind each.

        Args:
            attention_mask: [B, T], 1 at tokens and 0 at padding; None for no padding.
            choice: [B], the prompt of each; None: the selector's.
            options: for transformers' `generate`: `max_new_tokens`, `do_sample`, `num_beams`, `num_return_sequences`, ...
        """
        mask = _mask(input_ids, attention_mask)
        order = mask.to(torch.uint8).argsort(dim=1, stable=True)  # new tokens follow the last column: padding goes first
        tokens, seen = input_ids.gather(1, order), mask.gather(1, order)
        sequences, size = self._sequences(options), 1
        behind: dict[str, Any] = {"attention_mask": seen.long()}
        if self.cache is not None:
            choices = self._choices(input_ids, mask, choice)
            size, choice = len(choices), sent(torch.stack(choices, dim=1).flatten(), input_ids.device)
            tokens, seen = tokens.repeat_interleave(size, dim=0), seen.repeat_interleave(size, dim=0)
            past, _ = self.cache.growing(choice.repeat_interleave(sequences))
            behind = options_behind((past, self.cache.mask[choice]), seen)
        if size > 1:
            options = averaging(self.model, size, sequences, options)
        model: Any = self.model  # transformers adds generate() to its classes in a way that mypy does not follow
        output = model.generate(tokens, **behind, **options)
        returned = len(output) // len(tokens)
        output = output.unflatten(0, (-1, size, returned))[:, 0].flatten(0, 1)  # members say the same
        return torch.cat([input_ids.repeat_interleave(returned, dim=0), output[:, input_ids.shape[1] :]], dim=1)

    def _selected(self, input_ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The prompt [B] of each of the inputs, on the CPU."""
        if self.selector is None:
            raise ValueError("without a selector, say the prompt of each input as `choice`")
        contexts = [list(compress(row, real)) for row, real in zip(input_ids.tolist(), mask.tolist(), strict=True)]
        return torch.tensor(self.selector.select(contexts))

    def _choices(self, input_ids: torch.Tensor, mask: torch.Tensor, choice: torch.Tensor | None) -> list[torch.Tensor]:
        """The prompts [B] of inputs, once for each pass over them."""
        assert self.cache is not None
        return members(self.cache, self._selected(input_ids, mask) if choice is None else choice)

    def _sequences(self, options: dict[str, Any]) -> int:
        """How many sequences are computed at once for each input."""
        defaults: Any = options.get("generation_config") or self.model.generation_config
        return max(options.get(name) or getattr(defaults, name) or 1 for name in ("num_beams", "num_return_sequences"))


def _mask(input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
    return torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
