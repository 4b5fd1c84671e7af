"""A CUDA device without one: tensors that say `cuda:0`, whose numbers a CPU computes.

What CUDA refuses is refused: tensors of two devices in one operation, a CPU's generator for a GPU's numbers. What a model
computes on it is what a CPU computes, up to the order of sums in attention. It changes torch, so it is for processes of their
own: `command.py` is the command line under it. Not there: speed, memory, streams.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def compiled_guard(folder: Path) -> Path:
    """The library that lets torch find the device; skips the test where there is no C++ compiler."""
    from torch.utils import cpp_extension  # not above: who loads the library must do so before torch is there

    if (compiler := shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")) is None:
        pytest.skip("no C++ compiler, which the simulated device needs")
    library = folder / "guard.so"
    options = ["-O0", "-shared", "-fPIC", "-std=c++20", *(f"-I{path}" for path in cpp_extension.include_paths())]
    options += [option for path in cpp_extension.library_paths() for option in (f"-L{path}", f"-Wl,-rpath,{path}")]
    source = Path(__file__).with_name("guard.cpp")
    subprocess.run([compiler, *options, str(source), "-ltorch_cpu", "-lc10", "-o", str(library)], check=True)
    return library
