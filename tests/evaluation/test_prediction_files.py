"""The files of predictions: read back by pycocotools, by our readers, and by Pillow."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from synthgen.errors import SynthgenError
from synthgen.evaluation.metrics import Detection, PanopticMap, PanopticSegment, SemanticMap
from synthgen.evaluation.prediction_files import (
    CocoWriter,
    PanopticWriter,
    PredictedCategory,
    PredictedImage,
    ResultHead,
    ResultsWriter,
    SemanticWriter,
    count_kinds,
)
from synthgen.formats.readers import coco_panoptic, semantic_folder
from synthgen.images.png_text import PROVENANCE_KEYWORD, read_png_text
from synthgen.records.rle import decode_mask, encode_mask
from synthgen.records.sample import Rle

HEAD = ResultHead((PredictedCategory(5, "ball", True), PredictedCategory(9, "sky", False)), "mqformer best.pt", "1.0")
IMAGES = (PredictedImage(1, "a/1.jpg", 6, 8), PredictedImage(2, "a/1.png", 6, 8), PredictedImage(4, "b.png", 4, 3))


def detections() -> list[Detection]:
    mask = np.zeros((6, 8), np.bool_)
    mask[1:4, 2:7] = True
    return [
        Detection(0, 0.1 + 0.2, (2.0, 1.0, 7.25, 4.0), encode_mask(mask), 3),
        Detection(1, 0.2, (0.0, 0.0, 8.0, 6.0), encode_mask(~mask), 0),
    ]


def quiet(path: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


def test_a_coco_file_holds_all_that_was_found(tmp_path: Path) -> None:
    writer = CocoWriter(tmp_path, HEAD)
    for image, found in zip(IMAGES, (detections(), [], detections()[:1]), strict=True):
        writer.write(image, found, 1)
    writer.finish()
    coco = quiet(tmp_path / "predictions.json")
    assert sorted(coco.getImgIds()) == [1, 2, 4] and coco.loadCats([9])[0]["name"] == "sky"
    first, second, third = coco.loadAnns([1, 2, 3])
    assert (first["image_id"], first["category_id"], first["score"]) == (1, 5, 0.1 + 0.2)
    assert first["bbox"] == [2, 1, 5.25, 3] and first["area"] == 15 and first["iscrowd"] == 0
    assert (first["query"], second["query"], third["image_id"]) == ("learnable", "conditional", 4)
    assert np.array_equal(coco.annToMask(first), decode_mask(detections()[0].mask or Rle((0, 0), b"")))
    content = json.loads((tmp_path / "predictions.json").read_text())
    assert content["info"]["synthgen"]["provenance"] == {"machine": 3}


def test_results_refer_to_an_annotation_file(tmp_path: Path) -> None:
    writer = ResultsWriter(tmp_path, HEAD)
    writer.write(IMAGES[0], detections(), 1)
    writer.write(IMAGES[1], [], 1)
    writer.write(IMAGES[2], [Detection(1, 0.5, (0.0, 0.0, 1.0, 1.0), None, 0)], 1)
    writer.finish()
    records = json.loads((tmp_path / "results.json").read_text())
    assert [(one["image_id"], one["category_id"], "segmentation" in one) for one in records] == [
        (1, 5, True),
        (1, 9, True),
        (4, 9, False),
    ]
    assert set(records[0]) == {"image_id", "category_id", "bbox", "score", "query", "segmentation"}


@pytest.mark.parametrize("writer_type", [CocoWriter, ResultsWriter, PanopticWriter, SemanticWriter])
def test_files_without_images_are_whole(tmp_path: Path, writer_type: type) -> None:
    writer = writer_type(tmp_path, HEAD)
    writer.finish()
    writer.close()
    content = json.loads((tmp_path / writer_type.FILE).read_text())
    assert content == [] or not content.get("annotations", content.get("maps"))


def panoptic_map() -> PanopticMap:
    ids = np.zeros((6, 8), np.int32)
    ids[:3], ids[4:, 2:5] = 1, 2
    return PanopticMap(ids, (PanopticSegment(1, 0.8, (0, 5)), PanopticSegment(0, 0.6, (6,))))


def test_panoptic_segments_are_read_by_our_reader(tmp_path: Path) -> None:
    writer = PanopticWriter(tmp_path, HEAD)
    writer.write(IMAGES[0], panoptic_map(), 2)
    writer.write(IMAGES[1], panoptic_map(), 2)
    writer.finish()
    path = tmp_path / "panoptic_predictions.json"
    content = json.loads(path.read_text())
    names = [one["file_name"] for one in content["annotations"]]
    assert names == ["a/1.png", "a/1.png.png"], "two images of one stem keep both maps"
    assert content["categories"] == [{"id": 5, "name": "ball", "isthing": 1}, {"id": 9, "name": "sky", "isthing": 0}]
    sky, ball = content["annotations"][0]["segments_info"]
    assert (sky["category_id"], sky["area"], sky["bbox"], sky["query"]) == (9, 24, [0, 0, 8, 3], "both")
    assert (ball["category_id"], ball["area"], ball["bbox"], ball["query"]) == (5, 6, [2, 4, 3, 2], "learnable")
    png = tmp_path / "panoptic_predictions" / names[0]
    with Image.open(png) as image:
        pixels = np.asarray(image).astype(np.int64)
    ids = pixels[..., 0] + 256 * pixels[..., 1] + 65536 * pixels[..., 2]
    for segment in (sky, ball):
        assert (ids == segment["id"]).sum() == segment["area"]
    assert read_png_text(png, PROVENANCE_KEYWORD) == "machine"
    files = coco_panoptic.files(tmp_path, "val2017", path)
    (tmp_path / "a").mkdir()
    Image.new("RGB", (8, 6)).save(tmp_path / "a" / "1.jpg")
    parts = list(coco_panoptic.read(files, "human"))
    assert sum(len(part.image_id) for part in parts if hasattr(part, "bbox")) == 4


def test_each_segment_has_an_id_of_its_own(tmp_path: Path) -> None:
    writer = PanopticWriter(tmp_path, HEAD)
    ids = np.arange(1, 401, dtype=np.int32).reshape(20, 20)
    segments = tuple(PanopticSegment(0, 0.5, (i,)) for i in range(400))
    writer.write(PredictedImage(1, "x.png", 20, 20), PanopticMap(ids, segments), 300)
    writer.finish()
    content = json.loads((tmp_path / "panoptic_predictions.json").read_text())
    numbers = {one["id"] for one in content["annotations"][0]["segments_info"]}
    assert len(numbers) == 400 and 0 not in numbers and max(numbers) < 2**24


@pytest.mark.parametrize(("count", "depth"), [(2, "L"), (300, "I;16")])
def test_label_maps_are_read_by_our_reader(tmp_path: Path, count: int, depth: str) -> None:
    head = ResultHead([PredictedCategory(10 * i, f"name {i}") for i in range(count)], "m", "1.0")
    labels = np.zeros((6, 8), np.int32)
    labels[2:, 3:] = count - 1
    writer = SemanticWriter(tmp_path, head)
    writer.write(PredictedImage(3, "a/1.jpg", 6, 8), SemanticMap(labels, {0: 1, count - 1: 0}), 1)
    writer.finish()
    folder = tmp_path / "semantic_predictions"
    with Image.open(folder / "a" / "1.png") as image:
        assert image.mode == depth and np.array_equal(np.asarray(image), labels + 1)
    (record,) = json.loads((tmp_path / "semantic_predictions.json").read_text())["maps"]
    assert (record["image_id"], record["file_name"], record["map"]) == (3, "a/1.jpg", "a/1.png")
    assert [(one["value"], one["name"], one["pixels"], one["query"]) for one in record["regions"]] == [
        (1, "name 0", 28, "learnable"),
        (count, f"name {count - 1}", 20, "conditional"),
    ]
    names = json.loads((folder / "class_names.json").read_text())
    assert names[0] == {"id": 0, "name": "background"} and names[-1]["category_id"] == 10 * (count - 1)
    (tmp_path / "photos" / "a").mkdir(parents=True)
    Image.new("RGB", (8, 6)).save(tmp_path / "photos" / "a" / "1.jpg")
    files = semantic_folder.files(tmp_path / "photos", "train", folder)
    parts = list(semantic_folder.read(files, "annotations"))
    found = [name for part in parts if hasattr(part, "bbox") for name in part.category]
    assert len(found) == 2


def test_more_categories_than_a_map_numbers_are_refused(tmp_path: Path) -> None:
    head = ResultHead([PredictedCategory(i, str(i)) for i in range(2**16)], "m", "1.0")
    with pytest.raises(SynthgenError, match=r"65,536 categories do not fit into a map of 16 bits; give fewer"):
        SemanticWriter(tmp_path, head)


def test_kinds_of_objects_and_queries_are_counted() -> None:
    categories = HEAD.categories
    assert list(count_kinds(detections(), categories, 1, min_score=0.25)) == [("things", "learnable")]
    assert list(count_kinds(panoptic_map(), categories, 2, min_score=0.9)) == [
        ("stuff", "conditional"),
        ("stuff", "learnable"),
        ("things", "learnable"),
    ]
    unknown = (PredictedCategory(1, "x"), PredictedCategory(2, "y"))
    semantic = SemanticMap(np.zeros((1, 1), np.int32), {0: 0})
    assert list(count_kinds(semantic, unknown, 1, min_score=0)) == [("objects", "conditional")]
