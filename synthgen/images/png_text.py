"""Reads a text of a PNG file without decoding its pixels."""

from __future__ import annotations

import struct
from pathlib import Path

#: The keyword under which an exported PNG says who drew its masks, and that for the names of the models, a JSON list.
PROVENANCE_KEYWORD, MODELS_KEYWORD = "synthgen:provenance", "synthgen:models"

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = struct.Struct(">I4s")
_MAX_CHUNKS = 256
_MAX_TEXT_BYTES = 2**14


def read_png_text(path: Path, keyword: str) -> str | None:
    """The text under a keyword in a `tEXt` chunk before the pixels; None if there is none, or it is not a PNG file.

    It reads some hundred bytes. A text of more than 16 KiB is cut off.

    Args:
        path: untrusted file.
        keyword: of the text, in Latin-1.

    Raises:
        OSError: the file cannot be read.
    """
    wanted = keyword.encode("latin-1") + b"\0"
    with path.open("rb", buffering=4096) as file:
        if file.read(len(_SIGNATURE)) != _SIGNATURE:
            return None
        for _ in range(_MAX_CHUNKS):
            head = file.read(_HEADER.size)
            if len(head) < _HEADER.size:
                return None
            length, kind = _HEADER.unpack(head)
            if kind in (b"IDAT", b"IEND"):
                return None
            if kind != b"tEXt":
                file.seek(length + 4, 1)  # and its checksum
                continue
            text = file.read(min(length, _MAX_TEXT_BYTES))
            if text.startswith(wanted):
                return text[len(wanted) :].decode("latin-1")
            file.seek(length - len(text) + 4, 1)
    return None
