"""What a run says while it works: on standard error, so that standard output holds data alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID


class Bar:
    """A running bar; does nothing where there is no terminal."""

    def __init__(self, progress: Progress | None = None, task: TaskID | None = None):
        self._progress = progress
        self._task = task

    def extend(self, steps: float) -> None:
        """Adds to the total."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, total=(self._progress.tasks[0].total or 0) + steps)

    def advance(self, steps: float = 1, note: str | None = None) -> None:
        if self._progress is not None and self._task is not None:
            self._progress.advance(self._task, steps)
            if note is not None:
                self._progress.update(self._task, note=note)


class Reporter:
    """Says lines and shows bars; `quiet` drops the lines (tests, Python callers)."""

    def __init__(self, quiet: bool = False):
        self._quiet = quiet
        self._console: Console | None = None

    @property
    def console(self) -> Console:
        from rich.console import Console

        if self._console is None:
            self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        return self._console

    def say(self, text: str, style: str | None = None) -> None:
        if not self._quiet:
            self.console.print(text, style=style, markup=False)

    def note(self, text: str) -> None:
        self.say(f"note: {text}")

    @contextmanager
    def bar(self, description: str, total: float = 0) -> Iterator[Bar]:
        """A progress bar with the time left; its total may be told later."""
        if self._quiet or not self.console.is_terminal:
            yield Bar()
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("  {task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            yield Bar(progress, progress.add_task(description, total=total, note=""))
