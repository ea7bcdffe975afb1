"""Clean, split, compare and search short texts."""

from __future__ import annotations

import re
import unicodedata

_ARTICLES = frozenset({"a", "an", "the"})
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
#: A word three times in a row, or two to four words twice.
_REPETITION = re.compile(r"\b(\w+)(?: \1){2}\b|\b(\w+(?: \w+){1,3}) \2\b")


def clean_text(text: str, *, max_chars: int = 1000) -> str:
    """The text on one line: Unicode NFC, without control characters, with single spaces.

    Args:
        text: of any source.
        max_chars: maximum length; a longer text is cut after its last whole word.
    """
    text = unicodedata.normalize("NFC", text[: 4 * max_chars])
    # Format characters (Cf) are kept, because some scripts need joiners. Separators and controls become white space.
    text = "".join(" " if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in text)
    text = " ".join(text.split())
    if len(text) <= max_chars:
        return text
    whole = text[: max_chars + 1].rpartition(" ")[0]
    return whole or text[:max_chars]


def split_words(text: str) -> list[str]:
    """The words of a text, case folded, without punctuation; hyphens and underscores separate words."""
    return _WORD.findall(text.casefold())


def comparison_key(text: str) -> str:
    """A key of `text` that is equal for texts that differ only in articles, case and punctuation."""
    own = split_words(text)
    return " ".join([word for word in own if word not in _ARTICLES] or own) or text.strip()


def has_repetition(text: str) -> bool:
    """Whether a text repeats itself, as failed beam search does: "a dog dog dog", "on a table on a table"."""
    return _REPETITION.search(" ".join(split_words(text)[:200])) is not None


def contains_phrase(text: str, phrases: frozenset[str]) -> bool:
    """Whether a text contains one of some phrases, as whole words.

    Args:
        text: any text.
        phrases: each as `" ".join(split_words(...))`.
    """
    line = f" {' '.join(split_words(text))} "
    return any(f" {phrase} " in line for phrase in phrases)
