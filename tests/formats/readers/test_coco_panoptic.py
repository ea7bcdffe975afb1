"""COCO panoptic: masks equal to the official detection format, missing and damaged PNGs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.reader_output import ingest_layer, make_sample, read_layer
from PIL import Image

from synthgen.errors import SynthgenError
from synthgen.formats.readers import Categories, DatasetFiles, coco_panoptic
from synthgen.formats.recognition import recognize_as, recognize_dataset
from synthgen.images.decode import find_image
from synthgen.ingest.ingest import describe_source_change
from synthgen.ingest.validation.validate import validate_dataset
from synthgen.records.rle import decode_mask, rle_area
from synthgen.records.sample import Annotation
from synthgen.storage.shard_store import ShardStore

Shared = Callable[[str], Path]


def panoptic(
    root: Path, ids: np.ndarray, segments: list[dict[str, Any]], split: str = "val2017", **image: Any
) -> DatasetFiles:
    """A release of one image whose PNG has the given segment ids."""
    folder = root / "annotations" / f"panoptic_{split}"
    folder.mkdir(parents=True)
    rgb = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=2).astype(np.uint8)
    Image.fromarray(rgb).save(folder / "000000000007.png")
    (root / split).mkdir()
    height, width = ids.shape
    content = {
        "annotations": [{"image_id": 7, "file_name": "000000000007.png", "segments_info": segments}],
        "categories": [
            {"id": 1, "name": " person", "isthing": 1, "color": [1, 2, 3]},
            {"id": 200, "name": "sky-other", "isthing": 0},
        ],
        "images": [{"id": 7, "file_name": "000000000007.jpg", "height": height, "width": width, **image}],
    }
    (root / "annotations" / f"panoptic_{split}.json").write_text(json.dumps(content))
    return coco_panoptic.files(root, split, None)


def masked(files: DatasetFiles) -> tuple[Annotation, ...]:
    images, rows = read_layer(coco_panoptic, files, "human")
    return coco_panoptic.complete(files, "human")(
        make_sample(images, rows, 7), [r["payload"] for r in rows]
    ).annotations


def test_masks_equal_the_official_detection_format_byte_for_byte(shared: Shared) -> None:
    root = shared("data/coco_panoptic_sample")
    files = coco_panoptic.files(root, "val2017", root / "panoptic_examples.json")
    images, rows = read_layer(coco_panoptic, files, "human")
    official = json.loads((root / "panoptic_coco_detection_format.json").read_text())
    names = {c["id"]: c["name"] for c in official["categories"]}
    complete = coco_panoptic.complete(files, "human")
    for image_id, count in ((142238, 18), (439180, 32)):
        mine = [row for row in rows if row["image_id"] == image_id]
        theirs = [a for a in official["annotations"] if a["image_id"] == image_id]
        done = complete(make_sample(images, mine, image_id), [row["payload"] for row in mine]).annotations
        assert len(done) == len(theirs) == count
        for row, annotation, other in zip(mine, done, theirs, strict=True):
            assert annotation.segmentation is not None
            assert annotation.segmentation.counts.decode() == other["segmentation"]["counts"]
            assert list(annotation.segmentation.size) == other["segmentation"]["size"]
            assert (list(annotation.bbox), annotation.category) == (other["bbox"], names[other["category_id"]])
            assert row["iscrowd"] == bool(other["iscrowd"])
            assert (annotation.flags, annotation.mask_source) == ((), "human")
    assert images[142238] == ("000000142238.jpg", "coco/000000142238", 427, 640)


def test_stuff_is_known_and_names_are_stripped(shared: Shared) -> None:
    root = shared("data/coco_panoptic_sample")
    files = coco_panoptic.files(root, "val2017", root / "panoptic_examples.json")
    found = next(part for part in coco_panoptic.read(files, "annotations") if isinstance(part, Categories))
    assert len(found.names) == 133 and len(found.stuff) == 53
    assert found.names[1] == "person" and 1 not in found.stuff and 187 in found.stuff


def test_the_releases_layout(tmp_path: Path) -> None:
    big = 1 + 256 * 2 + 65536 * 3
    ids = np.zeros((6, 8), np.int64)
    ids[1:3, 2:5], ids[4, :] = big, 255
    box = [2, 1, 3, 2]
    segments = [{"id": big, "category_id": 1, "bbox": box, "iscrowd": 0}, {"id": 255, "category_id": 200, "iscrowd": 0}]
    files = panoptic(tmp_path, ids, segments)
    assert files.image_folder == tmp_path / "val2017"
    person, sky = masked(files)
    assert person.category == "person" and sky.category == "sky-other"
    assert person.segmentation is not None and sky.segmentation is not None
    assert (decode_mask(person.segmentation) == (ids == big)).all()
    assert sky.bbox == (0, 4, 8, 1) and sky.flags == ("no_box",), "a missing box is read off the mask"


@pytest.mark.parametrize("png", ["gone", "hostile", "truncated", "other size", "absolute", "no height"])
def test_a_bad_png_costs_the_masks_of_its_image_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, png: str
) -> None:
    monkeypatch.setattr(coco_panoptic, "_MAX_MISSING_SHARE", 1.0)  # it is the only image
    ids = np.full((40, 50), 9)
    segments = [
        {"id": 9, "category_id": 1, "bbox": [0, 0, 50, 40]},
        {"id": 9, "category_id": 200, "bbox": [0, 0, 5, 4]},
    ]
    files = panoptic(tmp_path, ids, segments, **{"other size": {"height": 41}, "no height": {"height": 0}}.get(png, {}))
    path = tmp_path / "annotations" / "panoptic_val2017" / "000000000007.png"
    text = files.sources["panoptic"].read_text()
    if png == "gone":
        path.unlink()
    if png == "truncated":
        path.write_bytes(path.read_bytes()[:-30])
    if png in ("hostile", "absolute"):
        secret = tmp_path / "secret.png"
        path.rename(secret)
        name = "../../secret.png" if png == "hostile" else str(secret)
        files.sources["panoptic"].write_text(text.replace('"000000000007.png"', json.dumps(name)))
    done = masked(files)
    assert [a.flags for a in done] == [("bad_segmentation",)] * 2
    assert [a.segmentation for a in done] == [None] * 2
    assert done[0].bbox == (0, 0, 50, 40)


def test_a_segment_whose_colour_is_not_in_the_png_keeps_its_box(tmp_path: Path) -> None:
    ids = np.zeros((4, 4), np.int64)
    ids[0, 0] = 3
    segments = [{"id": i, "category_id": 1, "bbox": [0, 0, 1, 1], "iscrowd": 0} for i in (3, 4, 0)]
    done = masked(panoptic(tmp_path, ids, segments))
    assert [a.flags for a in done] == [(), ("bad_segmentation",), ("bad_segmentation",)]
    assert done[0].segmentation is not None and rle_area(done[0].segmentation) == 1
    assert [a.bbox for a in done] == [(0, 0, 1, 1)] * 3


def test_boxes_do_not_need_the_pngs_and_masks_say_so(tmp_path: Path) -> None:
    files = panoptic(
        tmp_path, np.ones((2, 2), np.int64), [{"id": 1, "category_id": 1, "bbox": [0, 0, 2, 2], "iscrowd": 1}]
    )
    folder = tmp_path / "annotations" / "panoptic_val2017"
    folder.rename(tmp_path / "away")
    _, rows = read_layer(coco_panoptic, files, "annotations")
    assert [(r["id"], r["iscrowd"], r["payload"]) for r in rows] == [(1, True, None)]
    with pytest.raises(SynthgenError, match=r"no folder .*panoptic_val2017, and layer 'human'"):
        list(coco_panoptic.read(files, "human"))
    with pytest.raises(SynthgenError, match=r"no file .*panoptic_train2017.json; put"):
        coco_panoptic.files(tmp_path, "train2017", None)


@pytest.mark.parametrize("layer", ["annotations", "human"])
def test_a_file_of_instances_is_no_panoptic_file(tmp_path: Path, layer: str) -> None:
    """Else every box of it would vanish, and nothing be said."""
    files = panoptic(tmp_path, np.ones((2, 2), np.int64), [{"id": 1, "category_id": 1, "bbox": [0, 0, 2, 2]}])
    content = json.loads(files.sources["panoptic"].read_text())
    content["annotations"] = [{"id": 5, "image_id": 7, "category_id": 1, "bbox": [0, 0, 2, 2]}]
    files.sources["panoptic"].write_text(json.dumps(content))
    with pytest.raises(SynthgenError, match=r"no 'segments_info' for image 7, .*--dataset coco or coco-json"):
        list(coco_panoptic.read(files, layer))
    with pytest.raises(SynthgenError, match="no 'segments_info'"):
        validate_dataset("coco_panoptic", tmp_path, ["val2017"], check_images="none")
    with pytest.raises(SynthgenError, match="no 'segments_info'"):
        ingest_layer(tmp_path / "store", coco_panoptic, files, layer)


def many_pngs(root: Path, count: int) -> tuple[DatasetFiles, Path]:
    """A release of `count` images of one segment each, and the folder of its PNGs."""
    files = panoptic(root, np.full((4, 4), 3), [])
    folder = root / "annotations" / "panoptic_val2017"
    content = json.loads(files.sources["panoptic"].read_text())
    content["images"] = [{"id": i, "file_name": f"{i}.jpg", "height": 4, "width": 4} for i in range(count)]
    segments = [{"id": 3, "category_id": 1, "bbox": [0, 0, 4, 4]}]
    content["annotations"] = [{"image_id": i, "file_name": f"{i}.png", "segments_info": segments} for i in range(count)]
    files.sources["panoptic"].write_text(json.dumps(content))
    for i in range(count):
        shutil.copyfile(folder / "000000000007.png", folder / f"{i}.png")
    (folder / "000000000007.png").unlink()
    return files, folder


@pytest.mark.parametrize("how", ["gone", "empty", "cut", "text"])
def test_more_than_five_percent_without_their_png_are_refused(tmp_path: Path, how: str) -> None:
    files, folder = many_pngs(tmp_path / "release", 40)
    whole = (folder / "0.png").read_bytes()

    def lose(number: int) -> None:
        path = folder / f"{number}.png"
        path.unlink() if how == "gone" else path.write_bytes({"empty": b"", "cut": whole[:-30], "text": b"<html>"}[how])

    for number in (11, 12, 13):
        lose(number)
    with pytest.raises(SynthgenError, match=r"3 of 40 images have no readable PNG .*panoptic_val2017, e\.g\. 11\.png"):
        ingest_layer(tmp_path / "store", coco_panoptic, files, "human")
    assert not list((tmp_path / "store").rglob("*.parquet"))
    (folder / "13.png").write_bytes(whole)  # 2 of 40 are 5 %, and not more
    done = ingest_layer(tmp_path / "store", coco_panoptic, files, "human")
    assert [a.flags for s in done for a in s.annotations].count(("bad_segmentation",)) == 2
    assert len(ingest_layer(tmp_path / "store", coco_panoptic, files, "annotations")) == 40


def test_the_pngs_belong_to_what_the_masks_are_made_from(tmp_path: Path) -> None:
    files, folder = many_pngs(tmp_path / "release", 40)
    whole = (folder / "7.png").read_bytes()
    (folder / "7.png").unlink()
    store = ShardStore(tmp_path / "store")
    for layer in ("annotations", "human"):
        ingest_layer(tmp_path / "store", coco_panoptic, files, layer)
    assert describe_source_change(store, coco_panoptic, files, name="given", split="all", layer="human") is None
    (folder / "7.png").write_bytes(whole)
    changed = str(describe_source_change(store, coco_panoptic, files, name="given", split="all", layer="human"))
    assert "panoptic_val2017 is not what given/all/human was made from" in changed
    assert "(0 images added, 1 changed, 0 removed, 39 unchanged); add --update" in changed
    with pytest.raises(SynthgenError, match="is not what given/all/human was made from"):
        ingest_layer(tmp_path / "store", coco_panoptic, files, "human")
    # The boxes do not come from them; nor does it matter when they were unpacked, or what a file manager leaves there.
    assert describe_source_change(store, coco_panoptic, files, name="given", split="all") is None
    (folder / "7.png").unlink()
    (folder / ".DS_Store").write_bytes(b"x")
    os.utime(folder / "8.png", (1, 1))
    assert describe_source_change(store, coco_panoptic, files, name="given", split="all", layer="human") is None
    ingest_layer(tmp_path / "store", coco_panoptic, files, "human")
    (folder / "8.png").write_bytes(whole + b"x")
    assert describe_source_change(store, coco_panoptic, files, name="given", split="all", layer="human") is not None


def test_ids_that_are_texts_as_in_ade20k(tmp_path: Path) -> None:
    """Mask DINO's files of ADE20K name images by texts."""
    ids = np.zeros((6, 8), np.int64)
    ids[1:3, 2:5] = 300
    files = panoptic(tmp_path, ids, [{"id": "300", "category_id": "one", "bbox": [2, 1, 3, 2], "iscrowd": "false"}])
    path = files.sources["panoptic"]
    content = json.loads(path.read_text())
    content["images"] = [{**content["images"][0], "id": f"ADE_val_0000000{i}", "file_name": f"{i}.jpg"} for i in (1, 2)]
    content["annotations"][0]["image_id"] = "ADE_val_00000002"
    content["categories"][0] |= {"id": "one", "isthing": "1"}
    path.write_text(json.dumps(content))
    samples = ingest_layer(tmp_path / "store", coco_panoptic, files, "human")
    found = {sample.file_name: sample.annotations for sample in samples}
    assert found["1.jpg"] == () and [sample.error for sample in samples] == [None, None]
    [one] = found["2.jpg"]
    assert one.category == "person" and one.isthing and not one.iscrowd and one.flags == ()
    assert one.segmentation is not None and (decode_mask(one.segmentation) == (ids == 300)).all()
    assert {sample.image_key for sample in samples} == {"given/1.jpg", "given/2.jpg"}


@pytest.mark.parametrize("segments", [7, [7], {"id": 1}])
def test_segments_that_are_no_objects_are_refused(tmp_path: Path, segments: Any) -> None:
    files = panoptic(tmp_path, np.zeros((6, 8), np.int64), segments)
    with pytest.raises(SynthgenError, match="record 1 of 'annotations' cannot be understood"):
        read_layer(coco_panoptic, files, "annotations")


def prepared(root: Path, image_id: Any, file_name: str, png: str) -> DatasetFiles:
    """A file of one image with one segment, as a tool for another dataset writes it."""
    files = panoptic(root, np.full((6, 8), 300), [{"id": 300, "category_id": 1, "bbox": [0, 0, 8, 6], "iscrowd": 0}])
    path = files.sources["panoptic"]
    content = json.loads(path.read_text())
    content["images"][0] |= {"id": image_id, "file_name": file_name}
    content["annotations"][0] |= {"image_id": image_id, "file_name": png}
    path.write_text(json.dumps(content))
    folder = path.with_suffix("")
    (folder / "000000000007.png").rename(folder / png)
    return files


def test_mask2formers_file_of_ade20k_has_the_keys_of_ade20k(tmp_path: Path) -> None:
    """https://github.com/facebookresearch/Mask2Former/blob/main/datasets/prepare_ade20k_pan_seg.py"""
    name = "ADE_val_00000012"
    [sample] = ingest_layer(
        tmp_path / "store", coco_panoptic, prepared(tmp_path, name, f"{name}.jpg", f"{name}.png"), "human"
    )
    assert (sample.image_key, sample.file_name) == ("ade20k/ADE_val_00000012", "ADE_val_00000012.jpg")
    [segment] = sample.annotations
    assert segment.segmentation is not None and rle_area(segment.segmentation) == 48 and segment.flags == ()


@pytest.mark.parametrize(("image_id", "file_name"), [(12, "ADE_val_00000012.jpg"), ("ADE_val_00000012", "other.jpg")])
def test_other_records_keep_their_own_keys(tmp_path: Path, image_id: Any, file_name: str) -> None:
    [sample] = ingest_layer(
        tmp_path / "store", coco_panoptic, prepared(tmp_path, image_id, file_name, "a.png"), "human"
    )
    assert sample.image_key == f"given/{file_name}"


def test_the_file_of_cityscapes_own_tool(tmp_path: Path) -> None:
    """https://github.com/mcordts/cityscapesScripts/blob/master/cityscapesscripts/preparation/createPanopticImgs.py

    Its names of photographs are those of no file. The photographs are in folders of cities.
    """
    own = "frankfurt_000000_000294"
    files = prepared(tmp_path, own, f"{own}_gtFine_leftImg8bit.png", f"{own}_gtFine_panoptic.png")
    photograph = tmp_path / "leftImg8bit" / "val" / "frankfurt" / f"{own}_leftImg8bit.png"
    photograph.parent.mkdir(parents=True)
    Image.new("RGB", (8, 6)).save(photograph)
    [sample] = ingest_layer(tmp_path / "store", coco_panoptic, files, "human")
    assert find_image(tmp_path / "leftImg8bit" / "val", sample.file_name) == photograph
    [segment] = sample.annotations
    assert segment.segmentation is not None and rle_area(segment.segmentation) == 48


@pytest.mark.parametrize("own", ["Frankfurt_000000_000294", "../x_000000_000294", "frankfurt_0_0"])
def test_a_name_that_is_not_of_cityscapes_stays(tmp_path: Path, own: str) -> None:
    files = prepared(tmp_path, own, f"{own}_gtFine_leftImg8bit.png", "a.png")
    [sample] = ingest_layer(tmp_path / "store", coco_panoptic, files, "human")
    assert sample.file_name == f"{own}_gtFine_leftImg8bit.png"


def test_the_number_1_and_the_text_1_are_not_taken_for_one_image(tmp_path: Path) -> None:
    files = prepared(tmp_path, 1, "a.jpg", "a.png")
    path = files.sources["panoptic"]
    content = json.loads(path.read_text())
    content["images"].append({**content["images"][0], "id": "1", "file_name": "b.jpg"})
    path.write_text(json.dumps(content))
    with pytest.raises(SynthgenError, match=r"two images have the id '1', a\.jpg and b\.jpg"):
        ingest_layer(tmp_path / "store", coco_panoptic, files, "human")


def renamed(files: DatasetFiles, json_path: Path) -> None:
    """Move the JSON of a dataset, and its folder of PNGs."""
    json_path.parent.mkdir(parents=True, exist_ok=True)
    source = files.sources["panoptic"]
    source.with_suffix("").rename(json_path.with_suffix(""))
    source.rename(json_path)


@pytest.mark.parametrize(
    ("own", "json_path", "photograph", "split"),
    [
        (
            "ADE_val_00000012",
            "ADEChallengeData2016/ade20k_panoptic_val.json",
            "ADEChallengeData2016/images/validation/ADE_val_00000012.jpg",
            "val",
        ),
        (
            "frankfurt_000000_000294",
            "cityscapes/gtFine/cityscapes_panoptic_val_trainId.json",
            "cityscapes/leftImg8bit/val/frankfurt/frankfurt_000000_000294_leftImg8bit.png",
            "val",
        ),
        (7, "mine/annotations/panoptic_test2020.json", "mine/test2020/a.jpg", "test2020"),
        (7, "mine/my_panoptic.json", "mine/a.jpg", "train2017"),
    ],
)
def test_a_prepared_file_is_recognised_and_its_photographs_are_found(
    tmp_path: Path, own: Any, json_path: str, photograph: str, split: str
) -> None:
    name = Path(photograph).name.replace("_leftImg8bit", "_gtFine_leftImg8bit")
    renamed(prepared(tmp_path / "made", own, name, "a.png"), tmp_path / json_path)
    (tmp_path / photograph).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6)).save(tmp_path / photograph)
    if json_path.startswith("cityscapes"):  # the release has its label maps there
        labels = tmp_path / "cityscapes" / "gtFine" / "val" / "frankfurt" / f"{own}_gtFine_labelIds.png"
        labels.parent.mkdir(parents=True)
        Image.new("L", (8, 6)).save(labels)
    found = recognize_dataset(tmp_path / json_path)
    assert (found.plugin, found.splits) == ("coco_panoptic", (split,))
    files = coco_panoptic.files(found.root, split, found.annotations)
    [sample] = ingest_layer(tmp_path / "store", coco_panoptic, files, "human")
    assert find_image(files.image_folder, sample.file_name) == (tmp_path / photograph).absolute()
    assert sample.annotations[0].segmentation is not None


def test_the_folder_is_the_one_that_has_the_photographs(tmp_path: Path) -> None:
    """Not an empty one that is looked for earlier."""
    renamed(prepared(tmp_path / "made", 7, "a.jpg", "a.png"), tmp_path / "mine/annotations/panoptic_val.json")
    (tmp_path / "mine" / "val").mkdir()
    (tmp_path / "mine" / "leftImg8bit" / "val").mkdir(parents=True)
    json_path = tmp_path / "mine" / "annotations" / "panoptic_val.json"
    Image.new("RGB", (8, 6)).save(tmp_path / "mine" / "val" / "a.jpg")
    assert coco_panoptic.files(json_path.parent, "val", json_path).image_folder == tmp_path / "mine" / "val"
    json_path.write_text("{")
    assert coco_panoptic.files(json_path.parent, "val", json_path).image_folder.name == "val", (
        "`read` says what is wrong"
    )


def test_the_releases_folder_is_coco_if_it_has_files_of_instances(tmp_path: Path) -> None:
    panoptic(tmp_path, np.full((2, 2), 3), [{"id": 3, "category_id": 1, "bbox": [0, 0, 2, 2]}])
    assert recognize_dataset(tmp_path).plugin == "coco_panoptic"
    assert recognize_as("coco_panoptic", tmp_path / "annotations" / "panoptic_val2017.json") is not None
    (tmp_path / "annotations" / "instances_val2017.json").write_text('{"images": [], "annotations": []}')
    assert recognize_dataset(tmp_path).plugin == "coco"


def test_other_files_are_not_claimed(tmp_path: Path) -> None:
    """A file of instances of segments; and a file beside a folder of photographs of its name."""
    (tmp_path / "photos").mkdir()
    for name in ("photos.json", "panoptic_coco_detection_format.json"):
        (tmp_path / name).write_text('{"images": [], "annotations": []}')
        assert recognize_as("coco_panoptic", tmp_path / name) is None
        assert recognize_dataset(tmp_path / name).plugin == "coco_json"
