"""MATLAB files of level 5: arrays as scipy writes them, other variables, damaged and hostile files.

The format: https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from fakes.mat_files import mat_file, matrix, packed

from synthgen.formats.readers import _mat_file
from synthgen.formats.readers._mat_file import read_mat_array
from synthgen.images.decode import ImageError


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.uint32, np.int64])
@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (1, 5), (37, 50)])
def test_an_array_is_read_as_scipy_reads_it(
    tmp_path: Path, dtype: type, shape: tuple[int, int], compressed: bool
) -> None:
    path = tmp_path / "a.mat"
    values = np.random.default_rng(3).integers(0, 120, shape).astype(dtype)
    other = {"note": "text", "cells": np.array([1, "x"], object), "real": np.ones((2, 3)), "LabelMap": values}
    scipy.io.savemat(path, other, do_compression=compressed)
    found = read_mat_array(path, "LabelMap")
    assert found.dtype == dtype and (found == scipy.io.loadmat(path)["LabelMap"]).all()


def test_an_array_of_doubles_that_matlab_stores_as_bytes_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.mat").write_bytes(mat_file(matrix(b"LabelMap", (2, 2), b"\1\2\3\4", kind=2, array_class=6)))
    assert read_mat_array(tmp_path / "a.mat", "LabelMap").tolist() == [[1, 3], [2, 4]]


def test_a_file_of_a_big_endian_machine_is_read(tmp_path: Path) -> None:
    element = matrix(b"LabelMap", (1, 2), struct.pack(">2H", 258, 3), order=">")
    (tmp_path / "a.mat").write_bytes(mat_file(element, order=">"))
    found = read_mat_array(tmp_path / "a.mat", "LabelMap")
    assert found.tolist() == [[258, 3]] and found.dtype == np.dtype(np.uint16)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is no MATLAB file of level 5"),
        (b"x" * 200, "is no MATLAB file of level 5"),
        (mat_file(version=0x0200), r"version 7\.3; save it with -v7"),
        (mat_file(version=7), "is no MATLAB file of level 5"),
        (mat_file(), "without a variable LabelMap"),
        (mat_file(matrix(b"other", (1, 1), b"\1\0")), "without a variable LabelMap"),
        (mat_file(matrix(b"LabelMap", (1, 2), b"\1\0")), "has 1 numbers, and its size is 1 x 2"),
        (mat_file(matrix(b"LabelMap", (1, 1, 1), b"\1\0")), "no size of an image"),
        (mat_file(matrix(b"LabelMap", (0, 1), b"")), "no size of an image"),
        (mat_file(matrix(b"LabelMap", (-1, -1), b"\1\0")), "no size of an image"),
        (mat_file(matrix(b"LabelMap", (2**30, 2**30), b"\1\0")), "no size of an image"),
        (mat_file(matrix(b"LabelMap", (1, 1), bytes(8), kind=9, array_class=6)), "are no integers"),
        (mat_file(matrix(b"LabelMap", (1, 1), b"\1\0", array_class=1)), "no array of numbers"),  # a cell
        (mat_file(matrix(b"LabelMap", (1, 1), b"\1\0", array_class=3)), "no array of numbers"),  # an object
        (mat_file(matrix(b"LabelMap", (1, 1), b"\1\0", array_class=17)), "no array of numbers"),  # an opaque object
        (mat_file(matrix(b"LabelMap", (1, 1), b"\1\0", flags=0x08)), "no array of numbers"),  # complex numbers
        (mat_file(matrix(b"LabelMap", (1, 1), b"\1\0"))[:-20], "cut off"),
        (mat_file(struct.pack("<II", 14, 2**31)), "cut off"),
        (mat_file(struct.pack("<II", 15, 4) + b"nope"), "no usable MATLAB file"),
        (mat_file(struct.pack("<II", 5 << 16 | 2, 0)), "a small element is larger than its place"),
        (mat_file(packed(b"abc")), "a compressed element is cut off"),
        (mat_file(packed(struct.pack("<II", 14, 2**31) + bytes(64))), "it unpacks to more than"),
        (mat_file(*[struct.pack("<II", 1, 0)] * 2_000), "more than 1,000 elements"),
    ],
)
def test_a_damaged_or_hostile_file_is_refused_in_a_sentence(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(ImageError, match=why):
        read_mat_array(tmp_path / "a.mat", "LabelMap")


def test_the_elements_of_a_file_are_unpacked_to_a_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_mat_file, "_MAX_UNPACKED_BYTES", 1_000)
    big = packed(matrix(b"other", (1, 300), bytes(600)))
    wanted = packed(matrix(b"LabelMap", (1, 1), b"\1\0"))
    (tmp_path / "a.mat").write_bytes(mat_file(big, wanted))
    assert read_mat_array(tmp_path / "a.mat", "LabelMap").tolist() == [[1]]
    (tmp_path / "a.mat").write_bytes(mat_file(big, big, wanted))
    with pytest.raises(ImageError, match="it unpacks to more than"):
        read_mat_array(tmp_path / "a.mat", "LabelMap")


def test_a_missing_file_or_a_folder_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.mat", tmp_path):
        with pytest.raises(ImageError, match="is not a file, or a link to none"):
            read_mat_array(path, "LabelMap")
