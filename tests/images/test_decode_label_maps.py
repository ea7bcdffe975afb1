"""Decoded label maps: palettes, bit depths, animations, JPEGs and damaged files."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from synthgen.images.decode import ImageError, load_label_map

LABELS = np.array([[0, 1, 1], [2, 2, 1]], np.uint8)


def saved(path: Path, mode: str, values: np.ndarray = LABELS, **options: object) -> Path:
    image = Image.fromarray(values)
    if mode == "P":
        image.putpalette([channel for i in range(256) for channel in (255 - i, i // 2, 7)])
    elif mode != image.mode:
        image = image.convert(mode)
    image.save(path, **options)
    return path


@pytest.mark.parametrize("mode", ["L", "P", "LA", "RGB", "RGBA"])
def test_the_stored_numbers_are_the_labels(tmp_path: Path, mode: str) -> None:
    assert np.array_equal(load_label_map(saved(tmp_path / "x.png", mode)), LABELS)


def test_a_palette_and_its_transparency_are_not_looked_at(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.png", "P", transparency=1)
    assert np.array_equal(load_label_map(path), LABELS)


def test_one_bit(tmp_path: Path) -> None:
    found = load_label_map(saved(tmp_path / "x.png", "1", LABELS > 0))
    assert (found.dtype, found.tolist()) == (np.uint8, [[0, 1, 1], [1, 1, 1]])


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_keep_every_number(tmp_path: Path, suffix: str) -> None:
    deep = LABELS.astype(np.uint16) * 300
    Image.fromarray(deep).save(tmp_path / f"x.{suffix}")
    assert np.array_equal(load_label_map(tmp_path / f"x.{suffix}"), deep)


def test_thirty_two_bits(tmp_path: Path) -> None:
    wide = LABELS.astype(np.int32) * 70_000
    Image.fromarray(wide).save(tmp_path / "x.tif")
    assert np.array_equal(load_label_map(tmp_path / "x.tif"), wide)
    Image.fromarray(-wide).save(tmp_path / "y.tif")
    with pytest.raises(ImageError, match="has negative labels"):
        load_label_map(tmp_path / "y.tif")


def test_colours_as_labels(tmp_path: Path) -> None:
    rgb = np.array([[[1, 2, 3], [255, 0, 0]]], np.uint8)
    Image.fromarray(rgb).save(tmp_path / "x.png")
    assert load_label_map(tmp_path / "x.png", color_coded=True).tolist() == [[66051, 16711680]]
    with pytest.raises(ImageError, match=r"has colours \(mode RGB\), and a label map has one number a pixel"):
        load_label_map(tmp_path / "x.png")


def test_a_jpeg_has_lost_its_labels_whatever_it_is_called(tmp_path: Path) -> None:
    for mode in ("L", "CMYK"):
        Image.fromarray(LABELS).convert(mode).save(tmp_path / "x.jpg")
        (tmp_path / "x.jpg").rename(tmp_path / "x.png")
        with pytest.raises(ImageError, match="is a JPEG, whose compression changes labels"):
            load_label_map(tmp_path / "x.png")


def test_floats_are_no_labels(tmp_path: Path) -> None:
    Image.fromarray(LABELS.astype(np.float32) / 3).save(tmp_path / "x.tif")
    with pytest.raises(ImageError, match="mode F"):
        load_label_map(tmp_path / "x.tif")


def test_the_first_frame_of_an_animation(tmp_path: Path) -> None:
    first, second = Image.fromarray(LABELS), Image.fromarray(LABELS[::-1])
    first.save(tmp_path / "x.png", save_all=True, append_images=[second])
    assert np.array_equal(load_label_map(tmp_path / "x.png"), LABELS)


def png(width: int, height: int) -> bytes:
    """A greyscale PNG of any size that holds no pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "cannot be decoded"),
        (b"<html>", "web page"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n(x) run", "no image of the kinds"),
        (png(60_000, 60_000), "more than the limit of .* pixels"),
        (png(13_000, 14_000), "more than the limit of .* pixels"),
        (png(0, 5), "cannot be decoded"),
        (png(500, 500), "cannot be decoded"),
    ],
    ids=["empty", "text", "postscript", "bomb", "too large", "no width", "truncated"],
)
def test_a_hostile_file_is_a_sentence(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(ImageError, match=sentence):
        load_label_map(tmp_path / "x.png")


def test_a_label_map_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such file"):
        load_label_map(tmp_path / "x.png")
