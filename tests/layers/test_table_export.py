"""`Layer.to_dataframe` and `Layer.to_supervision`; both packages are optional."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from fakes import scored_layers
from pycocotools import mask as coco_mask

from synthgen.errors import SynthgenError
from synthgen.layers.layer import Layer, load_layer
from synthgen.records.rle import decode_mask
from synthgen.records.sample import Annotation, Sample


@dataclass
class FakeDetections:
    """The members of `supervision.Detections` that are set here, with its checks of their shapes."""

    xyxy: np.ndarray
    mask: np.ndarray | None = None
    confidence: np.ndarray | None = None
    class_id: np.ndarray | None = None
    tracker_id: np.ndarray | None = None
    data: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = len(self.xyxy)
        assert self.xyxy.shape == (count, 4)
        assert self.mask is None or (self.mask.ndim == 3 and len(self.mask) == count and self.mask.dtype == bool)
        assert self.class_id is not None and self.class_id.shape == (count,)
        assert all(len(values) == count for values in self.data.values())


@pytest.fixture
def layer(tmp_path: Path) -> Layer:
    samples = scored_layers.make_samples(30)
    last = (scored_layers.not_finite(900, has_mask=True), Annotation(901, (1.0, 2.0, 3.0, 4.0), "fish"))
    samples.append(Sample(31, "toy/31", "0031.png", *scored_layers.SIZE, last))
    scored_layers.commit_layer(tmp_path, samples, sizes=(31,))
    return load_layer(tmp_path / "store", scored_layers.LAYER)


def test_a_dataframe_has_a_row_for_each_annotation(layer: Layer) -> None:
    pandas = pytest.importorskip("pandas")
    frame = layer.to_dataframe()
    assert isinstance(frame, pandas.DataFrame)
    pairs = [(sample, a) for sample in layer for a in sample.annotations]
    assert len(frame) == len(pairs)
    for row, (sample, a) in zip(frame.to_dict("records"), pairs, strict=True):
        assert (row["image_id"], row["annotation_id"], row["category"]) == (sample.image_id, a.id, a.category)
        assert np.array_equal((row["x"], row["y"], row["width"], row["height"]), a.bbox, equal_nan=True)
        assert (row["file_name"], row["image_height"], row["image_width"]) == (sample.file_name, *scored_layers.SIZE)
        assert row["captions"] == tuple(caption.text for caption in a.captions)
        if a.segmentation is None:
            assert row["segmentation"] is None
        else:
            mask = decode_mask(a.segmentation)
            assert row["area"] == mask.sum()
            assert np.array_equal(coco_mask.decode(row["segmentation"]), mask)
    assert frame["stability_score"].max() <= 1
    assert list(layer[:0].to_dataframe().columns) == list(frame.columns)


@pytest.mark.parametrize(("method", "package"), [("to_dataframe", "pandas"), ("to_supervision", "supervision")])
def test_a_missing_package_is_named_with_the_command(
    layer: Layer, monkeypatch: pytest.MonkeyPatch, method: str, package: str
) -> None:
    error = rf"^{method}\(\) needs the package {package}; install it: pip install {package}$"
    monkeypatch.setattr(sys, "meta_path", [_Missing(package), *sys.meta_path])
    monkeypatch.delitem(sys.modules, package, raising=False)
    with pytest.raises(SynthgenError, match=error):
        getattr(layer, method)()


class _Missing:
    """A finder to which a package is not installed."""

    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == self.package:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)


def test_supervision_gets_boxes_masks_names_and_scores(
    layer: Layer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for the package, which is not in the lock files."""
    module = ModuleType("supervision")
    module.Detections = FakeDetections  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "supervision", module)
    pixels = scored_layers.draw_photo(tmp_path, "0001.png")
    found = list(layer.to_supervision())
    assert len(found) == len(layer)
    assert np.array_equal(found[0][0], pixels)
    assert found[1][0] is None, "an image that cannot be read"
    assert next(layer.to_supervision(images=False))[0] is None
    masks = 0
    for sample, (_, detections) in zip(layer, found, strict=True):
        own = [a for a in sample.annotations if a.id != 900]
        assert list(detections.data["annotation_id"]) == [a.id for a in own], "a box that is not finite is left out"
        assert list(detections.data["class_name"]) == [a.category for a in own]
        names = [(*layer.categories, "fish")[number] for number in detections.class_id]
        assert names == [a.category for a in own], "-1 is a name that the layer does not list"
        boxes = [(a.bbox[0], a.bbox[1], a.bbox[0] + a.bbox[2], a.bbox[1] + a.bbox[3]) for a in own]
        assert detections.xyxy.dtype == np.float32 and np.array_equal(detections.xyxy, np.reshape(boxes, (-1, 4)))
        for number, a in enumerate(own):
            score = detections.data["stability_score"][number]
            assert np.isnan(score) if a.stability_score is None else score == a.stability_score
            if detections.mask is not None and a.segmentation is not None:
                masks += 1
                assert np.array_equal(detections.mask[number], decode_mask(a.segmentation))
            elif detections.mask is not None:
                assert not detections.mask[number].any()
    assert masks > 20
    assert found[-1][1].mask is None, "no annotation has a mask"
