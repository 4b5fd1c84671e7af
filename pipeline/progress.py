"""What a run says while it works: on standard error, so that standard output holds data alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from llmrepair.pipeline.journal import Journal, Progress

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import TaskID


class Bar:
    """A running bar: shown where there is a terminal, and kept in the journal of the stage that runs."""

    def __init__(self, description: str, total: float, journal: Journal | None, shown: ShownBars):
        self._description, self._total, self._journal, self._shown = description, total, journal, shown
        self._done = 0.0
        self._note = ""

    def extend(self, steps: float) -> None:
        """Adds to the total."""
        self._total += steps

    def advance(self, steps: float = 1, note: str = "") -> None:
        self._done += steps
        self._note = note or self._note
        progress = Progress(self._description, self._done, self._total, self._note)
        self._shown.update(self._description, progress)
        if self._journal is not None:
            self._journal.progress(progress)


class ShownBars:
    """Bars on the terminal, by name; none where there is no terminal."""

    def __init__(self, bars: Bars | None):
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def update(self, name: str, progress: Progress | None) -> None:
        """Shows a bar, or lets it go where there is no progress any more."""
        if self._bars is None:
            return
        if progress is None:
            if name in self._tasks:
                self._bars.remove_task(self._tasks.pop(name))
            return
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=progress.total, note="")
        note = progress.note if progress.description == name else f"{progress.description} {progress.note}"
        self._bars.update(self._tasks[name], completed=progress.done, total=progress.total or None, note=note)


class Reporter:
    """Says lines and shows bars; `quiet` shows nothing (worker processes, tests, Python callers)."""

    def __init__(self, quiet: bool = False):
        self._quiet = quiet
        self._console: Console | None = None
        self._journal: Journal | None = None

    @property
    def console(self) -> Console:
        from rich.console import Console

        if self._console is None:
            self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        return self._console

    def say(self, text: str, style: str | None = None) -> None:
        if not self._quiet:
            self.console.print(text, style=style, markup=False)
        self.log(text)

    def log(self, text: str) -> None:
        """Keeps a line in the log of the stage that runs, and shows nothing."""
        if self._journal is not None:
            self._journal.line(text)

    def note(self, text: str) -> None:
        self.say(f"note: {text}")

    @contextmanager
    def journalled(self, journal: Journal) -> Iterator[None]:
        """Keeps all that is said and shown until it is left."""
        self._journal = journal
        try:
            with journal.recording():
                yield
        finally:
            self._journal = None

    @contextmanager
    def busy(self, text: str) -> Iterator[None]:
        """Says what takes a while: beside something that turns until it is left where there is a terminal, else in a line."""
        if self._quiet or not self.console.is_terminal:
            self.say(text)
            yield
            return
        from rich.text import Text

        with self.console.status(Text(text)):
            yield

    @contextmanager
    def bar(self, description: str, total: float = 0) -> Iterator[Bar]:
        """A progress bar with the time left; its total may be told later."""
        with self.bars() as shown:
            yield Bar(description, total, self._journal, shown)

    @contextmanager
    def bars(self) -> Iterator[ShownBars]:
        """A live view of several bars."""
        if self._quiet or not self.console.is_terminal:
            yield ShownBars(None)
            return
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        columns = (
            TextColumn("  {task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Bars(*columns, console=self.console, transient=True) as bars:
            yield ShownBars(bars)
