"""What the commands write to the terminal: lines, and bars under them."""

from __future__ import annotations

import os
import sys
from typing import TextIO

import typer

from synthgen.errors import FailedRunError, escape_control_chars
from synthgen.progress import TerminalProgress


def open_progress(description: str, total: int, unit: str) -> TerminalProgress:
    """Open a progress bar; an `OpenProgress`."""
    return TerminalProgress(description, total, unit)


def print_lines(*lines: str) -> None:
    """Write lines to standard output, control characters spelt out.

    Args:
        *lines: texts of any source, without line ends.

    Raises:
        FailedRunError: it cannot be written to.
    """
    try:
        for line in lines:
            typer.echo(escape_control_chars(line))
    except OSError as why:
        # Where only the reader left, as `head` does, the job goes on.
        _silence(sys.stdout)
        if not isinstance(why, BrokenPipeError):
            raise FailedRunError(f"cannot write to standard output ({why.strerror}); send it elsewhere") from None


def print_last_lines(text: str) -> None:
    """Write to standard error as the last thing that a command does. The terminal may be gone, as after SIGHUP."""
    try:
        typer.echo(text, err=True)
    except OSError:
        _silence(sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:  # would change the exit code to 120
        _silence(sys.stdout)


def _silence(stream: TextIO) -> None:
    """Send a stream to /dev/null: what is buffered would fail again at the end of the process."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
