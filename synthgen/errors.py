"""What a person is told when something is wrong. It knows nothing of the rest of the house."""


class SynthgenError(Exception):
    """Something the user can mend.

    The message is one sentence that names the thing, the place and the remedy. The front door prints it alone and
    exits with 2. Every other exception keeps its traceback: it is our mistake, not the user's.
    """


class BrokenWorkerError(SynthgenError):
    """This process can work no more (its GPU is lost), another one may: the shard is to be done again elsewhere."""


def did_you_mean(word: str, known: list[str]) -> str:
    """Return "; did you mean 'x'?" where one of `known` is close to `word`, else an empty string."""
    import difflib  # stdlib, but 6 ms that `--help` should not pay

    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def printable(text: str) -> str:
    """`text` with each control character spelt out: a name from a hostile file must not steer the terminal."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
