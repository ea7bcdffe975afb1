"""A text of a PNG file, read before the pixels."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from synthgen.images.png_text import read_png_text


def write(path: Path, **texts: str) -> Path:
    info = PngInfo()
    for keyword, text in texts.items():
        info.add_text(keyword, text)
    Image.fromarray(np.zeros((5, 7), np.uint8)).save(path, pnginfo=info)
    return path


def test_a_text_is_found_by_its_keyword(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", other="x" * 30_000, origin="machine", more="y")
    assert read_png_text(path, "origin") == "machine"
    assert read_png_text(path, "orig") is None and read_png_text(path, "more") == "y"


def test_a_long_text_is_cut_off(tmp_path: Path) -> None:
    assert len(read_png_text(write(tmp_path / "a.png", origin="x" * 50_000), "origin") or "") < 2**14


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x89PNG\r\n\x1a\n",
        b"\x89PNG\r\n\x1a\n\0\0",
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 2**32 - 1) + b"tEXt",
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 2**32 - 1) + b"IHDR",
        b"\x89PNG\r\n\x1a\n" + chunk(b"gAMA", b"1234") * 1000 + chunk(b"tEXt", b"origin\0machine"),
        b"\x89PNG\r\n\x1a\n" + chunk(b"IDAT", b"1234") + chunk(b"tEXt", b"origin\0machine"),
        b"\xff\xd8\xff\xe0 a photograph",
    ],
)
def test_damaged_and_other_files_have_no_text(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    assert read_png_text(tmp_path / "a.png", "origin") is None
