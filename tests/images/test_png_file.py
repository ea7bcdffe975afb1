"""PNG files: Pillow and OpenCV read back the pixels and the texts."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from synthgen.images import png_file
from synthgen.images.png_file import write_png


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("size", [(1, 1), (7, 300), (300, 7)])
def test_two_libraries_read_the_pixels(tmp_path: Path, dtype: type, size: tuple[int, int]) -> None:
    path = tmp_path / "a.png"
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, size, dtype, endpoint=True)
    write_png(path, pixels, {"synthgen:provenance": "machine"})
    with Image.open(path) as image:
        assert image.text == {"synthgen:provenance": "machine"}
        assert (np.asarray(image) == pixels).all()
    read = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert read is not None and read.dtype == dtype and (read == pixels).all()


def test_two_libraries_read_the_colours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(png_file, "_STRIP_PIXELS", 64)
    pixels = np.random.default_rng(0).integers(0, 256, (50, 40, 3), np.uint8)
    write_png(tmp_path / "a.png", pixels, {})
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "RGB" and (np.asarray(image) == pixels).all()
    read = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)
    assert read is not None and (read[:, :, ::-1] == pixels).all()


def test_strips_are_one_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(png_file, "_STRIP_PIXELS", 64)
    pixels = np.random.default_rng(0).integers(0, 2**16, (50, 40), np.uint16)
    write_png(tmp_path / "a.png", pixels[:, ::2], {})
    with Image.open(tmp_path / "a.png") as image:
        assert (np.asarray(image) == pixels[:, ::2]).all()


def test_texts_are_ascii(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", np.zeros((2, 2), np.uint8), {"key": "aé\n<b>"})
    with Image.open(tmp_path / "a.png") as image:
        assert image.text == {"key": "a?\n<b>"}


def test_a_file_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        write_png(tmp_path / "a.png", np.zeros((2, 2), np.uint8), {})
    assert (tmp_path / "a.png").read_bytes() == b"mine"
