"""LVIS: counts of the real files, image names, and the categories that annotators looked for."""

from __future__ import annotations

import json

import pytest
from fakes.ingested_samples import first_annotation, ingest_samples

from synthgen.formats.readers import lvis
from synthgen.storage.shard_store import ShardStore


def test_lvis_v05(tmp_path, shared):
    root, given = shared("data/coco_tiny"), shared("data/lvis_excerpt/lvis_val_100.json")
    files = lvis.files(root, "val", given)
    samples, report = ingest_samples(tmp_path, lvis, files)
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
    samples, _ = ingest_samples(tmp_path / "store", lvis, lvis.files(tmp_path, "val", None))
    assert samples[0].file_name == "train2017/000000397133.jpg" and samples[0].image_key == "coco/000000397133"
    assert first_annotation(samples).category == "aerosol_can"


@pytest.mark.parametrize("layer", lvis.LAYERS)
def test_lvis_tells_what_was_looked_for(tmp_path, shared, layer):
    """Names, of the ids in the file, in both layers; its own annotations contradict none."""
    files = lvis.files(shared("data/coco_tiny"), "val", shared("data/lvis_excerpt/lvis_val_100.json"))
    samples, _ = ingest_samples(tmp_path, lvis, files, layer)
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
    samples, _ = ingest_samples(tmp_path / "store", lvis, lvis.files(tmp_path, "val", None), layer)
    assert [s.neg_categories for s in samples] == [lacking, (), ()]
    assert [s.not_exhaustive_categories for s in samples] == [(), lacking, ()]
    assert [s.error is not None for s in samples] == [False, False, True]
    assert caplog.messages == ([f"d: {2 * left_out} {_LEFT_OUT}"] if left_out else [])


_LEFT_OUT = (
    "category ids in lists of categories that images lack, or have more of, are left out: the file does not name them"
)
