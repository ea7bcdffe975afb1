"""`as_rgb`: arrays, images of Pillow and paths become uint8 RGB; everything else is refused with a sentence."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from synthgen.errors import ArgumentError, SynthgenError
from synthgen.images.decode import MAX_IMAGE_PIXELS, load_rgb
from synthgen.images.image_argument import as_rgb

PIXELS = np.random.default_rng(0).integers(0, 255, (7, 9, 3), np.uint8)


def test_an_array_is_used_as_it_is() -> None:
    assert as_rgb(PIXELS) is PIXELS
    turned = PIXELS[::-1, :, ::-1]
    assert as_rgb(turned).flags["C_CONTIGUOUS"] and np.array_equal(as_rgb(turned), turned)


@pytest.mark.parametrize("kind", [str, Path, os.fsencode])
def test_a_path_is_read(tmp_path: Path, kind: Any) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    path = kind(tmp_path / "a.png")
    if isinstance(path, bytes):
        with pytest.raises(ArgumentError, match=r"image is a bytes"):
            as_rgb(path)  # type: ignore[arg-type]
    else:
        assert np.array_equal(as_rgb(path), PIXELS)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "RGBA", "LA", "CMYK", "I;16", "I", "F"])
def test_an_image_of_pillow_is_as_its_file(tmp_path: Path, mode: str) -> None:
    if mode in ("I;16", "I", "F"):
        grey = np.arange(63).reshape(7, 9) * (1000 if mode != "F" else 1 / 63)
        image = Image.fromarray(grey.astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]))
    else:
        image = Image.fromarray(PIXELS).convert(mode)
    assert image.mode == mode
    path = tmp_path / "a.tiff"
    image.save(path)
    before = image.copy()
    assert np.array_equal(as_rgb(image), load_rgb(path))
    assert image.mode == before.mode and image.tobytes() == before.tobytes(), "the image has not changed"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_to_paths_and_images(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.png"
    Image.fromarray(PIXELS).save(path, exif=exif)
    upright = load_rgb(path)
    assert upright.shape == ((7, 9, 3) if orientation < 5 else (9, 7, 3))
    assert np.array_equal(as_rgb(path), upright)
    with Image.open(path) as image:
        assert np.array_equal(as_rgb(image), upright)


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (PIXELS.astype(np.float32), r"image has the type float32; give uint8 values from 0 to 255"),
        (PIXELS.astype(np.int64), r"image has the type int64"),
        (PIXELS[:, :, 0], r"image has the shape \[7, 9\]; give \[H, W, 3\] RGB"),
        (PIXELS.transpose(2, 0, 1), r"image has the shape \[3, 7, 9\]"),
        (PIXELS[None], r"image has the shape \[1, 7, 9, 3\]"),
        (PIXELS[:0], r"image has the shape \[0, 9, 3\]"),
        (PIXELS.tolist(), r"image is a list; give a uint8 array \[H, W, 3\], an image of Pillow, or a path"),
        (None, r"image is a NoneType"),
        ("no.png", r"image 'no\.png' does not exist; give the path of an image file on this machine"),
        (".", r"image '\.' is a folder"),
        ("/dev/null", r"image '/dev/null' is not a regular file"),
        ("a\0b", r"image 'a\\x00b' (has a name that cannot be used|does not exist)"),
        ("x" * 5000, r"image 'x{70,}\.\.\. (has a name that cannot be used|does not exist)"),
        ("https://a.org/x.png", r"image 'https://a\.org/x\.png' does not exist"),
        ("text.png", r"image 'text\.png' cannot be decoded"),
        (Image.new("F", (2, 2), -3.0), r"image has samples of mode F that are no .* intensities; give an RGB image"),
    ],
)  # fmt: skip
def test_everything_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image: Any, sentence: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.png").write_text("text")
    with pytest.raises(ArgumentError, match=sentence):
        as_rgb(image)


def test_an_image_that_is_too_large_is_refused_before_it_is_converted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synthgen.images.decode.MAX_IMAGE_PIXELS", 62)
    with pytest.raises(SynthgenError, match=r"image has 9 x 7 pixels, more than the limit of 62"):
        as_rgb(Image.fromarray(PIXELS))
    assert MAX_IMAGE_PIXELS > 62
