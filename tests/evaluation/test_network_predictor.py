"""`Predictor`: the objects of `synthgen predict`, as data; loaded once; wrong arguments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import eval_dataset
from PIL import Image

import synthgen as sg
from synthgen.errors import ArgumentError, SynthgenError
from synthgen.evaluation.predictor import predict_file
from synthgen.records.boxes import xyxy_to_xywh


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    monkeypatch.chdir(tmp_path)
    eval_dataset.write_eval_dataset(tmp_path, images=1)
    eval_dataset.write_checkpoint(tmp_path / "best.pt")


def load(**options: Any) -> sg.Predictor:
    return sg.Predictor.from_checkpoint("best.pt", device="cpu", short=64, **options)


def test_the_objects_are_those_of_the_file() -> None:
    predictor = load()
    for prompts in (["a red ball", " grass ", "a red ball"], []):
        done = predict_file(Path("photos/1.png"), prompts, Path("best.pt"), threshold=0.3, device="cpu", short=64)
        written = json.loads(done.json_path.read_text())["found"]
        found = predictor("photos/1.png", prompts, threshold=0.3)
        assert len(found) > 3
        assert [(one.text, one.score) for one in found] == [(one["text"], one["score"]) for one in written]
        for one, record in zip(found, written, strict=True):
            assert xyxy_to_xywh(one.box_xyxy).tolist() == record["bbox"]
            assert one.rle is not None and one.rle.counts.decode() == record["segmentation"]["counts"]
            assert one.mask is not None and one.mask.dtype == np.bool_ and one.mask.shape == (72, 120)


def test_an_image_is_an_array_a_picture_or_a_path() -> None:
    predictor = load()
    with Image.open("photos/1.png") as image:
        results = [predictor(one, ["ball"]) for one in ("photos/1.png", Path("photos/1.png"), image, np.asarray(image))]
    assert results[0] and all(result == results[0] for result in results)


def test_the_threshold_is_a_minimum() -> None:
    predictor = load()
    every = predictor("photos/1.png", ["ball"], threshold=0)
    least = sorted(one.score for one in every)[len(every) // 2]
    assert predictor("photos/1.png", ["ball"], threshold=least) == [one for one in every if one.score >= least]
    assert predictor("photos/1.png", ["ball"], threshold=1) == []


def write_sizes() -> list[str]:
    """Three images of one size, and two of others."""
    first = Image.open("photos/1.png")
    for name, image in (
        ("2", first.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
        ("3", first.resize((90, 90))),
        ("4", first.transpose(Image.Transpose.FLIP_TOP_BOTTOM)),
        ("5", first.resize((121, 72))),
    ):
        image.save(f"photos/{name}.png")
    return [f"photos/{number}.png" for number in range(1, 6)]


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_a_batch_finds_what_single_images_find(batch_size: int) -> None:
    predictor, paths = load(), write_sizes()
    found = predictor.predict_batch(paths, ["ball", "grass"], threshold=0.3, batch_size=batch_size)
    assert len(found) == 5
    for path, own in zip(paths, found, strict=True):
        alone = predictor(path, ["ball", "grass"], threshold=0.3)
        assert len(own) == len(alone) > 0
        for one, other in zip(own, alone, strict=True):
            assert (one.text, one.query) == (other.text, other.query)
            assert one.score == pytest.approx(other.score, abs=1e-4)
            assert one.box_xyxy == pytest.approx(other.box_xyxy, abs=1e-2)
            assert one.mask is not None and other.mask is not None and (one.mask != other.mask).sum() <= 3
    assert predictor.predict_batch([], ["ball"]) == []


def test_no_image_of_a_batch_is_padded_to_another() -> None:
    predictor = load()
    pixels = [np.zeros((72, 120, 3), np.uint8), np.zeros((72, 121, 3), np.uint8)]
    with pytest.raises(ValueError, match="images of several input sizes in one batch"):
        predictor.look_batch(pixels, ["ball"])
    assert predictor.input_size((72, 120)) == (64, 107)


def test_the_kind_of_query_is_told() -> None:
    found = load()("photos/1.png", ["ball", "grass"], threshold=0)
    assert {one.query for one in found} == {"conditional", "learnable"}


@pytest.mark.parametrize(
    ("images", "options", "sentence"),
    [
        ("photos/1.png", {}, r"images='photos/1\.png' is not valid; give a list of images"),
        (np.zeros((4, 4, 3), np.uint8), {}, r"is not valid; give a list of images"),
        (3, {}, r"images=3 is not valid"),
        (["none.png"], {}, r"image 'none\.png' does not exist"),
        (["photos/1.png"], {"batch_size": 0}, r"batch_size=0 is not valid; give a number of images"),
        (["photos/1.png"], {"threshold": 2}, r"threshold=2 is not valid"),
    ],
)
def test_each_wrong_argument_of_a_batch_has_its_sentence(images: Any, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ArgumentError, match=sentence):
        load().predict_batch(images, ["ball"], **options)


@pytest.mark.parametrize(
    ("prompts", "threshold", "sentence"),
    [
        ("ball", 0.5, r"prompts='ball' is one text; give a list of prompts"),
        (["ball", " "], 0.5, r"prompts=\['ball', ' '\] has an entry that is not a text or is empty"),
        ([3], 0.5, r"prompts=\[3\] has an entry"),
        (None, 0.5, r"prompts=None is not valid; give a list of prompts"),
        (["ball"], 2, r"threshold=2 is not valid; give a number from 0 to 1"),
        (["ball"], float("nan"), r"threshold=nan is not valid"),
        (["ball"], "0.5", r"threshold='0\.5' is not valid"),
    ],
)
def test_each_wrong_argument_has_its_sentence(prompts: Any, threshold: Any, sentence: str) -> None:
    with pytest.raises(ArgumentError, match=sentence):
        load()("photos/1.png", prompts, threshold=threshold)


def test_prompts_may_be_an_iterator_and_the_threshold_a_number_of_numpy() -> None:
    predictor = load()
    want = predictor("photos/1.png", ["ball", "grass"], threshold=0.5)
    found = predictor("photos/1.png", (text for text in ["ball", "grass"]), threshold=np.float32(0.5))  # type: ignore[arg-type]
    assert want and found == want
    assert len(repr(found[0])) < 200, "a notebook shows no run lengths"
    assert repr(predictor).endswith(f"{len(eval_dataset.CATEGORIES)} learned names>")


def test_a_network_without_names_needs_prompts() -> None:
    eval_dataset.write_checkpoint(Path("best.pt"), names=())
    with pytest.raises(SynthgenError, match=r"has learned no names of categories, only phrases; give prompts"):
        load()("photos/1.png")
    assert isinstance(load()("photos/1.png", ["ball"]), list)


@pytest.mark.parametrize(
    ("path", "options", "sentence"),
    [
        ("photos/1.png", {}, r"photos/1\.png"),
        (3, {}, r"path=3 is not a path"),
        ("", {}, r"path='' is empty"),
        ("best.pt", {"text_encoder": 3}, r"text_encoder=3 is not a path"),
        ("best.pt", {"text_encoder": Path("none")}, r"no folder .*/none|/none"),
        ("best.pt", {"device": 3}, r"--device 3 should be"),
        ("best.pt", {"precision": 16}, r"--precision 16 should be fp32 or bf16"),
        ("best.pt", {"short": 0}, r"short=0 is not valid; give a number of pixels"),
        ("best.pt", {"long": "90"}, r"long='90' is not valid"),
        ("best.pt", {"device": "gpu"}, r"--device gpu should be"),
        ("best.pt", {"precision": "int8"}, r"--precision int8 should be"),
        ("best.pt", {"short": 90, "long": 60}, r"--short 90 is more than --long 60"),
    ],
)
def test_each_wrong_checkpoint_or_option_has_its_sentence(path: Any, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SynthgenError, match=sentence):
        sg.Predictor.from_checkpoint(path, **{"device": "cpu", **options})
