"""lm-eval's language model interface over a repaired model.

Tokenisation, truncation and windows are those of lm-eval's own `HFLM`, from which this class inherits them, so that a model
without a repair gets the same numbers. The work is done by `Scorer`; each item's choice of a prompt is kept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import handle_stop_sequences, has_bos_prefix, normalize_gen_kwargs, postprocess_generated_text
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from transformers import StoppingCriteria

from llmrepair.models.answers import AnswerFile
from llmrepair.models.failures import NoAnswer
from llmrepair.models.finite import NotFinite
from llmrepair.models.memory import DoesNotFit
from llmrepair.models.prompt_cache import PromptCache
from llmrepair.models.scorer import Scorer
from llmrepair.models.selection import Document, Selector, TokenSelector
from llmrepair.models.text import tokens_behind
from llmrepair.models.transfer import sent
from llmrepair.models.trees import Text, Tokens, common_length

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DEFAULT_GENERATED_TOKENS = 256  # lm-eval's
_ENCODED_AT_ONCE = 1024  # texts: what a tokenizer says of each takes far more memory than its token ids
_BROKEN = "\ufffd"
"""What stands in a text for bytes that are no character, or not yet."""


class RepairedLM(HFLM):
    """A causal LM, the prompts in front of it, and what chooses among them.

    Args:
        model: on its device; a peft model as well.
        batch_size: as many tokens at once as so many of the longest requests have; None: as many as the memory allows.
        max_length: most input tokens, the prompt's not counted.
        cache: the prompts; None for none.
        selector: chooses among them; None where there is nothing to choose, be it no prompt or one.
        last: what inputs begin with in place of a beginning of their own: the last token of a text in front of them, whose
            others are cached; or what stands in front of the prompts.
        as_lm_eval: begin and end texts, and part them, as lm-eval does also where a number is wrong by it.
        answers: file that keeps answers as they come; what it holds is not asked again.
        on_start: called with the number of requests that are about to be scored.
        on_progress: called with the number of requests done since the last call.

    Raises:
        DoesNotFit: from the scoring methods.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int | None,
        max_length: int,
        cache: PromptCache | None = None,
        selector: Selector | None = None,
        last: int | None = None,
        as_lm_eval: bool = False,
        answers: Path | None = None,
        on_start: Callable[[int], None] = lambda requests: None,
        on_progress: Callable[[int], None] = lambda requests: None,
    ):
        with _tied_as_it_is(model):
            super().__init__(
                pretrained=model, tokenizer=tokenizer, batch_size=batch_size or "auto", max_length=max_length, backend="causal"
            )
        self._scorer = Scorer(model, cache, batch_size, AnswerFile(answers), on_progress)
        self.selector = selector
        """Whoever asks again may change it."""
        self._last = last
        self._as_lm_eval = as_lm_eval
        self._tokens_behind = 0 if as_lm_eval else tokens_behind(tokenizer)
        self._on_start = on_start
        self.selections: dict[Document, list[int]] = defaultdict(list)
        """Document -> prompt of each choice made for it, or of each token; empty without a selector."""

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, left_truncate_len: int | None = None, **options: Any
    ) -> list[int]:
        """As lm-eval encodes a text, but not ended: lm-eval takes an answer's first token away for the end of its question."""
        if add_special_tokens is None:
            tokens = self._encode_all([string])[string]
        else:
            tokens = super().tok_encode(string, add_special_tokens, **options)
        return tokens[-left_truncate_len:] if left_truncate_len else tokens

    def _encode_all(self, strings: Iterable[str]) -> dict[str, list[int]]:
        """The same of many texts, each once: a tokenizer that is given many shares them among the cores."""
        begin, groups = self.tokenizer.decode(self.prefix_token_id), defaultdict(list)
        for string in dict.fromkeys(strings):
            groups[has_bos_prefix(string, begin)].append(string)
        tokens: dict[str, list[int]] = {}
        for begun, group in groups.items():
            adds = False if begun else self.add_bos_token
            options, behind = {} if adds is None else {"add_special_tokens": adds}, 0 if begun else self._tokens_behind
            for start in range(0, len(group), _ENCODED_AT_ONCE):
                some = group[start : start + _ENCODED_AT_ONCE]
                rows = self.tokenizer(some, **options).input_ids
                tokens |= zip(some, (row[: len(row) - behind] for row in rows), strict=True)
        return tokens

    @property
    def takes_trees(self) -> bool:
        """Whether texts that begin alike are computed together."""
        return self._scorer.takes_trees

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Log-likelihood in nats of each request's continuation, and whether greedy decoding gives it.

        It is log P(context and continuation) - log P(context). Where the tokens of both begin with those of the context, this
        is log P(continuation | context) as lm-eval has it; where context and continuation share a token, lm-eval leaves it out.
        """
        pairs = self._pairs(requests)
        prompts = self._choose(requests, [context for context, _ in pairs])
        texts = [self._halves(prompt, *pair) for pair, prompt in zip(pairs, prompts, strict=True)]
        self._on_start(sum(map(len, texts)))
        with _named(requests, texts):
            scores = iter(self._scorer.score([text for halves in texts for text in halves]))
        return [_difference([next(scores) for _ in halves]) for halves in texts]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood in nats of whole texts, in windows of `max_length` that do not overlap.

        A window's prompt is chosen by the window before it: choosing by the window itself would look at the answer.
        """
        tokens = self._encode_all(request.args[0] for request in requests)
        windows = [self._windows(tokens[request.args[0]]) for request in requests]
        counts = [len(each) for each in windows]
        asking = [request for request, count in zip(requests, counts, strict=True) for _ in range(count)]
        prompts = iter(self._choose(asking, [seen for each in windows for seen in _text_before(each)]))
        texts = [
            [
                self._texts(next(prompts), len(seen), [*seen, *window], first=place == 0)[0]
                for place, (seen, window) in enumerate(each)
            ]
            for each in windows
        ]
        self._on_start(sum(counts))
        with _named(requests, texts):
            scores = iter(self._scorer.score([text for each in texts for text in each]))
        return [sum(next(scores)[0] for _ in range(count)) for count in counts]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """What the model generates up to a stop string; greedy unless the task samples."""
        self._on_start(len(requests))
        results = [""] * len(requests)
        groups: dict[str, list[int]] = defaultdict(list)
        for index, request in enumerate(requests):
            groups[repr(request.args[1])].append(index)
        for indices in groups.values():
            self._generate_group([requests[index] for index in indices], indices, results)
        return results

    def _pairs(self, requests: Sequence[Instance]) -> list[tuple[list[int], list[int]]]:
        """Token ids of each context, and of context and continuation as one text, the first token never to be predicted.

        Raises:
            NoAnswer: a continuation changes no token.
        """
        pairs = self._encoded([request.args for request in requests])
        shared = [common_length(*pair) for pair in pairs]
        # What is predicted stands behind something. If one choice needs it, all do: they would not compare otherwise.
        bare = {request.args[0] for request, length in zip(requests, shared, strict=True) if not length}
        for place, (request, length) in enumerate(zip(requests, shared, strict=True)):
            context, whole = pairs[place]
            if not request.args[1] or length == len(whole):
                raise _no_answer(request)
            if request.args[0] in bare:
                pairs[place] = self._begun(context), self._begun(whole)
        return pairs

    def _encoded(self, arguments: Sequence[tuple[str, str]]) -> list[tuple[list[int], list[int]]]:
        """Token ids of contexts, and of each with its continuation. White space between them is the continuation's."""
        behind = [(context, continuation) for context, continuation in arguments if context]
        tokens = self._encode_all(text for pair in behind for text in (pair[0].rstrip(), "".join(pair)))
        return [
            self._parted(tokens[context.rstrip()], tokens[context + continuation]) if context else self._bare(continuation)
            for context, continuation in arguments
        ]

    def _parted(self, context: list[int], whole: list[int]) -> tuple[list[int], list[int]]:
        """Of tokens that a context shares with its continuation, lm-eval takes the context's."""
        return context, (context + whole[len(context) :] if self._as_lm_eval else whole)

    def _bare(self, continuation: str) -> tuple[list[int], list[int]]:
        whole = self.tok_encode(continuation, add_special_tokens=False)
        return [token for token in whole[:1] if token == self.prefix_token_id], whole

    def _begun(self, tokens: list[int]) -> list[int]:
        prefix = self.prefix_token_id
        return tokens if tokens[:1] == [prefix] else [prefix, *tokens]

    def _windows(self, tokens: list[int]) -> list[tuple[list[int], list[int]]]:
        """Windows and what each is predicted from; the first from the beginning of the text, which lm-eval puts there twice."""
        windows = get_rolling_token_windows(
            token_list=tokens if self._as_lm_eval else self._begun(tokens)[1:],
            prefix_token=self.prefix_token_id,
            max_seq_len=self.max_length,
            context_len=1,
        )
        return [make_disjoint_window(window) for window in windows]

    def _halves(self, prompt: int, context: list[int], whole: list[int]) -> list[Text]:
        """Context and continuation, and the context if the first new token is in its midst; both are predicted from there."""
        shared = common_length(context, whole)
        return self._texts(prompt, shared, *([whole, context] if shared < len(context) else [whole]))

    def _texts(self, prompt: int, scored: int, *texts: list[int], first: bool = True) -> list[Text]:
        """Texts that share `scored` tokens and are predicted from there on.

        What is too long loses its beginning, and all of them lose the same: one would know more otherwise.

        Args:
            first: they stand at the beginning of a text.
        """
        longest = max(map(len, texts))
        if longest - scored > self.max_length:
            message = f"an answer of {longest - scored} tokens does not fit in the {self.max_length} that the model takes"
            raise DoesNotFit(message, "leave the task out, or take shorter prompts or a model with more positions")
        lost = max(longest - (self.max_length + 1), first and self._begins_again(texts[0]))
        behind = () if self._last is None else (self._last,)
        return [Text(prompt, (*behind, *text[lost:]), len(behind) + scored - lost) for text in texts]

    def _begins_again(self, tokens: list[int]) -> bool:
        """Whether a text has a token for its beginning, and one stands in front of the prompt already."""
        return self._last is not None and tokens[:1] == [self.prefix_token_id]

    def _context(self, tokens: list[int], longest: int) -> list[int]:
        """The last tokens of a text, which loses a second beginning before it is cut: behind that, the same token is text."""
        if self._last is None:
            return tokens[-longest:] or [self.prefix_token_id]
        return [self._last, *tokens[self._begins_again(tokens) :][-longest:]]

    def _choose(self, requests: Sequence[Instance], contexts: Sequence[list[int]]) -> list[int]:
        """The prompt of each request's context; the choice is kept."""
        selector = self.selector
        if selector is None:
            return [0] * len(contexts)
        documents = [_document(request) for request in requests]
        seen = [self._context(context, self.max_length) for context in contexts]
        prompts = selector.select(seen, documents)
        kept = selector.of_tokens(seen) if isinstance(selector, TokenSelector) else [[prompt] for prompt in prompts]
        for document, choices in zip(documents, kept, strict=True):
            self.selections[document] += choices
        return prompts

    def _generate_group(self, requests: Sequence[Instance], places: Sequence[int], results: list[str]) -> None:
        """Generates for requests that share their generation options; writes to `results` at `places`."""
        options = normalize_gen_kwargs(requests[0].args[1], DEFAULT_GENERATED_TOKENS)
        # HFLM gives up where an answer may be longer than the model; half of the positions each is of more use.
        longest = min(options.pop("max_gen_toks"), self.max_length // 2)
        stop = handle_stop_sequences(options.pop("until"), eos=self.tok_decode(self.eot_token_id, skip_special_tokens=False))
        if not options["do_sample"]:
            options.pop("temperature", None)
        encoded = self._encode_all(request.args[0] for request in requests)
        contexts = [self._context(encoded[request.args[0]], self.max_length - longest) for request in requests]
        prompts = self._choose(requests, contexts)

        options |= {"pad_token_id": self.tokenizer.pad_token_id, "max_new_tokens": longest}
        pairs = list(zip(prompts, contexts, strict=True))
        with _named(requests, [[pair] for pair in pairs]):
            generated = self._scorer.generate(pairs, options, stop, partial(_StopsAt, self.tokenizer, stop))
        for place, tokens in zip(places, generated, strict=True):
            results[place] = postprocess_generated_text(self.tok_decode(tokens), stop, think_end_token=None)


class _StopsAt(StoppingCriteria):
    """Ends a sequence whose text holds a stop string.

    lm-eval's own criterion decodes the last tokens alone, in which half a character can look like a stop string. Here a text is
    decoded as a whole, but only where its last token can end one.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str], width: int):
        self._tokenizer = tokenizer
        self._stop = stop
        self._ends_anywhere = _takes_spaces_away(tokenizer) or any(_BROKEN in string for string in stop)
        self._width = width
        self._seen: dict[Tokens, bool] = {}
        """Whether each row of the last step stopped; beams change places."""
        self._may_end = cache(self._can_end)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **options: Any) -> torch.Tensor:
        rows = list(map(tuple, input_ids[:, self._width :].tolist()))
        self._seen = {row: self._stops(row) for row in rows}
        return sent(torch.tensor([self._seen[row] for row in rows]), input_ids.device)

    def _stops(self, row: Tokens) -> bool:
        before = self._seen.get(row[:-1])
        if before or (before is False and not self._may_end(row[-1])):
            return before
        text = self._tokenizer.decode(list(row))
        return any(stop in text for stop in self._stop)

    def _can_end(self, token: int) -> bool:
        """Whether a stop string may end in a token; what it says behind another, for the first may lose its space."""
        once, twice = (self._tokenizer.decode([token] * times) for times in (1, 2))
        own = twice[len(once) :]
        parts = tuple(accumulate(own))
        return self._ends_anywhere or _BROKEN in twice or any(stop in own or stop.endswith(parts) for stop in self._stop)


def _takes_spaces_away(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether what a text looked like changes with what comes behind it."""
    tokens = tokenizer("the . ' s n't", add_special_tokens=False).input_ids
    return tokenizer.decode(tokens) != tokenizer.decode(tokens, clean_up_tokenization_spaces=False)


@contextmanager
def _tied_as_it_is(model: PreTrainedModel) -> Iterator[None]:
    """lm-eval ties a model's weights as its config has them; a repair may have given the output head its own."""
    vars(model)["tie_weights"] = lambda *_, **__: None
    try:
        yield
    finally:
        del vars(model)["tie_weights"]


@contextmanager
def _named(requests: Sequence[Instance], texts: Sequence[Sequence[tuple[Any, ...]]]) -> Iterator[None]:
    """Says which request has the text that is no finite number.

    Args:
        texts: of each request; their prompts, their tokens and what does not matter here.
    """
    try:
        yield
    except NotFinite as error:
        wrong = error.prompt, tuple(error.tokens)
        owner = next(place for place, each in enumerate(texts) if wrong in [(text[0], tuple(text[1])) for text in each])
        raise error.about(*_document(requests[owner])) from None


def _difference(scores: Sequence[tuple[float, bool]]) -> tuple[float, bool]:
    """Of context and continuation, and of the context if it is to be taken away."""
    (whole, greedy), *context = scores
    return whole - sum(loglikelihood for loglikelihood, _ in context), greedy


def _no_answer(request: Instance) -> NoAnswer:
    task, item = _document(request)
    message = f"item {item} of task `{task}` has an answer without tokens: {request.args[1]!r}"
    return NoAnswer(message, "mend the task's answers or its `target_delimiter`, or leave it out")


def _document(request: Instance) -> Document:
    assert request.task_name is not None and request.doc_id is not None
    return request.task_name, request.doc_id


def _text_before(windows: Sequence[tuple[list[int], list[int]]]) -> list[list[int]]:
    """What stands in front of each window: the window before it, and the prefix token before the first."""
    return [context if index == 0 else windows[index - 1][1] for index, (context, _) in enumerate(windows)]
