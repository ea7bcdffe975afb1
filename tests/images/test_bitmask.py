"""Bitmasks: the four bytes of a pixel as one number, large files by strips, files that are no bitmasks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from synthgen.images import decode
from synthgen.images.bitmask import load_bitmask
from synthgen.images.image_error import ImageError


def write_pixels(path: Path, height: int, width: int) -> np.ndarray:
    """A PNG of random bytes; returns them, uint8 [H, W, 4]."""
    pixels = np.random.default_rng(5).integers(0, 256, (height, width, 4), np.uint8)
    pixels[0, 0], pixels[-1, -1] = (255, 255, 255, 255), (200, 9, 3, 0)  # without alpha, the colours still count
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.mark.parametrize("strip_pixels", [2**21, 20])
def test_each_pixel_is_one_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strip_pixels: int) -> None:
    monkeypatch.setattr(decode, "_STRIP_PIXELS", strip_pixels)
    pixels = write_pixels(tmp_path / "a.png", 7, 5).astype(np.int64)
    found = load_bitmask(tmp_path / "a.png")
    assert found.dtype == np.uint32 and found.shape == (7, 5)
    assert (found == (pixels * [2**24, 2**16, 2**8, 1]).sum(axis=2)).all()
    assert found[0, 0] == 2**32 - 1 and found[-1, -1] == 0xC8090300


@pytest.mark.parametrize(
    ("mode", "kind"), [("RGB", "PNG"), ("P", "PNG"), ("LA", "PNG"), ("RGBA", "TIFF"), ("L", "BMP")]
)
def test_other_images_are_refused(tmp_path: Path, mode: str, kind: str) -> None:
    Image.new(mode, (4, 3)).save(tmp_path / "a.png", kind)
    with pytest.raises(ImageError, match=f"is a {kind} of mode {mode}, and a bitmask is a PNG of mode RGBA"):
        load_bitmask(tmp_path / "a.png")


def test_a_missing_cut_or_too_large_file_is_an_image_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    with pytest.raises(ImageError, match="no such file"):
        load_bitmask(path)
    write_pixels(path, 40, 50)
    whole = path.read_bytes()
    path.write_bytes(whole[:-2_000])
    with pytest.raises(ImageError, match="cannot be decoded"):
        load_bitmask(path)
    path.write_bytes(whole)
    monkeypatch.setattr(decode, "MAX_IMAGE_PIXELS", 1_999)
    with pytest.raises(ImageError, match="more than the limit of 1999"):
        load_bitmask(path)
