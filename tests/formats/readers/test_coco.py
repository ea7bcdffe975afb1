"""COCO: counts of the real files, masks equal to pycocotools', where its files lie."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pytest
from fakes.ingested_samples import ingest_samples
from pycocotools.coco import COCO

from synthgen.errors import SynthgenError
from synthgen.formats.readers import coco, lvis, objects365
from synthgen.images.decode import find_image
from synthgen.records.rle import decode_mask, rle_area


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
    samples, report = ingest_samples(tmp_path, coco, files, layer)
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
    samples, _ = ingest_samples(tmp_path, module, files, "human")
    with contextlib.redirect_stdout(io.StringIO()):
        official = COCO(str(files.sources["instances"]))
    for annotation in (a for sample in samples for a in sample.annotations):
        theirs = official.annToMask(official.anns[annotation.id]).astype(bool)
        assert annotation.segmentation is not None and annotation.mask_source == "human"
        assert rle_area(annotation.segmentation) == theirs.sum()
        assert np.array_equal(decode_mask(annotation.segmentation), theirs)


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
