"""`Segmenter` and `Captioner`: the results of the commands, on one image; wrong images, boxes, names and options."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import coco_dataset, tiny_ofa
from PIL import Image

import synthgen as sg
from synthgen.errors import ArgumentError, SynthgenError
from synthgen.records.rle import decode_mask

BOXES = [[10, 12, 40, 50], [30.5, 20.25, 80, 70]]


@pytest.fixture(autouse=True)
def _no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SYNTHGEN_WEIGHTS", str(tmp_path / "no weights"))


def drawn(height: int = 72, width: int = 96) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    image = np.full((height, width, 3), 40, np.uint8)
    image[((x - 30) / 18) ** 2 + ((y - 32) / 20) ** 2 < 1] = (220, 60, 30)
    return image


def boxes_xyxy(sample: sg.Sample) -> list[tuple[float, float, float, float]]:
    return [(x, y, x + w, y + h) for x, y, w, h in (a.bbox for a in sample.annotations)]


# --- segmenters ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["grabcut", "box-fill", "box_fill"])
def test_masks_are_those_of_a_layer(tmp_path: Path, name: str) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=3)
    layer = sg.generate_masks("boxes.json", images="photos", segmenter=name).load()
    segmenter = sg.Segmenter(name)
    for sample in layer:
        path = Path("photos", sample.file_name)
        for image in (path, str(path), sample.image(), Image.open(path)):
            masks = segmenter.predict(image, boxes_xyxy(sample))
            assert [mask.rle for mask in masks] == [a.segmentation for a in sample.annotations]
            scores = [(m.predicted_iou, m.stability_score, m.soft_iou, m.box_iou, m.source) for m in masks]
            assert scores == [
                (a.predicted_iou, a.stability_score, a.soft_iou, a.box_iou, a.mask_source) for a in sample.annotations
            ]


def test_a_mask_is_pixels_of_the_image_with_its_prompt() -> None:
    first, second = sg.Segmenter("box_fill").predict(drawn(), BOXES)
    assert first.mask.dtype == np.bool_ and first.mask.shape == (72, 96)
    wanted = np.zeros((72, 96), np.bool_)
    wanted[12:50, 10:40] = True
    assert np.array_equal(first.mask, wanted)
    assert first.area == 38 * 30 and first.box_iou == 1.0
    assert (first.box_xyxy, second.box_xyxy) == ((10.0, 12.0, 40.0, 50.0), (30.5, 20.25, 80.0, 70.0))
    assert np.array_equal(decode_mask(first.rle), first.mask)
    with pytest.raises(FrozenInstanceError):
        first.source = ""  # type: ignore[misc]


@pytest.mark.parametrize(
    "boxes", [BOXES, tuple(map(tuple, BOXES)), *(np.array(BOXES).astype(kind) for kind in (np.float64, "f4", "i8"))]
)
def test_boxes_are_any_array_of_numbers(boxes: Any) -> None:
    assert len(sg.Segmenter("box_fill").predict(drawn(), boxes)) == 2


@pytest.mark.parametrize("boxes", [[], np.zeros((0, 4)), np.zeros(0)])
def test_no_boxes_give_no_masks(boxes: Any) -> None:
    assert sg.Segmenter("grabcut").predict(drawn(), boxes) == []
    assert sg.Captioner("attributes").predict(drawn(), boxes) == []


def test_a_box_is_clipped_to_the_image() -> None:
    (mask,) = sg.Segmenter("box_fill").predict(drawn(), [[-20, -5, 1000, 30]])
    assert mask.box_xyxy == (0.0, 0.0, 96.0, 30.0)
    assert mask.area == 96 * 30


def test_the_order_of_the_boxes_is_kept() -> None:
    segmenter = sg.Segmenter("grabcut")
    forward, backward = (segmenter.predict(drawn(), boxes) for boxes in (BOXES, BOXES[::-1]))
    assert forward == backward[::-1]


def test_a_mask_of_nothing_is_empty() -> None:
    (mask,) = sg.Segmenter("fakes.empty_segmenter").predict(drawn(), BOXES[:1])
    assert mask.area == 0 and not mask.mask.any() and mask.mask.shape == (72, 96)
    assert mask.box_iou == 0 and mask.predicted_iou is None


def test_options_are_resolved_and_auto_says_its_choice() -> None:
    named = sg.Segmenter("grabcut", margin="0.5")
    assert named.options["margin"] == 0.5 and named.options["side"] > 0
    assert (named.name, named.choice, repr(named)) == ("grabcut", "", "<Segmenter grabcut>")
    chosen = sg.Captioner("auto")
    assert chosen.name == "attributes" and chosen.choice.startswith("captioner: attributes, because ")


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("grabct", {}, r"no segmenter named 'grabct'; did you mean 'grabcut'\?"),
        ("grabcut", {"marg": 0.2}, r"'grabcut' takes side, margin.*; got 'marg'; did you mean 'margin'\?"),
        ("box_fill", {"variant": "vit_b"}, r"got 'variant'; it is an option of sam"),
        ("grabcut", {"margin": "wide"}, r"option 'margin' of 'grabcut' should be a number, got 'wide'"),
        ("no.such.module", {}, r"no module 'no\.such\.module' to take a segmenter from"),
        (7, {}, r"name=7 is not a text; give the name of a plugin, or 'auto'"),
    ],
)
def test_each_wrong_segmenter_has_its_sentence(name: Any, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SynthgenError, match=sentence):
        sg.Segmenter(name, **options)


@pytest.mark.parametrize(
    ("image", "boxes", "sentence"),
    [
        (drawn(), [[1, 2, 3]], r"boxes_xyxy has the shape \[1, 3\]"),
        (drawn(), [[40, 12, 10, 50]], r"boxes_xyxy\[0\] = \[40\.0, 12\.0, 10\.0, 50\.0\] has no area"),
        (drawn().astype(np.float32), BOXES, r"image has the type float32"),
        ("nowhere.png", BOXES, r"image 'nowhere\.png' does not exist"),
    ],
)
def test_each_wrong_argument_has_its_sentence(image: Any, boxes: Any, sentence: str) -> None:
    for annotator in (sg.Segmenter("box_fill"), sg.Captioner("attributes")):
        with pytest.raises(ArgumentError, match=sentence):
            annotator.predict(image, boxes)


@pytest.mark.parametrize("wrong", ["size", "too_few", "nan", "none", "no_rle_text"])
def test_what_a_segmenter_must_not_return_is_an_error(wrong: str) -> None:
    image = drawn()
    image[0, 0] = (255, 0, 0)
    segmenter = sg.Segmenter("fakes.misbehaving_segmenter", wrong=wrong)
    with pytest.raises(
        SynthgenError, match=r"plugin 'fakes\.misbehaving_segmenter' returned what its protocol forbids"
    ):
        segmenter.predict(image, BOXES)
    image[0, 0] = 0
    assert len(segmenter.predict(image, BOXES)) == 2, "the next image is not affected"


# --- captioners ------------------------------------------------------------------------------------------------------


def test_captions_are_those_of_a_layer(tmp_path: Path) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=3)
    layer = sg.generate_captions("boxes.json", images="photos", captioner="attributes", top_k=3).load()
    captioner = sg.Captioner("attributes", top_k=3)
    for sample in layer:
        names = [a.category for a in sample.annotations]
        found = captioner.predict(sample.image(), boxes_xyxy(sample), names)
        assert found == [list(a.captions) for a in sample.annotations]
        assert all(0 < len(own) <= 3 for own in found)


def test_a_captioner_with_weights_sees_the_box(tmp_path: Path) -> None:
    folder = tiny_ofa.checkpoint(tmp_path / "ofa")
    captioner = sg.Captioner(
        "ofa", checkpoint=str(folder), device="cpu", side=tiny_ofa.SIDE, max_length=8, top_k=2, forbidden="x"
    )
    assert captioner.name == "ofa" and captioner.stage_options == {"top_k": 2, "forbidden": "x"}
    found = captioner.predict(drawn(), BOXES)
    assert len(found) == 2 and all(len(own) <= 2 for own in found)
    assert all(caption.source.startswith("ofa") for own in found for caption in own)
    scores = [[caption.score for caption in own] for own in found]
    assert scores == [sorted(own, reverse=True) for own in scores]


def test_categories_are_checked_and_used() -> None:
    captioner = sg.Captioner("attributes")
    (own,) = captioner.predict(drawn(), BOXES[:1], ["ball"])
    assert own[0].text.endswith("ball") or "ball" in own[0].text
    assert own[0].category_match is True
    for wrong in (["ball", "cup"], [], "b", [3]):
        with pytest.raises(ArgumentError, match=r"categories=.* is not valid; give a list of 1 names"):
            captioner.predict(drawn(), BOXES[:1], wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"top_k": 0}, r"top_k=0 is not valid; give a whole number of at least 1"),
        ({"min_score": 1.0}, r"min_score=1\.0 is not valid; give a number of at most 0"),
        ({"forbidden": 3}, r"forbidden=3 is not valid"),
        ({"forbidden": "none.txt"}, r"no file none\.txt"),
        ({"num_beams": 3}, r"'attributes' takes batch_size; got 'num_beams'"),
    ],
)
def test_each_wrong_option_of_a_captioner_has_its_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SynthgenError, match=sentence):
        sg.Captioner("attributes", **options)
