"""The errors that a user can fix, and the text of common ones. This module imports no other package."""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class SynthgenError(Exception):
    """An error that the user can fix.

    The message says what is wrong, where, and what to do. The command line prints it without a traceback. Every other
    exception is a bug of ours and keeps its traceback.

    Attributes:
        exit_code: of the command line; 2 = wrong input, nothing was started; 1 = the job ran and failed.
    """

    exit_code = 2

    def __str__(self) -> str:
        """The message with control characters escaped, as it may quote a name from a hostile file."""
        return escape_control_chars(super().__str__())


class FailedRunError(SynthgenError):
    """The input is right, and the job failed: a full disk, a lost device."""

    exit_code = 1


@contextmanager
def job_has_started() -> Iterator[None]:
    """A `SynthgenError` that leaves the block ends the command with 1 instead of 2."""
    try:
        yield
    except SynthgenError as why:
        why.exit_code = FailedRunError.exit_code
        raise


class ArgumentError(SynthgenError, ValueError):
    """A value that a function of the Python API cannot use. It is a `ValueError`, too."""


class MultipleErrors(SynthgenError):  # noqa: N818
    """Several errors that the user can fix, reported at once: a heading and one sentence for each.

    Attributes:
        lines: the heading, and below it the sentences, with control characters escaped.

    Args:
        heading: one line.
        messages: one sentence for each error.
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
        package: name by which Python imports it; a key of `EXTRAS`.
        feature: what needs it, such as "`synthgen train`".
    """
    return SynthgenError(f"{feature} needs the package {package}; install it: {install_command(EXTRAS[package])}")


def install_command(extra: str) -> str:
    """The command that installs synthgen with an extra."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


@contextmanager
def explain_missing_extra(feature: str) -> Iterator[None]:
    """Turn the import error of a package of `EXTRAS` that is not installed into a `SynthgenError`.

    Args:
        feature: what needs it, such as "`synthgen train`".

    Raises:
        SynthgenError: with the command that installs it.
    """
    try:
        yield
    except ModuleNotFoundError as why:
        package = (why.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        raise missing_extra_error(package, feature) from None


class BrokenWorkerError(FailedRunError):
    """This process cannot continue (its GPU is lost). Another process can do the shard again."""


#: What errors without a number say if memory is short: torch's CPU allocator, the loader of shared libraries, Arrow.
_OUT_OF_MEMORY_TEXTS = ("can't allocate memory", "annot allocate memory", "failed to map segment from shared object")


def describe_exhaustion(why: BaseException) -> str | None:
    """A sentence if the machine has no more memory, threads or open files; None for every other error.

    Args:
        why: the error to describe.
    """
    code = why.errno if isinstance(why, OSError) else None
    # The text of an error with a number may hold any file name.
    text = str(why) if code is None and isinstance(why, OSError | RuntimeError | ImportError) else ""
    if isinstance(why, MemoryError) or code == errno.ENOMEM or any(words in text for words in _OUT_OF_MEMORY_TEXTS):
        return (
            "the memory is used up; end other programs, give the job more memory, or lower its batch size or number of "
            "workers, and run the same command again"
        )
    if code == errno.EAGAIN or "can't start new thread" in text:
        return (
            "the system starts no more threads or processes; raise the limit (`ulimit -u`, the container's pids or "
            "memory) or end other programs, and run the same command again"
        )
    if code in (errno.EMFILE, errno.ENFILE) or "Too many open files" in text:
        return "too many files are open; raise the limit (`ulimit -n`), and run the same command again"
    return None


def is_disk_full(why: OSError) -> bool:
    """Whether there is no space left on a disk, or in the user's share of it.

    Args:
        why: the error of the operating system.
    """
    return why.errno in (errno.ENOSPC, errno.EDQUOT)


def describe_os_error(why: OSError) -> str | None:
    """A sentence for an error of the operating system, for places that have no better one.

    None if the error names no file: then it is a bug of ours and needs its traceback.

    Args:
        why: the error of the operating system.
    """
    if not is_disk_full(why) and not isinstance(why.filename, str | bytes):
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
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" if ord(c) < 256 else f"\\u{ord(c):04x}" for c in text)


#: Maximum characters of a value that a message quotes.
_MAX_VALUE_CHARS = 80


def shorten_value(value: object) -> str:
    """The `repr` of a value on one line, cut where it is long, for a message."""
    text = " ".join(repr(value).split())
    return text if len(text) <= _MAX_VALUE_CHARS else f"{text[: _MAX_VALUE_CHARS - 3]}..."
