"""Polygons: what readers make of them is the mask; holes, many parts, tiny parts, hostile masks, human masks."""

from __future__ import annotations

import json
import time
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from fakes.polygon_readers import iou, read_as_coco, read_as_yolo
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from synthgen.errors import SynthgenError
from synthgen.export import polygons as polygons_module
from synthgen.export.polygons import (
    Polygon,
    clean_mask,
    crop_mask,
    mask_to_polygons,
    mask_to_rings,
    polygon_iou_loss,
    rasterize_rings,
)
from synthgen.records.rle import MaskWindow, decode_mask, decode_mask_window, encode_mask, rle_from_coco
from synthgen.records.sample import Rle

masks = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=24))
conventions = st.sampled_from(["edges", "centers"])
tolerances = st.sampled_from([0.0, 0.3, 1.0, 3.0])


def area(ring: np.ndarray) -> float:
    """Signed area of a ring."""
    x, y = ring.T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def read_as_opencv(rings: list[np.ndarray], height: int, width: int) -> np.ndarray:
    image = np.zeros((height, width), np.uint8)
    for ring in rings:
        cv2.fillPoly(image, [ring.astype(np.int32)], 1)
    return image.astype(bool)


READERS = {"edges": read_as_coco, "centers": read_as_opencv}

ONE = np.ones((1, 1), bool)
RING = np.ones((5, 5), bool)
RING[2, 2] = False
CHECKERS = np.indices((9, 8)).sum(axis=0) % 2 == 0
DOTS = np.zeros((9, 9), bool)
DOTS[::2, ::2] = True
NESTED = np.zeros((11, 11), bool)
NESTED[1:10, 1:10] = True
NESTED[2:9, 2:9] = False
NESTED[4:7, 4:7] = True
NESTED[5, 5] = False
LOOP = np.array([[0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 0]], bool)
THIN_DIAGONAL = np.eye(7, dtype=bool)


# --- the mask comes back ----------------------------------------------------------------------------------------------


@given(masks, conventions)
@example(ONE, "centers")
@example(RING, "edges")
@example(CHECKERS, "edges")
@example(CHECKERS, "centers")
@example(NESTED, "centers")
@example(DOTS, "centers")
def test_readers_make_the_mask_of_its_rings(mask, convention):
    rings = mask_to_rings(crop_mask(mask), convention=convention)
    assert np.array_equal(READERS[convention](rings, *mask.shape), mask)


@given(masks)
@example(CHECKERS)
@example(DOTS)
@example(NESTED)
def test_one_ring_holds_all_parts_and_holes(mask):
    rings = mask_to_rings(crop_mask(mask), single=True)
    assert len(rings) == mask.any()
    assert np.array_equal(read_as_coco(rings, *mask.shape), mask)


@given(masks)
@example(DOTS)
@example(NESTED)
@example(~DOTS)
@example(THIN_DIAGONAL)
def test_where_outlines_are_drawn_one_ring_adds_only_bridges(mask):
    rings = mask_to_rings(crop_mask(mask), convention="centers", single=True)
    drawn = read_as_opencv(rings, *mask.shape)
    assert not (mask & ~drawn).any()
    if cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0] <= 2:
        assert np.array_equal(drawn, mask)


def test_bridges_between_parts_are_the_shortest():
    mask = np.zeros((20, 60), bool)
    mask[2:18, 2:10] = mask[2:18, 14:24] = mask[8:12, 30:34] = mask[0:3, 50:58] = True
    drawn = read_as_opencv(mask_to_rings(crop_mask(mask), convention="centers", single=True), *mask.shape)
    extra = drawn & ~mask
    assert [np.count_nonzero(extra[:, a:b]) for a, b in ((10, 14), (24, 30), (34, 50))] == [4, 6, 16]
    assert not extra[:, 58:].any()


@given(masks, conventions)
def test_holes_are_rings_of_the_opposite_direction(mask, convention):
    filled = np.zeros(mask.shape, np.uint8)
    for polygon in mask_to_polygons(crop_mask(mask), convention=convention):
        assert all(area(hole) * area(polygon.outer) < 0 for hole in polygon.holes)
        rings = [ring.astype(np.int32) for ring in (polygon.outer, *polygon.holes)]
        if convention == "centers":  # even-odd, outlines drawn
            cv2.fillPoly(filled, rings, 1)
        else:
            outside, *inside = ([ring] for ring in (polygon.outer, *polygon.holes))
            part = read_as_coco(outside, *mask.shape)
            for hole in inside:
                part &= ~read_as_coco(hole, *mask.shape)
            filled |= part
    assert np.array_equal(filled.astype(bool), mask)


@given(masks)
def test_areas_of_edge_polygons_are_numbers_of_pixels(mask):
    rings = mask_to_rings(crop_mask(mask))
    assert sum(abs(area(ring)) for ring in rings) == mask.sum()


# --- what every ring is -----------------------------------------------------------------------------------------------


@given(masks, conventions, tolerances, st.booleans())
@example(ONE, "centers", 1.0, False)
@example(np.ones((1, 9), bool), "centers", 3.0, True)
@example(THIN_DIAGONAL, "centers", 3.0, False)
@example(DOTS, "centers", 1.0, True)
@example(LOOP, "centers", 0.0, False)
@example(LOOP, "centers", 3.0, True)
def test_rings_are_inside_the_image_and_have_an_area(mask, convention, tolerance, single):
    window = crop_mask(mask)
    rings = mask_to_rings(window, tolerance=tolerance, convention=convention, single=single)
    for polygon in mask_to_polygons(window, tolerance=tolerance, convention=convention):
        rings += [polygon.outer, *polygon.holes]
    assert bool(rings) == mask.any()
    for ring in rings:
        assert ring.dtype == np.float64
        assert len(ring) >= 3
        assert (ring >= 0).all()
        assert (ring <= mask.shape[::-1]).all()
        assert abs(area(ring)) > 0
        assert (ring != np.roll(ring, 1, axis=0)).any(axis=1).all()


@given(masks, tolerances)
def test_edge_polygons_have_the_masks_box(mask, tolerance):
    if mask.any():
        points = np.concatenate(mask_to_rings(crop_mask(mask), tolerance=min(tolerance, 0.3)))
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert points.min(axis=0).tolist() == [columns[0], rows[0]]
        assert points.max(axis=0).tolist() == [columns[-1] + 1, rows[-1] + 1]


@given(masks, conventions)
def test_exact_rings_have_no_points_on_straight_lines(mask, convention):
    for polygon in mask_to_polygons(crop_mask(mask), convention=convention):
        for ring in (polygon.outer, *polygon.holes):
            before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
            cross = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
            assert ((cross != 0) | ((before * after).sum(axis=1) < 0)).all()


@given(masks, conventions, tolerances, st.booleans(), st.integers(0, 9), st.integers(0, 9))
def test_a_window_gives_the_rings_of_the_whole_mask(mask, convention, tolerance, single, top, left):
    whole = np.pad(mask, ((top, 1), (left, 2)))
    options = {"tolerance": tolerance, "convention": convention, "single": single}
    ours, theirs = mask_to_rings(crop_mask(whole), **options), mask_to_rings(MaskWindow(whole), **options)
    assert len(ours) == len(theirs)
    assert all(map(np.array_equal, ours, theirs))
    moved = mask_to_rings(MaskWindow(mask, top, left), **options)
    own = mask_to_rings(MaskWindow(mask), **options)
    assert all(np.array_equal(a, b + np.array([left, top])) for a, b in zip(moved, own, strict=True))


@pytest.mark.parametrize("mask", [np.zeros((5, 4), bool), np.zeros((0, 0), bool), np.zeros((0, 7), bool)])
@pytest.mark.parametrize("convention", ["edges", "centers"])
def test_an_empty_mask_has_no_polygons(mask, convention):
    for window in (crop_mask(mask), MaskWindow(mask)):
        assert mask_to_polygons(window, convention=convention) == []
        assert mask_to_rings(window, convention=convention, single=True) == []
        assert polygon_iou_loss([], window, convention=convention) == 0
    assert not clean_mask(mask, fill_holes=True, largest_component=True, min_component_area=5).any()


def test_a_full_mask_is_its_corners():
    (ring,) = mask_to_rings(MaskWindow(np.ones((4, 6), bool)))
    assert sorted(map(tuple, ring.tolist())) == [(0, 0), (0, 4), (6, 0), (6, 4)]
    (ring,) = mask_to_rings(MaskWindow(np.ones((4, 6), bool)), convention="centers")
    assert sorted(map(tuple, ring.tolist())) == [(0.5, 0.5), (0.5, 3.5), (5.5, 0.5), (5.5, 3.5)]


def test_thin_parts_have_an_area():
    (ring,) = mask_to_rings(MaskWindow(ONE, 3, 5), convention="centers")
    assert sorted(map(tuple, ring.tolist())) == [(5.25, 3.25), (5.25, 3.75), (5.75, 3.25), (5.75, 3.75)]


@given(masks, conventions, tolerances)
def test_parts_without_holes_are_the_same_rings(mask, convention, tolerance):
    how = {"tolerance": tolerance, "convention": convention}
    polygons = mask_to_polygons(crop_mask(mask), **how)
    rings = mask_to_rings(crop_mask(mask), **how)
    for polygon, ring in zip(polygons, rings, strict=True):
        assert np.array_equal(polygon.outer, ring) or polygon.holes


# --- simplification ---------------------------------------------------------------------------------------------------


@given(masks, st.sampled_from([0.3, 1.0, 3.0]), conventions)
def test_points_are_never_further_away_than_the_tolerance(mask, tolerance, convention):
    window = crop_mask(mask)
    exact = mask_to_polygons(window, convention=convention)
    # OpenCV measures from the straight line through two points, and in the end removes single points once more.
    for own, before in zip(mask_to_polygons(window, tolerance=tolerance, convention=convention), exact, strict=True):
        assert len(own.outer) <= len(before.outer)
        line = own.outer.astype(np.float32)
        for point in before.outer.tolist():
            assert abs(cv2.pointPolygonTest(line, point, True)) <= tolerance * 1.5 + 1e-4


def test_a_tolerance_removes_points_of_a_large_disc():
    rows, columns = np.mgrid[:200, :200]
    window = MaskWindow(np.hypot(rows - 99.5, columns - 99.5) < 90)
    counts = [len(mask_to_rings(window, tolerance=t)[0]) for t in (0, 0.6, 1, 2)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 4 * counts[2]
    assert polygon_iou_loss(mask_to_rings(window, tolerance=1), window) < 0.01


def test_small_parts_keep_their_shape_at_a_large_tolerance():
    window = MaskWindow(np.ones((3, 3), bool))
    assert polygon_iou_loss(mask_to_rings(window, tolerance=50), window) == 0


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_ends_of_thin_lines_stay(joined, turned):
    """Also in versions of OpenCV that would remove them."""
    mask = np.zeros((60, 40), bool)
    mask[5:30, 10:30] = True
    mask[30:55, 29] = mask[3, 2:10] = mask[4, 10] = True
    if joined:
        mask[10:20, 15:25] = False
        mask[50:55, 3:9] = True
    mask = mask.T if turned else mask
    rings = mask_to_rings(MaskWindow(mask), tolerance=1, convention="centers", single=joined)
    points = {tuple(point) for ring in rings for point in ring.tolist()}
    ends = {(29.5, 54.5), (2.5, 3.5)}
    assert {end[::-1] for end in ends} <= points if turned else ends <= points


def test_bridges_of_a_simplified_mask_have_no_width():
    rows, columns = np.mgrid[:120, :160]
    mask = np.hypot(rows - 60, columns - 70) < 55
    for top, left, radius in ((50, 50, 9), (70, 90, 14), (85, 52, 6)):
        mask &= np.hypot(rows - top, columns - left) > radius
    mask |= np.hypot(rows - 20, columns - 145) < 12
    (joined,) = mask_to_rings(MaskWindow(mask), tolerance=1, single=True)
    apart = [ring for p in mask_to_polygons(MaskWindow(mask), tolerance=1) for ring in (p.outer, *p.holes)]
    assert abs(area(joined)) == pytest.approx(abs(sum(map(area, apart))), rel=0.02)
    assert iou(read_as_coco([joined], *mask.shape), mask) > 0.98
    holes = ~mask & (np.hypot(rows - 60, columns - 70) < 55)
    assert not read_as_coco([joined], *mask.shape)[cv2.erode(holes.astype(np.uint8), np.ones((5, 5))) > 0].any()


# --- loss -------------------------------------------------------------------------------------------------------------


@given(masks, masks, conventions)
def test_the_loss_is_one_minus_iou(mask, other, convention):
    """Also where the rings reach beyond the mask."""
    height, width = np.maximum(mask.shape, other.shape)
    mask = np.pad(mask, ((0, height - mask.shape[0]), (0, width - mask.shape[1])))
    rings = mask_to_rings(crop_mask(other), tolerance=0.4, convention=convention)
    drawn = READERS[convention](rings, height, width)
    assert np.array_equal(rasterize_rings(rings, height, width, convention=convention), drawn)
    assert polygon_iou_loss(rings, crop_mask(mask), convention=convention) == pytest.approx(1 - iou(drawn, mask))


def test_many_rings_are_filled_in_groups(monkeypatch):
    monkeypatch.setattr(polygons_module, "_MERGED", 3)
    assert np.array_equal(rasterize_rings(mask_to_rings(MaskWindow(DOTS)), 9, 9), DOTS)


# --- cleaning ---------------------------------------------------------------------------------------------------------


def parts_of(mask: np.ndarray) -> list[np.ndarray]:
    """The parts of a mask, flooded pixel by pixel."""
    left, found = set(zip(*np.nonzero(mask), strict=True)), []
    while left:
        todo, part = [left.pop()], np.zeros(mask.shape, bool)
        while todo:
            y, x = todo.pop()
            part[y, x] = True
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            todo += near
        found.append(part)
    return found


def filled(mask: np.ndarray) -> np.ndarray:
    """The mask and all that the outside cannot reach over shared edges."""
    outside = np.pad(~mask, 1, constant_values=True)
    reached = np.zeros_like(outside)
    reached[0, 0] = True
    while True:
        more = reached.copy()
        more[1:] |= reached[:-1]
        more[:-1] |= reached[1:]
        more[:, 1:] |= reached[:, :-1]
        more[:, :-1] |= reached[:, 1:]
        more &= outside
        if (more == reached).all():
            return ~reached[1:-1, 1:-1]
        reached = more


@given(masks, st.booleans(), st.booleans(), st.sampled_from([0, 1, 2.5, 6, 1000]))
@example(NESTED, True, False, 0)
@example(DOTS, False, True, 0)
def test_cleaning_is_what_it_says(mask, fill_holes, largest, least):
    before = mask.copy()
    cleaned = clean_mask(mask, fill_holes=fill_holes, largest_component=largest, min_component_area=least)
    assert np.array_equal(mask, before)
    assert cleaned.dtype == bool
    expected = filled(mask) if fill_holes else mask
    kept = [part for part in parts_of(expected) if part.sum() >= least]
    if largest and kept:
        most = max(part.sum() for part in kept)
        assert any(np.array_equal(cleaned, part) for part in kept if part.sum() == most)
    else:
        assert np.array_equal(cleaned, np.any([np.zeros(mask.shape, bool), *kept], axis=0))


def test_cleaning_takes_masks_that_are_not_contiguous():
    mask = np.asfortranarray(NESTED)
    assert np.array_equal(clean_mask(mask, fill_holes=True), filled(NESTED))
    assert np.array_equal(crop_mask(NESTED[::2, ::-1]).pixels, crop_mask(NESTED[::2, ::-1].copy()).pixels)


# --- hostile masks ----------------------------------------------------------------------------------------------------

SIDE = 128


@pytest.mark.parametrize("convention", ["edges", "centers"])
@pytest.mark.parametrize(
    "make",
    [
        lambda y, x: (y + x) % 2 == 0,  # one part, thousands of holes
        lambda y, x: (y % 2 == 0) & (x % 2 == 0),  # thousands of parts
        lambda y, x: (y % 2 == 0) | (x % 2 == 0),
        lambda y, x: (x % 2 == 0) | (y == 0),  # a comb: one long ring
        lambda y, x: np.random.default_rng(0).random(y.shape) < 0.5,
    ],
    ids=["checkers", "dots", "grid", "comb", "noise"],
)
def test_masks_of_many_rings_take_bounded_time(make, convention):
    mask = make(*np.mgrid[:SIDE, :SIDE])
    started = time.process_time()
    rings = mask_to_rings(MaskWindow(mask), tolerance=1, convention=convention, single=True)
    assert time.process_time() - started < 10
    assert len(rings) == 1
    assert polygon_iou_loss(rings, MaskWindow(mask), convention=convention) < 0.6
    (exact,) = mask_to_rings(MaskWindow(mask), single=True)
    assert np.array_equal(rasterize_rings([exact], SIDE, SIDE), mask)


def test_long_rings_are_simplified_in_pieces(monkeypatch):
    mask = np.mgrid[:60, :60][1] % 3 > 0
    mask[0] = True
    whole = mask_to_rings(MaskWindow(mask))
    monkeypatch.setattr(polygons_module, "_PIECE", 16)
    assert np.array_equal(read_as_coco(mask_to_rings(MaskWindow(mask), tolerance=0.2), 60, 60), mask)
    assert len(mask_to_rings(MaskWindow(mask), tolerance=0.2)[0]) <= len(whole[0])


def test_a_mask_whose_points_do_not_fit_is_refused():
    huge = np.broadcast_to(np.zeros((1, 1), bool), (1, 2**28))
    with pytest.raises(SynthgenError, match="1 x 268435456"):
        mask_to_polygons(MaskWindow(huge))


# --- human masks ------------------------------------------------------------------------------------------------------


@cache
def human_masks(folder: Path) -> tuple[Rle, ...]:
    """The masks of every fourth annotation of COCO's excerpt."""
    content = json.loads((folder / "annotations/instances_train2017.json").read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    rles = [rle_from_coco(a["segmentation"], *sizes[a["image_id"]]) for a in content["annotations"][::4]]
    return tuple(rles)


def test_human_masks_come_back(shared):
    for rle in human_masks(shared("data/coco128")):
        window = decode_mask_window(rle)
        for convention in ("edges", "centers"):
            rings = mask_to_rings(window, convention=convention)
            assert polygon_iou_loss(rings, window, convention=convention) == 0
        assert encode_mask(read_as_coco(mask_to_rings(window, single=True), *rle.size)) == rle


@pytest.mark.parametrize(("tolerance", "mean", "least"), [(0, 0.995, 0.5), (1, 0.975, 0.5)])
def test_yolo_reads_human_masks(shared, tolerance, mean, least):
    """The mean and the least IoU. The least is that of parts with a long way between them."""
    ious = []
    for rle in human_masks(shared("data/coco128")):
        window = decode_mask_window(rle)
        (ring,) = mask_to_rings(window, tolerance=tolerance, convention="centers", single=True)
        ious.append(iou(read_as_yolo(ring, *rle.size), decode_mask(rle)))
    assert np.mean(ious) > mean
    assert min(ious) > least


def test_polygons_are_frozen_records():
    (polygon,) = mask_to_polygons(MaskWindow(RING))
    assert isinstance(polygon, Polygon)
    assert len(polygon.holes) == 1
