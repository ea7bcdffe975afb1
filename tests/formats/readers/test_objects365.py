"""Objects365: counts of the real files, flags and the order of categories."""

from __future__ import annotations

import json

from fakes.ingested_samples import ingest_samples

from synthgen.formats.readers import objects365
from synthgen.images.decode import find_image
from synthgen.storage.shard_store import ShardStore


def test_objects365(tmp_path, shared):
    root = shared("data/objects365_excerpt")
    files = objects365.files(root, "train", root / "zhiyuan_objv2_excerpt.json")
    samples, report = ingest_samples(tmp_path, objects365, files)
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
        samples, _ = ingest_samples(
            tmp_path / "store", objects365, objects365.files(tmp_path, split, None), split=split
        )
        first, second = samples[0].annotations
        assert [first.category, second.category] == [name.strip() for name in names]
        assert (first.flags, second.flags) == (("fake",), ("crowd", "reflected"))
