"""Findings about a file's own masks: counted once by flag and image, with the reader's reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fakes.validated_datasets import clean, findings, look

from synthgen.formats.readers import coco_json
from synthgen.ingest.ingest import ingest
from synthgen.ingest.validation.validate import validate_dataset
from synthgen.storage.shard_store import ShardStore

SEGMENTATIONS: list[tuple[Any, str | None]] = [
    ([[1, 1, 20, 1, 20, 20]], None),
    ([1, 1, 20, 1, 20, 20], "flat_polygon"),
    ([[1, 1, 20, 1, 20, 20], []], "bad_polygon_part"),
    ([[1, 1]], "bad_segmentation"),
    ({"size": [1, 1], "counts": [1]}, "bad_segmentation"),
    ([], None),
]


def dirty() -> dict[str, Any]:
    content = clean(images=12, boxes=len(SEGMENTATIONS))
    for i, annotation in enumerate(content["annotations"]):
        annotation["segmentation"] = SEGMENTATIONS[i % len(SEGMENTATIONS)][0]
    return content


def test_the_findings_are_the_flags_of_the_layer_of_masks(tmp_path: Path) -> None:
    content = dirty()
    found = findings(look(tmp_path, content))
    assert {code: (f.count, f.images) for code, f in found.items()} == {
        "flat_polygon": (12, 12),
        "bad_polygon_part": (12, 12),
        "bad_segmentation": (24, 12),
    }
    files = coco_json.files(tmp_path, "train", tmp_path / "boxes.json")
    report = ingest(ShardStore(tmp_path / "s"), coco_json, files, name="d", split="s", layer="human")
    assert report.flags == {code: finding.count for code, finding in found.items()}
    assert (
        found["bad_segmentation"].examples[1].what == "its RLE is 1 high and 1 wide, the image is 48 high and 64 wide"
    )


@pytest.mark.parametrize("look_at_images", ["none", "header"])
def test_masks_are_checked_against_the_size_of_the_image_file(tmp_path: Path, look_at_images: str) -> None:
    """Without a size in the annotations, an RLE of another size is only found with the image."""
    content = clean(images=1, boxes=1)
    content["annotations"][0]["segmentation"] = {"size": [1, 1], "counts": [1]}
    look(tmp_path, content, "header")  # writes the photographs
    for image in content["images"]:
        del image["height"], image["width"]
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    report = validate_dataset(
        "coco_json",
        tmp_path,
        annotations=tmp_path / "boxes.json",
        images=tmp_path / "images",
        check_images=look_at_images,
    )
    assert ("bad_segmentation" in findings(report)) == (look_at_images == "header")
