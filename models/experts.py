"""Experts, whose matrices transformers holds together in tensors [experts, ., .], as linear layers of their own.

The code of the family stays what computes them: where it multiplies by the matrix of an expert, that expert's layer does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_MATRICES = 3  # dimensions


class ExpertLayers(torch.nn.ModuleList):
    """A linear layer of each expert, in the place of the tensor that held their matrices.

    Args:
        matrices: [experts, outputs, inputs], which the layers' weights are views of.
    """

    def __init__(self, matrices: torch.Tensor):
        super().__init__(map(_layer, matrices))

    def __getitem__(self, expert: Any) -> Any:
        return _Matrix(super().__getitem__(int(expert)))

    @property
    def shape(self) -> tuple[int]:
        return (len(self),)

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: object, arguments: Sequence[Any], options: object = None
    ) -> torch.Tensor:
        """All experts at once, each with inputs of its own."""
        if function is not torch.bmm:
            raise NotImplementedError(f"experts in {function.__name__}")
        inputs, layers = arguments
        return torch.stack([layer(each) for layer, each in zip(layers, inputs, strict=True)])


class _Matrix:
    """Stands for the matrix of one expert where inputs are multiplied by it."""

    def __init__(self, layer: torch.nn.Module):
        self._layer = layer

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: object, arguments: Sequence[Any], options: Mapping[str, Any] | None = None
    ) -> torch.Tensor:
        inputs, matrix, *bias = (*arguments, *(options or {}).values())
        if not isinstance(matrix, _Matrix):
            raise NotImplementedError(f"an expert in {function.__name__}")
        outputs: torch.Tensor = matrix._layer(inputs)
        return outputs if not bias or bias[0] is None else outputs + bias[0]


def _layer(matrix: torch.Tensor) -> torch.nn.Linear:
    layer = torch.nn.Linear(1, 1, bias=False, device="meta")
    layer.out_features, layer.in_features = matrix.shape
    layer.weight = torch.nn.Parameter(matrix, requires_grad=False)
    return layer


def experts_of(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """The modules that hold a matrix of each expert in one tensor, by name."""
    return {name: module for name, module in model.named_modules() if _tensors(module)}


def layers_of_experts(model: torch.nn.Module) -> dict[torch.nn.Module, list[torch.nn.Module]]:
    """The layers that stand in modules of experts."""
    children = {module: [*module.children()] for module in model.modules()}
    return {
        module: [layer for each in inside if isinstance(each, ExpertLayers) for layer in each]
        for module, inside in children.items()
        if any(isinstance(each, ExpertLayers) for each in inside)
    }


def tensors_of_layers(model: torch.nn.Module) -> dict[str, str]:
    """Name of an expert's layer -> name of the tensor that its matrix is a part of."""
    made = ((name, each) for name, each in model.named_modules() if isinstance(each, ExpertLayers))
    return {f"{name}.{number}": name for name, each in made for number in range(len(each))}


def routers_of(model: torch.nn.Module) -> set[str]:
    """The linear layers beside experts that have no more outputs than there are experts, by name: they decide which expert
    sees what, and how much of it counts."""
    made = layers_of_experts(model)
    counts = {n.rpartition(".")[0]: each.num_experts for n, each in model.named_modules() if each in made or _tensors(each)}
    linear = {name: each for name, each in model.named_modules() if isinstance(each, torch.nn.Linear)}
    return {
        name
        for beside, count in counts.items()
        for name, layer in linear.items()
        if name.startswith(f"{beside}.") and layer.out_features <= int(count)
    }


def expert_tensors(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The tensors of a matrix for each expert, by name."""
    return {f"{n}.{name}": each for n, module in experts_of(model).items() for name, each in _tensors(module).items()}


def expert_weights(model: torch.nn.Module) -> int:
    """How many weights there are in the matrices of experts."""
    return sum(matrices.numel() for matrices in expert_tensors(model).values())


def _tensors(module: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """A module's own tensors of a matrix for each expert, by name; none if it is unknown which axis is that of inputs."""
    count, own = getattr(module, "num_experts", None), module.named_parameters(recurse=False)
    found = {name: each for name, each in own if each.ndim == _MATRICES and len(each) == count}
    return found if hasattr(module, "is_transposed") or len(found) > 1 else {}


def _is_transposed(module: torch.nn.Module, hidden: int) -> bool:
    """Whether matrices are [inputs, outputs]. Where the module does not say so, its first tensor takes hidden states."""
    if hasattr(module, "is_transposed"):
        return bool(module.is_transposed)
    return next(iter(_tensors(module).values())).shape[1] == hidden


@contextmanager
def experts_as_layers(model: PreTrainedModel) -> Iterator[None]:
    """Each expert's matrices are linear layers, named by their tensor and the expert's number, until it is left."""
    with ExitStack() as stack:
        for module in experts_of(model).values():
            stack.enter_context(_as_layers(module, model.config.get_text_config().hidden_size))
        yield


@contextmanager
def _as_layers(module: torch.nn.Module, hidden: int) -> Iterator[None]:
    tensors, before = _tensors(module), dict(module._parameters)
    views = {name: each.data.mT if _is_transposed(module, hidden) else each.data for name, each in tensors.items()}
    for name, matrices in views.items():
        del module._parameters[name]
        module.add_module(name, ExpertLayers(matrices))
    config: Any = getattr(module, "config", None)  # of experts that transformers may compute all at once
    implementation = getattr(config, "_experts_implementation", None)
    if implementation is not None:
        config._experts_implementation = "eager"
    try:
        yield
    finally:
        if implementation is not None:
            config._experts_implementation = implementation
        for name, matrices in views.items():
            _take_back(matrices, module._modules.pop(name))  # type: ignore[arg-type]
        module._parameters = before  # in their order


def _take_back(matrices: torch.Tensor, layers: ExpertLayers) -> None:
    """Copies weights that are no longer views: what computes on a GPU a block at a time has moved them."""
    for matrix, weight in zip(matrices, layers.parameters(), strict=True):
        if matrix.data_ptr() != weight.data_ptr():
            matrix.copy_(weight)
