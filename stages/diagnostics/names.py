"""What evaluations without a repair are called among those that are compared; those of repairs have the repair's name."""

from __future__ import annotations

DENSE, ALONE = "dense", "model"
