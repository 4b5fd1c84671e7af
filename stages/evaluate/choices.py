"""What is said of how often each prompt of a pool was chosen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from llmrepair.models.selection import LossSelector, RoutedSelector, TokenSelector

if TYPE_CHECKING:
    from llmrepair.models.selection import Selector
    from llmrepair.pipeline.artifact import Artifact

_ALWAYS = 0.95
"""Share of one prompt from which on a choice is none."""


def choice_notes(shares: Sequence[float] | None, selector: Selector | None, tuned: Artifact | None) -> Iterator[str]:
    """Which prompts the inputs chose, and whether they could have done without a choice.

    Args:
        shares: of each prompt in what was chosen; None where nothing is.
        tuned: the pool.
    """
    if shares is None or len(shares) == 1 or not isinstance(selector, RoutedSelector | TokenSelector | LossSelector):
        return
    gap = f"; {tuned.metrics['diversity']['oracle_gap']:.3f} nats a token is what a perfect choice gains" if tuned else ""
    yield f"prompts 0 to {len(shares) - 1} were chosen for {', '.join(f'{share:.0%}' for share in shares)} of the inputs{gap}"
    if max(shares) >= _ALWAYS:
        yield f"the vote never changed its mind: what is scored is hardly more than prompt {shares.index(max(shares))} alone"
