"""What prunes and what quantises. A method is one of them or both; its file says all that is to be known of it.

These modules are imported to check a request, so they import torch only where they compute.
"""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from llmrepair.pipeline.errors import Problem
    from llmrepair.stages.checkpoints.grid import Grid
    from llmrepair.stages.compress.masks import Pattern


class Pruner(ABC):
    """Chooses the weights that become zero."""

    name: ClassVar[str]
    libraries: ClassVar[tuple[str, ...]] = ()
    """Distributions besides those of all compressions whose versions change the result."""
    compensates: ClassVar[bool] = False
    """Whether the other weights make up for those that go, for which the inputs' Hessian is factorised."""

    def is_sorted_whole(self, has_pattern: bool) -> bool:
        """Whether the scores of a whole layer are sorted at once, which takes memory."""
        return True

    def mask(self, weight: torch.Tensor, hessian: torch.Tensor, pattern: Pattern) -> torch.Tensor | None:
        """What to keep of a layer [rows, columns], as bool; None where that is chosen on the way through it, by `keep`.

        Args:
            hessian: mean of x x^T over the layer's inputs, float32 [columns, columns].
        """
        return None

    def keep(self, weights: torch.Tensor, diagonal: torch.Tensor, pattern: Pattern) -> torch.Tensor:
        """What to keep of columns [columns, rows] as the errors of those before them have left them.

        Args:
            diagonal: of the inverse Hessian's Cholesky factor [columns, 1].
        """
        raise NotImplementedError


class Quantiser(ABC):
    """Rounds weights to a grid."""

    name: ClassVar[str]
    libraries: ClassVar[tuple[str, ...]] = ()
    """Distributions besides those of all compressions whose versions change the result."""
    compensates: ClassVar[bool] = False
    """Whether columns make up for the rounding of those before them, for which the inputs' Hessian is factorised."""

    def problems(self, model: PreTrainedModel) -> list[Problem]:
        """Why a model, of which there are only shapes, cannot be quantised so."""
        return []

    def prepare(
        self, model: PreTrainedModel, names: list[str], rows: torch.Tensor, batch_size: int, device: torch.device, grid: Grid
    ) -> None:
        """Changes a model in place before its layers are compressed, so that it computes the same.

        Args:
            names: of the layers that will be rounded.
            rows: token ids [N, T] of calibration text.
        """
        return None


@dataclass(frozen=True)
class Method:
    """One of the values of `--method`: what prunes and what quantises, in one pass. Neither is the dense model."""

    pruner: Pruner | None = None
    quantiser: Quantiser | None = None

    @property
    def parts(self) -> tuple[Pruner | Quantiser, ...]:
        return tuple(part for part in (self.pruner, self.quantiser) if part is not None)

    @property
    def name(self) -> str:
        return "+".join(part.name for part in self.parts) or "none"

    @property
    def compensates(self) -> bool:
        return any(part.compensates for part in self.parts)

    @property
    def orders_columns(self) -> bool:
        """Whether the order of columns matters: not to a pruner that chooses among neighbours on the way."""
        return self.quantiser is not None and self.quantiser.compensates and not (self.pruner and self.pruner.compensates)

    def libraries(self) -> tuple[str, ...]:
        return tuple(library for part in self.parts for library in part.libraries)

    def modules(self) -> tuple[str, ...]:
        """Where its code is, for keys."""
        return tuple(type(part).__module__ for part in self.parts)
