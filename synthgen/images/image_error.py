"""The error of an image that cannot be used, and texts that are safe to store."""

from __future__ import annotations


class ImageError(Exception):
    """Why an image cannot be used: a sentence for `Sample.error`, without paths of this machine."""


def utf8_safe(text: str) -> str:
    """At most 200 characters of `text` that UTF-8 can encode; hostile names contain lone surrogates."""
    return text[:200].encode("utf-8", "backslashreplace").decode()
