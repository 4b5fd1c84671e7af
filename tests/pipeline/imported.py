"""Stands for a library that looks for a GPU when it is imported."""

from __future__ import annotations

import os

VISIBLE = os.environ.get("CUDA_VISIBLE_DEVICES")
