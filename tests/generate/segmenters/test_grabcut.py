"""The segmenter `grabcut`: masks, stability scores, threads, early closing, memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
from fakes.segmenter_inputs import box_array, draw_ellipse, random_boxes, segment_one

from synthgen import plugins
from synthgen.generate.segmenters import grabcut
from synthgen.records.rle import encode_mask, rle_area, rle_iou

PLUGIN_PACKAGE = "generate.segmenters"


def test_finds_a_disc():
    image = draw_ellipse(240, 320)
    y, x = np.mgrid[0:1:240j, 0:1:320j]
    truth = encode_mask(np.hypot(y - 0.5, x - 0.5) < 0.2)
    (prediction,) = segment_one(grabcut.build(), image, box_array((96, 72, 224, 168)))
    assert rle_iou([prediction.rle], [truth])[0, 0] > 0.93
    assert prediction.predicted_iou is None
    assert prediction.stability_score > 0.85


def test_an_unsure_mask_is_scored_less_stable_than_a_sure_one():
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    (unsure,) = segment_one(grabcut.build(), noise, box_array((96, 72, 224, 168)))
    (sure,) = segment_one(grabcut.build(), draw_ellipse(240, 320), box_array((96, 72, 224, 168)))
    assert unsure.stability_score < sure.stability_score - 0.1


def test_threads_and_what_ran_before_do_not_change_a_byte():
    rng = np.random.default_rng(5)
    images = [rng.integers(0, 256, (120, 90, 3), np.uint8), draw_ellipse(100, 140), draw_ellipse(64, 64, 7)]
    prompts = [random_boxes(10, *image.shape[:2], seed=i) for i, image in enumerate(images)]
    first = list(grabcut.build(grabcut.GrabCutOptions(threads=1)).segment(images, prompts))
    assert sum(rle_area(p.rle) > 0 for own in first for p in own) > 20  # else equality would say little
    cv2.setRNGSeed(12345)
    assert list(grabcut.build(grabcut.GrabCutOptions(threads=4)).segment(images, prompts)) == first
    backwards = grabcut.build(grabcut.GrabCutOptions(threads=4)).segment(images[::-1], [p[::-1] for p in prompts[::-1]])
    assert [own[::-1] for own in backwards][::-1] == first
    assert list(grabcut.build(grabcut.GrabCutOptions(threads=3, batch_size=1)).segment(images, prompts)) == first


def test_closing_early_stops_the_work():
    images, prompts = [draw_ellipse()] * 40, [random_boxes(4, 60, 80)] * 40
    done = []
    segmenter = grabcut.build(grabcut.GrabCutOptions(threads=2))
    predict = segmenter._predict
    segmenter._predict = lambda image, box: done.append(0) or predict(image, box)
    found = segmenter.segment(images, prompts)
    next(found)
    found.close()
    assert len(done) < 80


@pytest.mark.parametrize("shape", [(100, 40_000), (40_000, 100)])
def test_images_longer_than_a_short_integer(shape):
    image = np.zeros((*shape, 3), np.uint8)
    whole = box_array((0, 0, shape[1], shape[0]))
    (prediction,) = segment_one(grabcut.build(), image, whole)
    assert rle_area(prediction.rle) > 0


def test_a_large_box_costs_a_few_bytes_a_pixel():
    image = draw_ellipse(3000, 4000)
    tracemalloc.start()
    (prediction,) = segment_one(grabcut.build(), image, box_array((100, 100, 3900, 2900)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rle_area(prediction.rle) > 0
    assert peak < 6 * 3000 * 4000


def test_beats_the_box_on_human_masks(shared):
    from pycocotools.coco import COCO

    from synthgen.images.decode import load_rgb
    from synthgen.records.sample import Rle

    root: Path = shared("data/coco_tiny")
    coco = COCO(str(root / "annotations/instances_val2017.json"))
    ious: dict[str, list[float]] = {"grabcut": [], "box_fill": []}
    for key in sorted(coco.imgs)[:16]:
        image = load_rgb(root / "val2017" / coco.imgs[key]["file_name"])
        human = [a for a in coco.imgToAnns[key] if not a["iscrowd"]]
        prompts = box_array(*[(x, y, x + w, y + h) for x, y, w, h in (a["bbox"] for a in human)])
        prompts = np.clip(prompts, 0, [*image.shape[1::-1], *image.shape[1::-1]]).astype(np.float32)
        for name, scores in ious.items():
            for prediction, truth in zip(
                segment_one(plugins.build_plugin(PLUGIN_PACKAGE, name, {}), image, prompts), human, strict=True
            ):
                rle = Rle(image.shape[:2], coco.annToRLE(truth)["counts"])
                scores.append(rle_iou([prediction.rle], [rle])[0, 0])
    assert len(ious["grabcut"]) > 80
    assert np.mean(ious["grabcut"]) > np.mean(ious["box_fill"]) + 0.05
