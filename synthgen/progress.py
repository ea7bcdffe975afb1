"""Progress bars: the protocol that all packages use, and the bar on a terminal."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from synthgen.errors import escape_control_chars

if TYPE_CHECKING:
    from rich.progress import Progress

#: Seconds between two lines if standard error is not a terminal.
LOG_INTERVAL_SECONDS = 60.0


class ProgressBar(Protocol):
    """Counts work towards a total."""

    def advance(self, count: int, note: str | None = None) -> None:
        """Count more units as done.

        Args:
            count: units done since the last call.
            note: text after the count, shown until the next one; None = as before.
        """


#: (description, total, unit) -> a context manager around a `ProgressBar`.
OpenProgress = Callable[[str, int, str], AbstractContextManager[ProgressBar]]

#: (phase, units done, units in all), such as ("reading", 4096, 8192).
ReportPhase = Callable[[str, int, int], None]


class NoProgress:
    """An `OpenProgress` that shows nothing.

    Args:
        description: not used.
        total: not used.
        unit: not used.
    """

    def __init__(self, description: str, total: int, unit: str) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def advance(self, count: int, note: str | None = None) -> None:
        """See `ProgressBar`."""


class PhaseProgress:
    """One progress bar after another, for work that reports (phase, done, total).

    Args:
        open_progress: creates the bar of each phase.
        units: phase -> name of its units in the plural.
    """

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

    Args:
        description: what is counted, in a few words.
        total: number of units in all.
        unit: name of the units in the plural.
    """

    def __init__(self, description: str, total: int, unit: str) -> None:
        self.description, self.total, self.unit = description, total, unit
        self.done = 0
        self.started_at = self.last_logged = time.monotonic()
        self.note = ""
        self.rich_progress: Progress | None = None

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
            self.rich_progress = Progress(
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
                ),  # takes the rest of the line
                console=console,
                expand=True,
                transient=True,
            )
            self.rich_progress.start()
            self.rich_task = self.rich_progress.add_task(self.description, total=self.total, rate="", note="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.rich_progress is not None:
            self.rich_progress.stop()

    def advance(self, count: int, note: str | None = None) -> None:
        """See `ProgressBar`."""
        self.done += count
        self.note = self.note if note is None else escape_control_chars(note)
        rate = self.done / max(time.monotonic() - self.started_at, 1e-9)
        if self.rich_progress is not None:
            self.rich_progress.update(self.rich_task, advance=count, rate=f"{rate:,.1f}/s", note=self.note)
        elif time.monotonic() - self.last_logged >= LOG_INTERVAL_SECONDS:
            self.last_logged = time.monotonic()
            left = (self.total - self.done) / rate if rate else 0.0
            line = (
                f"{self.description}: {self.done:,} of {self.total:,} {self.unit} "
                f"({self.done / max(self.total, 1):.0%}), "
                f"{rate:,.1f}/s, {_format_duration(left)} left{f'; {self.note}' if self.note else ''}"
            )
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

    def print_line(self, line: str) -> None:
        """Print a line above the bar."""
        if self.rich_progress is not None:
            self.rich_progress.console.print(escape_control_chars(line), markup=False, highlight=False)
        else:
            sys.stderr.write(escape_control_chars(line) + "\n")
            sys.stderr.flush()


def _format_duration(seconds: float) -> str:
    """Seconds as "45 s", "12 min", "3.5 h", "2.1 d"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 2 * 86400 else f"{seconds / 86400:.1f} d"
