"""WebDataset: samples of shards, forms of their json, splits, damaged shards."""

from __future__ import annotations

import gzip
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import packed_datasets as packed
from fakes.ingested_samples import without_file_numbers
from fakes.reader_output import ingest_layer

from synthgen.errors import SynthgenError
from synthgen.formats.readers import SourceFinding, coco_json, webdataset
from synthgen.ingest.ingest import describe_source_change, ingest
from synthgen.records.rle import decode_mask
from synthgen.records.sample import Sample
from synthgen.storage.shard_store import ShardStore

BOXES = [[1.0, 2.0, 8.0, 4.5], [3.0, 3.0, 6.0, 6.0]]


def load(tmp_path: Path, root: Path, layer: str = "annotations", split: str = "train") -> list[Sample]:
    return ingest_layer(tmp_path / f"store-{layer}", webdataset, webdataset.files(root, split, None), layer)


def findings(root: Path, split: str = "train") -> dict[str, SourceFinding]:
    parts = webdataset.read(webdataset.files(root, split, None), "annotations")
    return {part.code: part for part in parts if isinstance(part, SourceFinding)}


def shard(path: Path, *records: Any) -> Path:
    """A shard with one photograph for each json; None = no json."""
    members: list[tuple[str, bytes]] = []
    for i, record in enumerate(records):
        members.append((f"{i:03d}.jpg", packed.jpeg(i)))
        if record is not None:
            members.append((f"{i:03d}.json", record if isinstance(record, bytes) else json.dumps(record).encode()))
    packed.write_tar(path, members)
    return path.parent


def test_a_dataset_is_that_of_its_coco_file(tmp_path: Path) -> None:
    packed.write_tar(tmp_path / "d/train-000.tar", packed.samples(5))
    packed.write_tar(tmp_path / "d/train-001.tar", packed.samples(4, seed=5))
    boxes = packed.write_loose(tmp_path / "loose", 9)
    coco = ingest_layer(tmp_path / "coco", coco_json, coco_json.files(boxes.parent, "train", boxes), "annotations")
    found = sorted(load(tmp_path, tmp_path / "d"), key=lambda sample: sample.file_name)
    assert [(s.height, s.width, s.annotations, s.error) for s in found] == [
        (s.height, s.width, s.annotations, s.error) for s in without_file_numbers(coco)
    ]
    assert found[5].file_name == "train-001.tar/005.jpg"
    assert len({sample.image_id for sample in found}) == 9


@pytest.mark.parametrize(
    "record",
    [
        {"annotations": [{"bbox": BOXES[0], "category": "a"}, {"bbox": BOXES[1], "category": "b"}]},
        {"objects": [{"bbox": BOXES[0], "label": "a"}, {"bbox": BOXES[1], "label": "b"}], "caption": "x"},
        {"objects": {"bbox": BOXES, "category": ["a", "b"], "area": [1, 2]}},
        {"boxes": BOXES, "labels": ["a", "b"], "width": 48, "height": 32, "caption": "x"},
        {"bbox": BOXES, "category": ["a", "b"], "list": [1]},
        [{"bbox": BOXES[0], "name": "a"}, {"bbox": BOXES[1], "name": "b"}],
        {
            "annotations": [{"bbox": BOXES[0], "category_id": 4}, {"bbox": BOXES[1], "category_id": 2}],
            "categories": [{"id": 4, "name": "a"}, {"id": 2, "name": "b"}],
        },
    ],
)
def test_each_documented_form_is_read(tmp_path: Path, record: Any) -> None:
    [sample] = load(tmp_path, shard(tmp_path / "d/0.tar", record))
    assert sample.error is None
    assert [(list(a.bbox), a.category, a.id) for a in sample.annotations] == [(BOXES[0], "a", 1), (BOXES[1], "b", 2)]


@pytest.mark.parametrize(
    ("record", "error"),
    [
        ({"caption": "a cat", "url": "x"}, "none of annotations, objects, bbox, boxes (its keys: caption, url)"),
        ({"objects": {"box_2d": [[1, 2]]}}, "no bbox (their fields: box_2d)"),
        ({"annotations": [{"text": "x"}]}, "no bbox (their fields: text)"),
        (7, "neither an object nor a list"),
        (b"{", "its json is not valid"),
        (b"\xff\xfe", "its json is not valid"),
        (b"[" * 100_000, "its json is not valid"),
        (b"[" * 30 + b"]" * 30, "neither a list of objects"),
        ({"boxes": BOXES, "labels": ["a"]}, "different lengths (boxes 2, labels 1)"),
    ],
)
def test_another_json_is_a_row_with_an_error(tmp_path: Path, record: Any, error: str) -> None:
    good = {"boxes": BOXES, "labels": ["a", "b"]}
    found = {s.file_name: s for s in load(tmp_path, shard(tmp_path / "d/0.tar", record, good))}
    assert error in (found["0.tar/000.jpg"].error or "") and str(tmp_path) not in str(found)
    assert found["0.tar/001.jpg"].error is None and len(found["0.tar/001.jpg"].annotations) == 2


def test_masks_take_the_size_of_the_image_where_the_json_does_not_say_it(tmp_path: Path) -> None:
    square = [[2, 3, 12, 3, 12, 9, 2, 9]]
    rle = {"size": [32, 48], "counts": [0, 32 * 10, 32 * 38]}
    records = [
        {"annotations": [{"bbox": BOXES[0], "category": "a", "segmentation": square}], "width": 48, "height": 32},
        [{"category": "a", "segmentation": square}, {"bbox": BOXES[0], "category": "b", "segmentation": rle}],
        [{"bbox": BOXES[0], "category": "b", "segmentation": {"size": [2, 2], "counts": [4]}}],
    ]
    root = shard(tmp_path / "d/0.tar", *records)
    found = sorted(load(tmp_path, root, "human"), key=lambda sample: sample.file_name)
    masks = [a.segmentation for sample in found for a in sample.annotations]
    assert [mask and int(decode_mask(mask).sum()) for mask in masks] == [60, 60, 320, None]
    assert found[2].annotations[0].flags == ("bad_segmentation",)
    boxes = sorted(load(tmp_path, root), key=lambda sample: sample.file_name)
    assert boxes[1].annotations[0].bbox == (2, 3, 10, 6) and boxes[1].annotations[0].flags == ()


def test_samples_are_grouped_by_their_path_up_to_the_first_dot(tmp_path: Path) -> None:
    record = json.dumps({"boxes": BOXES, "labels": ["a", "b"]}).encode()
    members = [
        ("a/x.json", record), ("b/x.PNG", packed.jpeg(0)), ("a/x.jpg", packed.jpeg(1)), ("a/x.cls", b"3"),
        ("b/x.txt", b"text"), ("b/x.seg.png", packed.jpeg(2)), ("a/y.json", record), ("README", b"hello"),
        ("b/._x.jpg", b"x"), ("b/x.jpg", packed.jpeg(3)), ("a/x.json", record[:-1]),
    ]  # fmt: skip
    packed.write_tar(tmp_path / "d/0.tar", members)
    found = {s.file_name: s for s in load(tmp_path, tmp_path / "d")}
    assert set(found) == {"0.tar/a/x.jpg", "0.tar/b/x.PNG"}
    assert found["0.tar/b/x.PNG"].error is None and not found["0.tar/b/x.PNG"].annotations
    assert "not valid" in (found["0.tar/a/x.jpg"].error or ""), "of two members of one name, the last counts"
    told = findings(tmp_path / "d")
    assert {code: one.count for code, one in told.items()} == {
        "ignored_members": 6,
        "label_without_image": 1,
        "duplicate_members": 1,
    }
    assert told["ignored_members"].examples[-1][0].startswith("0.tar/")


def test_splits_are_words_of_names_of_shards_or_folders(tmp_path: Path) -> None:
    for name in ("cc-train-000.tar", "cc-train-001.tar", "Val_0.tar", "test/000.tar", "more/000.tar"):
        packed.write_tar(tmp_path / name, packed.samples(1))
    assert webdataset.recognize(tmp_path) == ("test", "train", "val")
    files = {split: list(webdataset.files(tmp_path, split, None).sources) for split in ("test", "train", "val")}
    assert files == {
        "test": ["test/000.tar"],
        "train": ["cc-train-000.tar", "cc-train-001.tar", "more/000.tar"],
        "val": ["Val_0.tar"],
    }
    with pytest.raises(SynthgenError, match=r"no split 'x' in .* \(have: test, train, val\)"):
        webdataset.files(tmp_path, "x", None)


def test_one_shard_is_a_dataset(tmp_path: Path) -> None:
    packed.write_tar(tmp_path / "val-3.tar", packed.samples(2))
    packed.write_tar(tmp_path / "val-4.tar", packed.samples(2))
    assert webdataset.recognize(tmp_path / "val-3.tar") == ("val",)
    files = webdataset.files(tmp_path, "val", tmp_path / "val-3.tar")
    assert list(files.sources) == ["val-3.tar"] and files.image_folder == tmp_path


def test_other_folders_are_not_recognised(tmp_path: Path) -> None:
    assert webdataset.recognize(tmp_path) is None and webdataset.recognize(tmp_path / "nowhere") is None
    packed.write_tar(tmp_path / "a/x.tar", [("000.jpg", b"x"), ("000.txt", b"y")])
    (tmp_path / "b").mkdir()
    (tmp_path / "b/x.tar").write_bytes(b"no tar")
    (tmp_path / "b/x.json").write_text("{}")
    assert webdataset.recognize(tmp_path / "a") is None and webdataset.recognize(tmp_path / "b") is None


@pytest.mark.parametrize("name", ["x.tar.gz", "x.tgz"])
def test_compressed_shards_are_refused_with_the_remedy(tmp_path: Path, name: str) -> None:
    with pytest.raises(SynthgenError, match=r"no \.tar files"):
        webdataset.files(tmp_path, "train", None)
    (tmp_path / name).write_bytes(gzip.compress(b"x"))
    with pytest.raises(SynthgenError, match="unpack it to a plain"):
        webdataset.files(tmp_path, "train", None)
    (tmp_path / name).rename(tmp_path / "x.tar")
    with pytest.raises(SynthgenError, match=r"compressed \(gzip\); unpack the archive to a plain"):
        list(webdataset.read(webdataset.files(tmp_path, "train", None), "annotations"))


def test_of_a_cut_shard_the_samples_before_the_cut_stay(tmp_path: Path) -> None:
    content = packed.write_tar(tmp_path / "d/0.tar", packed.samples(4)).read_bytes()
    with tarfile.open(tmp_path / "d/0.tar") as archive:
        third, json_of_it = archive.getmembers()[4:6]
    (tmp_path / "d/0.tar").write_bytes(content[: third.offset_data + 100])
    found = sorted(load(tmp_path / "1", tmp_path / "d"), key=lambda sample: sample.file_name)
    assert [bool(s.error) for s in found] == [False, False, True]
    assert found[2].error == "its image lies where its archive is cut off"
    assert findings(tmp_path / "d")["damaged_archive"].examples[0][0] == "0.tar"
    (tmp_path / "d/0.tar").write_bytes(content[: json_of_it.offset])
    assert not any(s.error for s in load(tmp_path / "2", tmp_path / "d")), "an archive may end without its end mark"
    (tmp_path / "d/0.tar").write_bytes(content[: json_of_it.offset + 20])
    found = sorted(load(tmp_path / "3", tmp_path / "d"), key=lambda sample: sample.file_name)
    assert found[2].error == "its archive is cut off or damaged before its json"


def test_links_are_rows_with_an_error_and_a_finding(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    with tarfile.open(tmp_path / "d/0.tar", "w") as archive:
        link = tarfile.TarInfo("000.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo("../../evil.jpg"))
    found = {s.file_name: s.error for s in load(tmp_path, tmp_path / "d")}
    assert found["0.tar/000.jpg"] == "its image is a symbolic link"
    assert all(found.values()) and findings(tmp_path / "d")["refused_members"].count == 2


def test_shards_without_images_are_refused(tmp_path: Path) -> None:
    packed.write_tar(tmp_path / "0.tar", [("000.txt", b"x")])
    with pytest.raises(SynthgenError, match="no member of the shards"):
        list(webdataset.read(webdataset.files(tmp_path, "train", None), "annotations"))


def test_the_content_of_shards_is_their_identity(tmp_path: Path) -> None:
    root = shard(tmp_path / "d/train-0.tar", {"boxes": BOXES, "labels": ["a", "b"]})
    store = ShardStore(tmp_path / "store")
    files = webdataset.files(root, "train", None)
    ingest(store, webdataset, files, name="d", split="train")
    assert describe_source_change(store, files, name="d", split="train") is None
    shard(tmp_path / "d/train-0.tar", {"boxes": BOXES, "labels": ["a", "c"]})
    assert "is not what" in (describe_source_change(store, files, name="d", split="train") or "")


def test_very_many_shards_are_one_source(tmp_path: Path) -> None:
    content = packed.write_tar(tmp_path / "d/train-0000.tar", packed.samples(1)).read_bytes()
    for i in range(1, 120):
        (tmp_path / f"d/train-{i:04d}.tar").write_bytes(content)
    packed.write_tar(tmp_path / "d/val-0.tar", packed.samples(1))
    files = webdataset.files(tmp_path / "d", "train", None)
    assert files.sources == {"shards": tmp_path / "d"} and files.content_roles == {"shards"}
    assert len(load(tmp_path, tmp_path / "d")) == 120


def test_shards_of_the_webdataset_package_hold_the_boxes_of_coco(tmp_path: Path, shared: Callable[[str], Path]) -> None:
    wds = pytest.importorskip("webdataset")
    root = shared("data/coco_tiny")
    boxes = root / "annotations/instances_val2017.json"
    content = json.loads(boxes.read_text())
    names = {c["id"]: c["name"] for c in content["categories"]}
    with wds.TarWriter(str(tmp_path / "val-000.tar")) as writer:
        for image in content["images"]:
            own = [
                {"id": a["id"], "bbox": a["bbox"], "category": names[a["category_id"]], "iscrowd": a["iscrowd"],
                 "segmentation": a["segmentation"]}
                for a in content["annotations"] if a["image_id"] == image["id"]
            ]  # fmt: skip
            key, suffix = image["file_name"].split(".")
            photo = (root / "val2017" / image["file_name"]).read_bytes()
            record = {"width": image["width"], "height": image["height"], "annotations": own}
            writer.write({"__key__": key, suffix: photo, "json": record})
    assert webdataset.recognize(tmp_path) == ("val",)
    for layer in ("annotations", "human"):
        theirs = ingest_layer(
            tmp_path / f"coco-{layer}", coco_json, coco_json.files(root / "val2017", "train", boxes), layer
        )
        ours = load(tmp_path, tmp_path, layer, "val")
        expected = {
            f"val-000.tar/{s.file_name}": (s.height, s.width, s.annotations) for s in without_file_numbers(theirs)
        }
        assert {s.file_name: (s.height, s.width, s.annotations) for s in ours} == expected and len(ours) == 80
