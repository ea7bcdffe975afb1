"""What a person is told when something is wrong. It knows nothing of the rest of the house."""

import errno
import os
from collections.abc import Sequence


class SynthgenError(Exception):
    """Something the user can mend.

    The message is one sentence that names the thing, the place and the remedy. The front door prints it alone and
    exits with 2. Every other exception keeps its traceback: it is our mistake, not the user's.
    """


class MultipleErrors(SynthgenError):  # noqa: N818
    """Several things the user can mend, told at once: what they are wrong with, and a sentence each.

    Attributes:
        lines: the heading, and below it the sentences; none of them can steer a terminal.
    """

    def __init__(self, heading: str, messages: Sequence[str]) -> None:
        super().__init__(heading, messages)  # which is what it is pickled by
        self.lines = [escape_control_chars(heading), *(f"  {escape_control_chars(sentence)}" for sentence in messages)]

    def __str__(self) -> str:
        return "\n".join(self.lines)


#: The name of the distribution, which is not the name of the package.
DISTRIBUTION = "synthgen-masks"

#: Packages that come with an extra, by the name that Python imports, and the extra.
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
    """This process can work no more (its GPU is lost), another one may: the shard is to be done again elsewhere."""


def describe_os_error(why: OSError) -> str | None:
    """A sentence for what the system refused, where no room of the house has a better one.

    None where it names no file: then it is our mistake, and its traceback is wanted.
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
    """Return "; did you mean 'x'?" where one of `choices` is close to `word`, else an empty string."""
    import difflib  # stdlib, but 6 ms that `--help` should not pay

    close = difflib.get_close_matches(word, choices, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def escape_control_chars(text: str) -> str:
    """`text` with each control character spelt out: a name from a hostile file must not steer the terminal."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
