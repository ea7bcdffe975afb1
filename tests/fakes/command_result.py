"""The result of one command, for tests of the command line."""

from __future__ import annotations

from typing import NamedTuple


class CommandResult(NamedTuple):
    """Exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """Standard output and standard error."""
        return self.out + self.err
