"""Progress of long work: the one protocol that all packages use, and what a terminal shows of it."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from synthgen.errors import printable

if TYPE_CHECKING:
    from rich.progress import Progress

#: Seconds between two lines where standard error is not a terminal.
EVERY = 60.0


class ProgressBar(Protocol):
    """Counts work towards a total."""

    def advance(self, count: int, note: str | None = None) -> None:
        """Count `count` more units as done. `note` is shown behind the count until there is another one."""


#: (description, total, unit) -> a context manager around a `ProgressBar`.
OpenProgress = Callable[[str, int, str], AbstractContextManager[ProgressBar]]


class NoProgress:
    """An `OpenProgress` that shows nothing."""

    def __init__(self, description: str, total: int, unit: str) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def advance(self, count: int, note: str | None = None) -> None:
        """See `ProgressBar`."""


class PhaseProgress:
    """One progress bar after another, for work that reports (phase, done, total)."""

    def __init__(self, open_progress: OpenProgress, units: Mapping[str, str]) -> None:
        self._open, self._units = open_progress, units
        self._phase, self._done = "", 0
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def report(self, phase: str, done: int, total: int) -> None:
        """Show that `done` of `total` units of a phase are done."""
        if phase != self._phase:
            self._stack.close()
            self._phase, self._done = phase, 0
            self._bar = self._stack.enter_context(self._open(phase, total, self._units.get(phase, "")))
        self._bar.advance(done - self._done)
        self._done = done


class TerminalProgress:
    """An `OpenProgress` on standard error: a bar on a terminal, one line a minute elsewhere.

    Call `advance(n)` from the thread that runs the job.
    """

    def __init__(self, what: str, total: int, unit: str) -> None:
        self.what, self.total, self.unit = what, total, unit
        self.done = 0
        self.started = self.told = time.monotonic()
        self.note = ""
        self.rich: Progress | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                Progress,
                SpinnerColumn,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )
            from rich.table import Column

            console = Console(stderr=True)
            self.rich = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(max(8, min(40, (console.width - 64) // 3))),
                TextColumn("{task.completed:,.0f}/{task.total:,.0f} " + self.unit),
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn(
                    "{task.fields[note]}", table_column=Column(ratio=1, no_wrap=True)
                ),  # what is left of the line
                console=console,
                expand=True,
                transient=True,
            )
            self.rich.start()
            self.task = self.rich.add_task(self.what, total=self.total, rate="", note="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.rich is not None:
            self.rich.stop()

    def advance(self, count: int, note: str | None = None) -> None:
        """See `ProgressBar`."""
        self.done += count
        self.note = self.note if note is None else printable(note)
        rate = self.done / max(time.monotonic() - self.started, 1e-9)
        if self.rich is not None:
            self.rich.update(self.task, advance=count, rate=f"{rate:,.1f}/s", note=self.note)
        elif time.monotonic() - self.told >= EVERY:
            self.told = time.monotonic()
            left = (self.total - self.done) / rate if rate else 0.0
            line = (
                f"{self.what}: {self.done:,} of {self.total:,} {self.unit} ({self.done / max(self.total, 1):.0%}), "
                f"{rate:,.1f}/s, {_span(left)} left{f'; {self.note}' if self.note else ''}"
            )
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

    def tell(self, line: str) -> None:
        """Print a line above the bar."""
        if self.rich is not None:
            self.rich.console.print(printable(line), markup=False, highlight=False)
        else:
            sys.stderr.write(printable(line) + "\n")
            sys.stderr.flush()


def _span(seconds: float) -> str:
    """Seconds as "45 s", "12 min", "3.5 h", "2.1 d"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 2 * 86400 else f"{seconds / 86400:.1f} d"
