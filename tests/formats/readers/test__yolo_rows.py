"""Rows of YOLO label files: forms by the number of values, laws of boxes and polygons, broken ones."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthgen.formats.readers._yolo_rows import MAX_LINE_BYTES, RowKind, looks_like_labels, parse_row

FRACTIONS = st.floats(0, 1, allow_subnormal=False)


@pytest.mark.parametrize(
    ("count", "kpt_shape", "kind"),
    [
        (0, None, RowKind.BROKEN),
        (3, None, RowKind.BROKEN),
        (4, None, RowKind.BOX),
        (5, None, RowKind.BOX_WITH_CONFIDENCE),
        (6, None, RowKind.POLYGON),
        (7, None, RowKind.BROKEN),
        (8, None, RowKind.POLYGON),
        (55, None, RowKind.BROKEN),
        (55, (17, 3), RowKind.BOX_WITH_KEYPOINTS),
        (8, (2, 2), RowKind.BOX_WITH_KEYPOINTS),
        (4, (17, 3), RowKind.BOX),
        (8, (17, 3), RowKind.POLYGON),
    ],
)
def test_the_number_of_values_tells_the_form(count: int, kpt_shape: tuple[int, int] | None, kind: RowKind) -> None:
    row = parse_row(b"3" + b" 0.25" * count, 9, kpt_shape)
    assert (row.kind, row.class_id, row.line) == (kind, 3, 9)
    assert (row.reason == "") == (kind is not RowKind.BROKEN)


@given(FRACTIONS, FRACTIONS, FRACTIONS, FRACTIONS)
def test_a_box_has_its_centre_and_its_size(cx: float, cy: float, width: float, height: float) -> None:
    row = parse_row(f"0 {cx!r} {cy!r} {width!r} {height!r}".encode(), 1)
    x, y, w, h = row.box
    assert (w, h) == (width, height)
    assert x + w / 2 == pytest.approx(cx, abs=1e-12) and y + h / 2 == pytest.approx(cy, abs=1e-12)


@given(st.lists(st.tuples(FRACTIONS, FRACTIONS), min_size=3, max_size=9))
def test_the_box_of_a_polygon_is_tight(points: list[tuple[float, float]]) -> None:
    row = parse_row(" ".join(["0", *(repr(value) for point in points for value in point)]).encode(), 1)
    x, y, w, h = row.box
    xs, ys = zip(*points, strict=True)
    assert (x, y) == (min(xs), min(ys))
    assert x + w == pytest.approx(max(xs)) and y + h == pytest.approx(max(ys))
    assert list(row.polygon) == [value for point in points for value in point]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"0 0,5 0.5 0.1 0.1", "point, not a comma"),
        (b"0,0.5,0.5,0.1,0.1", "separated by commas"),
        (b"cat 0.5 0.5 0.1 0.1", "'cat' is not a class number"),
        (b"0.5 0.5 0.5 0.1 0.1", "'0.5' is not a class number"),
        (b"nan 0.5 0.5 0.1 0.1", "not a class number"),
        (b"1_0 0.5 0.5 0.1 0.1", "not a class number"),
        (b"99999999999 0.5 0.5 0.1 0.1", "not a class number"),
        (b"0 0.5 0.5 0.1 inf", "not finite"),
        (b"0 0.5 0.5 0.1 1_0", "'1_0' is not a number"),
        (b"0 0.5 0.5 0.1 \xff", "is not a number"),
        (b"0 " + b"1" * MAX_LINE_BYTES, "longer than"),
        (b"0 0.5 0.5 0.1 0.1 0.2 0.2 2 0.3 0.3 2", "kpt_shape"),
    ],
)
def test_a_broken_row_says_why(line: bytes, reason: str) -> None:
    row = parse_row(line, 4)
    assert row.kind is RowKind.BROKEN and reason in row.reason and len(row.reason) < 200
    assert all(map(math.isnan, row.box))


@pytest.mark.parametrize(("line", "is_fraction"), [(b"0 320 240 50 60", False), (b"0 50 50 10 10", False),
    (b"0 1.0001 0.5 0.1 0.1", True), (b"0 0.5 0.5 0.1 0.1 87", True), (b"0 5 5 9 5 9 9", False)])  # fmt: skip
def test_values_far_above_one_are_no_fractions(line: bytes, is_fraction: bool) -> None:
    assert parse_row(line, 1).is_fraction is is_fraction


def test_the_start_of_a_file_tells_labels_from_other_texts(tmp_path: Path) -> None:
    for content, found in (
        (b"", None),
        (b"\n \n", None),
        (b"0 0.5 0.5 0.1 0.1\n", True),
        (b"\xef\xbb\xbf0 320 240 50 60\r\n", True),
        (b"0" + b" 0.123456" * 5_000, True),  # longer than what is read
        (b"a photograph of 1 2 3 4 5\n", False),
        (b"1 2 3 4 5 6 7 8 plane 0\n", False),
        (b"\xff\xd8\xff\xe0", False),
    ):
        (tmp_path / "a.txt").write_bytes(content)
        assert looks_like_labels(tmp_path / "a.txt") is found, content[:40]
    assert looks_like_labels(tmp_path) is False and looks_like_labels(tmp_path / "none") is False
