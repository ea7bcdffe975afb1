"""What is said about a file that is no supported image."""

from __future__ import annotations

from pathlib import Path

import pytest

from synthgen.images.decode import ImageError, load_rgb, read_image_header
from synthgen.images.file_kinds import describe_file_kind


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC image; convert it to JPEG"),
        (b"\0\0\0\x18ftypcrx \0\0\0\x01", "raw image"),
        (b"\0\0\0\x18ftypisom\0\0\x02\0", "is a video"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "git lfs pull"),
        (b"\n<!DOCTYPE html><html><body>404</body></html>", "web page"),
        (b"<?xml version='1.0'?><svg></svg>", "SVG"),
        (b"8BPS\0\x01", "Photoshop"),
        (b"\xff\x0a\0\0", "JPEG XL"),
        (b"\x1f\x8b\x08\0", "gzip"),
        (b'{"error": "not found"}', "JSON"),
        (b"", "is empty"),
        (b"\0" * 600, "only zeros"),
    ],
)
def test_the_kind_and_the_remedy_are_named(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(data)
    for read in (load_rgb, read_image_header):
        with pytest.raises(ImageError, match=said) as caught:
            read(path)
        assert str(tmp_path) not in str(caught.value)


def test_what_is_not_known_is_none(tmp_path: Path) -> None:
    assert describe_file_kind(tmp_path / "nothing") is None
    (tmp_path / "words.txt").write_text("only words")
    assert describe_file_kind(tmp_path / "words.txt") is None
