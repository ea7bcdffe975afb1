"""Visual Genome and COCO panoptic: counts of the real excerpts, masks equal to the official ones, and odd releases."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from synthgen.errors import SynthgenError
from synthgen.formats.readers import AnnotationBatch, Categories, DatasetFiles, ImageBatch, coco_panoptic, visual_genome
from synthgen.ingest.ingest import describe_source_change, ingest
from synthgen.ingest.validation.validate import validate_dataset
from synthgen.records.geometry import decode_mask, rle_area
from synthgen.records.sample import ANNOTATION_FLAGS, Annotation, Sample
from synthgen.storage.shard_store import ShardStore

Shared = Callable[[str], Path]


def read(
    module: Any, files: DatasetFiles, layer: str
) -> tuple[dict[int, tuple[str, str, int, int]], list[dict[str, Any]]]:
    """Images by id, and annotations as dictionaries with their category's name."""
    images, rows, names = {}, [], {}
    for part in module.read(files, layer):
        if isinstance(part, ImageBatch):
            assert part.image_id.dtype == np.int64 and part.height.dtype == part.width.dtype == np.int32
            for i, image_id in enumerate(part.image_id.tolist()):
                assert image_id not in images
                images[image_id] = (part.file_name[i], part.image_key[i], int(part.height[i]), int(part.width[i]))
        elif isinstance(part, AnnotationBatch):
            assert part.bbox.shape == (len(part.id), 4) and part.bbox.dtype == np.float64
            assert set(part.flags) <= set(ANNOTATION_FLAGS)
            for i in range(len(part.id)):
                rows.append(
                    {
                        "image_id": int(part.image_id[i]),
                        "id": int(part.id[i]),
                        "bbox": tuple(part.bbox[i].tolist()),
                        "category": int(part.category[i]),
                        "iscrowd": bool(part.iscrowd[i]),
                        "flags": {flag for flag, on in part.flags.items() if on[i]},
                        "payload": part.payload[i] if part.payload is not None else None,
                    }
                )
        else:
            names.update(part.names)
    for row in rows:
        row["category"] = names.get(row["category"])
    return images, rows


def sample_of(images: dict[int, tuple[str, str, int, int]], rows: list[dict[str, Any]], image_id: int) -> Sample:
    file_name, key, height, width = images[image_id]
    return Sample(
        image_id, key, file_name, height, width,
        tuple(Annotation(r["id"], r["bbox"], r["category"], flags=tuple(sorted(r["flags"]))) for r in rows),
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------- Visual Genome


def genome(root: Path, **arrays: Any) -> Path:
    root.mkdir(exist_ok=True)
    for name, content in arrays.items():
        (root / f"{name}.json").write_text(json.dumps(content))
    return root


def test_the_excerpt_has_the_counts_of_its_source(shared: Shared) -> None:
    files = visual_genome.files(shared("data/visual_genome_excerpt"), "train", None)
    images, objects = read(visual_genome, files, "annotations")
    again, regions = read(visual_genome, files, "regions")
    assert sorted(images) == list(range(1, 16)) and images == again
    assert len(objects) == 460 and len(regions) == 3028
    assert images[1] == ("VG_100K_2/1.jpg", "visual_genome/1", 0, 0)
    trees = next(row for row in objects if row["id"] == 1058549)
    assert trees["category"] == "trees" and trees["bbox"] == (0, 0, 799, 557) and trees["image_id"] == 1
    clock = next(row for row in regions if row["id"] == 1382)
    assert (clock["payload"], clock["category"], clock["bbox"]) == (
        b"the clock is green in colour",
        "",
        (421, 57, 82, 139),
    )


def test_a_region_gets_its_phrase_as_a_human_caption(shared: Shared) -> None:
    files = visual_genome.files(shared("data/visual_genome_excerpt"), "train", None)
    images, regions = read(visual_genome, files, "regions")
    rows = [row for row in regions if row["image_id"] == 1]
    sample = sample_of(images, rows, 1)
    done = visual_genome.complete(files, "regions")(sample, [row["payload"] for row in rows])
    assert [a.captions[0].text for a in done.annotations] == [row["payload"].decode() for row in rows]
    assert {(len(a.captions), a.captions[0].source) for a in done.annotations} == {(1, "human")}


def test_coco_photographs_carry_cocos_key_and_the_url_names_the_folder(tmp_path: Path) -> None:
    images = [
        {"image_id": 1, "url": "https://x/rak248/VG_100K_2/1.jpg", "width": 800, "height": 600, "coco_id": None},
        {"image_id": 2, "url": "https://x/rak248/VG_100K/2.jpg", "width": 640, "height": 480, "coco_id": 391895},
        {"image_id": 3, "width": 640, "height": 480, "coco_id": "7"},
        {"image_id": 4, "url": "https://x/../../etc/passwd", "width": None, "height": "x"},
        {"image_id": 5, "url": "https://x/VG_100K/..", "width": "7", "height": 8.0},
    ]
    files = visual_genome.files(genome(tmp_path, image_data=images, objects=[]), "train", None)
    found, rows = read(visual_genome, files, "annotations")
    assert rows == []
    assert found == {
        1: ("VG_100K_2/1.jpg", "visual_genome/1", 600, 800),
        2: ("VG_100K/2.jpg", "coco/000000391895", 480, 640),
        3: ("VG_100K/3.jpg", "coco/000000000007", 480, 640),
        4: ("VG_100K/4.jpg", "visual_genome/4", 0, 0),
        5: ("VG_100K/5.jpg", "visual_genome/5", 8, 7),
    }


def test_odd_objects_are_all_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    objects = [
        {
            "image_id": 5,
            "objects": [
                {
                    "object_id": 1,
                    "x": 1,
                    "y": 2,
                    "w": 3,
                    "h": 4,
                    "names": [" Cat ", "feline"],
                    "merged_object_ids": [9],
                },
                {"object_id": 1, "x": "1.5", "y": -2, "width": 3.25, "height": 4, "names": []},
                {"object_id": 10**30, "x": 1, "w": 3, "h": 4, "names": "dog"},
                {"id": 4, "x": 0, "y": 0, "w": 1e400, "h": True, "names": [None]},
            ],
        },
        {"image_id": 5, "objects": None},
        {"image_id": "6", "objects": [{"object_id": 1, "x": 0, "y": 0, "w": 1, "h": 1, "names": ["Cat"]}]},
        {"objects": [{"object_id": 2, "x": 0, "y": 0, "w": 1, "h": 1, "names": ["Cat"]}]},
    ]
    files = visual_genome.files(genome(tmp_path, objects=objects), "train", None)
    images, rows = read(visual_genome, files, "annotations")
    assert list(images) == [5, 6]
    assert [(r["image_id"], r["id"], r["category"]) for r in rows] == [
        (5, 1, "Cat"), (5, 1, None), (5, -1, "dog"), (5, 4, None), (6, 1, "Cat"), (-1, 2, "Cat")
    ]  # fmt: skip
    assert rows[0]["bbox"] == (1, 2, 3, 4) and rows[1]["bbox"] == (1.5, -2, 3.25, 4)
    assert [("no_box" in r["flags"]) for r in rows] == [False, False, True, True, False, False]
    assert "1 objects have several names; the first is the category" in caplog.text


def test_regions_of_the_first_release_nest_their_image(tmp_path: Path) -> None:
    box = {"x": -3, "y": -1, "width": 10, "height": 20}
    regions = [
        {"regions": [{"id": 11, "image": 1, "phrase": " a hat ", **box}, {"id": 12, "image": {"id": 2}, **box}]},
        {
            "id": 3,
            "regions": [{"region_id": 13, "phrase": "", **box}, {"region_id": 14, "phrase": "ein Hut \u00e4", **box}],
        },
    ]
    files = visual_genome.files(genome(tmp_path, region_descriptions=regions), "train", None)
    images, rows = read(visual_genome, files, "regions")
    assert list(images) == [1, 2, 3]
    assert [(r["image_id"], r["id"], r["payload"]) for r in rows] == [
        (1, 11, b"a hat"), (2, 12, None), (3, 13, None), (3, 14, "ein Hut \u00e4".encode())
    ]  # fmt: skip
    assert all(r["bbox"] == (-3, -1, 10, 20) and r["category"] == "" for r in rows)
    done = visual_genome.complete(files, "regions")(sample_of(images, rows[2:], 3), [None, "ein Hut \u00e4".encode()])
    assert [[c.text for c in a.captions] for a in done.annotations] == [[], ["ein Hut \u00e4"]]


def test_category_ids_do_not_depend_on_the_order_of_the_file(tmp_path: Path) -> None:
    elements = [
        {"image_id": i, "objects": [{"object_id": i, "x": 0, "y": 0, "w": 1, "h": 1, "names": [f"name {i % 7}"]}]}
        for i in range(50)
    ]
    shuffled = random.Random(0).sample(elements, len(elements))

    def by_id(content: list[Any], folder: str) -> tuple[dict[int, int], dict[int, str]]:
        files = visual_genome.files(genome(tmp_path / folder, objects=content), "train", None)
        parts = list(visual_genome.read(files, "annotations"))
        boxes = {
            int(i): int(c)
            for p in parts
            if isinstance(p, AnnotationBatch)
            for i, c in zip(p.id, p.category, strict=True)
        }
        return boxes, next(p.names for p in parts if isinstance(p, Categories))

    assert by_id(elements, "a") == by_id(shuffled, "b")
    assert len(by_id(elements, "a")[1]) == 7


def test_what_is_not_there_is_said_with_its_remedy(tmp_path: Path) -> None:
    with pytest.raises(SynthgenError, match=r"no objects.json in .*; unpack"):
        visual_genome.files(tmp_path, "train", None)
    (tmp_path / "objects.json.zip").write_bytes(b"PK")
    with pytest.raises(SynthgenError, match=r"objects.json.zip is still packed; unzip"):
        visual_genome.files(tmp_path, "train", None)
    files = visual_genome.files(genome(tmp_path, objects=[]), "train", None)
    with pytest.raises(SynthgenError, match=r"no region_descriptions.json beside .*, and layer 'regions'"):
        list(visual_genome.read(files, "regions"))
    with pytest.raises(SynthgenError, match=r"no file .*elsewhere.json"):
        visual_genome.files(tmp_path, "all", tmp_path / "elsewhere.json")


# ---------------------------------------------------------------------------------------------------- COCO panoptic


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
    images, rows = read(coco_panoptic, files, "human")
    return coco_panoptic.complete(files, "human")(sample_of(images, rows, 7), [r["payload"] for r in rows]).annotations


def test_masks_equal_the_official_detection_format_byte_for_byte(shared: Shared) -> None:
    root = shared("data/coco_panoptic_sample")
    files = coco_panoptic.files(root, "val2017", root / "panoptic_examples.json")
    images, rows = read(coco_panoptic, files, "human")
    official = json.loads((root / "panoptic_coco_detection_format.json").read_text())
    names = {c["id"]: c["name"] for c in official["categories"]}
    complete = coco_panoptic.complete(files, "human")
    for image_id, count in ((142238, 18), (439180, 32)):
        mine = [row for row in rows if row["image_id"] == image_id]
        theirs = [a for a in official["annotations"] if a["image_id"] == image_id]
        done = complete(sample_of(images, mine, image_id), [row["payload"] for row in mine]).annotations
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


@pytest.mark.parametrize("png", ["gone", "hostile", "truncated", "other size", "absolute"])
def test_a_bad_png_costs_the_masks_of_its_image_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, png: str
) -> None:
    monkeypatch.setattr(coco_panoptic, "_MAX_MISSING_SHARE", 1.0)  # it is the only image
    ids = np.full((40, 50), 9)
    segments = [
        {"id": 9, "category_id": 1, "bbox": [0, 0, 50, 40]},
        {"id": 9, "category_id": 200, "bbox": [0, 0, 5, 4]},
    ]
    files = panoptic(tmp_path, ids, segments, **({"height": 41} if png == "other size" else {}))
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
    _, rows = read(coco_panoptic, files, "annotations")
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
        ingested(tmp_path / "store", coco_panoptic, files, layer)


def test_a_file_of_regions_is_no_file_of_objects(tmp_path: Path) -> None:
    box = {"region_id": 1, "x": 1, "y": 1, "width": 2, "height": 2, "phrase": "a hat"}
    root = genome(tmp_path, region_descriptions=[{"id": 1, "regions": [box]}])
    files = visual_genome.files(root, "train", root / "region_descriptions.json")
    with pytest.raises(SynthgenError, match=r"region_descriptions.json has no 'objects' in any of its elements"):
        list(visual_genome.read(files, "annotations"))


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
        ingested(tmp_path / "store", coco_panoptic, files, "human")
    assert not list((tmp_path / "store").rglob("*.parquet"))
    (folder / "13.png").write_bytes(whole)  # 2 of 40 are 5 %, and not more
    done = ingested(tmp_path / "store", coco_panoptic, files, "human")
    assert [a.flags for s in done for a in s.annotations].count(("bad_segmentation",)) == 2
    assert len(ingested(tmp_path / "store", coco_panoptic, files, "annotations")) == 40


def test_the_pngs_belong_to_what_the_masks_are_made_from(tmp_path: Path) -> None:
    files, folder = many_pngs(tmp_path / "release", 40)
    whole = (folder / "7.png").read_bytes()
    (folder / "7.png").unlink()
    store = ShardStore(tmp_path / "store")
    for layer in ("annotations", "human"):
        ingested(tmp_path / "store", coco_panoptic, files, layer)
    assert describe_source_change(store, files, name="given", split="all", layer="human") is None
    (folder / "7.png").write_bytes(whole)
    changed = str(describe_source_change(store, files, name="given", split="all", layer="human"))
    assert "panoptic_val2017 is not what given/all/human was made from; choose another --name, or delete" in changed
    with pytest.raises(SynthgenError, match="given/all/human/00000-of-00003 was made from other annotation files"):
        ingested(tmp_path / "store", coco_panoptic, files, "human")
    # The boxes do not come from them; nor does it matter when they were unpacked, or what a file manager leaves there.
    assert describe_source_change(store, files, name="given", split="all") is None
    (folder / "7.png").unlink()
    (folder / ".DS_Store").write_bytes(b"x")
    os.utime(folder / "8.png", (1, 1))
    assert describe_source_change(store, files, name="given", split="all", layer="human") is None
    ingested(tmp_path / "store", coco_panoptic, files, "human")
    (folder / "8.png").write_bytes(whole + b"x")
    assert describe_source_change(store, files, name="given", split="all", layer="human") is not None


# --------------------------------------------------------------------------------------------- as an ingest uses them


def ingested(tmp_path: Path, module: Any, files: DatasetFiles, layer: str) -> list[Sample]:
    store = ShardStore(tmp_path)
    ingest(store, module, files, name="given", split="all", layer=layer)
    return [sample for shard in store.list_shards("given", "all", layer) for sample in store.read_samples(shard)]


def test_phrases_and_masks_arrive_in_shards(tmp_path: Path, shared: Shared) -> None:
    files = visual_genome.files(shared("data/visual_genome_excerpt"), "train", None)
    regions = [a for sample in ingested(tmp_path, visual_genome, files, "regions") for a in sample.annotations]
    assert len(regions) == 3028 and all(len(a.captions) == 1 and a.category == "" for a in regions)
    assert not any("unknown_category" in a.flags for a in regions), "a region has no category to be unknown"
    objects = [a for sample in ingested(tmp_path, visual_genome, files, "annotations") for a in sample.annotations]
    assert len(objects) == 460 and all(a.category for a in objects)
    root = shared("data/coco_panoptic_sample")
    files = coco_panoptic.files(root, "val2017", root / "panoptic_examples.json")
    samples = ingested(tmp_path, coco_panoptic, files, "human")
    segments = [a for sample in samples for a in sample.annotations]
    assert [len(sample.annotations) for sample in samples] == [18, 32]
    assert all(a.segmentation is not None and a.mask_source == "human" for a in segments)
    assert {a.category for a in segments if not a.isthing} >= {"tree-merged", "grass-merged", "sky-other-merged"}


def test_a_file_that_a_layer_does_not_need_may_come_later(tmp_path: Path) -> None:
    images = [{"image_id": 1, "url": "https://x/VG_100K/1.jpg", "width": 9, "height": 9}]
    objects = [{"image_id": 1, "objects": [{"object_id": 5, "names": ["tree"], "x": 1, "y": 1, "w": 3, "h": 3}]}]
    regions = [
        {"regions": [{"region_id": 7, "image_id": 1, "phrase": "a tree", "x": 1, "y": 1, "width": 3, "height": 3}]}
    ]
    root = genome(tmp_path / "vg", image_data=images, objects=objects)
    before = ingested(tmp_path / "store", visual_genome, visual_genome.files(root, "train", None), "annotations")
    genome(root, region_descriptions=regions)
    files = visual_genome.files(root, "train", None)
    store = ShardStore(tmp_path / "store")
    assert describe_source_change(store, files, name="given", split="all") is None
    assert ingested(tmp_path / "store", visual_genome, files, "annotations") == before
    assert len(ingested(tmp_path / "store", visual_genome, files, "regions")) == 1
    genome(root, objects=[])
    assert "objects.json" in str(describe_source_change(store, files, name="given", split="all"))
    assert describe_source_change(store, files, name="given", split="all", layer="regions") is None
