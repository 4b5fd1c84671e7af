from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrepair.lab.tokenizer import make_tokenizer
from llmrepair.models.text import Bos, pack_rows
from tests.models.byte_tokenizer import BOS, EOS, byte_tokenizer

TOKENIZER = make_tokenizer(64)


@given(lengths=st.lists(st.integers(1, 20), max_size=12), samples=st.integers(1, 6), seq_len=st.integers(2, 9))
def test_rows_are_full_and_begin_with_a_document(lengths: list[int], samples: int, seq_len: int) -> None:
    rows = pack_rows(("Oslo " * length for length in lengths), TOKENIZER, samples, seq_len)
    oslo, end = TOKENIZER.convert_tokens_to_ids("Oslo"), TOKENIZER.eos_token_id
    assert rows.shape[1] == seq_len
    assert len(rows) <= samples
    assert len(rows) <= (sum(lengths) + len(lengths)) // seq_len
    assert set(rows.flatten().tolist()) <= {oslo, end}
    if len(rows):
        assert rows[0, 0] == oslo


def test_a_long_document_fills_several_rows() -> None:
    rows = pack_rows(["Oslo " * 11, "Rome " * 3], TOKENIZER, 10, 4)
    assert len(rows) == 4
    assert TOKENIZER.decode(rows[-1]) == "Rome Rome Rome </s>"


@pytest.mark.parametrize("adds, bos", [("<s> $A", "auto"), ("$A", "always"), ("<s> $A </s>", "always")])
def test_each_row_begins_as_texts_do(adds: str, bos: Bos) -> None:
    tokenizer = byte_tokenizer(adds)
    rows = pack_rows(["ab", "cdefghijk", "lmn", "op"], tokenizer, 10, 5, bos).tolist()
    text = {letter: tokenizer(letter, add_special_tokens=False).input_ids[0] for letter in "abcdefghijklmnop"}
    spelled = ["".join({BOS: "<", EOS: ">"}.get(i, "") or next(t for t in text if text[t] == i) for i in row) for row in rows]
    assert spelled == ["<ab><", "<cdef", "<ghij", "<lmn>"]


@pytest.mark.parametrize("adds, bos", [("<s> $A", "never"), ("$A", "auto"), ("$A", "never")])
def test_no_row_begins_otherwise_than_its_text(adds: str, bos: Bos) -> None:
    rows = pack_rows(["ab", "cdefghijk", "lmn", "op"], byte_tokenizer(adds), 10, 5, bos)
    assert BOS not in rows
    assert [row.count(EOS) for row in rows.tolist()] == [1, 0, 1]


def test_a_text_that_begins_itself_is_not_begun_twice() -> None:
    for bos in ("auto", "always"):
        assert pack_rows(["<s>abc"], byte_tokenizer("<s> $A"), 1, 4, bos)[0, :2].tolist().count(BOS) == 1
