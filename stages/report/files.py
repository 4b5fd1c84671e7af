"""Names of the files of a report's artifact."""

from __future__ import annotations

DOCUMENT_FILE = "report.json"
HTML_FILE = "report.html"
