"""Image keys: the same photograph has one key in COCO, LVIS, RefCOCO and Visual Genome."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from synthgen.formats.readers import (
    DatasetFiles,
    ImageBatch,
    coco,
    coco_json,
    coco_panoptic,
    lvis,
    refcoco,
    refcoco_plus,
    refcocog,
    visual_genome,
)
from synthgen.formats.readers._coco_images import coco_key_from_name

Shared = Callable[[str], Path]


def keys(module: Any, files: DatasetFiles) -> dict[int, str]:
    """image_key by image id, for every layer the same."""
    found = [dict(_keys(module, files.for_layer(layer), layer)) for layer in module.LAYERS]
    assert all(one == found[0] for one in found)
    return found[0]


def _keys(module: Any, files: DatasetFiles, layer: str) -> Iterator[tuple[int, str]]:
    for batch in module.read(files, layer):
        if isinstance(batch, ImageBatch):
            yield from zip(batch.image_id.tolist(), batch.image_key, strict=True)


def test_coco_and_lvis_share_the_photographs_that_they_share(shared: Shared) -> None:
    """By the pixels: coco_tiny has three photographs of LVIS's excerpt, and their keys are what the two share."""
    theirs = coco.files(shared("data/coco_tiny"), "val2017", None)
    given = shared("data/lvis_excerpt/lvis_val_100.json")
    ours = lvis.files(shared("data/coco_tiny"), "val", given)
    files = {f"val2017/{path.name}" for path in theirs.image_folder.iterdir()}
    same = {image["id"] for image in json.loads(given.read_text())["images"] if image["coco_url"][-24:] in files}
    assert {int(url) for url in ("223747", "346638", "359937")} == same
    assert set(keys(coco, theirs).values()) & set(keys(lvis, ours).values()) == {f"coco/{i:012d}" for i in same}


def test_visual_genome_has_cocos_key_where_the_photograph_is_cocos(tmp_path: Path, shared: Shared) -> None:
    """The excerpt's own objects; `image_data.json` in the release's form says which photographs are COCO's."""
    for name in ("objects.json", "region_descriptions.json"):
        (tmp_path / name).symlink_to(shared("data/visual_genome_excerpt") / name)
    coco_id = {1: 223747, 2: None, 3: 142238, 4: 460986}
    data = [{"image_id": i, "coco_id": coco_id.get(i), "url": f"https://x/VG_100K/{i}.jpg"} for i in range(1, 16)]
    (tmp_path / "image_data.json").write_text(json.dumps(data))
    found = keys(visual_genome, visual_genome.files(tmp_path, "train", None))
    assert len(found) == 15 and found[2] == "visual_genome/2"
    lvis_keys = keys(lvis, lvis.files(tmp_path, "val", shared("data/lvis_excerpt/lvis_val_100.json")))
    assert found[1] == lvis_keys[223747]
    panoptic = shared("data/coco_panoptic_sample/panoptic_examples.json")
    assert found[3] == keys(coco_panoptic, coco_panoptic.files(tmp_path, "val2017", panoptic))[142238]
    refs = shared("data/refcoco_excerpt/refcoco")
    assert found[4] == keys(refcoco, refcoco.files(refs, "train", None))[460986]


@pytest.mark.parametrize(
    ("module", "refs"),
    [
        (refcoco, "refcoco/refs(unc).p"),
        (refcoco, "refcoco/refs(google).p"),
        (refcoco_plus, "refcoco+/refs(unc).p"),
        (refcocog, "refcocog/refs(umd).p"),
        (refcocog, "refcocog/refs(google).p"),
    ],
)
def test_all_of_refcoco_has_cocos_keys(tmp_path: Path, shared: Shared, module: Any, refs: str) -> None:
    """Also as any COCO-style file: by its URL, whatever is called a dataset there."""
    files = module.files(tmp_path, "train", shared("data/refcoco_excerpt") / refs)
    assert keys(module, files) == {460986: "coco/000000460986"}
    assert keys(coco_json, DatasetFiles({"instances": files.sources["instances"]}, tmp_path)) == keys(module, files)
    assert keys(coco, DatasetFiles({"instances": files.sources["instances"]}, tmp_path)) == keys(module, files)


def test_cocos_splits_of_two_years_are_seen_to_be_the_same_photographs(tmp_path: Path, shared: Shared) -> None:
    """`instances_val2014.json` is of the photographs that train2017 and val2017 have."""
    content = json.loads(shared("data/coco_tiny/annotations/instances_val2017.json").read_text())
    for image in content["images"]:
        image["file_name"] = f"COCO_val2014_{image['file_name']}"
    (tmp_path / "instances_val2014.json").write_text(json.dumps(content))
    earlier = keys(coco, coco.files(tmp_path, "val2014", None))
    assert earlier == keys(coco, coco.files(shared("data/coco_tiny"), "val2017", None)) and len(earlier) == 80


@pytest.mark.parametrize(
    ("file_name", "key"),
    [
        ("000000391895.jpg", "coco/000000391895"),
        ("COCO_val2014_000000391895.jpg", "coco/000000391895"),
        ("train2017/000000391895.png", "coco/000000391895"),
        ("", "coco/000000391895"),
        ("000000391896.jpg", ""),
        ("street_391895.jpg", ""),
        ("391895.jpg", ""),
    ],
)
def test_a_file_in_cocos_format_may_be_of_other_photographs(file_name, key):
    assert coco_key_from_name(391895, file_name) == key
