"""Hugging Face datasets: tables, images with metadata, class names, ids, damaged and hostile files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fakes import packed_datasets as packed
from fakes.ingested_samples import without_file_numbers
from fakes.reader_output import ingest_layer

from synthgen.errors import SynthgenError
from synthgen.formats.readers import SourceFinding, _hf_tables, coco_json, hf
from synthgen.formats.readers._ids import text_id
from synthgen.images.decode import ImageError, find_image, load_rgb
from synthgen.ingest.ingest import describe_source_change, ingest
from synthgen.records.rle import decode_mask
from synthgen.records.sample import Sample
from synthgen.storage.shard_store import ShardStore

BOXES = [[1.0, 2.0, 8.0, 4.5], [3.0, 3.0, 6.0, 6.0]]
TABLE = "data/train-00000-of-00001.parquet"


def load(tmp_path: Path, root: Path, layer: str = "annotations", split: str = "train") -> list[Sample]:
    shutil.rmtree(tmp_path / "store", ignore_errors=True)
    found = ingest_layer(tmp_path / "store", hf, hf.files(root, split, None), layer)
    return sorted(found, key=lambda sample: sample.file_name)


def findings(root: Path, split: str = "train") -> dict[str, SourceFinding]:
    parts = hf.read(hf.files(root, split, None), "annotations")
    return {part.code: part for part in parts if isinstance(part, SourceFinding)}


def content(samples: list[Sample]) -> list[Any]:
    return sorted((s.image_id, s.height, s.width, s.annotations, s.error) for s in samples)


@pytest.fixture
def expected(tmp_path: Path) -> list[Any]:
    """Nine images of a COCO file."""
    boxes = packed.write_loose(tmp_path / "loose", 9)
    files = coco_json.files(boxes.parent, "train", boxes)
    return content(without_file_numbers(ingest_layer(tmp_path / "coco", coco_json, files, "annotations")))


# --- tables ----------------------------------------------------------------------------------------------------------


def test_each_layout_of_tables_is_that_of_its_coco_file(tmp_path: Path, expected: list[Any]) -> None:
    table = packed.table(9)
    packed.write_parquet(tmp_path / "a" / TABLE, table)
    packed.write_parquet(tmp_path / "b/train.parquet", table, row_group_size=100, compression="zstd")
    packed.write_parquet(tmp_path / "c/config/train-00000-of-00002.parquet", table.slice(0, 5))
    packed.write_parquet(tmp_path / "c/config/train-00001-of-00002.parquet", table.slice(5))
    packed.write_saved(tmp_path / "d", table)
    packed.write_arrow(tmp_path / "e/my-dataset-train.arrow", table)
    for layout in "abcde":
        assert hf.recognize(tmp_path / layout) == ("train",)
        assert content(load(tmp_path, tmp_path / layout)) == expected, layout
    assert load(tmp_path, tmp_path / "c")[-1].file_name == "config/train-00001-of-00002.parquet/image/3"


def test_objects_are_a_list_or_columns_as_well(tmp_path: Path, expected: list[Any]) -> None:
    as_list = packed.table(9, objects=[packed.objects(i) for i in range(9)], features=True)
    fields = {f: [packed.columns_of(packed.objects(i))[f] for i in range(9)] for f in ("bbox", "category")}
    as_columns = packed.table(9, objects=[], label=[], **fields)
    features = {**packed.OBJECT_FEATURES, "image": {"_type": "Image"}}
    as_columns = as_columns.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    for name, table in (("list", as_list), ("columns", as_columns)):
        packed.write_parquet(tmp_path / name / TABLE, table)
    assert content(load(tmp_path, tmp_path / "list")) == expected
    plain = [(*one[:3], [(a.bbox, a.category) for a in one[3]]) for one in expected]
    found = content(load(tmp_path, tmp_path / "columns"))
    assert [(*one[:3], [(a.bbox, a.category) for a in one[3]]) for one in found] == plain


def test_splits_are_those_of_the_files(tmp_path: Path) -> None:
    table = packed.table(1)
    for name in ("train-00000-of-00001", "validation-00000-of-00001", "train_extra-00000-of-00001"):
        packed.write_parquet(tmp_path / f"a/data/{name}.parquet", table)
    assert hf.recognize(tmp_path / "a") == ("train", "train_extra", "validation")
    for name in ("train", "test"):
        packed.write_parquet(tmp_path / f"b/{name}/0000.parquet", table)
        packed.write_saved(tmp_path / "c" / name, table)
    assert hf.recognize(tmp_path / "b") == ("test", "train")
    (tmp_path / "c/dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert hf.recognize(tmp_path / "c") == ("test", "train")
    assert load(tmp_path, tmp_path / "c", split="test")[0].file_name == "test/data-00000-of-00001.arrow/image/0"
    with pytest.raises(SynthgenError, match=r"no split 'val' in .* \(have: test, train\)"):
        hf.files(tmp_path / "c", "val", None)


def test_one_file_is_a_dataset(tmp_path: Path) -> None:
    for path in (tmp_path / "boxes_val.parquet", tmp_path / "x.arrow"):
        (packed.write_parquet if path.suffix == ".parquet" else packed.write_arrow)(path, packed.table(2))
    assert hf.recognize(tmp_path / "boxes_val.parquet") == ("val",)
    assert hf.recognize(tmp_path / "x.arrow") == ("train",)
    files = hf.files(tmp_path, "val", tmp_path / "boxes_val.parquet")
    assert list(files.sources) == ["boxes_val.parquet"] and files.image_folder == tmp_path


def test_several_configurations_are_refused_with_their_names(tmp_path: Path) -> None:
    for name in ("full", "mini"):
        packed.write_parquet(tmp_path / name / "train-00000-of-00001.parquet", packed.table(1))
    assert hf.recognize(tmp_path) is None and hf.recognize(tmp_path / "mini") == ("train",)
    with pytest.raises(SynthgenError, match=r"several configurations \(full, mini\); name the folder of one"):
        hf.files(tmp_path, "train", None)


def test_a_script_is_refused_and_not_executed(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    assert hf.recognize(tmp_path) is None
    with pytest.raises(SynthgenError, match="executes no code of datasets; load it with"):
        hf.files(tmp_path, "train", None)
    assert not (tmp_path / "executed").exists()


def test_other_tables_are_not_recognised(tmp_path: Path) -> None:
    packed.write_parquet(tmp_path / "a/x.parquet", packed.table(1, objects=[]))
    packed.write_parquet(tmp_path / "b/x.parquet", pa.table({"text": ["x"], "bbox": [[1, 2, 3, 4]]}))
    (tmp_path / "c").mkdir()
    (tmp_path / "c/x.parquet").write_bytes(b"PAR1")
    ingest_layer(tmp_path / "d", hf, hf.files(packed.write_saved(tmp_path / "s", packed.table(1)), "train", None),
                 "annotations")  # fmt: skip
    for folder in ("a", "b", "c", "d/given/all/annotations", "nowhere"):
        assert hf.recognize(tmp_path / folder) is None
    with pytest.raises(SynthgenError, match=r"no column of objects or boxes \(its columns: image_id, image, width"):
        list(hf.read(hf.files(tmp_path / "a", "train", None), "annotations"))
    with pytest.raises(SynthgenError, match=r"no column of images \(its columns: text, bbox\)"):
        list(hf.read(hf.files(tmp_path / "b", "train", None), "annotations"))


# --- names, ids, sizes, masks ----------------------------------------------------------------------------------------


def test_numbers_without_names_are_their_text_with_a_finding(tmp_path: Path) -> None:
    packed.write_parquet(tmp_path / "d" / TABLE, packed.table(2, features=False))
    found = load(tmp_path, tmp_path / "d")
    assert [a.category for sample in found for a in sample.annotations] == ["0", "1", "1"]
    finding = findings(tmp_path / "d")["no_class_names"]
    assert (finding.count, finding.unit) == (2, "categories")
    packed.write_parquet(tmp_path / "d" / TABLE, packed.table(2))
    assert [a.category for s in load(tmp_path, tmp_path / "d") for a in s.annotations] == ["cat", "dog", "dog"]
    assert not findings(tmp_path / "d")


def test_a_number_outside_the_names_is_flagged(tmp_path: Path) -> None:
    objects = [{"bbox": BOXES, "category": [1, number]} for number in (2, -1)]
    packed.write_parquet(tmp_path / "d" / TABLE, packed.table(2, objects=objects))
    for sample in load(tmp_path, tmp_path / "d"):
        assert [(a.category, a.flags) for a in sample.annotations] == [("dog", ()), ("", ("unknown_category",))]


@pytest.mark.parametrize("ids", [[5, 5, 7], ["a", "b", "c"], [1, None, 3], []])
def test_image_ids_that_are_not_unique_whole_numbers_are_made_of_the_name(tmp_path: Path, ids: list[Any]) -> None:
    packed.write_parquet(tmp_path / "d" / TABLE, packed.table(3, image_id=ids))
    found = load(tmp_path, tmp_path / "d")
    assert [sample.image_id for sample in found] == [text_id(f"{TABLE}/image/{row}") for row in range(3)]


def test_masks_and_boxes_of_masks(tmp_path: Path) -> None:
    square = [[2.0, 3, 12, 3, 12, 9, 2, 9]]
    objects = [{"bbox": [None, BOXES[0]], "category": [0, 1], "segmentation": [square, None]}] * 2
    packed.write_parquet(tmp_path / "d" / TABLE, packed.table(2, objects=objects, width=[], height=[]))
    for sample in load(tmp_path, tmp_path / "d", "human"):
        first, second = sample.annotations
        assert first.segmentation is not None and int(decode_mask(first.segmentation).sum()) == 60
        assert first.bbox == (2, 3, 10, 6) and first.mask_source == "human"
        assert second.segmentation is None and second.bbox == tuple(BOXES[0])


def test_a_column_of_bytes_is_a_column_of_images(tmp_path: Path) -> None:
    packed.write_parquet(tmp_path / "d" / TABLE, packed.table(3, image=[packed.jpeg(i) for i in range(3)]))
    found = load(tmp_path, tmp_path / "d")
    assert load_rgb(find_image(tmp_path / "d", found[2].file_name)).shape == (32, 48, 3)


def test_images_that_are_not_in_the_table_are_files_beside_it(tmp_path: Path) -> None:
    packed.write_loose(tmp_path / "d/photos", 4)
    names = ["photos/000.jpg", "/srv/x/001.jpg", "https://x.org/002.jpg", None]
    for image in (names, [{"bytes": None, "path": name} for name in names]):
        for write, path in ((packed.write_parquet, "train.parquet"), (packed.write_arrow, "train.arrow")):
            write(tmp_path / "d" / path, packed.table(4, image=image))
            found = {s.image_id: s for s in load(tmp_path, tmp_path / "d")}
            assert found[0].file_name == "photos/000.jpg" and found[0].error is None
            assert load_rgb(find_image(tmp_path / "d", found[0].file_name)).shape == (32, 48, 3)
            assert all("outside the folder" in (found[i].error or "") for i in (1, 2))
            (tmp_path / "d" / path).unlink()


def test_rows_with_odd_objects_stay_with_an_error(tmp_path: Path) -> None:
    objects = [{"bbox": BOXES, "category": [0]}, {"bbox": BOXES, "category": [0, 1]}, None]
    packed.write_parquet(tmp_path / "d" / TABLE, packed.table(3, objects=objects))
    first, second, third = load(tmp_path, tmp_path / "d")
    assert first.error == (
        "its objects cannot be read: the fields of its objects have different lengths (bbox 2, category 1)"
    )
    assert len(second.annotations) == 2 and third.error is None and not third.annotations


# --- images with metadata --------------------------------------------------------------------------------------------


def test_images_with_metadata(tmp_path: Path, expected: list[Any]) -> None:
    plain = [[(a.bbox, a.category) for a in one[3]] for one in expected]
    for split in ("train", "validation"):
        folder = tmp_path / "json" / split
        packed.write_loose(folder, 9)
        rows = [
            {"file_name": f"{i:03d}.jpg", "objects": {
                "bbox": [o["bbox"] for o in packed.objects(i)],
                "categories": [packed.NAMES[o["category"]] for o in packed.objects(i)]}}
            for i in range(9)
        ]  # fmt: skip
        (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    table = tmp_path / "csv"
    packed.write_loose(table, 9)
    cells = [json.dumps(row["objects"]).replace('"', '""') for row in rows]
    lines = [f'{row["file_name"]},"{cell}"' for row, cell in zip(rows, cells, strict=True)]
    (table / "metadata.csv").write_text("\n".join(["file_name,objects", *lines]))
    packed.write_loose(tmp_path / "parquet/train", 9)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "parquet/train/metadata.parquet")
    assert hf.recognize(tmp_path / "json") == ("train", "validation")
    for root, split, prefix in (
        (tmp_path / "json", "validation", "validation/"),
        (table, "train", ""),
        (tmp_path / "parquet", "train", "train/"),
    ):
        assert split in (hf.recognize(root) or ())
        found = load(tmp_path, root, split=split)
        assert [s.file_name for s in found] == [f"{prefix}{i:03d}.jpg" for i in range(9)]
        assert [[(a.bbox, a.category) for a in s.annotations] for s in found] == plain
        assert all(load_rgb(find_image(root, s.file_name)).shape == (32, 48, 3) for s in found)


def test_lines_of_metadata_that_cannot_be_read_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_hf_tables, "_MAX_LINE_BYTES", 2_000)
    good = {"file_name": "000.jpg", "objects": {"bbox": BOXES, "category": ["a", "b"]}}
    lines = [json.dumps(good), "{", "", '{"objects": []}', "7", "[" * 1_900, '{"file_name": "' + "x" * 5_000 + '"}',
             json.dumps({**good, "file_name": "../../x.jpg"})]  # fmt: skip
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    finding = findings(tmp_path)["unreadable_line"]
    assert (finding.count, finding.examples[0]) == (5, ("metadata.jsonl, line 2", "is not valid JSON"))
    found = load(tmp_path, tmp_path)
    assert len(found) == 2 and sum(len(s.annotations) for s in found) == 4
    with pytest.raises(ImageError, match="not a path below"):
        find_image(tmp_path, found[0].file_name)


def test_images_that_the_metadata_does_not_name_are_reported(tmp_path: Path) -> None:
    packed.write_loose(tmp_path / "train/more", 4)
    rows = [{"file_name": f"more/{i:03d}.jpg", "objects": {"bbox": BOXES, "category": [0, 1]}} for i in (0, 2)]
    (tmp_path / "train/metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    finding = findings(tmp_path)["unlabeled_image"]
    assert (finding.count, finding.examples[0][0]) == (2, "train/more/001.jpg")
    assert len(load(tmp_path / "other", tmp_path)) == 2


def test_images_with_labels_of_classes_only_are_not_recognised(tmp_path: Path) -> None:
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "0.jpg", "label": 3}\n')
    assert hf.recognize(tmp_path) is None


# --- damaged and hostile files ---------------------------------------------------------------------------------------


def test_a_cut_arrow_file_gives_what_lies_before_the_cut(tmp_path: Path) -> None:
    path = packed.write_saved(tmp_path / "d", packed.table(9)) / "data-00000-of-00001.arrow"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert [s.image_id for s in load(tmp_path, tmp_path / "d")] == [0, 1, 2, 3]
    assert findings(tmp_path / "d")["damaged_archive"].count == 1


def test_a_cut_parquet_file_is_refused_in_a_sentence(tmp_path: Path) -> None:
    path = packed.write_parquet(tmp_path / "d" / TABLE, packed.table(9))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(SynthgenError, match=r"parquet is a file that is cut off or not in Parquet's format; download"):
        list(hf.read(hf.files(tmp_path / "d", "train", None), "annotations"))


def test_a_row_group_that_expands_beyond_the_limit_is_rows_with_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = [{"bbox": BOXES, "category": ["x" * 900, "y"], "text": "long " * 10_000}] * 4
    objects = [{"bbox": BOXES, "category": ["x", "y"], "text": ""}] * 4
    packed.write_parquet(tmp_path / "d" / TABLE, packed.table(8, objects=[*long, *objects]), compression="zstd")
    monkeypatch.setattr(_hf_tables, "MAX_GROUP_BYTES", 30_000)
    found = {s.image_id: s for s in load(tmp_path, tmp_path / "d")}
    assert len(found) == 8
    assert {s.error for s in found.values()} == {None, "its row lies in a damaged part of its file"}
    monkeypatch.undo()
    monkeypatch.setattr(_hf_tables, "MAX_ROW_BYTES", 10_000)
    monkeypatch.setattr(_hf_tables, "_BATCH_BYTES", 10_000)
    errors = [s.error for s in sorted(load(tmp_path, tmp_path / "d"), key=lambda s: s.image_id)]
    assert [error is None for error in errors] == [False] * 4 + [True] * 4


@pytest.mark.parametrize(
    "state",
    ["{", "[]", "{}", '{"_data_files": [{"filename": "../x.arrow"}]}', '{"_data_files": [{"filename": "a/b.arrow"}]}',
     '{"_data_files": [{"filename": ".."}]}', '{"_data_files": [{"filename": "no.arrow"}]}', '{"_data_files": 7}',
     '{"_data_files": [{"filename": "x.arrow"}, {"filename": "x.arrow"}]}', "[" * 100_000,
     '{"_data_files": [{"filename": "x.arrow"}], "_indices_data_files": [{"filename": "i.arrow"}]}'],
)  # fmt: skip
def test_hostile_names_of_data_files_are_refused(tmp_path: Path, state: str) -> None:
    packed.write_arrow(tmp_path / "x.arrow", packed.table(1))
    packed.write_arrow(tmp_path / "d/x.arrow", packed.table(1))
    (tmp_path / "d/state.json").write_text(state)
    assert hf.recognize(tmp_path / "d") is None
    with pytest.raises(SynthgenError) as why:
        hf.files(tmp_path / "d", "train", None)
    assert "\n" not in str(why.value)


@pytest.mark.parametrize(
    "features",
    [b"{", b"[]", b'{"info": 7}', b'{"info": {"features": [1]}}',
     b'{"info": {"features": {"objects": {"category": 3}}}}',
     b'{"info": {"features": {"objects": {"category": {"names": [1, 2], "_type": "ClassLabel"}}}}}', b"[" * 100_000,
     b"\xff"],
)  # fmt: skip
def test_odd_features_are_no_names(tmp_path: Path, features: bytes) -> None:
    table = packed.table(1).replace_schema_metadata({b"huggingface": features})
    packed.write_parquet(tmp_path / "d" / TABLE, table)
    assert load(tmp_path, tmp_path / "d")[0].annotations[0].category == "0"


def test_the_content_of_tables_is_their_identity(tmp_path: Path) -> None:
    packed.write_parquet(tmp_path / "d" / TABLE, packed.table(3))
    store, files = ShardStore(tmp_path / "store"), hf.files(tmp_path / "d", "train", None)
    ingest(store, hf, files, name="d", split="train")
    assert describe_source_change(store, files, name="d", split="train") is None
    packed.write_parquet(tmp_path / "d" / TABLE, packed.table(3, seed=1))
    assert "is not what" in (describe_source_change(store, files, name="d", split="train") or "")


# --- the library itself ----------------------------------------------------------------------------------------------


def test_what_datasets_writes_holds_the_boxes_of_coco(
    tmp_path: Path, shared: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    library = pytest.importorskip("datasets")
    root = shared("data/coco_tiny")
    boxes = root / "annotations/instances_val2017.json"
    content_ = json.loads(boxes.read_text())
    categories = sorted(content_["categories"], key=lambda one: one["id"])
    place = {one["id"]: i for i, one in enumerate(categories)}
    value, sequence = library.Value, library.Sequence
    features = library.Features({
        "image_id": value("int64"), "image": library.Image(), "width": value("int32"), "height": value("int32"),
        "objects": {
            "id": sequence(value("int64")), "bbox": sequence(sequence(value("float64"), length=4)),
            "category": sequence(library.ClassLabel(names=[one["name"] for one in categories])),
            "iscrowd": sequence(value("bool")),
        },
    })  # fmt: skip
    rows: dict[str, list[Any]] = {name: [] for name in features}
    for image in content_["images"]:
        own = [a for a in content_["annotations"] if a["image_id"] == image["id"]]
        photo = {"bytes": (root / "val2017" / image["file_name"]).read_bytes(), "path": image["file_name"]}
        objects = {
            "id": [a["id"] for a in own],
            "bbox": [a["bbox"] for a in own],
            "category": [place[a["category_id"]] for a in own],
            "iscrowd": [bool(a["iscrowd"]) for a in own],
        }
        row = {**image, "image_id": image["id"], "image": photo, "objects": objects}
        for name, column in rows.items():
            column.append(row[name])
    made = library.Dataset.from_dict(rows, features=features)
    made.save_to_disk(str(tmp_path / "saved"))
    library.DatasetDict({"val": made}).save_to_disk(str(tmp_path / "splits"))
    (tmp_path / "parquet/data").mkdir(parents=True)
    made.to_parquet(str(tmp_path / "parquet/data/val-00000-of-00001.parquet"))
    theirs = ingest_layer(
        tmp_path / "coco", coco_json, coco_json.files(root / "val2017", "train", boxes), "annotations"
    )
    for name, split in (("saved", "train"), ("splits", "val"), ("parquet", "val")):
        assert hf.recognize(tmp_path / name) == (split,)
        found = load(tmp_path, tmp_path / name, split=split)
        assert content(found) == content(without_file_numbers(theirs)) and len(found) == 80
        source = find_image(tmp_path / name, found[7].file_name)
        photo = next(root.glob(f"val2017/{found[7].image_id:012d}.jpg"))
        assert (load_rgb(source) == load_rgb(photo)).all()
