"""Phrases as texts: cleaned for the record, compared by what they say, searched for words."""

from __future__ import annotations

import re
import unicodedata

_ARTICLES = frozenset({"a", "an", "the"})
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
#: One word three times running, or two to four words twice.
_REPETITION = re.compile(r"\b(\w+)(?: \1){2}\b|\b(\w+(?: \w+){1,3}) \2\b")


def clean_text(text: str, *, max_chars: int = 1000) -> str:
    """The text on one line: Unicode-normalised (NFC), without control characters, each run of white space one space.

    Args:
        max_chars: characters that are kept; a longer text ends with its last whole word below that.
    """
    text = unicodedata.normalize("NFC", text[: 4 * max_chars])
    # Format characters (Cf) stay: scripts need joiners. Separators and controls are white space at best.
    text = "".join(" " if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in text)
    text = " ".join(text.split())
    if len(text) <= max_chars:
        return text
    whole = text[: max_chars + 1].rpartition(" ")[0]
    return whole or text[:max_chars]


def split_words(text: str) -> list[str]:
    """The words of a text, case folded, without punctuation: hyphens and underscores part them."""
    return _WORD.findall(text.casefold())


def comparison_key(text: str) -> str:
    """What two texts share that a reader would call the same: words without articles, case and punctuation."""
    own = split_words(text)
    return " ".join([word for word in own if word not in _ARTICLES] or own) or text.strip()


def has_repetition(text: str) -> bool:
    """Whether a text stutters, as beam search does where it is lost: "a dog dog dog", "on a table on a table"."""
    return _REPETITION.search(" ".join(split_words(text)[:200])) is not None


def contains_phrase(text: str, phrases: frozenset[str]) -> bool:
    """Whether a text holds one of some phrases (each as `" ".join(words(...))`), as whole words."""
    line = f" {' '.join(split_words(text))} "
    return any(f" {phrase} " in line for phrase in phrases)
