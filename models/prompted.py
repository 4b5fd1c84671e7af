"""A model with a pool of soft prompts in front of it, used like one of transformers.

Shapes: B sequences, T input tokens padded on either side, V the vocabulary, R sequences returned for each input, N new tokens.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from itertools import chain, compress
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from llmrepair.models.ensemble import averaging, mean_log_probabilities, members
from llmrepair.models.prompt_cache import PromptCache, first_tokens, giving_way, options_behind, pass_with_prompt
from llmrepair.models.selection import Selector
from llmrepair.models.transfer import sent

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.modeling_outputs import CausalLMOutputWithPast

_NO_LABEL = -100  # torch's


class PromptedModel:
    """A causal language model whose every input stands behind a prompt of a pool.

    The prompts are cached: no request pays for their tokens, and none of their positions shows in what comes out. Where BOS
    stands in front of them, it does so whether inputs begin with it or not.

    Args:
        model: on its device; a peft model as well.
        cache: the prompts; None for a model without any, or one whose tokens see them by themselves.
        selector: chooses among them, from an input's tokens; it may be left out where every call says its `choice`.
        bos: what stands in front of the prompts; None for what the cache says.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        cache: PromptCache | None = None,
        selector: Selector | None = None,
        bos: int | None = None,
    ):
        self.model = model
        self.cache = cache
        self.selector = selector
        self.bos = cache.bos if cache is not None else bos

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
        return sent(self._selected(*self._begun(input_ids, _mask(input_ids, attention_mask))), input_ids.device)

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
        width = input_ids.shape[1]
        input_ids, mask = self._begun(input_ids, _mask(input_ids, attention_mask))
        if options.get("labels") is not None and input_ids.shape[1] > width:
            options["labels"] = functional.pad(options["labels"], (1, 0), value=_NO_LABEL)
        output = self._passed(input_ids, mask, choice, options)
        output.logits = output.logits[:, -width:]
        output.past_key_values = None
        return output

    __call__ = forward

    def _passed(self, input_ids: torch.Tensor, mask: torch.Tensor, choice: torch.Tensor | None, options: dict[str, Any]) -> Any:
        """What the model says of inputs that are begun."""
        if self.cache is None:
            return self.model(input_ids=input_ids, attention_mask=mask.long(), use_cache=False, **options)
        choices = self._choices(input_ids, mask, choice)
        passes = (pass_with_prompt(self.model, self.cache, each, input_ids, mask, **options) for each in choices)
        output = next(passes)
        if len(choices) > 1:
            output.logits = mean_log_probabilities(chain([output.logits], (other.logits for other in passes)))
            output.loss = None  # it was that of one prompt
        return output

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
        given = input_ids
        input_ids, mask = self._begun(input_ids, _mask(input_ids, attention_mask))
        order = mask.to(torch.uint8).argsort(dim=1, stable=True)  # new tokens follow the last column: padding goes first
        tokens, seen = input_ids.gather(1, order), mask.gather(1, order)
        sequences, size = self._sequences(options), 1
        behind: dict[str, Any] = {"attention_mask": seen.long()}
        begun: AbstractContextManager[None] = nullcontext()
        if self.cache is not None:
            choices = self._choices(input_ids, mask, choice)
            size, choice = len(choices), sent(torch.stack(choices, dim=1).flatten(), input_ids.device)
            tokens, seen = tokens.repeat_interleave(size, dim=0), seen.repeat_interleave(size, dim=0)
            which = choice.repeat_interleave(sequences)
            past, _ = self.cache.growing(which)
            behind = options_behind((past, self.cache.mask[choice]), seen)
            begun = giving_way(self.model, self.cache, which, first_tokens(seen).repeat_interleave(sequences, dim=0))
        if size > 1:
            options = averaging(self.model, size, sequences, options)
        model: Any = self.model  # transformers adds generate() to its classes in a way that mypy does not follow
        with begun:
            output = model.generate(tokens, **behind, **options)
        returned = len(output) // len(tokens)
        output = output.unflatten(0, (-1, size, returned))[:, 0].flatten(0, 1)  # members say the same
        return torch.cat([given.repeat_interleave(returned, dim=0), output[:, input_ids.shape[1] :]], dim=1)

    def _begun(self, input_ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs that begin with BOS, where it stands in front of the prompts, and their mask; a column more where one did
        not."""
        if self.bos is None:
            return input_ids, mask
        first = first_tokens(mask)
        lacking = ~(first & (input_ids == self.bos)).any(1, keepdim=True)
        if not lacking.any():
            return input_ids, mask
        before = functional.pad(first, (0, 1)) & lacking
        return functional.pad(input_ids, (1, 0)).masked_fill(before, self.bos), functional.pad(mask, (1, 0)) | before

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
