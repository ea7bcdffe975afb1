"""Windows around small boxes: their places, and better masks only."""

from __future__ import annotations

import numpy as np
from fakes.sam_segmenters import build_segmenter, draw_image, random_boxes

from synthgen.generate.segmenters._sam_zoom import MIN_WINDOW_SIDE, SMALL_BOX_FRACTION, Crop, is_small, plan_zoom_crops
from synthgen.records.rle import decode_mask


def test_windows_hold_their_boxes_within_the_image():
    for seed in range(30):
        rng = np.random.default_rng(seed)
        height, width = (int(v) for v in rng.integers(65, 700, 2))
        middle = rng.uniform(0, 1, (40, 2)) * [width, height]
        half = rng.uniform(0.5, 0.08 * max(height, width), (40, 2)) / 2
        boxes = np.clip(np.hstack([middle - half, middle + half]), 0, [width, height] * 2).astype(np.float32)
        small = is_small(boxes, height, width)
        crops = plan_zoom_crops(boxes, height, width)
        members = sorted(int(i) for _, own in crops for i in own)
        assert members == np.flatnonzero(small).tolist(), "each small box once"
        assert len(crops) < small.sum(), "near ones share a window"
        for crop, own in crops:
            assert 0 <= crop.top <= crop.top + crop.height <= height
            assert 0 <= crop.left <= crop.left + crop.width <= width
            inside = crop.boxes_to_window(boxes[own])
            assert (inside >= -1e-3).all()
            assert (inside <= np.array([crop.width, crop.height] * 2) + 1e-3).all()
            assert max(crop.size) <= max(MIN_WINDOW_SIDE, 4 * SMALL_BOX_FRACTION * max(height, width) + 1), (
                "enlarged, not reduced"
            )


def test_large_boxes_and_small_images_get_no_window():
    assert plan_zoom_crops(np.array([[0, 0, 100, 100]], np.float32), 200, 200) == []
    assert plan_zoom_crops(np.array([[0, 0, 3, 3]], np.float32), 50, 60) == []


def test_zoom_replaces_masks_of_small_boxes_by_better_ones_only(checkpoints):
    image = draw_image(400, 600, 5)
    boxes = np.concatenate(
        [random_boxes(400, 600, 2, 3), [[100, 100, 130, 125], [110, 130, 125, 160], [500, 10, 520, 40]]]
    )
    boxes = boxes.astype(np.float32)
    (plain,), (zoomed,) = (build_segmenter(checkpoints, zoom=zoom).segment([image], [boxes]) for zoom in (False, True))
    assert plain[:2] == zoomed[:2]
    assert plain[2:] != zoomed[2:]
    segmenter = build_segmenter(checkpoints, zoom=True)
    whole = [Crop(0, 0, 400, 600)]
    (before,) = segmenter._predict_windows([image], [0], whole, [boxes])
    masks = {0: list(before)}
    segmenter._refine_small_boxes([image], [boxes], masks)
    assert all(after.evidence >= first.evidence for first, after in zip(before, masks[0], strict=True))
    for crop, own in plan_zoom_crops(boxes, 400, 600):
        for i in own:
            mask = decode_mask(zoomed[i].rle)
            if zoomed[i] != plain[i]:
                crop.extract(mask)[:] = False
                assert not mask.any(), "nothing beyond the window"
