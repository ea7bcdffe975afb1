"""Files under another form of their name: which are found, and which are never guessed."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from fakes.validated_datasets import clean, findings, write
from PIL import Image

from synthgen.errors import SynthgenError
from synthgen.formats.readers import coco_json
from synthgen.ingest.image_table import StringColumn
from synthgen.ingest.ingest import ingest
from synthgen.ingest.name_matching import NameMatches, match_names
from synthgen.ingest.validation.validate import validate_dataset
from synthgen.storage.shard_store import Shard, ShardStore

Shared = Callable[[str], Path]


def column(*names: str) -> StringColumn:
    found = StringColumn()
    found.extend(names)
    return found


def resolve(root: Path, files: list[str], *names: str) -> tuple[list[str], NameMatches]:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(b"x")
    found = match_names(root, column(*names))
    return found.names.take(np.arange(len(names))), found


@pytest.mark.parametrize(
    ("file", "name", "kind"),
    [
        ("shot 1.png", "..\\..\\label-studio\\media\\upload\\4\\shot 1.png", "their last path part"),
        ("shot.png", "/srv/someone/project/images/shot.png", "their last path part"),
        ("shot.png", "C:\\Users\\someone\\shot.png", "their last path part"),
        ("shot.png", "../shot.png", "their last path part"),
        ("cam1/shot.png", "/data/set/cam1/shot.png", "the end of their path"),
        ("train/shot.png", "shot.png", "a subfolder"),
        ("shot.PNG", "shot.png", "another case"),
        ("Cam1/shot.png", "cam1/shot.png", "another spelling of their folder"),
        ("shot 1.png", "shot%201.png", "a percent-encoded name or one with a query"),
        ("shot.png", "https://host/data/upload/shot.png?token=1#x", "their last path part"),
        ("shot.png", "shot.png?d=%2Fimages", "a percent-encoded name or one with a query"),
        ("cb0618f6-shot.png", "shot.png", "a name with another prefix or suffix"),
        ("shot.png", "cb0618f6-shot.png", "a name with another prefix or suffix"),
        ("IMG_1_jpg.rf.0a1b20.jpg", "IMG_1.jpg", "a name with another prefix or suffix"),
        ("shot.png", "shot", "a name with an extension"),
        ("shot", "shot.png", "another extension"),
        ("shot.jpeg", "shot.jpg", "another extension"),
        ("shot.JPG", "shot.png", "another extension"),
        ("caf\u200be.png", "cafe.png", "look-alike characters"),
    ],
)
def test_a_file_is_found_under_each_form_of_its_name(tmp_path: Path, file: str, name: str, kind: str) -> None:
    names, found = resolve(tmp_path, [file, "other/unrelated.png"], name)
    assert names == [file]
    assert (found.missing, found.matched, found.refused) == (1, 1, 0)
    assert kind in next(iter(found.kinds))
    assert found.examples == [(name, file)]


def test_two_files_that_fit_are_never_chosen_from(tmp_path: Path) -> None:
    names, found = resolve(tmp_path, ["a/x.png", "b/x.png"], "x.png")
    assert names == ["x.png"] and (found.missing, found.matched, found.refused) == (1, 0, 1)
    assert found.refusals == [("x.png", "a/x.png and b/x.png fit")]


def test_two_names_for_one_file_are_refused_both(tmp_path: Path) -> None:
    names, found = resolve(tmp_path, ["0001.png"], "cam1/0001.png", "cam2/0001.png")
    assert names == ["cam1/0001.png", "cam2/0001.png"] and (found.matched, found.refused) == (0, 2)
    assert "another listed image" in found.refusals[0][1]


def test_the_file_of_another_listed_image_is_refused(tmp_path: Path) -> None:
    names, found = resolve(tmp_path, ["0001.png"], "0001.png", "old/0001.png")
    assert names == ["0001.png", "old/0001.png"] and (found.missing, found.refused) == (1, 1)


def test_one_name_twice_is_one_file(tmp_path: Path) -> None:
    names, found = resolve(tmp_path, ["x.png"], "a/x.png", "a/x.png")
    assert names == ["x.png", "x.png"] and found.matched == 2


def test_a_file_in_another_folder_is_named_and_not_used(tmp_path: Path) -> None:
    """The frames of another video have the same names."""
    names, found = resolve(tmp_path, ["video1/0001.png"], "video2/0001.png")
    assert names == ["video2/0001.png"] and found.refused == 1
    assert "video1/0001.png is in another folder" in found.refusals[0][1]


@pytest.mark.parametrize("folder", ["masks", "SegmentationClass", "train/labels"])
def test_a_label_map_is_never_taken_for_its_photograph(tmp_path: Path, folder: str) -> None:
    names, found = resolve(tmp_path, [f"{folder}/shot.png"], "shot.jpg")
    assert names == ["shot.jpg"] and "masks" in found.refusals[0][1]
    names, found = resolve(tmp_path, ["photos/shot.jpeg"], "shot.jpg", f"{folder}/shot.PNG")
    assert names == ["photos/shot.jpeg", f"{folder}/shot.png"]


def test_the_folders_decide_between_equal_names(tmp_path: Path) -> None:
    names, _ = resolve(
        tmp_path, ["cam1/x.png", "cam2/x.png"], "/srv/data/cam2/x.png", "http://host/cam1/x.png?v=1", "nowhere.png", ""
    )
    assert names == ["cam2/x.png", "cam1/x.png", "nowhere.png", ""]


def test_case_decides_between_equal_letters(tmp_path: Path) -> None:
    names, _ = resolve(tmp_path, ["a.png", "A.png"], "old/A.png", "old/a.png")
    assert names == ["A.png", "a.png"]


def test_nothing_outside_the_folder_is_used(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"x")
    root = tmp_path / "photos"
    names, found = resolve(root, ["y.png"], "../x.png", "%2e%2e%2fx.png", "..", "\0", "a/..")
    assert names == ["../x.png", "%2e%2e%2fx.png", "..", "\0", "a/.."] and found.matched == 0


def test_images_that_are_there_are_left_alone(tmp_path: Path) -> None:
    names, found = resolve(tmp_path, ["a/x.png", "patch1/y.png"], "a/x.png", "images/v1/patch1/y.png", "a\\x.png")
    assert names == ["a/x.png", "images/v1/patch1/y.png", "a\\x.png"] and found.missing == 0


def test_the_result_does_not_depend_on_the_order_of_the_names(tmp_path: Path) -> None:
    files = [f"{folder}/{i}.png" for folder in ("a", "b") for i in range(20)]
    asked = [f"/x/{file}" for file in files] + [f"{i}.jpg" for i in range(20)]
    ahead, _ = resolve(tmp_path, files, *asked)
    back, _ = resolve(tmp_path, [], *reversed(asked))
    assert ahead == back[::-1] and ahead[:40] == files


def test_ingest_stores_the_real_paths_and_its_recipe_says_so(tmp_path: Path) -> None:
    content = clean(images=4, boxes=1)
    write(tmp_path, content)
    for image in content["images"]:
        image["file_name"] = "C:\\server\\" + image["file_name"].replace("/", "\\")
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    files = coco_json.files(tmp_path, "train", tmp_path / "boxes.json").with_image_folder(tmp_path / "images")
    recipes = []
    for match in (False, True):
        store = ShardStore(tmp_path / f"store {match}")
        ingest(store, coco_json, files, name="d", split="train", match_names=match)  # type: ignore[arg-type]
        shard = Shard("d", "train", "annotations", 0, 1)
        recipes.append((store.read_footer(shard) or {})["recipe"])
        names = [sample.file_name for sample in store.read_samples(shard)]
        assert names == [f"a/{i:04d}.png" if match else f"C:\\server\\a\\{i:04d}.png" for i in range(4)]
    assert "match_names" not in recipes[0] and recipes[1].pop("match_names") is True
    assert len(recipes[1].pop("image_names")) == 64 and recipes[0] == recipes[1]


def test_an_ingest_goes_on_only_with_the_images_with_which_it_was_begun(tmp_path: Path) -> None:
    content = clean(images=4, boxes=1)
    write(tmp_path, content)
    for image in content["images"]:
        image["file_name"] = "/srv/" + image["file_name"]
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    files = coco_json.files(tmp_path, "train", tmp_path / "boxes.json").with_image_folder(tmp_path / "images")
    store = ShardStore(tmp_path / "store")

    def run() -> int:
        made = ingest(store, coco_json, files, name="d", split="train", shard_size=2, match_names=True)  # type: ignore[arg-type]
        return made.committed

    assert (run(), run()) == (2, 0)
    [path] = tmp_path.glob("store/d/train/annotations/00001-*.parquet")
    before = path.read_bytes()
    path.unlink()
    assert run() == 1 and path.read_bytes() == before
    path.unlink()
    (tmp_path / "images/a/0003.png").rename(tmp_path / "images/a/0003.bmp")
    with pytest.raises(SynthgenError, match="--match-names finds other images"):
        run()


def test_doctor_reports_what_it_found_where_the_folder_is_too_large_to_match_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, clean(images=4, boxes=1))
    (tmp_path / "images/a/0001.png").unlink()
    refuse = Mock(side_effect=SynthgenError("it holds too many images; name a smaller folder"))
    monkeypatch.setattr("synthgen.ingest.name_matching.list_image_files", refuse)
    found = validate_dataset("coco_json", tmp_path, annotations=tmp_path / "boxes.json", images=tmp_path / "images")
    assert findings(found)["missing"].count == 1 and "name a smaller folder" in findings(found)["missing"].note
    assert "complete the download" in found.verdict


def test_doctor_names_the_option_and_accepts_it(tmp_path: Path) -> None:
    content = clean(images=4, boxes=1)
    write(tmp_path, content)
    for image in content["images"]:
        image["file_name"] = "/srv/" + image["file_name"]
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(content))
    before, after = (
        validate_dataset("coco_json", tmp_path, annotations=path, images=tmp_path / "images", match_names=match)
        for match in (False, True)
    )
    assert findings(before)["other_name"].count == 4 and not before.is_ready
    assert "4 of 4 missing files are there under the end of their path; --match-names accepts this" in before.verdict
    assert before.next.endswith("--match-names")
    assert set(findings(after)) == {"matched_name"} and after.is_ready and after.next.endswith("--match-names")


def test_label_studios_paths(shared: Shared, tmp_path: Path) -> None:
    folder = shared("cases/01-labelstudio-dotdot-backslash")
    before, after = (
        validate_dataset(
            "coco_json", folder, annotations=folder / "boxes.json", images=folder / "photos", match_names=match
        )
        for match in (False, True)
    )
    assert not before.is_ready
    assert "2 of 2 missing files are there under their last path part; --match-names" in before.verdict
    assert after.is_ready and findings(after)["matched_name"].count == 2
    assert (
        ingest(
            ShardStore(tmp_path),
            coco_json,  # type: ignore[arg-type]
            coco_json.files(folder, "train", folder / "boxes.json").with_image_folder(folder / "photos"),
            name="d",
            split="train",
            match_names=True,
        ).images
        == 2
    )


def test_the_other_unicode_form_is_found_without_the_option(tmp_path: Path) -> None:
    content = clean(images=2, boxes=1)
    names = ["Z\u00fcrich.png", "e\u0301te\u0301.png"]
    for image, name in zip(content["images"], names, strict=True):
        image["file_name"] = name
    path = write(tmp_path, content, files=False)
    for name in (unicodedata.normalize("NFD", names[0]), unicodedata.normalize("NFC", names[1])):
        Image.new("RGB", (64, 48)).save(tmp_path / "images" / name)
    found = validate_dataset("coco_json", tmp_path, annotations=path, images=tmp_path / "images")
    assert set(findings(found)) == {"other_unicode_form"} and found.is_ready
    assert "u\\u0308" in findings(found)["other_unicode_form"].examples[0].what


def test_the_other_unicode_form_of_a_case_is_found(shared: Shared) -> None:
    folder = shared("cases/24-nfd-on-disk")
    found = validate_dataset("coco_json", folder, annotations=folder / "boxes.json", images=folder / "photos")
    assert found.is_ready and findings(found)["other_unicode_form"].count == 2
