"""Imports of transformers without the seconds that it spends on what no language model asks for."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_POSTPONED = {
    "is_sklearn_available": ("sklearn.metrics", ["roc_curve"]),  # for assisted decoding
    "is_scipy_available": ("scipy.optimize", ["linear_sum_assignment"]),  # for the loss of object detection
    "is_torchao_available": (
        "torchao.prototype.safetensors.safetensors_support",
        ["flatten_tensor_state_dict", "unflatten_tensor_state_dict"],
    ),
}
"""Question of transformers for an optional package -> where a module that is told yes imports which functions from."""


@contextmanager
def postponed() -> Iterator[None]:
    """What is imported inside imports those functions when they are first called, and otherwise works as ever."""
    from transformers import utils
    from transformers.utils import import_utils

    questions = {name: getattr(utils, name) for name in _POSTPONED}
    put_off: dict[str, Callable[..., bool]] = {name: lambda *_, **__: False for name in _POSTPONED}
    for name, answer in put_off.items():
        setattr(utils, name, answer)
        setattr(import_utils, name, answer)
    read = import_utils.define_import_structure
    import_utils.define_import_structure = _models_read_once(read)  # type: ignore[assignment]
    try:
        yield
    finally:
        import_utils.define_import_structure = read
        for name, question in questions.items():
            setattr(utils, name, question)
            setattr(import_utils, name, question)
            for module in _holders(name, put_off[name]):
                setattr(module, name, question)
                for function in _POSTPONED[name][1]:
                    setattr(module, function, _imported_when_called(_POSTPONED[name][0], function))


def _models_read_once(read: Callable[..., Any]) -> Callable[..., Any]:
    """What reads which names the files of a package define. Those of `transformers.models`, 1,500 files, were read when
    transformers itself was imported, under names that begin with `models.`, and are remembered."""
    import transformers

    models = Path(transformers.__file__).parent / "models"

    def define(package: Any, prefix: str | None = None) -> Any:
        if Path(package) != models / "__init__.py":
            return read(package, prefix)
        known = read(models, prefix="models")
        return {
            needs: {name.removeprefix("models."): found for name, found in modules.items() if name.startswith("models.")}
            for needs, modules in known.items()
        }

    return define


def _holders(name: str, value: object) -> list[Any]:
    """Modules of transformers to which a global `name` was given while it was `value`."""
    modules = [module for path, module in sys.modules.items() if path.startswith("transformers.")]
    return [module for module in modules if vars(module).get(name) is value]


def _imported_when_called(module: str, function: str) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        return getattr(importlib.import_module(module), function)(*arguments, **options)

    return call
