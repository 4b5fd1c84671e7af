"""lm-eval's language model interface over a repaired model.

Tokenisation, truncation and windows are those of lm-eval's own `HFLM`, from which this class inherits them, so that a model
without a repair gets the same numbers. What differs is the forward pass: the chosen prompt's cached keys and values stand
in front of every request, logits are computed only where a continuation is scored, and each item's choice is kept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
from lm_eval.models.utils_hf import stop_sequences_criteria
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from llmrepair.models.answers import AnswerFile, Question
from llmrepair.models.prompt_cache import PromptCache, cache_contexts, forward_with_prompt, input_positions
from llmrepair.models.selection import Selector, pad_rows

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from transformers import PreTrainedTokenizerBase

DEFAULT_GENERATED_TOKENS = 256  # lm-eval's
_SHARE_WORTH_SHARING = 0.2  # of a batch's tokens: a second forward pass has a cost of its own


class Row(NamedTuple):
    """A continuation to be scored behind its context and prompt."""

    context: list[int]
    continuation: list[int]
    prompt: int


class RepairedLM(HFLM):
    """A causal LM, the prompts in front of it, and what chooses among them.

    Args:
        model: on its device; a peft model as well.
        max_length: most input tokens, the prompt's not counted.
        cache: the prompts; None for none.
        selector: chooses among them; None exactly where `cache` is.
        answers: file that keeps answers as they come; what it holds is not asked again.
        on_start: called with the number of requests that are about to be scored.
        on_progress: called with the number of requests done since the last call.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int,
        max_length: int,
        cache: PromptCache | None = None,
        selector: Selector | None = None,
        answers: Path | None = None,
        on_start: Callable[[int], None] = lambda requests: None,
        on_progress: Callable[[int], None] = lambda requests: None,
    ):
        super().__init__(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, max_length=max_length, backend="causal")
        self._cache = cache
        self._selector = selector
        self._answers = AnswerFile(answers)
        self._on_start = on_start
        self._on_progress = on_progress
        self.selections: dict[tuple[str, int], list[int]] = defaultdict(list)
        """(task, document) -> prompt of each choice made for it; empty without a selector."""

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Log-likelihood in nats of each request's continuation, and whether greedy decoding gives it."""
        pairs = [self._encoded(*request.args) for request in requests]
        prompts = self._choose([context for context, _ in pairs])
        self._keep(requests, prompts)
        return self._score([Row(*pair, prompt) for pair, prompt in zip(pairs, prompts, strict=True)])

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood in nats of whole texts, in windows of `max_length` that do not overlap.

        A window's prompt is chosen by the window before it: choosing by the window itself would look at the answer.
        """
        windows = [self._windows(*request.args) for request in requests]
        counts = [len(each) for each in windows]
        prompts = iter(self._choose([seen for each in windows for seen in _text_before(each)]))
        rows = [[Row(context, continuation, next(prompts)) for context, continuation in each] for each in windows]
        for request, each in zip(requests, rows, strict=True):
            self._keep([request] * len(each), [row.prompt for row in each])
        scores = iter(self._score([row for each in rows for row in each]))
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

    def _encoded(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Token ids of a pair; an empty context becomes the beginning-of-text token."""
        if context:
            return self._encode_pair(context, continuation)
        tokens = self.tok_encode(continuation, add_special_tokens=False)
        prefix = self.prefix_token_id
        return (tokens[:1], tokens[1:]) if tokens[0] == prefix else ([prefix], tokens)

    def _windows(self, text: str) -> list[tuple[list[int], list[int]]]:
        windows = get_rolling_token_windows(
            token_list=self.tok_encode(text), prefix_token=self.prefix_token_id, max_seq_len=self.max_length, context_len=1
        )
        return [make_disjoint_window(window) for window in windows]

    def _choose(self, contexts: Sequence[list[int]]) -> list[int]:
        if self._selector is None:
            return [0] * len(contexts)
        return self._selector.select([context[-self.max_length :] for context in contexts])

    def _keep(self, requests: Sequence[Instance], prompts: Sequence[int]) -> None:
        if self._selector is None:
            return
        for request, prompt in zip(requests, prompts, strict=True):
            assert request.task_name is not None and request.doc_id is not None
            self.selections[request.task_name, request.doc_id].append(prompt)

    def _score(self, rows: Sequence[Row]) -> list[tuple[float, bool]]:
        self._on_start(len(rows))
        questions = [(index, *row) for index, row in enumerate(rows)]
        answers = self._answered(questions, _scoring_order(rows), lambda i: self._score_batch([rows[j] for j in i]))
        return [(total, greedy) for total, greedy in answers]

    def _answered(
        self, questions: Sequence[Question], order: Sequence[int], ask: Callable[[Sequence[int]], Sequence[Any]]
    ) -> list[Any]:
        """Answers to questions, batch by batch.

        The last bits of an answer depend on its batch. So batches are what they are, and are asked whole or not at all.

        Args:
            questions: an index, token ids, and whatever else decides the answer.
            order: in which they are asked.
            ask: indices of a batch -> their answers.
        """
        answers: list[Any] = [None] * len(questions)
        for start in range(0, len(order), self.batch_size):
            indices = order[start : start + self.batch_size]
            batch = [questions[index] for index in indices]
            known = self._answers.known(batch)
            if known is None:
                known = list(ask(indices))
                self._answers.keep(batch, known)
            for index, answer in zip(indices, known, strict=True):
                answers[index] = answer
            self._on_progress(len(indices))
        return answers

    @torch.no_grad()
    def _score_batch(self, rows: Sequence[Row]) -> list[tuple[float, bool]]:
        rows = [row._replace(context=row.context[-max(1, self.max_length + 1 - len(row.continuation)) :]) for row in rows]
        contexts = list(dict.fromkeys((tuple(row.context), row.prompt) for row in rows))
        saved = sum(len(row.context) for row in rows) - sum(len(context) for context, _ in contexts)
        if saved > _SHARE_WORTH_SHARING * sum(len(row.context) + len(row.continuation) for row in rows):
            return self._score_sharing(rows, contexts)
        return self._score_apart(rows)

    def _score_sharing(self, rows: Sequence[Row], contexts: Sequence[tuple[tuple[int, ...], int]]) -> list[tuple[float, bool]]:
        """Runs each context once and its continuations behind its keys and values.

        Args:
            contexts: token ids and prompt, each once.
        """
        context_ids, context_mask = pad_rows([context for context, _ in contexts], self.device, side="left")
        prompts = torch.tensor([prompt for _, prompt in contexts], device=self.device)
        first, cache = cache_contexts(self.model, self._cache, prompts, context_ids, context_mask)
        place = {context: index for index, context in enumerate(contexts)}
        choice = torch.tensor([place[tuple(row.context), row.prompt] for row in rows], device=self.device)
        heads = [row.continuation[:-1] for row in rows]
        logits = first[choice][:, None]
        if any(heads):
            ids, mask = pad_rows(heads, self.device)
            logits = torch.cat([logits, forward_with_prompt(self.model, cache, choice, ids, mask)], dim=1)
        return [self._answer(row_logits[: len(row.continuation)], row) for row, row_logits in zip(rows, logits, strict=True)]

    def _score_apart(self, rows: Sequence[Row]) -> list[tuple[float, bool]]:
        inputs = [(row.context + row.continuation)[:-1] for row in rows]
        input_ids, mask = pad_rows(inputs, self.device)
        spans = [(len(tokens) - len(row.continuation), len(tokens)) for tokens, row in zip(inputs, rows, strict=True)]
        kept = sorted({position for span in spans for position in range(*span)})
        place = {position: index for index, position in enumerate(kept)}
        choice = torch.tensor([row.prompt for row in rows], device=self.device)
        logits_to_keep = torch.tensor(kept, device=self.device)
        logits = forward_with_prompt(self.model, self._cache, choice, input_ids, mask, logits_to_keep=logits_to_keep)
        return [
            self._answer(row_logits[place[start] : place[end - 1] + 1], row)
            for row, (start, end), row_logits in zip(rows, spans, logits, strict=True)
        ]

    def _answer(self, logits: torch.Tensor, row: Row) -> tuple[float, bool]:
        """Log-likelihood of a continuation from the logits [n, V] before its n tokens, and whether each is the likeliest."""
        log_probabilities = logits.float().log_softmax(-1)
        targets = torch.tensor(row.continuation, device=self.device)
        total = log_probabilities.gather(1, targets[:, None]).sum().item()
        return total, bool((log_probabilities.argmax(-1) == targets).all())

    def _generate_group(self, requests: Sequence[Instance], places: Sequence[int], results: list[str]) -> None:
        """Generates for requests that share their generation options; writes to `results` at `places`."""
        options = normalize_gen_kwargs(requests[0].args[1], DEFAULT_GENERATED_TOKENS)
        # HFLM gives up where an answer may be longer than the model; half of the positions each is of more use.
        options["max_gen_toks"] = min(options["max_gen_toks"], self.max_length // 2)
        stop = handle_stop_sequences(options.pop("until"), eos=self.tok_decode(self.eot_token_id, skip_special_tokens=False))
        room = self.max_length - options["max_gen_toks"]
        contexts = [self.tok_encode(request.args[0], left_truncate_len=room) for request in requests]
        prompts = self._choose(contexts)
        self._keep(requests, prompts)

        def ask(indices: Sequence[int]) -> list[str]:
            torch.manual_seed(places[indices[0]])  # a task that samples draws the same, whatever was asked before
            chosen = [contexts[i] for i in indices], [prompts[i] for i in indices]
            generated = self._generate_batch(*chosen, stop, dict(options))
            return [postprocess_generated_text(self.tok_decode(tokens), stop, think_end_token=None) for tokens in generated]

        questions = [(place, contexts[i], prompts[i], stop, repr(options)) for i, place in enumerate(places)]
        order = sorted(range(len(contexts)), key=lambda i: -len(contexts[i]))
        for place, text in zip(places, self._answered(questions, order, ask), strict=True):
            results[place] = text

    @torch.no_grad()
    def _generate_batch(
        self, contexts: Sequence[list[int]], prompts: Sequence[int], stop: list[str], options: dict[str, Any]
    ) -> list[list[int]]:
        if not options["do_sample"]:
            options.pop("temperature", None)
        input_ids, mask = pad_rows(contexts, self.device, side="left")
        start = 0
        if self._cache is not None:
            start = self._cache.length
            past, past_mask = self._cache.chosen(torch.tensor(prompts, device=self.device))
            # generate() takes what the cache already holds for the head of its input: stand-ins of the same length.
            positions = torch.cat([torch.zeros_like(past_mask, dtype=torch.long), input_positions(mask, start)], dim=1)
            input_ids = torch.cat([torch.zeros_like(past_mask, dtype=torch.long), input_ids], dim=1)
            mask = torch.cat([past_mask, mask], dim=1)
            options |= {"past_key_values": past, "position_ids": positions}
        output = self.model.generate(
            input_ids=input_ids,
            attention_mask=mask.long(),
            max_new_tokens=options.pop("max_gen_toks"),
            stopping_criteria=stop_sequences_criteria(self.tokenizer, stop, input_ids.shape[1], len(input_ids)),
            pad_token_id=self.tokenizer.pad_token_id,
            **options,
        )
        return output[:, input_ids.shape[1] :].tolist()


def _scoring_order(rows: Sequence[Row]) -> list[int]:
    """Longest first, so that there is little padding and memory peaks at the start; what shares a context stays together."""
    lengths: dict[tuple[tuple[int, ...], int], int] = defaultdict(int)
    shared = [(tuple(row.context), row.prompt) for row in rows]
    for row, key in zip(rows, shared, strict=True):
        lengths[key] = max(lengths[key], len(row.context) + len(row.continuation))
    return sorted(range(len(rows)), key=lambda i: (-lengths[shared[i]], shared[i], -len(rows[i].continuation)))


def _text_before(windows: Sequence[tuple[list[int], list[int]]]) -> list[list[int]]:
    """What stands in front of each window: the window before it, and the prefix token before the first."""
    return [context if index == 0 else windows[index - 1][1] for index, (context, _) in enumerate(windows)]
