"""A tokenizer from a GGUF file's own tokens, scores and merges.

The one that transformers makes of a SentencePiece vocabulary without merges splits words into characters, without a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Fields = Mapping[str, Any]

_SPACE = "\u2581"
_NORMAL, _CONTROL, _USER_DEFINED, _BYTE = 1, 3, 4, 6
"""Types of tokens."""
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = _CONTRACTIONS + r"|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA_3 = _WORDS.format(digits=r"\p{N}{1,3}")
_QWEN_2 = _WORDS.format(digits=r"\p{N}")
_GPT_2, _SINGLE_DIGITS = "gpt-2", "single digits"
SPLITS = {
    "gpt-2": _GPT_2,
    "smollm": _SINGLE_DIGITS,
    "starcoder": _SINGLE_DIGITS,
    "llama-bpe": _LLAMA_3,
    "qwen2": _QWEN_2,
    "deepseek-r1-qwen": _QWEN_2,
}
"""How text is cut before its parts are merged, by the name of it that is in the file."""
KINDS = {"gpt2": "tokenizer.ggml.merges", "llama": "tokenizer.ggml.scores", "t5": "tokenizer.ggml.scores"}
"""Vocabularies: merged in the order of a list, merged by scores, or the likeliest parts; and the field that each takes."""


def vocabulary_problem(fields: Fields) -> str | None:
    """What keeps a vocabulary from being read, in a few words."""
    kind, split = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre")
    if kind not in KINDS:
        return f"its vocabulary is of the kind `{kind}`, and {', '.join(KINDS)} can be read"
    if not fields.get("tokenizer.ggml.tokens") or not fields.get(KINDS[kind]):
        return (
            f"its vocabulary has no {'tokens' if not fields.get('tokenizer.ggml.tokens') else KINDS[kind].rpartition('.')[2]}"
        )
    if kind == "gpt2" and split not in SPLITS:
        return f"its vocabulary cuts text as `{split}` does, and {', '.join(SPLITS)} can be read"
    if fields.get("tokenizer.ggml.precompiled_charsmap"):
        return "its vocabulary rewrites text by a table (precompiled_charsmap), which cannot be read"
    return None


def tokenizer_of(fields: Fields) -> PreTrainedTokenizerBase:
    """The tokenizer of a file whose vocabulary has no problem."""
    from transformers import PreTrainedTokenizerFast

    special = {
        f"{name}_token": _token(fields, key)
        for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"))
        if _token(fields, key) is not None
    }
    return PreTrainedTokenizerFast(
        tokenizer_object=_merged_bytes(fields) if fields["tokenizer.ggml.model"] == "gpt2" else _sentence_pieces(fields),
        clean_up_tokenization_spaces=False,
        chat_template=fields.get("tokenizer.chat_template"),
        **special,
    )


def _merged_bytes(fields: Fields) -> Tokenizer:
    """Byte-level BPE."""
    split = SPLITS[fields["tokenizer.ggml.pre"]]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    is_llama_3 = split == _LLAMA_3
    tokenizer = Tokenizer(models.BPE(_ids(fields), merges, ignore_merges=is_llama_3))
    cuts_itself = split not in (_GPT_2, _SINGLE_DIGITS)
    first: list[Any] = [pre_tokenizers.Split(Regex(split), "isolated")] if cuts_itself else []
    first += [pre_tokenizers.Digits(individual_digits=True)] if split == _SINGLE_DIGITS else []
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not cuts_itself)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*first, level])
    tokenizer.normalizer = normalizers.NFC() if split == _QWEN_2 else None
    tokenizer.decoder = decoders.ByteLevel()
    return _with_special_tokens(tokenizer, fields, begins=is_llama_3, ends=False)


def _sentence_pieces(fields: Fields) -> Tokenizer:
    """SentencePiece: a space is a letter, in front of the first word too."""
    is_merged = fields["tokenizer.ggml.model"] == "llama"
    tokenizer = Tokenizer(_merged_by_scores(fields) if is_merged else _likeliest(fields))
    has_prefix = fields.get("tokenizer.ggml.add_space_prefix", True)
    is_tidied = fields.get("tokenizer.ggml.remove_extra_whitespaces", False)
    steps = [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")] if is_tidied else []
    steps += [normalizers.Prepend(_SPACE)] if has_prefix else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", _SPACE)])
    spoken = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*spoken, decoders.Strip(" ", 1, 0)] if has_prefix else spoken)
    return _with_special_tokens(tokenizer, fields, begins=is_merged, ends=not is_merged)


def _merged_by_scores(fields: Fields) -> models.BPE:
    """Two neighbours become one token where the file has it: of all such pairs, always the one with the best score first."""
    scores = dict(_scored(fields, _NORMAL))
    pairs = [
        (-score, -scores[token[:cut]], -scores[token[cut:]], token[:cut], token[cut:])
        for token, score in scores.items()
        for cut in range(1, len(token))
        if token[:cut] in scores and token[cut:] in scores
    ]
    merges = [(left, right) for *_, left, right in sorted(pairs)]
    unknown, fallback = _token(fields, "unknown"), _BYTE in _kinds(fields)
    return models.BPE(_ids(fields), merges, unk_token=unknown, fuse_unk=True, byte_fallback=fallback)


def _likeliest(fields: Fields) -> models.Unigram:
    """Only words and their parts have scores that count; the others' zeros would make likely what looks like their names."""
    usable = dict(_scored(fields, _NORMAL, _USER_DEFINED))
    unlikely = min(usable.values())
    scored = [(token, usable.get(token, unlikely)) for token in fields["tokenizer.ggml.tokens"]]
    unknown = fields.get("tokenizer.ggml.unknown_token_id")
    return models.Unigram(scored, unk_id=unknown, byte_fallback=_BYTE in _kinds(fields))


def _scored(fields: Fields, *kinds: int) -> list[tuple[str, float]]:
    tokens, scores = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.scores"]
    return [(token, score) for token, score, kind in zip(tokens, scores, _kinds(fields), strict=True) if kind in kinds]


def _kinds(fields: Fields) -> list[int]:
    """Of each token; some files do not say it of any."""
    return fields.get("tokenizer.ggml.token_type") or [_NORMAL] * len(fields["tokenizer.ggml.tokens"])


def _with_special_tokens(tokenizer: Tokenizer, fields: Fields, begins: bool, ends: bool) -> Tokenizer:
    """With tokens that are never cut, and those that a text begins and ends with: as the file says, or else by its kind."""
    kinds = zip(fields["tokenizer.ggml.tokens"], _kinds(fields), strict=True)
    whole = [(token, kind == _CONTROL) for token, kind in kinds if kind in (_CONTROL, _USER_DEFINED)]
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=special) for token, special in whole])
    first = _token(fields, "bos") if fields.get("tokenizer.ggml.add_bos_token", begins) else None
    last = _token(fields, "eos") if fields.get("tokenizer.ggml.add_eos_token", ends) else None
    if added := [token for token in (first, last) if token is not None]:
        form = " ".join(token for token in (first, "{}", last) if token is not None)
        tokenizer.post_processor = processors.TemplateProcessing(
            single=form.format("$A"),
            pair=f"{form.format('$A')} {form.format('$B')}",
            special_tokens=[(token, tokenizer.token_to_id(token)) for token in added],
        )
    return tokenizer


def _ids(fields: Fields) -> dict[str, int]:
    return {token: number for number, token in enumerate(fields["tokenizer.ggml.tokens"])}


def _token(fields: Fields, name: str) -> str | None:
    """The token that begins or ends a text, stands for what is unknown, or fills up rows; None where there is none."""
    number = fields.get(f"tokenizer.ggml.{name}_token_id")
    return None if number is None else fields["tokenizer.ggml.tokens"][number]
