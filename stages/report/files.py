"""The files of a report's artifact, and the page that one is made from."""

from __future__ import annotations

from pathlib import Path

DOCUMENT_FILE = "report.json"
HTML_FILE = "report.html"
TEMPLATE = Path(__file__).with_name("template.html")
