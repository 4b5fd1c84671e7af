from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from llmrepair.models.selection import FixedSelector, LossSelector, RandomSelector, Selector
from llmrepair.stages.evaluate.choices import choice_notes

CHOOSES = LossSelector(3, lambda texts: [])
TUNED: Any = SimpleNamespace(metrics={"diversity": {"oracle_gap": 0.0124}})


def test_shares_are_told_with_what_a_perfect_choice_gains() -> None:
    (text,) = choice_notes([0.125, 0.0, 0.875], CHOOSES, TUNED)
    assert text == (
        "prompts 0 to 2 were chosen for 12%, 0%, 88% of the inputs; 0.012 nats a token is what a perfect choice gains"
    )


@pytest.mark.parametrize(("share", "told"), [(0.94, 1), (0.95, 2), (1.0, 2)])
def test_a_choice_that_never_changes_is_told(share: float, told: int) -> None:
    texts = list(choice_notes([1 - share, share], CHOOSES, None))
    assert len(texts) == told
    assert told == 1 or "never changed its mind: what is scored is hardly more than prompt 1 alone" in texts[1]


@pytest.mark.parametrize("selector", [None, FixedSelector(0), RandomSelector(2, 0)])
def test_where_nothing_is_chosen_nothing_is_said(selector: Selector | None) -> None:
    assert not list(choice_notes([1.0, 0.0], selector, TUNED))
    assert not list(choice_notes([1.0], CHOOSES, TUNED))
    assert not list(choice_notes(None, CHOOSES, TUNED))
