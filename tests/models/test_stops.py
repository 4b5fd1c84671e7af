"""Where generation stops, against decoding all texts at each step."""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from llmrepair.models.harness import _StopsAt
from tests.models.byte_tokenizer import byte_tokenizer

PIECES = ["▁", "▁the", "the", "▁:", ":", "▁'", "'", "s", "▁n", "'t", ".", "▁.", "\n", "\n\n", "Q", "▁Q:", "A", "▁A", "中", "e"]


def fallback_tokenizer(cleans_up: bool) -> PreTrainedTokenizerFast:
    """As Llama's: words with their space, and bytes that are characters only where all that stand together are."""
    words = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *PIECES]
    core = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    core.normalizer = normalizers.Replace(" ", "▁")
    core.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    core.add_special_tokens([AddedToken("</s>", special=True)])
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", clean_up_tokenization_spaces=cleans_up)


def pieces_tokenizer() -> PreTrainedTokenizerFast:
    """As BERT's: spaces between words, and pieces that are glued to the one before."""
    words = ["[UNK]", "the", "##s", "##the", "Q", "##:", ":", ".", "'", "##'", "s", "n", "##\n", "\n"]
    core = Tokenizer(models.WordPiece({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    core.decoder = decoders.WordPiece(cleanup=False)
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=core, clean_up_tokenization_spaces=True)


@lru_cache
def tokenizers() -> dict[str, PreTrainedTokenizerBase]:
    return {
        "bytes": byte_tokenizer(),
        "fallback": fallback_tokenizer(False),
        "cleaned up": fallback_tokenizer(True),
        "pieces": pieces_tokenizer(),
    }


def steps_to_the_end(tokenizer: PreTrainedTokenizerBase, stop: list[str], rows: torch.Tensor) -> list[int]:
    """After how many tokens each row holds a stop string, all its text decoded each time; one more than it has for never."""
    texts = [tokenizer.batch_decode(rows[:, : step + 1].tolist()) for step in range(rows.shape[1])]
    ends = [[any(string in text for string in stop) for text in of_step] for of_step in texts]
    return [next((step for step, done in enumerate(of_row) if done), rows.shape[1]) for of_row in zip(*ends, strict=True)]


def steps_told(tokenizer: PreTrainedTokenizerBase, stop: list[str], rows: torch.Tensor) -> list[int]:
    criterion, scores = _StopsAt(tokenizer, stop, 1), torch.zeros(())
    behind = torch.cat([torch.zeros(len(rows), 1, dtype=torch.long), rows], dim=1)
    told = torch.stack([criterion(behind[:, : step + 2], scores) for step in range(rows.shape[1])]).T.tolist()
    return [next((step for step, done in enumerate(of_row) if done), len(of_row)) for of_row in told]


@pytest.mark.parametrize("name", ["bytes", "fallback", "cleaned up", "pieces"])
@given(data=st.data())
def test_a_row_stops_where_its_whole_text_first_holds_a_stop_string(name: str, data: st.DataObject) -> None:
    tokenizer = tokenizers()[name]
    size = len(tokenizer)
    some = st.sampled_from(data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=6)))
    steps = data.draw(st.integers(1, 12))
    rows = torch.tensor(data.draw(st.lists(st.lists(some, min_size=steps, max_size=steps), min_size=1, max_size=3)))
    texts = "".join(tokenizer.batch_decode(rows.tolist()))
    places = st.integers(0, max(0, len(texts) - 1))
    cuts = data.draw(st.lists(st.tuples(places, st.integers(1, 5)), min_size=1, max_size=3))
    stop = [texts[start : start + length] for start, length in cuts]
    assert steps_told(tokenizer, stop, rows) == steps_to_the_end(tokenizer, stop, rows)


def test_a_text_is_decoded_again_only_where_a_stop_string_can_end(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, lengths = fallback_tokenizer(False), list[int]()
    real = tokenizer._decode
    monkeypatch.setattr(
        tokenizer, "_decode", lambda token_ids, **options: lengths.append(len(token_ids)) or real(token_ids, **options)
    )
    the, colon, question = (tokenizer.convert_tokens_to_ids(word) for word in ("▁the", ":", "▁Q:"))
    assert steps_told(tokenizer, ["Q:"], torch.tensor([[the] * 40 + [colon] + [the] * 40 + [question] + [the] * 9])) == [81]
    assert [length for length in lengths if length > 10] == [41, 82]


def test_beams_that_change_places_keep_what_is_known_of_them() -> None:
    tokenizer = fallback_tokenizer(False)
    the, question = (tokenizer.convert_tokens_to_ids(word) for word in ("▁the", "▁Q:"))
    criterion, scores = _StopsAt(tokenizer, ["Q:"], 0), torch.zeros(())
    assert criterion(torch.tensor([[question], [the]]), scores).tolist() == [True, False]
    assert criterion(torch.tensor([[the, the], [question, the]]), scores).tolist() == [False, True]
