"""What samples hold of the candidates that a question could be answered by: how likely each is, however it is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmrepair.stages.statistics.resampling import Floats

Sample = Mapping[str, Any]


@dataclass(frozen=True)
class Layout:
    """How the log-likelihoods of n items are arranged: P phrasings, of each as many candidates as the item has."""

    phrasings: int
    gold: NDArray[np.int64]
    """[n]: which candidate is right."""
    names: NDArray[np.int64]
    """[n, W]: a number for each answer to each kind of question; what an item has not has one of its own."""

    def scores(self, samples: Sequence[Sample]) -> Floats:
        """[P, n, W] in nats, NaN for what an item has not."""
        found = np.full((self.phrasings, *self.names.shape), np.nan)
        for number, sample in enumerate(samples):
            rows = np.array(sample["loglikelihoods"], dtype=float).reshape(_phrasings(sample), -1)[: self.phrasings]
            found[:, number, : rows.shape[1]] = rows
        return found


def layout_of(samples: Sequence[Sample]) -> Layout | None:
    """None where the items are no choices. Where some are asked in fewer phrasings, so many count of all."""
    if not all(len(sample.get("loglikelihoods") or ()) > 1 and _gold(sample) is not None for sample in samples):
        return None
    answers = [_candidates(sample) for sample in samples]
    numbers = {answer: number for number, answer in enumerate(dict.fromkeys(each for of_item in answers for each in of_item))}
    names = np.full((len(samples), max(map(len, answers))), len(numbers))
    for item, of_item in enumerate(answers):
        names[item, : len(of_item)] = [numbers[answer] for answer in of_item]
    return Layout(min(map(_phrasings, samples)), np.array([_gold(sample) for sample in samples]), names)


def _phrasings(sample: Sample) -> int:
    """A document that is asked in several holds them as `prompts`."""
    prompts = sample.get("doc", {}).get("prompts")
    return len(prompts) if isinstance(prompts, list) else 1


def _gold(sample: Sample) -> int | None:
    gold = sample.get("doc", {}).get("gold", sample["target"])
    return int(gold) if isinstance(gold, int) or str(gold).isdigit() else None


def _candidates(sample: Sample) -> list[tuple[str, str]]:
    """The kind of question and the text of each candidate."""
    document, width = sample.get("doc", {}), len(sample["loglikelihoods"]) // _phrasings(sample)
    kind = str(document.get("relation", document.get("attribute", "")))
    return [(kind, str(sample["arguments"][f"gen_args_{number}"]["arg_1"])) for number in range(width)]
