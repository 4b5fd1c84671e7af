from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmrepair.lab.tokenizer import make_tokenizer
from llmrepair.models.text import pack_rows

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
