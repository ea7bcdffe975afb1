"""Integer ids for images that a dataset knows by text: file names, uuids, "1_23"."""

from __future__ import annotations

import re
from hashlib import blake2b

_DECIMAL = re.compile(r"0|-?[1-9][0-9]{0,18}")


def text_id(text: str) -> int:
    """The id of an image that its dataset knows by a text: a positive number that only depends on the text.

    It has 62 random bits above 2**62, far from the ids that datasets use. Two texts with one id are improbable (1e-6
    for 3 million images); `ingest` reports two images of one id.
    """
    return 2**62 + (int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()) >> 2)


def is_text_id(number: int) -> bool:
    """Whether an id may stand for a text; datasets do not use numbers of this size."""
    return number >= 2**62


def parse_id(value: object) -> int | None:
    """The id of an image or annotation as JSON gives it; None if it is neither a whole number nor a text.

    A text that is the usual spelling of a whole number ("139") is that number; any other text ("1_23", "007", a uuid)
    is mapped by `text_id`. So different texts stay different.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        if not value:
            return None
        number = int(value) if _DECIMAL.fullmatch(value) else None
        return number if number is not None and -(2**63) <= number < 2**62 else text_id(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and -(2**63) <= value < 2**63 else None
