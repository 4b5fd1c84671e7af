"""Names of the files of a probe's artifact."""

from __future__ import annotations

RESULT_FILE = "probe.json"
ITEMS_FILE = "items.jsonl"
