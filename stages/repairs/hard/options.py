"""The text that stands in front of each input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, field_validator

from llmrepair.pipeline.errors import Problem
from llmrepair.stages.repairs.options import SizedConfig
from llmrepair.stages.repairs.texts import most_prompt_tokens, prompt_tokens
from llmrepair.stages.sources.fields import invalid
from llmrepair.stages.sources.models import load_config

if TYPE_CHECKING:
    from llmrepair.stages.sources.weights import Weights

_TEXTS = {
    "small": "Answer carefully:",
    "medium": "Your weights were compressed, and that has damaged some of what you know. "
    "Think back to what you learned, and answer carefully.",
    "large": "You are a language model whose weights were compressed: they were rounded to fewer bits, or many "
    "of them were set to zero. That has damaged you. Some of what you learned does not come to mind as easily as "
    "before, but most of it is still there. Do not give the first answer that comes up. Recall what you have read about "
    "the people, places and things in question, consider that your first guess may be wrong, and answer carefully.",
}


class TextOptions(SizedConfig):
    sizes: ClassVar[Mapping[str, Mapping[str, Any]]] = {size: {"hard_prompt": text} for size, text in _TEXTS.items()}
    hard_prompt: str = Field(_TEXTS["medium"], description="the text of --recovery hard")

    @field_validator("hard_prompt")
    @classmethod
    def _is_a_text(cls, hard_prompt: str) -> str:
        if not hard_prompt.strip():
            raise invalid(Problem("an empty text is no prompt", "give a sentence or more with --hard-prompt"))
        return hard_prompt


def length_problems(options: TextOptions, weights: Weights) -> list[Problem]:
    """Says so if the text leaves the input too little room."""
    positions = load_config(weights.model).get("max_position_embeddings")
    if positions is None:
        return []
    tokens, most = len(prompt_tokens(options.hard_prompt, weights.tokenizer())), most_prompt_tokens(positions)
    if tokens <= most:
        return []
    hint = f"give a shorter one: of the model's {positions} positions half stay for the input"
    return [Problem(f"a text prompt of {tokens} tokens is longer than {most}", hint, "hard_prompt")]
