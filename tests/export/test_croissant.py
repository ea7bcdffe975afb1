"""The Croissant file: its files and record sets, JSON-LD that holds any name. mlcroissant reads it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes.packed_exports import HOSTILE
from fakes.packed_summaries import export_with_summary, make_summary

from synthgen.export.croissant import MAX_FILES, make_croissant
from synthgen.export.exporters import hf, webdataset
from synthgen.export.summary import ExportFile, hash_files
from synthgen.formats.readers import coco_json
from synthgen.formats.readers import hf as hf_reader

#: Prints errors, and the rows of record sets, as JSON. In a process of its own: mlcroissant imports absl, which closes
#: the streams of pytest when logging is shut down.
READ = """
import json, sys
import mlcroissant
found = mlcroissant.Dataset(jsonld=sys.argv[1])
def plain(value):
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value if isinstance(value, (str, int, float, type(None))) else repr(type(value))
rows = {name: [plain(row) for row in found.records(name)] for name in sys.argv[2:]}
print(json.dumps([sorted(found.metadata.ctx.issues.errors), rows]))
"""


def read_with_mlcroissant(path: Path, *record_sets: str) -> dict[str, list[dict[str, Any]]]:
    """The rows of some record sets; the file must have no errors."""
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path), *record_sets], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    errors, rows = json.loads(done.stdout.splitlines()[-1])
    assert errors == []
    return dict(rows)


def describe(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(make_croissant(make_summary(**changes)))
    return found


def identities(node: Any) -> list[str]:
    """The @id of each node that defines one, in nodes of nodes."""
    if isinstance(node, list):
        return [one for inner in node for one in identities(inner)]
    if not isinstance(node, dict):
        return []
    own = [node["@id"]] if "@type" in node and "@id" in node else []
    return own + [one for key, inner in node.items() if key != "@context" for one in identities(inner)]


def references(node: Any) -> list[str]:
    """The @id of each node that is referred to."""
    if isinstance(node, list):
        return [one for inner in node for one in references(inner)]
    if not isinstance(node, dict):
        return []
    if set(node) == {"@id"}:
        return [node["@id"]]
    return [one for key, inner in node.items() if key != "@context" for one in references(inner)]


@pytest.mark.parametrize("name", ["cat", HOSTILE])
@pytest.mark.parametrize("format_", ["hf", "coco", "webdataset"])
def test_identities_are_unique_and_references_lead_somewhere(name: str, format_: str) -> None:
    files = (ExportFile("annotations/train set.json", 10, "a" * 64),) if format_ == "coco" else ()
    data_files = {"train": "annotations/train set.json"} if format_ == "coco" else {"train": "data/train-*.parquet"}
    found = describe(name=name, format=format_, files=files, data_files=data_files)
    own = identities([found["distribution"], found["recordSet"]])
    assert len(own) == len(set(own)) and set(references(found)) <= set(own)
    assert bool(found["recordSet"]) == (format_ != "webdataset")


def test_splits_that_share_a_file_are_described_once() -> None:
    files = tuple(ExportFile(f"{name}/_annotations.coco.json", 10, "a" * 64) for name in ("train", "valid"))
    paths = {"b": files[0].path, "val": files[1].path, "a": files[0].path}
    found = describe(format="roboflow", files=files, data_files=paths)
    own = identities([found["distribution"], found["recordSet"]])
    assert len(own) == len(set(own))
    assert [one["@id"] for one in found["recordSet"]][::3] == ["b-images", "val-images"]


def test_the_text_is_ascii_and_names_stay_whole() -> None:
    text = make_croissant(make_summary(HOSTILE))
    assert text.isascii() and "\u202e" not in text
    assert json.loads(text)["recordSet"][0]["data"][0]["categories/name"] == HOSTILE


def test_files_have_sizes_and_digests(tmp_path: Path) -> None:
    folder, summary = export_with_summary(tmp_path, "webdataset", webdataset)
    found = json.loads(make_croissant(summary))
    by_url = {one["contentUrl"]: one for one in found["distribution"]}
    assert set(by_url) == {"dataset.json", "train-000000.tar", "val-000000.tar"}
    size = (folder / "train-000000.tar").stat().st_size
    assert by_url["train-000000.tar"]["contentSize"] == f"{size} B"
    assert by_url["train-000000.tar"]["encodingFormat"] == "application/x-tar"
    assert str(tmp_path) not in json.dumps(found)


def test_very_many_files_become_a_pattern() -> None:
    files = tuple(ExportFile(f"labels/train/{n}.txt", 1, "a") for n in range(MAX_FILES + 1))
    found = describe(format="yolo", files=(*files, ExportFile("data.yaml", 1, "b")), data_files={})
    assert [one["@type"] for one in found["distribution"]] == ["cr:FileSet", "cr:FileObject"]
    assert found["distribution"][0]["includes"] == ["labels/train/*.txt"]


def test_only_files_with_images_have_a_field_of_images() -> None:
    for images, expected in (("embed", True), ("none", False), ("link", False)):
        fields = describe(images=images)["recordSet"][1]["field"]
        assert ("images/image" in [field["@id"] for field in fields]) == expected


def test_licences_are_those_of_the_images() -> None:
    assert describe(name="https://x.example")["license"] == ["https://x.example"]
    assert "license" not in describe(licenses=())


@pytest.mark.parametrize("images", ["embed", "none", "link"])
def test_mlcroissant_reads_the_rows(tmp_path: Path, images: Any) -> None:
    folder, summary = export_with_summary(tmp_path, "hf", hf, images)
    (folder / "croissant.json").write_text(make_croissant(summary))
    found = read_with_mlcroissant(folder / "croissant.json", "images", "categories")
    rows = found["images"]
    assert [row["images/split"] for row in rows] == ["train"] * 3 + ["val"] * 2
    assert rows[0]["images/objects"]["images/objects/category_id"] == [3, 17, 90, 3]
    assert ("images/image" in rows[0]) == (images == "embed")
    assert [one["categories/id"] for one in found["categories"]] == [3, 17, 90]


def test_mlcroissant_reads_the_lists_of_a_coco_file(tmp_path: Path) -> None:
    content = {
        "images": [{"id": 5, "file_name": "a b.jpg", "width": 20, "height": 12}],
        "annotations": [
            {"id": n, "image_id": 5, "category_id": 3, "area": 1.5, "iscrowd": 0, "bbox": [1, 2, 3, 4]}
            for n in range(2)
        ],
        "categories": [{"id": 3, "name": HOSTILE}],
    }
    path = tmp_path / "annotations" / "instances train.json"
    path.parent.mkdir()
    path.write_text(json.dumps(content))
    data_files = {"my split": "annotations/instances train.json"}
    summary = make_summary(format="coco", files=hash_files(tmp_path), data_files=data_files)
    (tmp_path / "croissant.json").write_text(make_croissant(summary))
    stem = "my%20split"
    names = [f"{stem}-{what}" for what in ("annotations", "images", "categories")]
    found = read_with_mlcroissant(tmp_path / "croissant.json", *names)
    boxes = found[f"{stem}-annotations"]
    assert [one[f"{stem}-annotations/id"] for one in boxes] == [0, 1]
    assert boxes[0][f"{stem}-annotations/bbox"] == [1.0, 2.0, 3.0, 4.0]
    assert found[f"{stem}-images"][0][f"{stem}-images/file_name"] == "a b.jpg"
    assert found[f"{stem}-categories"][0][f"{stem}-categories/name"] == HOSTILE


def test_the_file_does_not_look_like_one_of_coco(tmp_path: Path) -> None:
    """Our own reader of COCO goes by names at the start of a JSON file."""
    folder, summary = export_with_summary(tmp_path, "hf", hf)
    (folder / "croissant.json").write_text(make_croissant(summary))
    assert coco_json.recognize(folder) is None and hf_reader.recognize(folder) == ("train", "val")
