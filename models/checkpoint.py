"""What a model's files hold, beside what the model is made of; no weights are loaded for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open

from llmrepair.models.expert_files import expert_weights_in_files

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Misfit:
    """How tensors of a checkpoint differ from those of its model, after what transformers ties and converts on loading.

    Attributes:
        missing: names that the model has and the files do not.
        shapes: name -> the file's shape and the model's, where they differ.
        unexpected: names that the files have and the model does not.
    """

    missing: Sequence[str]
    shapes: Mapping[str, tuple[Sequence[int], Sequence[int]]]
    unexpected: Sequence[str]

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> Misfit:
        """From what `from_pretrained` says of a loading."""
        shapes = {name: (tuple(theirs), tuple(ours)) for name, theirs, ours in info["mismatched_keys"]}
        return cls(sorted(info["missing_keys"]), dict(sorted(shapes.items())), sorted(info["unexpected_keys"]))

    def __str__(self) -> str:
        """What is wrong, in half a sentence; empty where nothing is."""
        if self.missing:
            more = f" and {len(self.missing) - 1} more tensors" if len(self.missing) > 1 else ""
            return f"`{self.missing[0]}`{more}, which its config.json asks for, {'are' if more else 'is'} missing"
        for name, (theirs, ours) in self.shapes.items():
            return f"`{name}` has the shape {list(theirs)}, and by its config.json {list(ours)}"
        return ""


def misfit(model: PreTrainedModel, files: Sequence[Path]) -> Misfit:
    """What loading dense weights from files into a model would find; of both only shapes are used.

    Args:
        model: on the meta device.

    Raises:
        ValueError: tensors that are made of several in the files cannot be made.
    """
    state = {name: torch.empty(shape, device="meta") for file in files for name, shape in shapes(file).items()}
    apart = expert_weights_in_files(model)
    if 0 < len(gone := [name for name in apart if name not in state]) < len(apart):
        return Misfit(gone, {}, ())
    options: dict[str, Any] = {"device_map": "meta", "ignore_mismatched_sizes": True, "output_loading_info": True}
    try:
        loaded: Any = type(model).from_pretrained(None, config=model.config, state_dict=state, **options)
    except RuntimeError as error:
        if type(error) is not RuntimeError:  # memory, or the depth of calls
            raise
        message = "of the tensors that are joined on loading, such as those of experts, some are missing or of another shape"
        raise ValueError(message) from error
    return Misfit.of(loaded[1])


def shapes(file: Path) -> dict[str, list[int]]:
    """Shape of each tensor of a safetensors file."""
    with safe_open(file, framework="pt") as tensors:
        return {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118  # it is no dict


def first_not_finite(file: Path) -> str | None:
    """The first tensor of a safetensors file with NaN or infinity in it; None where all numbers are finite."""
    with safe_open(file, framework="pt") as tensors:
        return next((name for name in tensors.keys() if not _is_finite(tensors.get_tensor(name))), None)  # noqa: SIM118


def _is_finite(tensor: torch.Tensor) -> bool:
    """By the least and the greatest number, which NaN takes the place of: that is ten times as quick as a look at each."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    least, greatest = (tensor.float() if tensor.dtype.itemsize == 1 else tensor).aminmax()
    return bool(least.isfinite() and greatest.isfinite())
