"""The last lines: "ready" only where masks can come out, and the right remedy for what stops."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes.validated_datasets import clean, findings, look, write

from synthgen.formats.readers import coco_json
from synthgen.ingest.ingest import ingest
from synthgen.ingest.validation.diagnosis import ValidationReport
from synthgen.ingest.validation.validate import validate_dataset
from synthgen.storage.shard_store import ShardStore

SQUARE = [[10, 10, 30, 10, 30, 30, 10, 30]]


def changed(tmp_path: Path, change: Callable[[int, dict[str, Any]], object], share: float = 1.0) -> ValidationReport:
    """A dataset of 48 boxes with a change to the first of its annotations."""
    content = clean()
    annotations = content["annotations"]
    for i, annotation in enumerate(annotations[: round(share * len(annotations))]):
        change(i, annotation)
    return look(tmp_path, content)


UNUSABLE: dict[str, Callable[[int, dict[str, Any]], object]] = {
    "crowds": lambda _, one: one.update(iscrowd=1),
    "crowds with masks": lambda _, one: one.update(iscrowd=1, segmentation=SQUARE),
    "no area": lambda _, one: one.update(bbox=[5, 5, 0, 0]),
    "outside": lambda i, one: one.update(bbox=[500 + i, 500, 5, 5]),
    "not finite": lambda _, one: one.update(bbox=[float("nan")] * 4),
    "five numbers": lambda _, one: one.update(bbox=[1, 2, 3, 4, 0.5]),
    "no numbers": lambda _, one: one.update(bbox=[]),
    "no box": lambda _, one: one.pop("bbox"),
    "different ones": lambda i, one: one.update(iscrowd=1) if i % 2 else one.update(bbox=[5, 5, 0, 0]),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_ready_is_never_said_where_no_mask_can_come_out(tmp_path: Path, kind: str) -> None:
    found = changed(tmp_path, UNUSABLE[kind])
    assert not found.is_ready and found.splits[0].prompted == 0
    assert found.verdict.startswith("not ready") and found.next.startswith("synthgen doctor")


def test_all_crowds_name_the_exporter_and_the_option(tmp_path: Path) -> None:
    found = changed(tmp_path, UNUSABLE["crowds with masks"])
    assert findings(found)["all_crowds"].stops
    assert "all 48 annotations are crowds" in found.verdict and "CVAT" in found.verdict
    assert "--crowds-as-objects" in found.verdict and found.next.endswith("--crowds-as-objects")


def test_crowds_beside_a_box_without_area_name_the_option_too(tmp_path: Path) -> None:
    found = changed(tmp_path, lambda i, one: one.update(iscrowd=1) if i else one.update(bbox=[5, 5, 0, 0]))
    assert "47 of 48 annotations are crowds" in found.verdict
    assert found.next.endswith("--crowds-as-objects")


def test_nearly_all_crowds_are_looked_at(tmp_path: Path) -> None:
    found = changed(tmp_path, UNUSABLE["crowds"], share=0.95)
    assert found.is_ready and not findings(found)["all_crowds"].stops
    assert found.verdict.startswith("ready, but only 2 of 48 boxes can get a mask: ")
    few = changed(tmp_path / "few", UNUSABLE["crowds"], share=0.2)
    assert "all_crowds" not in findings(few) and few.verdict.startswith("ready: no mask for 10 boxes (crowd)")


def test_a_split_of_crowds_does_not_stop_the_other_splits(tmp_path: Path) -> None:
    for split, iscrowd in (("train", 0), ("val", 1)):
        content = clean()
        for annotation in content["annotations"]:
            annotation["iscrowd"] = iscrowd
        write(tmp_path / split, content, files=False).rename(tmp_path / f"zhiyuan_objv2_{split}.json")
    found = validate_dataset("objects365", tmp_path, check_images="none")
    assert found.is_ready and found.verdict == "ready: no mask for 48 boxes (crowd)"
    assert not findings(found, 1)["all_crowds"].stops
    alone = validate_dataset("objects365", tmp_path, ["val"], check_images="none")
    assert not alone.is_ready and findings(alone)["all_crowds"].stops


def test_few_usable_boxes_are_looked_at(tmp_path: Path) -> None:
    found = changed(tmp_path, UNUSABLE["no area"], share=0.75)
    assert found.is_ready and findings(found)["few_usable"].count == 36
    assert "only 12 of 48" in found.verdict


def test_a_source_of_masks_without_boxes_is_ready_for_an_ingest(tmp_path: Path) -> None:
    def only_a_mask(_: int, one: dict[str, Any]) -> None:
        one.update(segmentation={"size": [48, 64], "counts": [100, 20, 2952]})
        one.pop("bbox")

    found = changed(tmp_path, only_a_mask)
    if not found.splits[0].prompted:  # the reader may compute boxes from the masks
        assert found.is_ready and found.splits[0].masks and found.next.endswith("--layer human")
    else:
        assert found.is_ready


def test_weak_evidence_of_a_convention_is_in_the_verdict(tmp_path: Path) -> None:
    def to_fractions(_: int, one: dict[str, Any]) -> None:
        one.update(bbox=[0.1, 0.2, 0.3, 0.4])

    found = changed(tmp_path, to_fractions, share=0.2)
    assert found.is_ready and not findings(found)["normalised_boxes"].stops
    assert found.verdict.startswith("ready: normalised_boxes is likely, look at it first")


@pytest.mark.parametrize("name", ["21-bbox-five-numbers", "37-cvat-masks-iscrowd-1"])
def test_a_case_without_a_usable_box(shared: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    folder = shared(f"cases/{name}")
    found = validate_dataset("coco_json", folder, annotations=folder / "boxes.json", images=folder / "photos")
    assert not found.is_ready and found.verdict.startswith("not ready: no box can be used")
    files = coco_json.files(folder, "train", folder / "boxes.json").with_image_folder(folder / "photos")
    report = ingest(ShardStore(tmp_path), coco_json, files, name="d", split="train")  # type: ignore[arg-type]
    assert not report.has_usable_box, "the command then ends with exit code 1"
