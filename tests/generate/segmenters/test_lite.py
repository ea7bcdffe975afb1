"""The segmenter `lite`: its options, its weights, and masks that do not depend on the batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fakes.segmenter_inputs import box_array, draw_ellipse, random_boxes, segment_one
from fakes.tiny_lite import write_weights

from synthgen import plugins
from synthgen.errors import SynthgenError
from synthgen.generate.segmenters.lite import LiteOptions, LiteSegmenter, build, resolve_options
from synthgen.models.box_segmenter.weights import TRAINED_WEIGHTS
from synthgen.records.rle import check_rle, decode_mask
from synthgen.weights import cached_file_sha256

pytestmark = pytest.mark.usefixtures("one_thread")
PLUGIN_PACKAGE = "generate.segmenters"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("lite"))


def make(weights: Path, **options: object) -> LiteSegmenter:
    found = build(LiteOptions(checkpoint=str(weights), device="cpu", **options))  # type: ignore[arg-type]
    assert isinstance(found, LiteSegmenter)
    return found


def test_a_mask_for_each_box_with_soft_iou_and_stability(weights: Path) -> None:
    image, boxes = draw_ellipse(60, 80), random_boxes(5, 60, 80)
    for box, found in zip(boxes, segment_one(make(weights), image, boxes), strict=True):
        check_rle(found.rle)
        mask = decode_mask(found.rle)
        x1, y1 = np.floor(box[:2]).astype(int)
        x2, y2 = np.ceil(box[2:]).astype(int)
        assert mask[y1:y2, x1:x2].sum() == mask.sum() > 0
        assert found.predicted_iou is None
        assert 0 <= found.soft_iou <= 1 and 0 <= found.stability_score <= 1


def test_masks_do_not_depend_on_images_and_boxes_in_a_batch(weights: Path) -> None:
    images = [draw_ellipse(60, 80), draw_ellipse(33, 47, 1), draw_ellipse(100, 20, 2)]
    boxes = [random_boxes(5, 60, 80), box_array(), random_boxes(3, 100, 20)]
    together = list(make(weights).segment(images, boxes))
    one_crop = make(weights, box_chunk=1)
    for image, own, found in zip(images, boxes, together, strict=True):
        alone = segment_one(one_crop, image, own)
        assert [p.rle for p in alone] == [p.rle for p in found]
        for a, b in zip(alone, found, strict=True):
            assert a.soft_iou == pytest.approx(b.soft_iou, abs=1e-5)


def test_the_recipe_has_the_digest_of_the_weights(weights: Path) -> None:
    own = resolve_options(LiteOptions(checkpoint=str(weights)))
    assert own.weights == cached_file_sha256(weights)
    assert resolve_options(own) == own


def test_a_crop_in_half_precision_gives_almost_the_same_masks(weights: Path) -> None:
    image, boxes = draw_ellipse(60, 80), random_boxes(6, 60, 80)
    plain, half = (segment_one(make(weights, precision=name), image, boxes) for name in ("fp32", "bf16"))
    for a, b in zip(plain, half, strict=True):
        one, other = decode_mask(a.rle), decode_mask(b.rle)
        assert (one & other).sum() > 0.8 * (one | other).sum()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"checkpoint": "missing.safetensors"}, "missing.safetensors: it cannot be read"),
        ({"device": "gpu"}, "--device gpu should be auto, cpu, cuda"),
        ({"precision": "fp16"}, "--precision fp16 should be fp32 or bf16"),
    ],
)
def test_wrong_options_are_refused_where_the_job_begins(options: dict[str, str], sentence: str) -> None:
    with pytest.raises(SynthgenError, match=sentence):
        plugins.resolve_options(PLUGIN_PACKAGE, "lite", options)


def test_other_weights_than_the_recipe_names_are_refused(weights: Path) -> None:
    with pytest.raises(SynthgenError, match=r"asks for another checkpoint than lite\.safetensors"):
        resolve_options(LiteOptions(checkpoint=str(weights), weights="0" * 64))


def test_without_a_checkpoint_the_packaged_weights_draw(weights: Path) -> None:
    """A recipe names them by their digest, and not by a path, which may be another one on a worker."""
    own = resolve_options(LiteOptions(device="cpu"))
    assert (own.checkpoint, own.weights) == ("", cached_file_sha256(TRAINED_WEIGHTS))
    image = draw_ellipse(240, 320)
    (drawn,) = segment_one(build(own), image, box_array((80, 60, 240, 180)))
    assert drawn.soft_iou is not None
    with pytest.raises(SynthgenError, match=r"asks for another checkpoint than lite_coco\.safetensors"):
        resolve_options(LiteOptions(weights="0" * 64))


@pytest.mark.gpu
def test_a_gpu_draws_the_masks_of_the_cpu(weights: Path) -> None:
    image, boxes = draw_ellipse(600, 800), random_boxes(40, 600, 800)
    cpu = segment_one(make(weights), image, boxes)
    gpu = segment_one(build(LiteOptions(checkpoint=str(weights), device="cuda")), image, boxes)
    for a, b in zip(cpu, gpu, strict=True):
        one, other = decode_mask(a.rle), decode_mask(b.rle)
        assert (one & other).sum() > 0.98 * (one | other).sum()
