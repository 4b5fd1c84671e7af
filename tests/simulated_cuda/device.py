"""The device as torch sees it: a tensor subclass, and a mode that sees all operations."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from compressed_tensors.offload import module as offloaded
from compressed_tensors.offload import utils
from compressed_tensors.offload.cache import base, cpu, device
from torch.utils._device import _device_constructors
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
CUDA = torch.device("cuda", 0)
MEMORY = 80 << 30
_TAKES_BOTH = {
    *(aten.copy_.default, aten._to_copy.default, aten.is_same_size.default),
    *(aten.index.Tensor, aten.index_put_.default, aten._index_put_impl_.default),
}
"""Operations that copy from one device to another or look at shapes alone, and those that take indices from a CPU."""


class CudaTensor(torch.Tensor):
    """Says `cuda:0` of a tensor that a CPU holds."""

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> CudaTensor:
        return torch.Tensor._make_wrapper_subclass(
            cls, held.size(), held.stride(), held.storage_offset(), dtype=held.dtype, device=CUDA
        )

    def __init__(self, held: torch.Tensor):
        self.held = held

    @property
    def data(self) -> CudaTensor:
        return CudaTensor(self.held)

    @data.setter
    def data(self, other: torch.Tensor) -> None:
        if not isinstance(other, CudaTensor):
            raise RuntimeError("the data of a tensor on cuda:0 cannot lie on the CPU")
        torch.Tensor.data.__set__(self, CudaTensor(other.held))
        self.held = other.held

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, *arguments: Any, **options: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    __array__ = numpy

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.held.untyped_storage()

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        copy = self.detach().clone().requires_grad_(self.requires_grad)
        copy._is_param = getattr(self, "_is_param", False)
        return copy

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        return _computed(operation, arguments, options or {})


class SimulatedCuda(TorchDispatchMode):
    """While it is entered, what is made on `cuda` is a `CudaTensor`."""

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        return _computed(operation, arguments, options or {})


def _computed(operation: Any, arguments: Any, options: dict[str, Any]) -> Any:
    tensors = [each for each in tree_leaves((arguments, options)) if isinstance(each, torch.Tensor)]
    ours = [each for each in tensors if isinstance(each, CudaTensor)]
    goes_to = torch.device(options["device"]).type if options.get("device") is not None else None
    if not ours and goes_to != "cuda":
        return operation(*arguments, **options)
    if operation is aten._fused_sdp_choice.default:
        return torch.nn.attention.SDPBackend.MATH.value
    _check(operation, tensors, options)
    on_cpu = {"device": torch.device("cpu"), "pin_memory": False} if goes_to == "cuda" else {}
    held_arguments, held_options = tree_map(_held, (arguments, options | on_cpu))
    result = operation(*held_arguments, **held_options)
    if operation is aten._to_copy.default and result is held_arguments[0]:
        result = result.clone()
    if (changed := _changed(operation, arguments, options)) is not None:
        return changed
    if goes_to not in (None, "cuda"):
        return result
    return tree_map(lambda each: CudaTensor(each) if isinstance(each, torch.Tensor) else each, result)


def _held(value: Any) -> Any:
    return value.held if isinstance(value, CudaTensor) else value


def _changed(operation: Any, arguments: Any, options: dict[str, Any]) -> Any:
    """The argument that an operation writes to and returns; None where it makes something new."""
    returned = operation._schema.returns
    if len(returned) != 1 or returned[0].alias_info is None or not returned[0].alias_info.is_write:
        return None
    places = [index for index, each in enumerate(operation._schema.arguments) if each.alias_info and each.alias_info.is_write]
    (place,) = places
    return arguments[place] if place < len(arguments) else options[operation._schema.arguments[place].name]


def _check(operation: Any, tensors: list[torch.Tensor], options: dict[str, Any]) -> None:
    """What CUDA refuses."""
    elsewhere = [each for each in tensors if not isinstance(each, CudaTensor)]
    mixed = 0 < len(elsewhere) < len(tensors)
    if mixed and operation not in _TAKES_BOTH and any(each.dim() for each in elsewhere):
        raise RuntimeError(f"{operation}: expected all tensors on one device, but found cuda:0 and {elsewhere[0].device}")
    if mixed and operation is aten.index.Tensor and tensors[0] is elsewhere[0]:
        raise RuntimeError(f"{operation}: indices on cuda:0 into a tensor on the CPU")
    if (generator := options.get("generator")) is not None:
        raise RuntimeError(f"{operation}: a generator of the {generator.device.type} for a tensor on cuda:0")


_sent_by_class = utils.send_tensors


def _sent(value: Any, *arguments: Any, **options: Any) -> Any:
    """As compressed-tensors moves tensors, without a change of their class."""
    if not isinstance(value, torch.Tensor):
        return _sent_by_class(value, *arguments, **options)
    with torch.no_grad():
        sent = value.to(*arguments, **options)
    if sent is value or not isinstance(value, torch.nn.Parameter):
        return sent
    return torch.nn.Parameter(sent, requires_grad=value.requires_grad)


def install() -> None:
    """Lets torch find the device; its numbers are computed while `SimulatedCuda` is entered."""
    cuda, make = torch.cuda, torch.tensor

    def tensor(data: Any, *, device: Any = None, **options: Any) -> torch.Tensor:  # torch's own writes to the device's memory
        made = make(data, **options)
        return made if device is None else made.to(device)

    _device_constructors()  # remembers torch's own, which it looks for below `with torch.device("meta")`
    torch.tensor = tensor
    torch.__future__.set_swap_module_params_on_conversion(True)  # `Module.to` keeps tied tensors tied
    for module in (utils, offloaded, cpu, device):
        module.send_tensors = _sent
    base.is_accelerator_type = lambda name: name == "cuda"
    cuda._lazy_init = cuda.synchronize = cuda.empty_cache = lambda *arguments: None
    cuda.current_device = cuda.memory_reserved = cuda.memory_allocated = lambda *arguments: 0
    cuda.mem_get_info = lambda *arguments: (MEMORY, MEMORY)
    cuda.get_device_properties = lambda *arguments: SimpleNamespace(total_memory=MEMORY, name="simulated")
