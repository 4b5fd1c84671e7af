"""A model whose every input stands behind the same text."""

from __future__ import annotations

from collections.abc import Sequence

from llmrepair.models.prompt_cache import extend_cache
from llmrepair.stages.repairs.placed import Placed, Placing


def behind_text(placing: Placing, tokens: Sequence[int]) -> Placed:
    """With the text's keys and values cached; says which of its words the tokenizer does not know."""
    tokenizer = placing.tokenizer
    if unknown := tokens.count(tokenizer.unk_token_id):
        placing.note(f"{unknown} of the {len(tokens)} tokens in front of each input are words that the tokenizer does not know")
    if tokens[0] != tokenizer.bos_token_id or len(tokens) == 1:
        return Placed(placing.model, extend_cache(placing.model, None, 0, tokens))
    # an input that begins with nothing else is predicted from the last one: that is no part of the cache
    return Placed(placing.model, extend_cache(placing.model, None, 0, tokens[:-1]), last=tokens[-1])
