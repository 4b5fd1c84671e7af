"""A tokenizer as the fields of a GGUF file: what `sources/gguf/vocabulary.py` reads, the other way round."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gguf import TokenType

from llmrepair.stages.sources.gguf.vocabulary import SPLITS, tokenizer_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_KINDS = {"gpt2": "byte-level BPE", "llama": "SentencePiece BPE with bytes", "t5": "SentencePiece unigram"}
_SPACES = tuple({"add_space_prefix": prefix} for prefix in (True, False))
_TIDY = tuple({"remove_extra_whitespaces": tidy} for tidy in (False, True))
_CHOICES: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "gpt2": [{"pre": split} for split in SPLITS],
    "llama": [{"pre": "default", **spaces} for spaces in _SPACES],
    "t5": [{"pre": "default", **spaces, **tidy} for tidy in _TIDY for spaces in _SPACES],
}
"""Fields that say how a text is cut, of which a tokenizer says nothing by name: what reads samples as it does, is right."""
_BYTES = {f"<0x{byte:02X}>" for byte in range(256)}
_SAMPLES = (
    "The quick brown fox didn't jump; WE'LL see: 12345.67 apples, 3 pears (and x_1 = f(y) + 0.5)!",
    "  two  spaces,\ta tab\n\nand lines\r\n   of   them ",
    "Ünïcödé \uff26\uff55ll cafe\u0301 漢字かな 한국어 العربية Ελληνικά 🙂👩‍👩‍👧 ∑∞ ½",
    "def run(self):\n    return {'a': [1, 22, 333, 4444]}  # done\n",
)


class UnheldVocabularyError(ValueError):
    """Says in a few words why the format does not hold a tokenizer."""


def vocabulary_fields(tokenizer: PreTrainedTokenizerBase, size: int) -> dict[str, Any]:
    """The fields, by name.

    Args:
        size: tokens that the model has embeddings of; those that the tokenizer does not know are named and never used.

    Raises:
        UnheldVocabularyError: read back from the fields, it would not be the same tokenizer.
    """
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"] if tokenizer.is_fast else {}
    kind = _kind(model)
    if kind is None:
        what = model.get("type", "no fast one")
        raise UnheldVocabularyError(f"its tokenizer is {what}, and {', '.join(_KINDS.values())} can be written")
    shared = _tokens(tokenizer, model, kind, size) | _special(tokenizer)
    expected = [tokenizer(text).input_ids for text in _SAMPLES]
    for choice in _CHOICES[kind]:
        fields = {f"tokenizer.ggml.{name}": value for name, value in {**shared, **choice}.items()}
        read = tokenizer_of(fields)
        if [read(text).input_ids for text in _SAMPLES] == expected:
            return fields | _chat(tokenizer)
    raise UnheldVocabularyError("no name that the format has for how a text is cut, cuts it as its tokenizer does")


def _kind(model: Mapping[str, Any]) -> str | None:
    if model.get("type") == "BPE":
        return "llama" if model["byte_fallback"] else "gpt2"
    return "t5" if model.get("type") == "Unigram" else None


def _tokens(tokenizer: PreTrainedTokenizerBase, model: Mapping[str, Any], kind: str, size: int) -> dict[str, Any]:
    """Tokens, their types, and by what they are merged or chosen."""
    tokens = [f"[PAD{number}]" for number in range(size)]
    types = [TokenType.UNUSED] * size
    for token, number in tokenizer.get_vocab().items():
        tokens[number], types[number] = token, TokenType.NORMAL
    for number, added in tokenizer.added_tokens_decoder.items():
        types[number] = TokenType.CONTROL if added.special else TokenType.USER_DEFINED
    if model.get("byte_fallback"):
        types = [TokenType.BYTE if token in _BYTES else other for token, other in zip(tokens, types, strict=True)]
    fields: dict[str, Any] = {"model": kind, "tokens": tokens, "token_type": types}
    if kind == "gpt2":
        return fields | {"merges": [" ".join(merge) for merge in model["merges"]]}
    scores = dict(model["vocab"]) if kind == "t5" else _merge_scores(model["merges"])
    lowest = min(scores.values(), default=0.0)
    return fields | {"scores": [float(scores.get(token, lowest)) for token in tokens]}


def _merge_scores(merges: Sequence[Sequence[str]]) -> dict[str, float]:
    """Of tokens: the sooner two others are merged to one, the higher."""
    scores: dict[str, float] = {}
    for rank, (left, right) in enumerate(merges):
        scores.setdefault(left + right, -float(rank))
    return scores


def _special(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Numbers of special tokens, and which of them a text begins and ends with."""
    names = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}
    numbers = {name: getattr(tokenizer, f"{theirs}_token_id") for name, theirs in names.items()}
    ids = tokenizer("a").input_ids
    return {f"{name}_token_id": number for name, number in numbers.items() if number is not None} | {
        "add_bos_token": ids[0] == numbers["bos"],
        "add_eos_token": ids[-1] == numbers["eos"],
    }


def _chat(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    template = tokenizer.chat_template
    return {"tokenizer.chat_template": template} if isinstance(template, str) else {}
