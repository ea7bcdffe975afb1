"""The errors that a user can fix, and the text of common ones. This module imports no other package."""

import errno
import os
from collections.abc import Sequence


class SynthgenError(Exception):
    """An error that the user can fix.

    The message says what is wrong, where, and what to do. The command line prints it without a traceback and exits with
    2. Every other exception is a bug of ours and keeps its traceback.
    """


class MultipleErrors(SynthgenError):  # noqa: N818
    """Several errors that the user can fix, reported at once: a heading and one sentence for each.

    Attributes:
        lines: the heading, and below it the sentences, with control characters escaped.
    """

    def __init__(self, heading: str, messages: Sequence[str]) -> None:
        super().__init__(heading, messages)  # pickle calls __init__ with these
        self.lines = [escape_control_chars(heading), *(f"  {escape_control_chars(sentence)}" for sentence in messages)]

    def __str__(self) -> str:
        return "\n".join(self.lines)


#: The name of the distribution on PyPI; the package is named `synthgen`.
DISTRIBUTION = "synthgen-masks"

#: Import name of an optional package -> the extra that installs it.
EXTRAS = {
    **dict.fromkeys(("scipy", "pydantic", "yaml", "tensorboard"), "train"),
    "ray": "ray",
    "pycocoevalcap": "eval",
}


def missing_extra_error(package: str, feature: str) -> SynthgenError:
    """The error for a package of `EXTRAS` that is not installed.

    Args:
        feature: what needs it, such as "`synthgen train`".
    """
    return SynthgenError(f"{feature} needs the package {package}; install it: {install_command(EXTRAS[package])}")


def install_command(extra: str) -> str:
    """The command that installs synthgen with an extra."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


class BrokenWorkerError(SynthgenError):
    """This process cannot continue (its GPU is lost). Another process can do the shard again."""


def describe_os_error(why: OSError) -> str | None:
    """A sentence for an error of the operating system, for places that have no better one.

    None if the error names no file: then it is a bug of ours and needs its traceback.
    """
    full = why.errno in (errno.ENOSPC, errno.EDQUOT)
    if not full and not isinstance(why.filename, str | bytes):
        return None
    what = os.fsdecode(why.filename) if isinstance(why.filename, str | bytes) else "the disk"
    remedy = {
        errno.ENOSPC: "make room and run the same command again: what is committed stays",
        errno.EDQUOT: "make room and run the same command again: what is committed stays",
        errno.ENAMETOOLONG: "choose a shorter name",
        errno.EEXIST: "a file lies where a folder should be: move it away",
        errno.ENOTDIR: "a file lies where a folder should be: move it away",
    }.get(why.errno or 0, "check the path and its permissions")
    return f"cannot use {what} ({why.strerror}); {remedy}"


def did_you_mean(word: str, choices: list[str]) -> str:
    """Return "; did you mean 'x'?" if one of `choices` is close to `word`, else an empty string."""
    import difflib  # stdlib, but 6 ms that `--help` should not pay

    close = difflib.get_close_matches(word, choices, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def escape_control_chars(text: str) -> str:
    """`text` with control characters escaped, so that a name from a hostile file cannot control the terminal."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
