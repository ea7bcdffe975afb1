"""Visual Genome: counts of the real excerpt, phrases as human captions, odd releases."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes.reader_output import ingest_layer, make_sample, read_layer

from synthgen.errors import SynthgenError
from synthgen.formats.readers import AnnotationBatch, Categories, coco_panoptic, visual_genome
from synthgen.ingest.ingest import describe_source_change
from synthgen.storage.shard_store import ShardStore

Shared = Callable[[str], Path]


def genome(root: Path, **arrays: Any) -> Path:
    root.mkdir(exist_ok=True)
    for name, content in arrays.items():
        (root / f"{name}.json").write_text(json.dumps(content))
    return root


def test_the_excerpt_has_the_counts_of_its_source(shared: Shared) -> None:
    files = visual_genome.files(shared("data/visual_genome_excerpt"), "train", None)
    images, objects = read_layer(visual_genome, files, "annotations")
    again, regions = read_layer(visual_genome, files, "regions")
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
    images, regions = read_layer(visual_genome, files, "regions")
    rows = [row for row in regions if row["image_id"] == 1]
    sample = make_sample(images, rows, 1)
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
    found, rows = read_layer(visual_genome, files, "annotations")
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
    images, rows = read_layer(visual_genome, files, "annotations")
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
    images, rows = read_layer(visual_genome, files, "regions")
    assert list(images) == [1, 2, 3]
    assert [(r["image_id"], r["id"], r["payload"]) for r in rows] == [
        (1, 11, b"a hat"), (2, 12, None), (3, 13, None), (3, 14, "ein Hut \u00e4".encode())
    ]  # fmt: skip
    assert all(r["bbox"] == (-3, -1, 10, 20) and r["category"] == "" for r in rows)
    done = visual_genome.complete(files, "regions")(make_sample(images, rows[2:], 3), [None, "ein Hut \u00e4".encode()])
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


def test_a_file_of_regions_is_no_file_of_objects(tmp_path: Path) -> None:
    box = {"region_id": 1, "x": 1, "y": 1, "width": 2, "height": 2, "phrase": "a hat"}
    root = genome(tmp_path, region_descriptions=[{"id": 1, "regions": [box]}])
    files = visual_genome.files(root, "train", root / "region_descriptions.json")
    with pytest.raises(SynthgenError, match=r"region_descriptions.json has no 'objects' in any of its elements"):
        list(visual_genome.read(files, "annotations"))


def test_phrases_and_masks_arrive_in_shards(tmp_path: Path, shared: Shared) -> None:
    files = visual_genome.files(shared("data/visual_genome_excerpt"), "train", None)
    regions = [a for sample in ingest_layer(tmp_path, visual_genome, files, "regions") for a in sample.annotations]
    assert len(regions) == 3028 and all(len(a.captions) == 1 and a.category == "" for a in regions)
    assert not any("unknown_category" in a.flags for a in regions), "a region has no category to be unknown"
    objects = [a for sample in ingest_layer(tmp_path, visual_genome, files, "annotations") for a in sample.annotations]
    assert len(objects) == 460 and all(a.category for a in objects)
    root = shared("data/coco_panoptic_sample")
    files = coco_panoptic.files(root, "val2017", root / "panoptic_examples.json")
    samples = ingest_layer(tmp_path, coco_panoptic, files, "human")
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
    before = ingest_layer(tmp_path / "store", visual_genome, visual_genome.files(root, "train", None), "annotations")
    genome(root, region_descriptions=regions)
    files = visual_genome.files(root, "train", None)
    store = ShardStore(tmp_path / "store")
    assert describe_source_change(store, visual_genome, files, name="given", split="all") is None
    assert ingest_layer(tmp_path / "store", visual_genome, files, "annotations") == before
    assert len(ingest_layer(tmp_path / "store", visual_genome, files, "regions")) == 1
    genome(root, objects=[])
    assert "objects.json" in str(describe_source_change(store, visual_genome, files, name="given", split="all"))
    assert describe_source_change(store, visual_genome, files, name="given", split="all", layer="regions") is None
