"""Log-likelihoods and generation for texts of token ids, behind the prompts of a pool.

What texts share is computed once, and logits only where a token is scored (see `trees` and `tree_attention`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import count, groupby, repeat
from typing import TYPE_CHECKING, Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from llmrepair.models.answers import AnswerFile, question_name
from llmrepair.models.ensemble import extend_members, mean_log_probabilities, members
from llmrepair.models.finite import NotFinite, watching
from llmrepair.models.memory import is_out_of_memory, most_generated_rows, most_tokens, text_does_not_fit
from llmrepair.models.prompt_cache import ENSEMBLE, PromptCache, extend_cache
from llmrepair.models.prompted import PromptedModel
from llmrepair.models.sampling import drawing_on_cpu
from llmrepair.models.selection import pad_rows
from llmrepair.models.transfer import sent
from llmrepair.models.tree_attention import attention_window, logits_of_trees, takes_trees
from llmrepair.models.trees import Forest, Group, Text, Tree, group_by_beginning, side_by_side

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Rows = list[list[Tree]]
Ask = Callable[[PromptCache | None, torch.Tensor, Rows], list[Any]]
"""A batch -> the answer to each of its texts: what is cached, [B] which of it (or `ENSEMBLE`) stands before each row, on the
CPU, and the rows."""

_LOGITS_AT_ONCE = {"cpu": 2**20, "cuda": 2**27}  # what the caches of a CPU hold; half a GiB in float32


class Scorer:
    """A frozen model and a pool of prompts.

    The last bits of an answer depend on its batch. So batches are the same in every run, and are asked whole or not at all.

    Args:
        cache: the prompts; None for none.
        batch_size: as many tokens at once as so many of the longest texts have; None: as many as the memory allows.
        answers: keeps answers as they come; what it holds is not computed again.
        on_progress: called with the number of texts done since the last call.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        cache: PromptCache | None,
        batch_size: int | None,
        answers: AnswerFile,
        on_progress: Callable[[int], None] = lambda texts: None,
    ):
        self._model = model
        self._cache = cache
        self._batch_size = batch_size
        self._answers = answers
        self._on_progress = on_progress
        self.takes_trees = takes_trees(model)
        self._halvings = 0
        """How often a batch did not fit in memory."""

    def score(self, texts: Sequence[Text]) -> list[tuple[float, bool]]:
        """Log-likelihood in nats of what is scored in each text, and whether each of its tokens is the likeliest.

        Raises:
            DoesNotFit: one text alone is too much for the memory.
            NotFinite: the log-likelihood of one is no finite number.
        """
        return [(total, greedy) for total, greedy in self._answered(texts, self._score_rows)]

    def generate(
        self,
        contexts: Iterable[tuple[int, Sequence[int]]],
        options: dict[str, Any],
        key: Sequence[Any],
        stopping: Callable[[int], StoppingCriteria],
    ) -> list[list[int]]:
        """Token ids that `model.generate` puts behind each context.

        Args:
            contexts: prompt and token ids.
            options: for `generate`; `max_new_tokens` and `do_sample` among them.
            key: what else decides the answers, as JSON values.
            stopping: tokens in front of what is generated -> the criterion that ends a sequence.

        Raises:
            DoesNotFit: one context alone is too much for the memory.
            NotFinite: the logits behind one are no finite numbers.
        """

        def ask(cache: PromptCache | None, choice: torch.Tensor, rows: Rows) -> list[list[int]]:
            return self._generate_rows(cache, choice, rows, options, stopping)

        # The last token of a text is never computed: a number there tells samples behind one context apart.
        numbers = count() if options["do_sample"] else repeat(0)
        texts = [
            Text(prompt, (*context, number), len(context)) for (prompt, context), number in zip(contexts, numbers, strict=False)
        ]
        return self._answered(texts, ask, alone=True, room=options["max_new_tokens"], key=[*key, repr(options)])

    def _answered(
        self, texts: Sequence[Text], ask: Ask, alone: bool = False, room: int = 0, key: Sequence[Any] = ()
    ) -> list[Any]:
        """Answers to texts, each asked once.

        Args:
            alone: each text needs a row of its own.
            room: tokens that are added to each.
            key: what decides the answers beside the texts.
        """
        if not texts:
            return []
        times = Counter(texts)
        past = room + (self._cache.length if self._cache is not None else 0)
        longest = past + max(len(text.tokens) for text in times)
        shared = self.takes_trees and longest <= (attention_window(self._model) or longest)
        most_rows = self._batch_size or (most_generated_rows(self._model, longest) if room else None)
        if room and most_rows and self._cache is not None and any(text.prompt == ENSEMBLE for text in times):
            most_rows = max(1, most_rows // self._cache.size)  # each is generated behind every prompt at once
        budget = most_rows * longest if most_rows else most_tokens(self._model)
        answers: dict[Text, Any] = {}
        for group in group_by_beginning(times) if shared else self._apart(times, longest, room):
            behind = _Behind(self._model, self._cache, group)
            forest = Forest(group.texts, group.length, past + group.length, shared and not alone, most_rows if room else None)
            for batch, known in self._worked_off(forest, budget, partial(behind.ask, ask), key):
                answers |= zip(batch, known, strict=True)
                self._on_progress(sum(times[text] for text in batch))
        return [answers[text] for text in texts]

    def _apart(self, texts: Iterable[Text], longest: int, room: int) -> list[Group]:
        """Texts that share nothing. Generation pads between the prompt and a shorter text, and a layer of local attention would
        count that as text it looks back on: such texts are of one length."""
        window = attention_window(self._model)
        if not (room and self._cache is not None and window and longest > window):
            return [Group(0, sorted(texts))]
        in_order = sorted(texts, key=lambda text: (len(text.tokens), text))
        return [Group(0, list(those)) for _, those in groupby(in_order, key=lambda text: len(text.tokens))]

    def _worked_off(
        self, forest: Forest, budget: int, ask: Callable[[Rows], list[Any]], key: Sequence[Any]
    ) -> Iterator[tuple[list[Text], list[Any]]]:
        """Batches and their answers, each batch half as large from when one does not fit in memory."""
        while forest:
            rows = forest.take(budget >> self._halvings)
            batch = [text for row in rows for tree in row for text in tree.paths]
            known = self._known_or_asked(batch, key, partial(ask, rows))
            if known is None:
                self._halvings += 1
                forest.put_back(rows)
            else:
                yield batch, known

    def _known_or_asked(self, batch: Sequence[Text], key: Sequence[Any], ask: Callable[[], list[Any]]) -> list[Any] | None:
        """Answers to a batch; None if it is too large for the memory, now or before an interruption."""
        names = [question_name([*text, *key]) for text in batch]
        if (known := self._answers.known(names)) is not None:
            return known
        if self._answers.was_too_large(names):
            return None
        try:
            answers = ask()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        else:
            self._answers.keep(names, answers)
            return answers
        if len(batch) == 1:
            raise text_does_not_fit(len(batch[0].tokens))
        self._answers.keep_too_large(names)
        return None

    @torch.no_grad()
    def _score_rows(self, cache: PromptCache | None, choice: torch.Tensor, rows: Rows) -> list[tuple[float, bool]]:
        trees = [side_by_side(row) for row in rows]
        width = max(map(len, trees))
        spans = [
            ([b * width + place for place in path], text.tokens[text.scored :])
            for b, tree in enumerate(trees)
            for text, path in tree.paths.items()
        ]
        scored = [place for path, _ in spans for place in path]
        row_of = {place: row for row, place in enumerate(sorted(set(scored)))}
        tables = (list(row_of), [row_of[place] for place in scored], [target for _, targets in spans for target in targets])
        places, which, targets = (sent(torch.tensor(table), self._model.device) for table in tables)
        choices = [sent(each, self._model.device) for each in members(cache, choice)]
        passes = (logits_of_trees(self._model, cache, each, trees, places) for each in choices)
        if len(choices) == 1:
            loglikelihoods, likeliest = token_loglikelihoods(next(passes), which, targets)
        else:
            means = mean_log_probabilities(passes)
            loglikelihoods, likeliest = means[which, targets], means.argmax(-1)[which] == targets
        lengths = [len(path) for path, _ in spans]
        loglikelihoods, likeliest = torch.stack([loglikelihoods, likeliest.to(loglikelihoods.dtype)]).cpu()  # waited for once
        totals: list[float] = torch.stack([part.sum() for part in loglikelihoods.double().split(lengths)]).tolist()
        greedy: list[bool] = torch.stack([part.all() for part in likeliest.split(lengths)]).tolist()
        for text, total in zip((text for tree in trees for text in tree.paths), totals, strict=True):
            if not math.isfinite(total):
                raise NotFinite(self._model, self._cache, text.prompt, text.tokens)
        return list(zip(totals, greedy, strict=True))

    @torch.no_grad()
    def _generate_rows(
        self,
        cache: PromptCache | None,
        choice: torch.Tensor,
        rows: Rows,
        options: dict[str, Any],
        stopping: Callable[[int], StoppingCriteria],
    ) -> list[list[int]]:
        trees = [row[0] for row in rows]
        torch.manual_seed(next(iter(trees[0].paths)).tokens[-1])  # samples are the same, whatever was asked before
        input_ids, mask = pad_rows([tree.tokens for tree in trees], self._model.device, side="left")
        width = input_ids.shape[1]
        criteria = StoppingCriteriaList([stopping(width)])
        prompted = PromptedModel(self._model, cache)
        texts = [(text.prompt, text.context) for tree in trees for text in tree.paths]
        with watching(self._model, self._cache, texts), drawing_on_cpu():
            output = prompted.generate(input_ids, mask, choice=choice, stopping_criteria=criteria, **options)
        return output[:, width:].tolist()


class _Behind:
    """What is cached in front of a group of texts; its beginning is computed when it is first needed."""

    def __init__(self, model: PreTrainedModel, cache: PromptCache | None, group: Group):
        self._model = model
        self._cache = cache
        self._group = group
        self._extended: PromptCache | None = None

    def ask(self, ask: Ask, rows: Rows) -> list[Any]:
        choice = torch.tensor([row[0].prompt for row in rows])
        if not self._group.length:
            return ask(self._cache, choice, rows)
        if self._extended is None:
            self._extended = self._extend(self._group.texts[0].prompt)
        return ask(self._extended, choice.clamp(max=0), rows)  # what is extended is one prompt, or all for an ensemble

    def _extend(self, prompt: int) -> PromptCache:
        if prompt == ENSEMBLE and self._cache is not None:
            return extend_members(self._model, self._cache, self._group.beginning)
        return extend_cache(self._model, self._cache, prompt, self._group.beginning)


def token_loglikelihoods(logits: torch.Tensor, which: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-likelihood of tokens, in float32, and whether each is the likeliest.

    Args:
        logits: [N, V] in any precision.
        which: [K], the row of `logits` that predicts each token.
        targets: [K], the tokens.

    Returns:
        [K] in nats, and [K] bool.
    """
    at_once = _LOGITS_AT_ONCE.get(logits.device.type, _LOGITS_AT_ONCE["cpu"])
    parts = logits.split(max(1, at_once // logits.shape[1]))
    normalisers = torch.cat([part.float().logsumexp(-1) for part in parts])
    likeliest = torch.cat([part.max(-1).indices for part in parts])  # the first of equals, as argmax gives, in half the time
    return logits[which, targets].float() - normalisers[which], likeliest[which] == targets
