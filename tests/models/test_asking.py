"""One question, and a text cut at its tokens."""

from __future__ import annotations

import pytest

from llmrepair.models.asking import ask, pieces
from llmrepair.models.prompt_cache import extend_cache
from tests.models.byte_tokenizer import byte_model, byte_tokenizer


def test_a_character_of_several_tokens_is_one_piece_with_the_product_of_their_probabilities() -> None:
    tokenizer = byte_tokenizer()
    tokens = tokenizer("a é\n").input_ids
    assert len(tokens) > 4
    found = list(pieces(tokenizer, tokens, [0.5] * len(tokens)))
    assert "".join(piece.text for piece in found) == "a é\n"
    assert [token for piece in found for token in piece.ids] == tokens
    assert [(piece.text, piece.probability) for piece in found if "é" in piece.text] == [("é", 0.25)]
    assert all(piece.probability == 0.5 ** len(piece.ids) for piece in found)


def test_half_a_character_at_the_end_is_shown_as_broken() -> None:
    tokenizer = byte_tokenizer()
    tokens = tokenizer("é").input_ids[:-1]
    assert [piece.text for piece in pieces(tokenizer, tokens, [0.5])] == ["\ufffd"]


def test_a_question_behind_a_text_is_asked_as_one_text_with_one_beginning() -> None:
    model, tokenizer = byte_model(), byte_tokenizer("<s> $A")
    text, question = (tokenizer(each).input_ids for each in ("working on it today", "hello world"))
    assert text[0] == question[0] == tokenizer.bos_token_id
    behind = ask(model, tokenizer, question, 8, extend_cache(model, None, 0, text[:-1]), last=text[-1])
    whole = ask(model, tokenizer, [*text, *question[1:]], 8)
    assert [piece.ids for piece in behind.pieces] == [piece.ids for piece in whole.pieces]
    assert [piece.probability for piece in behind.pieces] == pytest.approx([piece.probability for piece in whole.pieces])
