"""One question to a model: its greedy answer, and the probability of each token."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from transformers.generation.stopping_criteria import EosTokenCriteria

from llmrepair.models.answers import AnswerFile
from llmrepair.models.prompt_cache import PromptCache
from llmrepair.models.scorer import Scorer
from llmrepair.models.selection import Selector, TokenSelector
from llmrepair.models.trees import Text

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_BROKEN = "\ufffd"
"""What stands in a text for bytes that are no character yet."""


@dataclass(frozen=True)
class Piece:
    """What a token adds to a text; of a character that takes several tokens, what they add together.

    Attributes:
        probability: of the token, given all before it; of several, their product.
    """

    ids: tuple[int, ...]
    text: str
    probability: float


@dataclass(frozen=True)
class Answer:
    """
    Attributes:
        ended: whether the model ended it, and not the number of tokens that it was given.
        prompts: what was chosen of a pool: the number of a prompt, or `ENSEMBLE`; of each token of the question where each
            chooses; none where there is nothing to choose.
    """

    pieces: list[Piece]
    ended: bool
    prompts: list[int]

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)


def ask(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    question: Sequence[int],
    longest: int,
    cache: PromptCache | None = None,
    selector: Selector | None = None,
    last: int | None = None,
) -> Answer:
    """The likeliest token after the other, behind a question.

    Args:
        question: its tokens, at least one.
        longest: most tokens of the answer.
        cache: the prompts; None for none.
        selector: chooses among them; None where there is nothing to choose.
        last: of a text in front of the question, whose other tokens are cached: it stands in the place of a second beginning.

    Raises:
        DoesNotFit: it is too much for the memory.
        NotFinite: the logits are no finite numbers.
    """
    if last is not None:
        question = [last, *question[question[0] == tokenizer.bos_token_id :]]
    (prompt,) = selector.select([list(question)]) if selector is not None else [0]
    scorer = Scorer(model, cache, None, AnswerFile(None))
    ends = _ends(model, tokenizer)
    options = {"do_sample": False, "max_new_tokens": longest, "pad_token_id": tokenizer.pad_token_id}
    (tokens,) = scorer.generate([(prompt, question)], options, [], lambda width: EosTokenCriteria(torch.tensor(ends).long()))
    ended = tokens[-1] in ends
    answer = tokens[: len(tokens) - ended]
    so_far = [Text(prompt, (*question, *answer[: place + 1]), len(question) + place) for place in range(len(answer))]
    probabilities = [math.exp(loglikelihood) for loglikelihood, _ in scorer.score(so_far)]
    return Answer(list(pieces(tokenizer, answer, probabilities)), ended, _chosen(selector, prompt, question))


def _ends(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that end a text: the tokenizer's, and those that the model's own settings name."""
    named = model.generation_config.eos_token_id if model.generation_config is not None else None
    of_model = named if isinstance(named, list) else [named]
    return sorted({token for token in (tokenizer.eos_token_id, *of_model) if isinstance(token, int)})


def _chosen(selector: Selector | None, prompt: int, question: Sequence[int]) -> list[int]:
    if selector is None:
        return []
    return selector.of_tokens([list(question)])[0] if isinstance(selector, TokenSelector) else [prompt]


def pieces(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int], probabilities: Sequence[float]) -> Iterator[Piece]:
    """A text cut at its tokens; the texts of all pieces make up that of all tokens."""
    begin, before = 0, ""
    for end in range(1, len(tokens) + 1):
        text = str(tokenizer.decode(list(tokens[:end]), clean_up_tokenization_spaces=False))
        if text.endswith(_BROKEN) and end < len(tokens):
            continue
        yield Piece(tuple(tokens[begin:end]), text[len(before) :], math.prod(probabilities[begin:end]))
        begin, before = end, text
