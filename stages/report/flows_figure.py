"""What a repair and its placebos bring back and break, as bars on either side of a line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llmrepair.stages.drawing.svg import Drawing, Scale, drawing, line, linear, rectangle, text

_WIDTH, _ROW, _TOP, _BAR = 420, 46, 24, 16
_LEFT, _RIGHT = 8, _WIDTH - 8
REGAINED, BROKEN = "blue", "orange"
_WHO = {"repair": "the tuned prompt", "placebos": "placebos, mean of each"}


def flows_panel(flows: Mapping[str, Any], title: str) -> Drawing:
    """Items that turn right of the lost, to the right, and wrong of the kept, to the left."""
    most = max(1.0, *(flows[name][way] for name in _WHO for way in ("regained", "broken")))
    x = linear(-most, most, _LEFT, _RIGHT)
    bottom = _TOP + _ROW * len(_WHO)
    marks = [
        text(x(0) - 6, 14, "kept → wrong", "end", "soft"),
        text(x(0) + 6, 14, "lost → right", kind="soft"),
    ]
    for number, (name, who) in enumerate(_WHO.items()):
        marks += _row(flows[name], who, x, _TOP + _ROW * number)
    said = "; ".join(f"{who}: {_words(flows[name])}" for name, who in _WHO.items())
    return drawing(_WIDTH, bottom + 4, f"Flows, {title}. {said}", marks)


def _row(flow: Mapping[str, Any], who: str, x: Scale, y: float) -> Iterator[str]:
    yield text(_LEFT, y + 12, f"{who}: {_words(flow)}")
    yield rectangle(x(-flow["broken"]), y + 18, x(0) - x(-flow["broken"]), _BAR, f"part {BROKEN}", _words(flow))
    yield rectangle(x(0), y + 18, x(flow["regained"]) - x(0), _BAR, f"part {REGAINED}", _words(flow))
    yield line(x(0), y + 15, x(0), y + 21 + _BAR)


def _words(flow: Mapping[str, Any]) -> str:
    net = flow["net"]
    return f"{flow['regained']:.0f} regained, {flow['broken']:.0f} broken, net {net['value']:z.0%} of the lost"
