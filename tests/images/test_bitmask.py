"""Bitmasks: the four bytes of a pixel as one number, large files by strips, files that are no bitmasks, forks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
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


def test_a_forked_process_reads_whatever_a_thread_of_its_parent_does(tmp_path: Path) -> None:
    write_pixels(tmp_path / "a.png", 7, 5)
    program = f"""
import os, threading
from pathlib import Path
from synthgen.images import decode
from synthgen.images.bitmask import load_bitmask
held, done = threading.Event(), threading.Event()
def decode_much():
    with decode._budget.hold(2 * decode.MAX_DECODE_BYTES):
        held.set()
        done.wait()
thread = threading.Thread(target=decode_much)
thread.start()
held.wait()
child = os.fork()
if child == 0:
    os._exit(load_bitmask(Path({str(tmp_path / "a.png")!r})).shape != (7, 5))
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
done.set()
raise SystemExit(code)
"""
    # The child that waits would outlive its parent, so the group ends with it.
    with subprocess.Popen([sys.executable, "-c", program], start_new_session=True) as process:
        try:
            assert process.wait(timeout=60) == 0
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
