"""The layer "human" is refused where files say that a machine drew their masks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fakes import foreign_masks
from fakes.ingested_samples import ingest_samples
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from synthgen.errors import SynthgenError
from synthgen.formats.readers import coco_json, semantic_folder
from synthgen.ingest.origin_checks import check_origin, describe_export, is_machine_png
from synthgen.records.sample import mask_provenance
from synthgen.storage.shard_store import ShardStore


@pytest.fixture
def world(tmp_path: Path) -> dict[str, Any]:
    return foreign_masks.write_world(tmp_path, images=3)


def ingest_own(folder: Path, content: Any, layer: str = "human") -> list[Any]:
    path = folder / "own.json"
    path.write_text(json.dumps(content))
    return ingest_samples(folder / "store", coco_json, coco_json.files(folder / "photos", "train", path), layer)[0]


@pytest.mark.parametrize(
    "members",
    [{"mask_source": "sam vit_h"}, {"provenance": "machine"}, {"mask_source": "human", "provenance": "machine"}],
)
def test_a_file_with_masks_of_machines_is_refused(tmp_path: Path, world: dict[str, Any], members: Any) -> None:
    content = foreign_masks.with_masks(world)
    content["annotations"][4] |= members
    with pytest.raises(SynthgenError, match="synthgen import-masks") as refused:
        ingest_own(tmp_path, content)
    assert refused.value.exit_code == 2 and "own.json: annotation 5 of image 2" in str(refused.value)
    assert not list((tmp_path / "store").rglob("*.parquet"))
    assert len(ingest_own(tmp_path, content, "annotations")) == 3  # the boxes are welcome


@pytest.mark.parametrize("first", [True, False])
def test_a_file_whose_info_counts_masks_of_machines_is_refused(
    tmp_path: Path, world: dict[str, Any], first: bool
) -> None:
    info = {"info": {"synthgen": {"layer": "a/b/c", "provenance": {"machine": 3}}}}
    content = foreign_masks.with_masks(world)
    with pytest.raises(SynthgenError, match="an export of the layer a/b/c"):
        ingest_own(tmp_path, {**info, **content} if first else {**content, **info})


def test_masks_of_people_keep_what_their_file_says(tmp_path: Path, world: dict[str, Any]) -> None:
    own = {"mask_source": "sam vit_h", "provenance": "reviewed", "box_iou": 0.75, "captions": ["a ball"]}
    content = foreign_masks.with_masks(world)
    content["annotations"][0] |= own
    (first, second, *_) = ingest_own(tmp_path, content)[0].annotations
    assert (first.mask_source, first.provenance, first.box_iou) == ("sam vit_h", "reviewed", 0.75)
    assert first.captions[0].text == "a ball" and mask_provenance(first) == "reviewed"
    assert (second.mask_source, second.provenance, second.box_iou) == ("human", None, None)
    store = ShardStore(tmp_path / "store")
    footer = store.read_footer(store.list_shards("d", "s", "human")[0])
    assert footer is not None and footer["provenance"] == {"source": "file"}
    assert "provenance" not in footer["recipe"]


@pytest.mark.parametrize("place", [".", "annotations", "labels/train"])
def test_an_exported_folder_with_masks_of_machines_is_refused(
    tmp_path: Path, world: dict[str, Any], place: str
) -> None:
    folder = tmp_path / "export" / place
    folder.mkdir(parents=True)
    (folder / "own.json").write_text(json.dumps(foreign_masks.with_masks(world)))
    marker = tmp_path / "export" / "synthgen_export.json"
    files = coco_json.files(tmp_path / "photos", "train", folder / "own.json")
    marker.write_text(json.dumps({"provenance": {"human": 9}, "models": []}))
    check_origin(files, "human")
    marker.write_text(json.dumps({"provenance": {"machine": 9}, "models": ["lite"]}))
    check_origin(files, "annotations")
    with pytest.raises(SynthgenError, match="counts 9 masks that machines drew by lite"):
        check_origin(files, "human")
    # Another file about the images of the export is no part of it.
    check_origin(coco_json.files(folder, "train", tmp_path / "boxes.json"), "human")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"provenance": 3}', '{"provenance": {"machine": "x"}}', "[" * 99999]
)
def test_a_marker_that_says_nothing_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "synthgen_export.json").write_text(text)
    with pytest.raises(SynthgenError, match="delete the file"):
        describe_export(tmp_path / "synthgen_export.json")


def write_png(path: Path, text: str | None) -> None:
    info = PngInfo()
    if text is not None:
        info.add_text("synthgen:provenance", text)
    Image.new("L", (30, 20), 1).save(path, pnginfo=info)


@pytest.mark.parametrize(
    ("text", "machine"),
    [
        (None, False),
        ("human", False),
        ("reviewed", False),
        ("machine", True),
        ("human,machine", True),
        ('{"machine": 2}', True),
        ('{"machine": 0, "human": 2}', False),
    ],
)
def test_what_a_png_says(tmp_path: Path, text: str | None, machine: bool) -> None:
    write_png(tmp_path / "a.png", text)
    assert is_machine_png(tmp_path / "a.png") is machine
    assert not is_machine_png(tmp_path / "missing.png")


def test_png_masks_of_machines_are_refused(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    (tmp_path / "class_names.txt").write_text("void\nball\n")
    for number in range(3):
        Image.new("RGB", (30, 20)).save(tmp_path / "images" / f"{number}.jpg")
        write_png(tmp_path / "masks" / f"{number}.png", "machine" if number == 2 else None)
    files = semantic_folder.files(tmp_path, "train", None)
    with pytest.raises(SynthgenError, match=r"masks/2\.png: it says that a machine drew"):
        ingest_samples(tmp_path / "store", semantic_folder, files, "human")
    assert not (tmp_path / "store").exists()
    write_png(tmp_path / "masks" / "2.png", "human")
    assert len(ingest_samples(tmp_path / "store", semantic_folder, files, "human")[0]) == 3
