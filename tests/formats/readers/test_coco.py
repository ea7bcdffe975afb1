"""COCO, LVIS, Objects365 and a file of one's own: counts of the real files, masks of pycocotools, odd spellings."""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO

from synthgen.errors import SynthgenError
from synthgen.formats.readers import DatasetFiles, coco, coco_json, lvis, objects365
from synthgen.images.decode import find_image
from synthgen.ingest.ingest import IngestReport, ingest
from synthgen.records.geometry import decode_mask, rle_area, rle_bbox_xyxy
from synthgen.records.sample import Annotation, Sample
from synthgen.storage.shard_store import ShardStore


def ingested(
    folder: Path, module: Any, files: DatasetFiles, layer: str = "annotations", name: str = "d", split: str = "s"
) -> tuple[list[Sample], IngestReport]:
    store = ShardStore(folder)
    report = ingest(store, module, files, name=name, split=split, layer=layer)
    samples = [sample for shard in store.list_shards(name, split, layer) for sample in store.read_samples(shard)]
    assert report.images == len(samples)
    assert report.annotations == sum(len(sample.annotations) for sample in samples)
    return samples, report


def own(folder: Path, content: Any, layer: str = "annotations") -> tuple[list[Sample], IngestReport]:
    """Ingest a file of one's own."""
    path = folder / "own.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return ingested(folder / "store", coco_json, coco_json.files(folder, "train", path), layer)


def one(annotation: dict[str, Any], layer: str = "annotations", **image: Any) -> dict[str, Any]:
    return {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 20, "width": 30, **image}],
        "annotations": [{"id": 5, "image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4], **annotation}],
        "categories": [{"id": 2, "name": "cat"}],
    }


def the_box(samples: list[Sample]) -> Annotation:
    return samples[0].annotations[0]


# --- real files: the counts of their SOURCE.md


@pytest.mark.parametrize(
    ("folder", "split", "images", "annotations", "crowds", "used"),
    [
        ("coco128", "train2017", 128, 939, 10, 71),
        ("coco_tiny", "train2017", 80, 705, 6, 80),
        ("coco_tiny", "val2017", 80, 815, 11, 80),
    ],
)
@pytest.mark.parametrize("layer", coco.LAYERS)
def test_coco(tmp_path, shared, folder, split, images, annotations, crowds, used, layer):
    files = coco.files(shared(f"data/{folder}"), split, None)
    samples, report = ingested(tmp_path, coco, files, layer)
    assert (report.images, report.annotations, report.errors) == (images, annotations, 0)
    assert report.flags == {"crowd": crowds}
    assert report.masks == (annotations if layer == "human" else 0)
    content = json.loads(files.sources["instances"].read_text())
    names = {c["id"]: c["name"] for c in content["categories"]}
    theirs = {a["id"]: (tuple(a["bbox"]), names[a["category_id"]], bool(a["iscrowd"])) for a in content["annotations"]}
    ours = {a.id: (a.bbox, a.category, a.iscrowd) for sample in samples for a in sample.annotations}
    assert ours == theirs and len({category for _, category, _ in ours.values()}) == used
    for sample in samples:
        assert sample.image_key == f"coco/{sample.image_id:012d}"
        assert find_image(files.image_folder, sample.file_name).is_file()
        assert [a.id for a in sample.annotations] == sorted(a.id for a in sample.annotations)
    assert [s.image_id for s in samples] == sorted(i["id"] for i in content["images"])


@pytest.mark.parametrize(
    ("module", "folder", "annotations", "split"),
    [
        (coco, "coco128", None, "train2017"),
        (coco, "coco_tiny", None, "val2017"),
        (lvis, "coco_tiny", "lvis_excerpt/lvis_val_100.json", "val"),
    ],
)
def test_human_masks_are_those_of_pycocotools(tmp_path, shared, module, folder, annotations, split):
    given = shared(f"data/{annotations}") if annotations else None
    files = module.files(shared(f"data/{folder}"), split, given)
    samples, _ = ingested(tmp_path, module, files, "human")
    with contextlib.redirect_stdout(io.StringIO()):
        official = COCO(str(files.sources["instances"]))
    for annotation in (a for sample in samples for a in sample.annotations):
        theirs = official.annToMask(official.anns[annotation.id]).astype(bool)
        assert annotation.segmentation is not None and annotation.mask_source == "human"
        assert rle_area(annotation.segmentation) == theirs.sum()
        assert np.array_equal(decode_mask(annotation.segmentation), theirs)


def test_lvis_v05(tmp_path, shared):
    root, given = shared("data/coco_tiny"), shared("data/lvis_excerpt/lvis_val_100.json")
    files = lvis.files(root, "val", given)
    samples, report = ingested(tmp_path, lvis, files)
    assert (report.images, report.annotations) == (100, 977)
    there = [s.image_key for s in samples if (files.image_folder / s.file_name).is_file()]
    assert there == ["coco/000000223747", "coco/000000346638", "coco/000000359937"]
    footer = ShardStore(tmp_path).read_footer(ShardStore(tmp_path).list_shards("d", "s", "annotations")[0])
    assert footer is not None and len(footer["categories"]) == 1230 and footer["categories"][:1] == ["Band_Aid"]


def test_lvis_v1_has_no_file_names(tmp_path):
    (tmp_path / "lvis_v1_val.json").write_text(
        json.dumps(
            {
                "annotations": [{"id": 1, "image_id": 397133, "category_id": 3, "bbox": [1, 2, 3, 4]}],
                "categories": [{"id": 3, "name": "aerosol_can"}],
                "images": [
                    {
                        "id": 397133,
                        "height": 427,
                        "width": 640,
                        "coco_url": "http://images.cocodataset.org/train2017/000000397133.jpg",
                    }
                ],
            }
        )
    )
    samples, _ = ingested(tmp_path / "store", lvis, lvis.files(tmp_path, "val", None))
    assert samples[0].file_name == "train2017/000000397133.jpg" and samples[0].image_key == "coco/000000397133"
    assert the_box(samples).category == "aerosol_can"


@pytest.mark.parametrize("layer", lvis.LAYERS)
def test_lvis_tells_what_was_looked_for(tmp_path, shared, layer):
    """Names, of the ids in the file, in both layers; its own annotations contradict none."""
    files = lvis.files(shared("data/coco_tiny"), "val", shared("data/lvis_excerpt/lvis_val_100.json"))
    samples, _ = ingested(tmp_path, lvis, files, layer)
    content = json.loads(files.sources["instances"].read_text())
    names = {c["id"]: c["name"] for c in content["categories"]}
    theirs = {i["id"]: i for i in content["images"]}
    for sample in samples:
        image = theirs[sample.image_id]
        assert sample.neg_categories == tuple(names[i] for i in image["neg_category_ids"])
        assert sample.not_exhaustive_categories == tuple(names[i] for i in image["not_exhaustive_category_ids"])
        here = {annotation.category for annotation in sample.annotations}
        assert here.isdisjoint(sample.neg_categories) and here.issuperset(sample.not_exhaustive_categories)
    assert sum(len(sample.neg_categories) for sample in samples) == 942
    assert sum(len(sample.not_exhaustive_categories) for sample in samples) == 16


@pytest.mark.parametrize("layer", lvis.LAYERS)
@pytest.mark.parametrize(
    ("told", "lacking", "left_out"),
    [
        ([3], ("cat",), 0),
        (["3", 3.0, 4], ("cat", "cat", "dog"), 0),
        ([3, 99], ("cat",), 1),
        ([None, "x", 4, {}, 2**80], ("dog",), 4),
        ([], (), 0),
        (None, (), 0),
        ("3", (), 0),
    ],
)
def test_every_spelling_of_what_was_looked_for(tmp_path, caplog, layer, told, lacking, left_out):
    """Whatever it says or does not say, it never becomes None: then everything would count as absent."""
    (tmp_path / "lvis_v1_val.json").write_text(
        json.dumps(
            {
                "images": [
                    {"id": 1, "coco_url": "http://x/val2017/1.jpg", "neg_category_ids": told},
                    {"id": 2, "coco_url": "http://x/val2017/2.jpg", "not_exhaustive_category_ids": told},
                ],
                "annotations": [{"id": 7, "image_id": 9, "category_id": 3, "bbox": [1, 2, 3, 4]}],
                "categories": [{"id": 3, "name": "cat"}, {"id": 4, "name": "dog"}],
            }
        )
    )
    samples, _ = ingested(tmp_path / "store", lvis, lvis.files(tmp_path, "val", None), layer)
    assert [s.neg_categories for s in samples] == [lacking, (), ()]
    assert [s.not_exhaustive_categories for s in samples] == [(), lacking, ()]
    assert [s.error is not None for s in samples] == [False, False, True]
    assert caplog.messages == ([f"d: {2 * left_out} {_LEFT_OUT}"] if left_out else [])


_LEFT_OUT = (
    "category ids in lists of categories that images lack, or have more of, are left out: the file does not name them"
)


def test_objects365(tmp_path, shared):
    root = shared("data/objects365_excerpt")
    files = objects365.files(root, "train", root / "zhiyuan_objv2_excerpt.json")
    samples, report = ingested(tmp_path, objects365, files)
    assert (report.images, report.annotations) == (2, 1)
    first, second = samples
    assert first.image_key == "objects365/00215264" and find_image(files.image_folder, first.file_name).is_file()
    assert (second.image_id, second.height, second.width) == (420917, 512, 769)
    box = second.annotations[0]
    assert box.bbox == (491.3955078011, 88.1856689664, 35.65588379410002, 44.442382796800004)
    official = json.loads((root / "categories_365.json").read_text())
    names = {c["id"]: c["name"] for c in official}
    assert box.category == names[84].strip()
    footer = ShardStore(tmp_path).read_footer(ShardStore(tmp_path).list_shards("d", "s", "annotations")[0])
    assert footer is not None and footer["categories"] == sorted({name.strip() for name in names.values()})


def test_objects365_flags_and_category_order(tmp_path):
    """Names come from the file itself, stripped; what it says of a box is kept."""
    for split, names in (("train", ["Person", "Formula 1 "]), ("val", ["Formula 1 ", "Person"])):
        boxes = [
            {
                "id": 1,
                "image_id": 7,
                "category_id": 1,
                "bbox": [0, 0, 5, 5],
                "iscrowd": 0,
                "isfake": 1,
                "isreflected": 0,
            },
            {
                "id": 2,
                "image_id": 7,
                "category_id": 2,
                "bbox": [0, 0, 5, 5],
                "iscrowd": 1,
                "isfake": 0,
                "isreflected": 1,
            },
        ]
        content = {
            "images": [{"id": 7, "file_name": "images/v1/patch0/x.jpg", "height": 10, "width": 10}],
            "annotations": boxes,
            "categories": [{"id": i + 1, "name": name} for i, name in enumerate(names)],
        }
        (tmp_path / "annotations").mkdir(exist_ok=True)
        (tmp_path / f"annotations/zhiyuan_objv2_{split}.json").write_text(json.dumps(content))
        samples, _ = ingested(tmp_path / "store", objects365, objects365.files(tmp_path, split, None), split=split)
        first, second = samples[0].annotations
        assert [first.category, second.category] == [name.strip() for name in names]
        assert (first.flags, second.flags) == (("fake",), ("crowd", "reflected"))


# --- where files lie


@pytest.mark.parametrize("module", [coco, lvis, objects365])
def test_files_below_root_or_its_annotations(tmp_path, module):
    split = module.SPLITS[0]
    name = {coco: "instances_train2017.json", lvis: "lvis_v1_train.json", objects365: "zhiyuan_objv2_train.json"}[
        module
    ]
    with pytest.raises(SynthgenError, match=f"no {name} in .*--annotations"):
        module.files(tmp_path, split, None)
    (tmp_path / name).write_text("{}")
    assert module.files(tmp_path, split, None).sources == {"instances": tmp_path / name}
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / name).write_text("{}")
    assert module.files(tmp_path, split, None).sources == {"instances": tmp_path / "annotations" / name}
    given = tmp_path / "mine.json"
    with pytest.raises(SynthgenError, match=r"no file .*mine\.json"):
        module.files(tmp_path, split, given)
    given.write_text("{}")
    assert module.files(tmp_path, split, given).sources == {"instances": given}
    if module is not lvis:
        assert module.files(tmp_path, split, given).image_folder == tmp_path
        (tmp_path / split).mkdir()
        assert module.files(tmp_path, split, given).image_folder == tmp_path / split


def test_ones_own_file_has_to_be_named(tmp_path):
    with pytest.raises(SynthgenError, match="--annotations FILE"):
        coco_json.files(tmp_path, "train", None)


# --- a file of one's own


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("http://images.cocodataset.org/train2017/000000391895.jpg", "coco/000000391895"),
        ("https://images.cocodataset.org/val2014/COCO_val2014_000000391895.jpg", "coco/000000391895"),
        ("http://example.org/train2017/000000391895.jpg", "d/a.jpg"),
        ("http://example.org/?images.cocodataset.org/000000391895.jpg", "d/a.jpg"),
        ("", "d/a.jpg"),
    ],
)
def test_a_photograph_of_cocos_has_cocos_key(tmp_path, url, key):
    samples, _ = own(tmp_path, one({}, coco_url=url))
    assert samples[0].image_key == key


@pytest.mark.parametrize(
    ("change", "bbox", "flags"),
    [
        ({}, (1, 2, 3, 4), ()),
        ({"bbox": ["1", "2", "3.5", "4"]}, (1, 2, 3.5, 4), ()),
        ({"bbox": [1, 2, 3]}, (0, 0, 0, 0), ("degenerate", "no_box")),
        ({"bbox": []}, (0, 0, 0, 0), ("degenerate", "no_box")),
        ({"bbox": None}, (0, 0, 0, 0), ("degenerate", "no_box")),
        ({"bbox": {"x": 1}}, (0, 0, 0, 0), ("degenerate", "no_box")),
        ({"bbox": "1,2,3,4"}, (0, 0, 0, 0), ("degenerate", "no_box")),
        ({"bbox": [1, 2, None, 4]}, (1, 2, math.nan, 4), ("degenerate",)),
        ({"bbox": [1, 2, math.nan, 4]}, (1, 2, math.nan, 4), ("degenerate",)),
        ({"bbox": [1, 2, math.inf, 4]}, (1, 2, math.inf, 4), ("degenerate",)),
        ({"bbox": [1, 2, 300, 4]}, (1, 2, 300, 4), ("clipped",)),
        ({"bbox": [40, 2, 3, 4]}, (40, 2, 3, 4), ("outside",)),
        ({"iscrowd": 1}, (1, 2, 3, 4), ("crowd",)),
        ({"iscrowd": True}, (1, 2, 3, 4), ("crowd",)),
        ({"iscrowd": "1"}, (1, 2, 3, 4), ("crowd",)),
        ({"iscrowd": None}, (1, 2, 3, 4), ()),
        ({"iscrowd": "0"}, (1, 2, 3, 4), ()),
        ({"category_id": 77}, (1, 2, 3, 4), ("unknown_category",)),
        ({"category_id": None}, (1, 2, 3, 4), ("unknown_category",)),
        ({"category_id": "2"}, (1, 2, 3, 4), ()),
        ({"category_id": "cat"}, (1, 2, 3, 4), ("unknown_category",)),
        ({"image_id": "1", "id": 5.0}, (1, 2, 3, 4), ()),
    ],
)
@pytest.mark.parametrize("layer", coco_json.LAYERS)
def test_every_spelling_of_a_box(tmp_path, change, bbox, flags, layer):
    samples, _ = own(tmp_path, one(change), layer)
    box = the_box(samples)
    assert np.array_equal(box.bbox, bbox, equal_nan=True)
    assert box.flags == flags and box.id == 5
    assert box.category == ("" if "unknown_category" in flags else "cat")


def test_annotations_without_ids_are_numbered(tmp_path):
    content = one({})
    content["annotations"] = [{"image_id": 1, "bbox": [i, 0, 1, 1]} for i in range(3)]
    content["annotations"][1]["id"] = 70
    samples, _ = own(tmp_path, content)
    assert [(a.id, a.bbox[0]) for a in samples[0].annotations] == [(1, 0.0), (3, 2.0), (70, 1.0)]


@pytest.mark.parametrize(
    ("image", "size"),
    [
        ({"height": None, "width": None}, (0, 0)),
        ({"height": "20", "width": 30.0}, (20, 30)),
        ({"height": -5, "width": 10**30}, (0, 0)),
        ({"height": math.nan, "width": "wide"}, (0, 0)),
    ],
)
def test_every_spelling_of_a_size(tmp_path, image, size):
    samples, _ = own(tmp_path, one({"bbox": [100, 100, 1, 1]}, **image))
    assert (samples[0].height, samples[0].width) == size
    assert the_box(samples).flags == (() if size == (0, 0) else ("outside",))


def test_a_file_name_that_is_no_unicode(tmp_path):
    samples, _ = own(tmp_path, json.dumps(one({}, file_name="\ud800.jpg")))
    assert samples[0].file_name == "?.jpg"


def test_an_image_without_a_name_is_a_row_with_an_error(tmp_path):
    samples, report = own(tmp_path, one({}, file_name=None))
    assert report.errors == 1 and "no file name" in str(samples[0].error) and len(samples[0].annotations) == 1


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (one({"image_id": "x"}), r"record 1 of 'annotations' cannot be understood \(its 'image_id' should be a whole"),
        (one({"image_id": None}), "it is null"),
        (one({"image_id": 10**30}), "should be a whole number"),
        (one({}, id="uuid-17"), "record 1 of 'images' .* it is \"uuid-17\""),
        ({"images": []}, "has no 'annotations'"),
        ({"annotations": []}, "has no 'images'"),
        ({"images": [], "annotations": []}, "list no images"),
        ([], "a JSON array where a JSON object"),
    ],
)
def test_what_has_no_identity_is_refused(tmp_path, content, sentence):
    with pytest.raises(SynthgenError, match=sentence) as why:
        own(tmp_path, content)
    assert "\n" not in str(why.value)
    assert not list((tmp_path / "store").rglob("*.parquet"))


SQUARE = [[2, 2, 10, 2, 10, 12, 2, 12]]


@pytest.mark.parametrize(
    ("segmentation", "area"),
    [
        (SQUARE, 80),
        ([*SQUARE, [20, 2, 22, 2, 22, 4, 20, 4]], 84),
        ({"size": [20, 30], "counts": [0, 40, 560]}, 40),
        ({"size": [20, 30], "counts": "0X1`a0"}, 40),
        (None, None),
        ([], None),
    ],
)
def test_human_masks(tmp_path, segmentation, area):
    samples, report = own(tmp_path, one({"segmentation": segmentation}), "human")
    box = the_box(samples)
    assert box.flags == () and box.bbox == (1, 2, 3, 4)
    assert (box.segmentation and rle_area(box.segmentation)) == area
    assert report.masks == (area is not None) and box.mask_source == ("human" if area else None)


@pytest.mark.parametrize(
    "segmentation",
    [
        "abc",
        17,
        [[1, 2]],
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5, math.nan]],
        [["a", "b", "c", "d", "e", "f"]],
        [[1e300, 0, 0, 1e300, 5, 5]],
        [[[1, 2, 3, 4, 5, 6]]],
        {"size": [20, 31], "counts": [600]},
        {"size": [20, 30], "counts": [601]},
        {"size": [20, 30], "counts": [-1, 601]},
        {"size": [20, 30], "counts": "~~~~"},
        {"size": 20, "counts": [600]},
        {"size": [20, 30], "counts": None},
        {"counts": [600]},
    ],
)
def test_a_bad_segmentation_is_flagged_and_the_box_stays(tmp_path, segmentation):
    samples, report = own(tmp_path, one({"segmentation": segmentation}), "human")
    box = the_box(samples)
    assert box.flags == ("bad_segmentation",) and box.segmentation is None and box.bbox == (1, 2, 3, 4)
    assert report.masks == 0


@pytest.mark.parametrize("size", [(2_000_000_000, 2_000_000_000), (0, 0)])
def test_a_mask_of_an_absurd_image_is_never_made(tmp_path, size):
    samples, _ = own(tmp_path, one({"segmentation": SQUARE}, height=size[0], width=size[1]), "human")
    assert the_box(samples).flags == ("bad_segmentation",)


def test_a_box_is_read_off_the_mask_where_there_is_none(tmp_path):
    samples, _ = own(tmp_path, one({"segmentation": SQUARE, "bbox": None}), "human")
    box = the_box(samples)
    assert box.segmentation is not None
    x1, y1, x2, y2 = rle_bbox_xyxy(box.segmentation)
    assert box.bbox == (x1, y1, x2 - x1, y2 - y1) == (2, 2, 8, 10) and box.flags == ("no_box",)


def test_categories(tmp_path):
    """Stripped, spelt as they are, the last one of an id; two ids of one name are one category."""
    content = one({})
    ids = [1, 2, 3, 4, 5, 6]
    content["categories"] = [
        *({"id": i, "name": name} for i, name in zip(ids, [" Bakset", "cat ", "cat", "", None, "old"], strict=True)),
        {"id": 6, "name": "new"},
    ]
    content["annotations"] = [{"id": i, "image_id": 1, "category_id": i, "bbox": [1, 1, 1, i]} for i in ids]
    samples, report = own(tmp_path, content)
    assert [a.category for a in samples[0].annotations] == ["Bakset", "cat", "cat", "", "", "new"]
    assert report.flags == {"unknown_category": 2}
    store = ShardStore(tmp_path / "store")
    footer = store.read_footer(store.list_shards("d", "s", "annotations")[0])
    assert footer is not None and footer["categories"] == ["Bakset", "cat", "new"]


def test_counts_of_flags_add_up(tmp_path, shared):
    """A real file made dirty: as many flags as mistakes."""
    content = json.loads(shared("data/coco_tiny/annotations/instances_val2017.json").read_text())
    mistakes: Counter[str] = Counter()
    for place, annotation in enumerate(content["annotations"]):
        if annotation["iscrowd"]:
            mistakes["crowd"] += 1
        elif place % 7 == 0:
            annotation["bbox"] = [-5, -5, 20, 20]
            annotation["category_id"] = 1 + place  # so that no two are duplicates
            mistakes["clipped"] += 1
        elif place % 11 == 0:
            annotation["bbox"][2] = 0
            mistakes["degenerate"] += 1
    names = [{"id": i, "name": str(i)} for i in range(1, 1000)]
    _, report = own(tmp_path, content | {"categories": names})
    assert report.flags == dict(mistakes) and report.annotations == 815
