"""How much the prompts of a pool differ in what they are good for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def diversity(losses: torch.Tensor) -> dict[str, Any]:
    """On how many inputs each prompt is the best, and what a perfect choice for each input would gain.

    Args:
        losses: [m, N], mean next-token loss of each input behind each prompt.

    Returns:
        `best_shares`: share of inputs at which each prompt has the lowest loss, the first of several. `oracle_gap`: mean loss
        of the best single prompt minus the mean over inputs of the lowest loss of any, in nats.
    """
    best = losses.argmin(0)
    gap = losses.mean(1).min() - losses.min(0).values.mean()
    return {
        "best_shares": (best.bincount(minlength=len(losses)).double() / losses.shape[1]).tolist(),
        "oracle_gap": gap.clamp(min=0).item(),
    }


def diversity_text(measured: dict[str, Any], best_loss: float) -> str:
    """The same in a sentence."""
    shares = ", ".join(f"{100 * share:.0f}" for share in measured["best_shares"])
    return (
        f"held-out rows on which each prompt is the best: {shares} %; the best for each row would lower the loss of the "
        f"best prompt, {best_loss:.3f}, by {measured['oracle_gap']:.3f}"
    )
