"""Puts examples from the tuning text in front of each input."""

from __future__ import annotations

from llmrepair.pipeline.errors import Problem, WorkError
from llmrepair.stages.repairs.behind_text import behind_text
from llmrepair.stages.repairs.placed import Placed, Placing, positions
from llmrepair.stages.repairs.texts import example_tokens, most_prompt_tokens


def place(placing: Placing) -> Placed:
    """
    Raises:
        WorkError: the source holds no text.
    """
    options, identity = placing.options, placing.sources["tuning_data"]
    most = most_prompt_tokens(positions(placing.model, placing.tokenizer))
    tokens, examples = example_tokens(options.tuning_data, identity, options.icl_examples, placing.tokenizer, most)
    placing.note(
        f"{examples} of {options.icl_examples} examples stand in front of each input, {len(tokens)} tokens of at most {most}"
    )
    if not tokens:
        raise WorkError(Problem(f"`{options.tuning_data}` holds no text for examples", "give another with --tuning-data"))
    return behind_text(placing, tokens)
