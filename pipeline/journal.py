"""What a running stage leaves in its work folder for others to read: a log for people, its progress for whoever waits.

Both are files in the store, so that they reach every process on every machine that shares it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from llmrepair.pipeline.artifact import LOG_FILE

_PROGRESS_FILE = "progress.json"
_SECONDS_BETWEEN_WRITES = 0.5
_SECONDS_BETWEEN_LINES = 30.0


@dataclass(frozen=True)
class Progress:
    """How far a stage is: `done` of `total` steps of what `description` says."""

    description: str
    done: float
    total: float
    note: str = ""

    def __str__(self) -> str:
        return f"{self.description} {self.done:.0f}/{self.total:.0f}  {self.note}".rstrip()


class Journal:
    """The log and progress of one running stage."""

    def __init__(self, work: Path):
        work.mkdir(parents=True, exist_ok=True)
        self.path = work / LOG_FILE
        self._work = work
        self._written = self._logged = 0.0

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Logs the warnings and errors of all libraries until it is left, and the error that ends it."""
        handler = logging.FileHandler(self.path, encoding="utf-8", delay=True)
        handler.setLevel(logging.WARNING)
        handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s", "%H:%M:%S"))
        logging.getLogger().addHandler(handler)
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError):  # a full disk, which is what is on its way to be told
                self.line(traceback.format_exc())
            raise
        finally:
            logging.getLogger().removeHandler(handler)
            handler.close()

    def line(self, text: str) -> None:
        with self.path.open("a", encoding="utf-8") as log:
            log.write(f"{datetime.now():%H:%M:%S} {text}\n")

    def progress(self, progress: Progress) -> None:
        now = time.monotonic()
        finished = progress.done >= progress.total
        if now - self._logged >= _SECONDS_BETWEEN_LINES or finished:
            self._logged = now
            self.line(str(progress))
        if now - self._written >= _SECONDS_BETWEEN_WRITES or finished:
            self._written = now
            temporary = self._work / f"{_PROGRESS_FILE}.writing"
            temporary.write_text(json.dumps(asdict(progress)), encoding="utf-8")
            temporary.replace(self._work / _PROGRESS_FILE)


def read_progress(work: Path) -> Progress | None:
    """How far the stage with this work folder is; None where it has not said."""
    try:
        return Progress(**json.loads((work / _PROGRESS_FILE).read_text(encoding="utf-8")))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
