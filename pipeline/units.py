"""Sizes and ages as people write them."""

from __future__ import annotations

import re

_BYTES = {"B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_MEASURE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)")


def bytes_text(count: int) -> str:
    """`1.36 MB`."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.3g} {unit}" if size < 1000 else f"{size:.0f} {unit}"


def parse_bytes(text: str) -> int | None:
    """`10GB` -> bytes; None for what is no size."""
    value = _parse(text, _BYTES)
    return None if value is None else int(value)


def parse_seconds(text: str) -> float | None:
    """`30d` -> seconds; None for what is no age."""
    return _parse(text, _SECONDS)


def age_text(seconds: float) -> str:
    """`3 d`: in the largest unit of which there is one."""
    unit = next((unit for unit in ("d", "h", "m") if seconds >= _SECONDS[unit]), "s")
    return f"{seconds / _SECONDS[unit]:.0f} {unit}"


def _parse(text: str, units: dict[str, int]) -> float | None:
    match = _MEASURE.fullmatch(text.strip())
    return float(match[1]) * units[match[2]] if match is not None and match[2] in units else None
