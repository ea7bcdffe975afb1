"""RefCOCO, RefCOCO+ and RefCOCOg: counts of the real files, splits without leakage, invalid files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes.refer_datasets import caption_texts, ingested, read, toy, write
from PIL import Image

from synthgen.errors import SynthgenError
from synthgen.formats.readers import DatasetFiles, coco_json, refcoco, refcoco_plus, refcocog
from synthgen.generate.dataset_spec import resolve_dataset
from synthgen.images.decode import find_image
from synthgen.ingest.validation.validate import validate_dataset
from synthgen.records.rle import rle_area

Shared = Callable[[str], Path]
EXCERPT = "data/refcoco_excerpt"


#: (dataset, its folder, whose split) -> refs and sentences of each part, and objects of the image.
REAL: list[tuple[Any, str, str, dict[str, tuple[int, int]], int]] = [
    (refcoco, "refcoco", "unc", {"train": (2, 5)}, 5),
    (refcoco, "refcoco", "google", {"train": (2, 6), "val": (1, 2), "test": (2, 6)}, 5),
    (refcoco_plus, "refcoco+", "unc", {"train": (2, 6)}, 2),
    (refcocog, "refcocog", "umd", {"train": (2, 4)}, 3),
    (refcocog, "refcocog", "google", {"train": (2, 4), "val": (1, 2)}, 3),
]


@pytest.mark.parametrize(("module", "folder", "by", "splits", "objects"), REAL, ids=lambda v: v if v is str else None)
def test_the_real_refs(
    tmp_path: Path,
    shared: Shared,
    module: Any,
    folder: str,
    by: str,
    splits: dict[str, tuple[int, int]],
    objects: int,
) -> None:
    place = shared(EXCERPT) / folder
    refs = json.loads((place / f"refs({by}).json").read_text())
    theirs = {a["id"]: a for a in json.loads((place / "instances.json").read_text())["annotations"]}
    for split, (described, sentences) in splits.items():
        files = module.files(shared(EXCERPT) / "nowhere", split, place / f"refs({by}).p")
        boxes, _ = ingested(tmp_path / split, module, files, "annotations")
        (sample,), report = ingested(tmp_path / split, module, files)
        assert (report.images, report.annotations, report.masks, report.flags) == (1, objects, objects, {})
        assert sample.image_key == "coco/000000460986"
        assert sample.file_name == "train2014/COCO_train2014_000000460986.jpg"
        captioned = {a.id: caption_texts(a) for a in sample.annotations if a.captions}
        assert captioned == {
            ref["ann_id"]: [sentence["sent"] for sentence in ref["sentences"]] for ref in refs if ref["split"] == split
        }
        assert (len(captioned), sum(map(len, captioned.values()))) == (described, sentences)
        assert {caption.source for a in sample.annotations for caption in a.captions} == {"human"}
        for annotation in sample.annotations:
            assert annotation.segmentation is not None and annotation.mask_source == "human"
            assert rle_area(annotation.segmentation) == pytest.approx(theirs[annotation.id]["area"], rel=0.03)
            assert annotation.bbox == tuple(theirs[annotation.id]["bbox"])
        assert [(a.id, a.bbox, a.category) for a in boxes[0].annotations] == [
            (a.id, a.bbox, a.category) for a in sample.annotations
        ]
        assert not any(a.captions or a.segmentation for a in boxes[0].annotations)


def test_the_excerpt_is_whole(tmp_path: Path, shared: Shared) -> None:
    """14 refs, 35 sentences, 6 masks: what is said of the excerpt, counted in what was made of it."""
    described = sentences = 0
    masks = set()
    for place, (module, folder, by, splits, _) in enumerate(REAL):
        for split in splits:
            files = module.files(tmp_path, split, shared(EXCERPT) / folder / f"refs({by}).p")
            (sample,), _ = ingested(tmp_path / str(place), module, files)
            described += sum(bool(a.captions) for a in sample.annotations)
            sentences += sum(len(a.captions) for a in sample.annotations)
            masks |= {a.segmentation for a in sample.annotations}
    assert (described, sentences, len(masks)) == (14, 35, 6)


@pytest.mark.parametrize(("module", "by"), [(refcoco, "google"), (refcocog, "google")])
def test_a_split_has_no_sentences_of_another(tmp_path: Path, shared: Shared, module: Any, by: str) -> None:
    """One photograph in all of Google's splits: each has what was said for it, and the objects of the others bare."""
    folder = module.__name__.rsplit(".", 1)[-1]
    seen: list[tuple[int, str]] = []
    for split in ("train", "val", *(["test"] if module is refcoco else [])):
        files = module.files(tmp_path, split, shared(EXCERPT) / folder / f"refs({by}).p")
        (sample,), _ = ingested(tmp_path / "store", module, files)
        seen += [(a.id, text) for a in sample.annotations for text in caption_texts(a)]
    assert len(seen) == len(set(seen)) > 0


@pytest.mark.parametrize(
    ("dataset", "module", "folder"),
    [("refcoco", refcoco, "refcoco"), ("refcoco-plus", refcoco_plus, "refcoco+"), ("refcocog", refcocog, "refcocog")],
)
def test_a_command_finds_the_release(shared: Shared, dataset: str, module: Any, folder: str) -> None:
    """Its folders are called as they unpack, whatever the option is called."""
    files = resolve_dataset(dataset, None, None, shared(EXCERPT), None, None).locate_files()
    by = "umd" if module is refcocog else "unc"
    assert files.sources["refs"] == shared(EXCERPT) / folder / f"refs({by}).p" and files.split == "train"


@pytest.mark.parametrize("module", [refcoco, refcoco_plus, refcocog])
def test_where_the_files_are(tmp_path: Path, module: Any) -> None:
    plugin = module.__name__.rsplit(".", 1)[-1]
    folder = {"refcoco_plus": "refcoco+"}.get(plugin, plugin)
    by = "umd" if module is refcocog else "unc"
    root = tmp_path / plugin
    with pytest.raises(SynthgenError, match=rf"no refs\({by}\)\.p in .*unpack .*zip of the release there"):
        module.files(root, "train", None)
    write(tmp_path, [], {}, folder, by)
    there = tmp_path / folder
    assert module.files(root, "val", None) == DatasetFiles(
        {"refs": there / f"refs({by}).p", "instances": there / "instances.json"}, root, split="val"
    )
    (there / "refs(google).p").touch()
    assert module.files(root, "train", there / "refs(google).p").sources["refs"] == there / "refs(google).p"
    with pytest.raises(SynthgenError, match=r"no file .*--annotations should name a file of refs"):
        module.files(root, "train", there / "refs(mine).p")
    (there / "instances.json").unlink()
    with pytest.raises(SynthgenError, match=r"no instances.json beside .*put it there"):
        module.files(root, "train", None)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("refcoco/train2014", "COCO_train2014_{:012d}.jpg"),
        ("refcoco/images/train2014", "COCO_train2014_{:012d}.jpg"),
        ("coco/train2014", "COCO_train2014_{:012d}.jpg"),
        ("coco/train2017", "{:012d}.jpg"),
        ("images/mscoco/images/train2014", "COCO_train2014_{:012d}.jpg"),
    ],
)
def test_the_photographs_of_either_year_are_found_and_the_shards_do_not_tell(
    tmp_path: Path, folder: str, name: str
) -> None:
    """Where photographs lie is nothing that decides bytes."""
    toy(tmp_path)
    bare, _ = read(tmp_path)
    for number in (1, 2):
        path = tmp_path / folder / name.format(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 20)).save(path)
    files = refcoco.files(tmp_path / "refcoco", "train", None)
    samples, _ = ingested(tmp_path / "again", refcoco, files)
    assert samples == bare
    assert [find_image(files.image_folder, s.file_name).name for s in samples] == [
        name.format(number) for number in (1, 2)
    ]
    (split,) = validate_dataset("refcoco", tmp_path / "refcoco", ["train"]).splits
    assert (split.images, split.boxes, split.files_checked) == (2, 6, 2)
    assert {finding.code for finding in split.findings} <= {"other_path"}


def test_their_masks_are_those_of_any_coco_style_file(tmp_path: Path, shared: Shared) -> None:
    source = shared(f"{EXCERPT}/refcoco/instances.json")
    plain = DatasetFiles({"instances": source}, tmp_path, split="train")
    (theirs,), _ = ingested(tmp_path / "plain", coco_json, plain)
    (ours,), _ = ingested(tmp_path, refcoco, refcoco.files(shared(f"{EXCERPT}/refcoco"), "train", None))
    assert theirs.image_key == ours.image_key
    assert [(a.id, a.segmentation) for a in theirs.annotations] == [(a.id, a.segmentation) for a in ours.annotations]
