"""The first rule that gives the verdict, kept until the next release: see `rule`.

Of one task:

1. `undetermined` where there is no displacement index (controls are missing, or cannot be told apart) or fewer than
   `FEWEST_LOST` items were lost, of which no share is known to better than about 18 points.
2. `forgotten` where the whole 95 % interval of the index lies below `FORGOTTEN_BELOW`: prompts bring back hardly more than of
   a model that was never told. This is the conjecture's word, for what prompts cannot reach; whether it is latent (a change
   of weights tuned on other facts brings it back) or erased, the shares say.
3. `displaced` where the whole interval lies above `DISPLACED_ABOVE`: prompts bring back nearly as much as of a model that
   hides what it knows.
4. `mixed` where the whole interval lies between the two.
5. `undetermined` where the interval reaches into more than one of these.

A task that only asks how likely texts are is `undetermined`: it has no right or wrong answers, so no fact is lost or found.

Of several tasks: the word of all those that are determined; `mixed` if they differ; `undetermined` if none is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from llmrepair.stages.conjecture.analysis import Untuned
from llmrepair.stages.statistics.damage import Damage
from llmrepair.stages.statistics.index import FEWEST_NEVER_KNOWN, Index
from llmrepair.stages.statistics.resampling import Estimate

Word = Literal["edge", "displaced", "forgotten", "mixed", "undetermined"]

FORGOTTEN_BELOW = 0.25
DISPLACED_ABOVE = 0.75
FEWEST_LOST = 30


@dataclass(frozen=True)
class Verdict:
    word: Word
    why: str
    """The word is so "because" of this."""


_MEANINGS: Mapping[Word, str] = {
    "forgotten": "prompts bring back hardly more than of a model that was never told",
    "displaced": "prompts bring back nearly as much as of a model that only hides what it knows",
    "mixed": "prompts bring back clearly more than of a model that was never told, and clearly less than of one that only "
    "hides what it knows",
}


_NO_INDEX = (
    "a control is missing or lost other answers, fewer than half of the same: one that hides what it knows, or one that was "
    f"never told, whose place {FEWEST_NEVER_KNOWN} answers could take that the dense model does not know either"
)


def verdict(lost: int, index: Index | None) -> Verdict:
    """Of one task.

    Args:
        lost: items that the model lost.
        index: None where it cannot be told.
    """
    if lost < FEWEST_LOST:
        return Verdict("undetermined", f"{FEWEST_LOST} lost answers are the least to judge by")
    if index is None:
        return Verdict("undetermined", _NO_INDEX)
    if index.index is None:
        return Verdict("undetermined", "prompts do not bring back more of the displaced control than of the erased one")
    low, high = _region(index.index.low), _region(index.index.high)
    if low == high:
        return Verdict(low, _MEANINGS[low])
    return Verdict("undetermined", f"the interval of the displacement index reaches from {low} to {high}")


def _region(index: float) -> Word:
    if index < FORGOTTEN_BELOW:
        return "forgotten"
    return "displaced" if index > DISPLACED_ABOVE else "mixed"


def overall(words: Iterable[Word]) -> Word:
    """Of several tasks."""
    determined = {word for word in words if word != "undetermined"}
    if len(determined) > 1:
        return "mixed"
    return determined.pop() if determined else "undetermined"


def sentence(
    model: str,
    task: str,
    known: int,
    lost: int,
    found: Mapping[str, Estimate] | None,
    index: Index | None,
    edge: Untuned | None,
) -> str:
    """The verdict of one task for a newcomer, with its intervals.

    Args:
        model: what was done to the dense model, as `lab gptq 3 bits`.
        known: items that the dense model answers.
        lost: those of them that the damaged one does not.
        found: shares of the fates in the lost items; None where nothing was lost.
        edge: None where nothing was lost.
    """
    judged = verdict(lost, index)
    if not known:
        return (
            f"{task}: {judged.word}, because the dense model itself answers none of its questions, so there was nothing to lose"
        )
    if found is None or edge is None:
        answers = f"{model} answers all {known} questions that the dense model answers"
        return f"{task}: {judged.word}, because {answers}, so there is nothing to bring back"
    where = ""
    if index is not None and index.index is not None:
        where = f" (displacement index {number_text(index.index)}, where 0 is never told and 1 only hidden)"
    displaced, latent, erased = (share_text(found[name]) for name in ("displaced", "latent", "erased"))
    before = share_text(edge.recovery)
    return (
        f"Of the {lost} questions of {task} that the dense model answers and {model} does not, {displaced} come back with a "
        f"prompt ({before} before it is tuned), {latent} only with LoRA tuned on other facts, and {erased} with neither: "
        f"{judged.word}, because {judged.why}{where}"
    )


NO_ANSWERS = "it has no right or wrong answers, so no fact is lost or found"


def text_sentence(model: str, task: str, found: Damage, words: Mapping[str, str]) -> str:
    """What is said of a task that only asks how likely texts are, for a newcomer; with the words for each repair."""
    damage = f"its texts are less likely to {model} than to the dense model"
    shares = [f"{share_text(share)} by {words[name]}" for name, share in found.undone.items() if share is not None]
    undone = f"{damage}; undone of that damage are {', '.join(shares)}"
    nothing = f"it is not clear that {damage}, so there is nothing to undo"
    return f"{task}: undetermined, because {NO_ANSWERS}; {undone if shares else nothing}"


def share_text(share: Estimate) -> str:
    """`5 % [3, 8]`."""
    return f"{100 * share.value:z.0f} % [{100 * share.low:z.0f}, {100 * share.high:z.0f}]"


def number_text(number: Estimate) -> str:
    """`0.03 [-0.01, 0.07]`."""
    return f"{number.value:z.2f} [{number.low:z.2f}, {number.high:z.2f}]"
