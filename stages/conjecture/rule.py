"""The second rule, written down before any result. Numbers in, a word and the path to it out.

Of one task:

1. `undetermined` where fewer than `FEWEST_LOST` items are robustly lost.
2. `edge` where half or more of what one measurement calls lost is right when it is asked another way; or where the prompt
   brings back a quarter or more of it and yet, beyond what it breaks and what placebos do, nothing: the net flow less that of
   the placebos is equivalent to 0 (two one-sided tests, +-0.1).
3. `displaced` where the index and Lambda lie above `DISPLACED_ABOVE` with their whole intervals, `forgotten` where both lie
   below `FORGOTTEN_BELOW`, `mixed` where both lie between.
4. `undetermined` where an interval reaches into more than one of these, or the two disagree.

Where nothing comes back at all, the flows are equivalent to nothing as well; that is `forgotten` and not `edge`, for what is at
the edge comes back. So the second part of step 2 asks that something does.

Lambda needs candidates to choose from: of a task of free answers the index alone is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

from llmrepair.stages.conjecture.evidence import NO_DIFFERENCE, Evidence
from llmrepair.stages.conjecture.roles import DAMAGED
from llmrepair.stages.conjecture.verdict import DISPLACED_ABOVE, FEWEST_LOST, FORGOTTEN_BELOW, Word
from llmrepair.stages.statistics.resampling import Estimate

_MOST_AT_THE_EDGE = 0.5
_LEVEL = 0.05


@dataclass(frozen=True)
class Step:
    """A question of the rule and what was found."""

    asks: str
    finds: str
    decides: bool


@dataclass(frozen=True)
class Judgement:
    word: Word
    why: str
    """The word is so "because" of this."""
    path: tuple[Step, ...]
    """The steps up to the one that decides."""


def judge(found: Evidence) -> Judgement:
    path: list[Step] = []

    def decides(asks: str, finds: str, is_so: bool) -> bool:
        path.append(Step(asks, finds, is_so))
        return is_so

    def judged(word: Word, why: str) -> Judgement:
        return Judgement(word, why, tuple(path))

    enough = f"{found.lost:.0f} are"
    if decides(f"are fewer than {FEWEST_LOST} items robustly lost?", enough, found.lost < FEWEST_LOST):
        return judged("undetermined", f"{FEWEST_LOST} robustly lost answers are the least to judge by")
    if found.edge is not None and decides(
        "is half or more of what one measurement calls lost at the edge?",
        f"{found.edge.value:.0%} is",
        found.edge.value >= _MOST_AT_THE_EDGE,
    ):
        return judged("edge", "half or more of what one measurement calls lost is right when it is asked another way")
    if found.flows is not None:
        regained, p_value = found.flows.repair.regained / found.flows.lost, found.flows.equivalence_p
        only_jitter = regained >= FORGOTTEN_BELOW and p_value < _LEVEL
        asks = f"does the prompt bring back a quarter or more, and net of placebos nothing (+-{NO_DIFFERENCE:g})?"
        net = f"{regained:.0%}, and net {_text(found.flows.difference)} (p = {p_value:.2g})"
        if decides(asks, net, only_jitter):
            return judged("edge", "net of what it breaks, the prompt brings back no more than placebos do")
    return judged(*_by_regions(found, path))


def _by_regions(found: Evidence, path: list[Step]) -> tuple[Word, str]:
    estimates = {
        "the displacement index": found.index.index.estimate if found.index is not None and found.index.index else None
    }
    if found.has_candidates:
        estimates["Lambda"] = found.undone
    texts = [f"{name} is {_text(estimate)}" for name, estimate in estimates.items()]
    regions = {region for estimate in estimates.values() for region in _regions(estimate)}
    decided = len(regions) == 1
    path.append(
        Step(
            f"in which one region {'do' if len(estimates) > 1 else 'does'} {' and '.join(estimates)} lie?",
            "; ".join(texts),
            True,
        )
    )
    if None in estimates.values():
        missing = next(name for name, estimate in estimates.items() if estimate is None)
        return "undetermined", f"{missing} cannot be told: {_MISSING[missing]}"
    if not decided:
        return "undetermined", f"{' and '.join(texts)}, which do not lie in one region"
    (word,) = regions
    return word, _MEANINGS[word]


_MISSING = {
    "the displacement index": "a control is missing, lost other answers, or comes back no more than what was never told",
    "Lambda": "it is not clear that there is damage to these facts",
}
_MEANINGS: dict[Word, str] = {
    "forgotten": "prompts bring back hardly more of what is robustly lost than placebos do",
    "displaced": "prompts bring back nearly as much of what is robustly lost as of a model that only hides what it knows",
    "mixed": "prompts bring back clearly more of what is robustly lost than placebos do, and clearly less than of a model that "
    "only hides what it knows",
}


def _regions(estimate: Estimate | None) -> set[Word]:
    return {_region(end) for end in (estimate.low, estimate.high)} if estimate is not None else set()


def _region(value: float) -> Word:
    if value < FORGOTTEN_BELOW:
        return "forgotten"
    return "displaced" if value > DISPLACED_ABOVE else "mixed"


def _text(estimate: Estimate | None) -> str:
    return f"{estimate.value:z.2f} [{estimate.low:z.2f}, {estimate.high:z.2f}]" if estimate is not None else "not known"


def second_sentence(model: str, task: str, found: Evidence, judged: Judgement) -> str:
    """The verdict of one task for a newcomer.

    Args:
        model: what was done to the dense model, as `lab gptq 3 bits`.
    """
    verdict = f"{judged.word}, because {judged.why}"
    if found.flows is None or found.edge is None:
        return f"{task}: {verdict}; {model} answers all that the dense model answers"
    other_way = "asked another way" if found.phrasings > 1 else "behind a placebo"
    called, edge = found.called_lost, found.edge.value * found.called_lost
    lost = f"Of the {called:.0f} questions of {task} that the dense model answers and {model} does not"
    at_the_edge = f"{edge:.0f} are at the edge: {other_way} they are right"
    return f"{lost}, {at_the_edge}. {_of_lost(task, found)}: {verdict}{_shape(found, judged)}{_phrasings(found)}"


def _of_lost(task: str, found: Evidence) -> str:
    recovery = found.recovery[DAMAGED]
    if recovery is None:
        return "None is robustly lost"
    shares = f"a prompt brings back {_percent(recovery.repair)}, placebos {_percent(recovery.placebos)}"
    back = f"Of the {found.lost:.0f} robustly lost {shares}"
    if not found.has_candidates:
        return f"{back} (how much of the damage is undone cannot be told: {task} has no candidates to choose from)"
    if found.undone is None:
        return f"{back}; that there is damage to these facts is not clear"
    return f"{back}; of the damage to these facts a prompt undoes {_percent(found.undone)} more than placebos do"


def _percent(share: Estimate) -> str:
    return f"{100 * share.value:z.0f} % [{100 * share.low:z.0f}, {100 * share.high:z.0f}]"


def _shape(found: Evidence, judged: Judgement) -> str:
    return f" ({found.shape.words})" if judged.word == "mixed" and found.shape is not None else ""


def _phrasings(found: Evidence) -> str:
    return "" if found.phrasings > 1 else ". The questions have one phrasing, so that placebos alone tell what is at the edge"
