"""Packed datasets from the boxes to training batches: the same results as for the same dataset unpacked."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fakes import packed_datasets as packed
from fakes.ingested_samples import without_file_numbers

from synthgen.dataloading.leakage.same_files import ImagePaths
from synthgen.dataloading.manifest import load_manifest
from synthgen.dataloading.manifest_check import check_manifest
from synthgen.dataloading.train_loader import TrainLoader
from synthgen.errors import SynthgenError
from synthgen.images.decode import find_image, load_rgb
from synthgen.ingest.validation.validate import validate_dataset
from synthgen.records.sample import Sample
from synthgen.storage.shard_store import ShardStore

COUNT = 6
LAYOUTS = ["parquet", "saved", "tar"]

MANIFEST = """
name: walk
store: shards
mixture: [{{shards: {layer}, task: instance}}]
augment: {{size: 64, scale: [1.0, 1.0], whole_scale: [1.0, 1.0], flip: 0}}
"""


def write(folder: Path, layout: str) -> tuple[str, Path]:
    """The dataset in one layout; (its reader, its folder)."""
    if layout == "tar":
        packed.write_tar(folder / "webdataset" / "train-000.tar", packed.samples(4))
        packed.write_tar(folder / "webdataset" / "train-001.tar", packed.samples(2, seed=4))
        return "webdataset", folder / "webdataset"
    if layout == "parquet":
        packed.write_parquet(folder / "hf/data/train-00000-of-00001.parquet", packed.table(COUNT), compression="zstd")
    else:
        packed.write_saved(folder / "hf", packed.table(COUNT))
    return "hf", folder / "hf"


def samples(layer: str) -> list[Sample]:
    store = ShardStore(Path("shards"))
    return [sample for shard in store.list_shards(*layer.split("/")) for sample in store.read_samples(shard)]


def without_names(found: list[Sample]) -> list[Sample]:
    plain = [replace(sample, image_id=0, image_key="", file_name="") for sample in without_file_numbers(found)]
    return sorted(plain, key=lambda sample: [a.id for a in sample.annotations])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("segmenter", ["box_fill", "grabcut"])
def test_masks_and_pictures_are_those_of_the_unpacked_dataset(
    synthgen: Callable[..., tuple[int, str]], layout: str, segmenter: str
) -> None:
    reader, _ = write(Path(), layout)
    packed.write_loose(Path("loose"), COUNT)
    loose = ("--dataset", "coco-json", "--annotations", "loose/boxes.json")
    for words in (("--dataset", reader, "--data", "."), loose):
        code, told = synthgen("masks", *words, "--segmenter", segmenter)
        assert code == 0, told
    found = samples(f"{reader}/train/masks")
    assert without_names(found) == without_names(samples("boxes/train/masks"))
    assert all(a.segmentation is not None for sample in found for a in sample.annotations)
    assert not any(sample.error for sample in found)
    if segmenter == "box_fill" and layout == "tar":
        code, told = synthgen("show", f"{reader}/train/masks", "--images", reader)
        assert code == 0, told
        pictures = list(Path("shards").rglob("show/*.png"))
        assert len(pictures) == COUNT + 1
        code, told = synthgen("status")
        assert code == 0 and f"{reader}/train/masks" in told.replace(" ", "")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_training_reads_packed_images_in_worker_processes(
    synthgen: Callable[..., tuple[int, str]], layout: str
) -> None:
    reader, folder = write(Path(), layout)
    packed.write_loose(Path("loose"), COUNT)
    assert synthgen("masks", "--dataset", reader, "--data", ".", "--segmenter", "box_fill")[0] == 0
    Path("walk.yaml").write_text(MANIFEST.format(layer=f"{reader}/train/masks"))
    assert not check_manifest(Path("walk.yaml")).warnings
    by_key = {sample.image_key: sample for sample in samples(f"{reader}/train/masks")}
    seen = set()
    with TrainLoader(load_manifest(Path("walk.yaml")), batch_size=3, num_workers=2) as loader:
        for _ in range(8):
            batch = next(loader)
            assert torch.isfinite(batch.images).all()
            seen |= {target["image_key"] for target in batch.targets}
    assert seen == by_key.keys() and len(seen) == COUNT
    for sample in by_key.values():
        source = find_image(folder, sample.file_name)
        number = (sample.annotations[0].id - 1) // 10
        assert (load_rgb(source) == load_rgb(Path(f"loose/{number:03d}.jpg"))).all()


def test_an_archive_that_is_learned_and_measured_under_two_names_is_leakage(
    synthgen: Callable[..., tuple[int, str]],
) -> None:
    reader, folder = write(Path(), "tar")
    for name in ("mine", "yours"):
        assert synthgen("masks", "--dataset", reader, "--data", ".", "--segmenter", "box_fill", "--name", name)[0] == 0
    Path("m.yaml").write_text(
        MANIFEST.format(layer="mine/train/masks") + "eval: [{shards: yours/train/masks, task: instance}]\n"
    )
    with pytest.raises(SynthgenError, match=rf"{COUNT} images of mine/train/masks are also in"):
        check_manifest(Path("m.yaml"))
    name = "train-000.tar/000000000001.jpg"  # one of COCO's names, which has several candidates
    packed.write_tar(folder / "train-000.tar", [("COCO_val2014_000000000001.jpg", b"x"), ("000000000001.jpg", b"y")])
    assert ImagePaths(folder).resolve_path(name) == str(folder.resolve() / name)


def test_the_doctor_reports_packed_images_that_are_missing_cut_or_of_another_size(tmp_path: Path) -> None:
    members = packed.samples(40)
    for i, content in ((1, packed.jpeg(1)[:-300]), (2, b"<html>not found</html>"), (3, packed.jpeg(3, width=40))):
        members[2 * i] = (f"{i:03d}.jpg", content)
    packed.write_tar(tmp_path / "train.tar", members)
    report = validate_dataset("webdataset", tmp_path, ["train"], check_images="all")
    found = {finding.code: finding for finding in report.splits[0].findings}
    assert {code: found[code].count for code in ("unreadable", "wrong_size")} == {"unreadable": 2, "wrong_size": 1}
    assert found["unreadable"].examples[0].where.startswith("train.tar/")
    assert "no_boxes" not in found

    content = packed.table(40, image=[{"bytes": packed.jpeg(i), "path": ""} if i != 5 else None for i in range(40)])
    packed.write_parquet(tmp_path / "hf/data/train-00000-of-00001.parquet", content)
    report = validate_dataset("hf", tmp_path / "hf", ["train"], check_images="all")
    [finding] = [one for one in report.splits[0].findings if one.code == "unreadable"]
    assert finding.count == 1
    assert finding.examples[0].what == "its row has no image"


def test_the_doctor_reports_a_member_that_is_missing(tmp_path: Path) -> None:
    content = packed.coco(40)
    for image in content["images"]:
        image["file_name"] = f"shards/0.tar/{image['file_name']}"
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    packed.write_tar(tmp_path / "shards/0.tar", packed.samples(39))
    report = validate_dataset("coco_json", tmp_path, annotations=tmp_path / "boxes.json", check_images="all")
    [finding] = [one for one in report.splits[0].findings if one.code == "missing"]
    assert finding.count == 1 and finding.examples[0].what == "no member 039.jpg in its archive"
    assert report.splits[0].files_decoded == 40
