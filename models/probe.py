"""Linear probes: can a fact be read off a hidden state by a linear map that other facts trained?

A probe is a multinomial logistic regression whose classes are words, each given by its output embedding: the score of word v
behind a standardised state h is e_v · W h. So it also reads words that were never right in its training, where a free weight
for each class could not; there they stand among no fact's possible words, for nothing says that they are wrong. W is
penalised; the penalty is chosen by cross-validation. There is no bias: how often a word is right in training says nothing
about other people.

How much a probe can learn by itself, without the model's knowledge, shows on a control task with random labels (Hewitt and
Liang 2019, *Designing and Interpreting Probes with Control Tasks*, arXiv 1909.03368).

Shapes: n facts, L + 1 states (the embeddings, then one behind each layer), d hidden size, c words, E their embeddings' size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from llmrepair.models.finite import NotFinite
from llmrepair.models.selection import pad_rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_FOLDS = 4
_STEPS = 60
_LEAST_DEVIATION = 1e-6
"""Of a state's dimension: what is the same in all facts, as in the embeddings of one last token, stays so."""


@dataclass(frozen=True)
class Words:
    """What a probe reads: the right word of each fact, among those that it could be."""

    right: torch.Tensor
    """[n], numbers of words."""
    possible: torch.Tensor
    """[n, c] bool, those of the fact's kind."""

    def of(self, facts: torch.Tensor) -> Words:
        return Words(self.right[facts], self.possible[facts])


@dataclass(frozen=True)
class Probe:
    """A fitted probe."""

    mean: torch.Tensor
    deviation: torch.Tensor
    """[d] both, of the states that it was fitted on."""
    scores: torch.Tensor
    """[d, c], of a standardised state."""

    def read(self, states: torch.Tensor, possible: torch.Tensor) -> torch.Tensor:
        """The likeliest word [n] behind states [n, d]."""
        return (_standardised(states, self.mean, self.deviation) @ self.scores).masked_fill(~possible, -torch.inf).argmax(1)


def fit_probe(states: torch.Tensor, words: Words, embeddings: torch.Tensor, penalty: float) -> Probe:
    """Fits a probe by L-BFGS in float64: mean cross-entropy over the facts, and penalty / 2 times the sum of W's squares.

    Args:
        states: [n, d].
        embeddings: [c, E] of the words; they are centred and scaled to a variance of 1, which makes penalties comparable.
    """
    states, embeddings = states.double(), embeddings.double()
    mean, deviation = states.mean(0), states.std(0).clamp(min=_LEAST_DEVIATION)
    inputs = _standardised(states, mean, deviation)
    embeddings = (embeddings - embeddings.mean(0)) / embeddings.std()
    possible = words.possible & torch.isin(torch.arange(len(embeddings), device=states.device), words.right)
    weight = torch.zeros(inputs.shape[1], embeddings.shape[1], dtype=torch.float64, device=states.device, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight], max_iter=_STEPS, history_size=20, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        scores = (inputs @ weight @ embeddings.T).masked_fill(~possible, -torch.inf)
        value = functional.cross_entropy(scores, words.right) + penalty / 2 * weight.square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    return Probe(mean, deviation, weight.detach() @ embeddings.T)


def _standardised(states: torch.Tensor, mean: torch.Tensor, deviation: torch.Tensor) -> torch.Tensor:
    """States [n, d] with mean 0 and deviation 1 in each dimension, of those that these are of."""
    return (states.double() - mean) / deviation


def cross_validated(
    states: torch.Tensor, words: Words, embeddings: torch.Tensor, people: torch.Tensor, penalties: Sequence[float]
) -> tuple[float, float]:
    """The penalty that reads best, and the share of facts that it reads, of people that the probe was not fitted on.

    Args:
        people: [n], whom each fact is about: nobody is in two folds.
    """
    shares = {}
    for penalty in penalties:
        right = 0
        for fold in range(_FOLDS):
            held_out = people % _FOLDS == fold
            kept, asked = words.of(~held_out), words.of(held_out)
            probe = fit_probe(states[~held_out], kept, embeddings, penalty)
            right += int((probe.read(states[held_out], asked.possible) == asked.right).sum())
        shares[penalty] = right / len(states)
    best = max(shares, key=lambda penalty: shares[penalty])
    return best, shares[best]


@torch.no_grad()
def last_states(model: PreTrainedModel, rows: Sequence[Sequence[int]], at_once: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states [L + 1, n, d] at the last token of each row of token ids, and the model's own next token [n].

    The last layer's states are those behind the final norm, from which the model reads its answer.

    Raises:
        NotFinite: of a row.
    """
    states, tokens = [], []
    for start in range(0, len(rows), at_once):
        input_ids, mask = pad_rows(rows[start : start + at_once], model.device)
        output = model(input_ids=input_ids, attention_mask=mask.long(), output_hidden_states=True, use_cache=False)
        each, last = torch.arange(len(input_ids), device=model.device), mask.sum(1) - 1
        states.append(torch.stack([layer[each, last] for layer in output.hidden_states]))
        tokens.append(output.logits[each, last].argmax(1))
        if not (finite := states[-1].isfinite().all(-1).all(0)).all():
            raise NotFinite(model, None, 0, tuple(rows[start + int(finite.int().argmin())]))
    return torch.cat(states, dim=1), torch.cat(tokens)
