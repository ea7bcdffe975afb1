"""What the commands write to the terminal: lines, and bars under them."""

from __future__ import annotations

import os
import sys

import typer

from synthgen.errors import SynthgenError, escape_control_chars
from synthgen.progress import TerminalProgress


def open_progress(description: str, total: int, unit: str) -> TerminalProgress:
    """Open a progress bar; an `OpenProgress`."""
    return TerminalProgress(description, total, unit)


def print_lines(*lines: str) -> None:
    """Write lines to standard output, control characters spelt out.

    Raises:
        SynthgenError: it cannot be written to.
    """
    try:
        for line in lines:
            typer.echo(escape_control_chars(line))
    except OSError as why:
        # What is buffered would fail again at the end. Where only the reader left, as `head` does, the job goes on.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(why, BrokenPipeError):
            raise SynthgenError(f"cannot write to standard output ({why.strerror}); send it elsewhere") from None
