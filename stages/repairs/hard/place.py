"""Puts a text in front of each input."""

from __future__ import annotations

from llmrepair.stages.repairs.behind_text import behind_text
from llmrepair.stages.repairs.placed import Placed, Placing
from llmrepair.stages.repairs.texts import prompt_tokens


def place(placing: Placing) -> Placed:
    return behind_text(placing, prompt_tokens(placing.options.hard_prompt, placing.tokenizer))
