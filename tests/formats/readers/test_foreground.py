"""Foreground masks: known releases, folders of users, masks of every mode, missing files."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.label_map_folders import filled_labels, ingest_both_layers, write_label_map, write_photograph
from PIL import Image

from synthgen.errors import SynthgenError
from synthgen.formats.readers import (
    DatasetFiles,
    foreground,
    semantic_folder,
)
from synthgen.generate.dataset_spec import resolve_dataset
from synthgen.images.decode import find_image, load_rgb
from synthgen.ingest.ingest import describe_source_change
from synthgen.ingest.validation.validate import validate_dataset
from synthgen.records.rle import encode_mask
from synthgen.storage.shard_store import ShardStore

Shared = Callable[[str], Path]


def test_davis_2016(tmp_path: Path, shared: Shared) -> None:
    files = foreground.files(shared("data/davis2016"), "train", None)
    samples = ingest_both_layers(tmp_path, foreground, files)
    assert len(samples) == 91 and all(s.error is None for s in samples)
    assert {(s.height, s.width, len(s.annotations)) for s in samples} == {(480, 854, 1)}
    assert len({s.file_name.split("/")[1] for s in samples}) == 10
    for sample in samples:
        png = files.sources["masks"] / Path(sample.file_name).with_suffix(".png")
        assert sample.annotations[0].segmentation == encode_mask(np.asarray(Image.open(png)) >= 128)
        assert sample.annotations[0].category == "foreground"


LAYOUTS = {
    "DUTS-TR/DUTS-TR-Image": ("DUTS-TR/DUTS-TR-Mask", "train"),
    "DUTS/DUTS-TE/DUTS-TE-Image": ("DUTS/DUTS-TE/DUTS-TE-Mask", "test"),
    "DIS5K/DIS-TR/im": ("DIS5K/DIS-TR/gt", "train"),
    "DIS5K/DIS-VD/im": ("DIS5K/DIS-VD/gt", "val"),
    "DIS5K/DIS-TE3/im": ("DIS5K/DIS-TE3/gt", "test"),
    "HRSOD/HRSOD_train": ("HRSOD/HRSOD_train_mask", "train"),
    "UHRSD/UHRSD_TR_2K/image": ("UHRSD/UHRSD_TR_2K/mask", "train"),
    "UHRSD/UHRSD_TE_2K/image": ("UHRSD/UHRSD_TE_2K/mask", "test"),
    "ThinObject5K/images": ("ThinObject5K/masks", "train"),
    "ThinObject5K/images_train": ("ThinObject5K/masks_train", "train"),
    "ThinObject5K/images_test": ("ThinObject5K/masks_test", "test"),
    "COIFT/images": ("COIFT/masks", "train"),
    "MSRA10K_Imgs_GT/Imgs": ("MSRA10K_Imgs_GT/Imgs", "train"),
}


@pytest.mark.parametrize("images", LAYOUTS)
def test_the_releases_are_recognised(tmp_path: Path, images: str) -> None:
    masks, split = LAYOUTS[images]
    write_photograph(tmp_path / "data" / images / "a.jpg")
    write_label_map(tmp_path / "data" / masks / "a.png", filled_labels(255))
    found = foreground.files(tmp_path / "data", split, None)
    assert (found.sources["images"], found.sources["masks"]) == (tmp_path / "data" / images, tmp_path / "data" / masks)
    [sample] = ingest_both_layers(tmp_path, foreground, found)
    assert (sample.file_name, sample.error, len(sample.annotations)) == ("a.jpg", None, 1)
    for other in set(foreground.SPLITS) - {split}:
        with pytest.raises(SynthgenError, match=f"no photographs with masks of '{other}'"):
            foreground.files(tmp_path / "data", other, None)


def test_several_releases_are_one_dataset(tmp_path: Path) -> None:
    for images, (masks, _) in LAYOUTS.items():
        write_photograph(tmp_path / "data" / images / "a.jpg")
        write_label_map(tmp_path / "data" / masks / "a.png", filled_labels(255))
    files = foreground.files(tmp_path / "data", "train", None)
    samples = ingest_both_layers(tmp_path, foreground, files)
    assert {s.file_name for s in samples} == {f"{i}/a.jpg" for i, (_, split) in LAYOUTS.items() if split == "train"}
    assert all(find_image(files.image_folder, s.file_name).is_file() and s.error is None for s in samples)
    assert len({s.image_key for s in samples}) == len(samples)
    with pytest.raises(SynthgenError, match=r"--images .* names one folder, and masks were found in several"):
        list(foreground.read(files.with_image_folder(tmp_path / "other"), "human"))


def test_a_key_has_the_folder_in_it_whatever_lies_beside(tmp_path: Path) -> None:
    """Releases number their files alike: a photograph is another one's by its folder, and by nothing else."""

    def lay(images: str, masks: str) -> None:
        write_photograph(tmp_path / "data" / images / "1.jpg")
        write_label_map(tmp_path / "data" / masks / "1.png", filled_labels(255))

    def keys(split: str, **named: Path) -> list[str]:
        given = resolve_dataset("foreground", "given", split, tmp_path, named.get("masks"), named.get("images"))
        files = foreground.files(tmp_path / "data", split, given.annotations).with_image_folder(given.images)
        samples = ingest_both_layers(tmp_path / f"store{len(list(tmp_path.glob('store*')))}", foreground, files)
        return sorted(s.image_key for s in samples)

    lay("DUTS-TR/DUTS-TR-Image", "DUTS-TR/DUTS-TR-Mask")
    lay("DUTS-TE/DUTS-TE-Image", "DUTS-TE/DUTS-TE-Mask")
    train, test = "given/DUTS-TR/DUTS-TR-Image/1.jpg", "given/DUTS-TE/DUTS-TE-Image/1.jpg"
    assert keys("train") == [train] and keys("test") == [test]
    lay("DIS5K/DIS-TR/im", "DIS5K/DIS-TR/gt")
    assert keys("train") == ["given/DIS5K/DIS-TR/im/1.jpg", train]
    assert keys("train", masks=tmp_path / "data" / "DUTS-TR" / "DUTS-TR-Mask") == [train]
    for owner in ("a", "b"):
        lay(f"../{owner}/im", f"../{owner}/drawn")
        found = keys("train", masks=tmp_path / owner / "drawn", images=tmp_path / owner / "im")
        assert found == [f"given/{owner}/drawn/1.jpg"], "no photographs are known beside masks of this name"
        lay(f"../{owner}/im", f"../{owner}/gt")
        assert keys("train", masks=tmp_path / owner / "gt") == [f"given/{owner}/im/1.jpg"]


@pytest.mark.parametrize(("module", "labels"), [(foreground, "masks"), (semantic_folder, "labels")])
def test_no_split_is_another_ones_images(tmp_path: Path, module: Any, labels: str) -> None:
    """Or a model would be judged by what it was trained on."""
    (tmp_path / "class_names.txt").write_text("void\nroad\n")
    for split in ("train", "val"):
        write_photograph(tmp_path / "images" / split / f"{split}.jpg")
        write_label_map(tmp_path / labels / split / f"{split}.png", filled_labels(255))
        [sample] = ingest_both_layers(tmp_path / split, module, module.files(tmp_path, split, None))
        assert sample.file_name.endswith(f"{split}.jpg")
        if split == "train":
            with pytest.raises(SynthgenError, match="'val'"):
                module.files(tmp_path, "val", None)
    with pytest.raises(SynthgenError, match="'test'"):
        module.files(tmp_path, "test", None)
    for folder in ("images", labels):
        for split in ("train", "val"):
            shutil.rmtree(tmp_path / folder / split)
    write_photograph(tmp_path / "images" / "a.jpg")
    write_label_map(tmp_path / labels / "a.png", filled_labels(255))
    assert len(ingest_both_layers(tmp_path / "flat", module, module.files(tmp_path, "train", None))) == 1
    for split in ("val", "test"):
        with pytest.raises(SynthgenError, match=f"'{split}'"):
            module.files(tmp_path, split, None)


def test_two_folders_of_ones_own(tmp_path: Path) -> None:
    write_photograph(tmp_path / "mine" / "deep" / "a.jpg")
    write_label_map(tmp_path / "drawn" / "deep" / "a.png", filled_labels(255))
    given = resolve_dataset("foreground", "own", None, tmp_path / "data", tmp_path / "drawn", tmp_path / "mine")
    [sample] = ingest_both_layers(tmp_path, foreground, given.locate_files())
    assert (sample.file_name, len(sample.annotations)) == ("deep/a.jpg", 1)
    assert given.resolve_image_folder() == tmp_path / "mine"
    found = validate_dataset("foreground", tmp_path / "data", annotations=tmp_path / "drawn", images=tmp_path / "mine")
    assert found.is_ready
    with pytest.raises(SynthgenError, match=r"no folder .*data/foreground; name the right one with --images"):
        other = resolve_dataset("foreground", "own", None, tmp_path / "data", tmp_path / "drawn", None)
        list(foreground.read(other.locate_files(), "human"))
    with pytest.raises(SynthgenError, match=r"no file .*nothing; --annotations"):
        resolve_dataset("foreground", "own", None, tmp_path, tmp_path / "nothing", None)


def own(folder: Path) -> DatasetFiles:
    """A folder of photographs and a folder of masks."""
    return DatasetFiles({"images": folder / "im", "masks": folder / "gt"}, folder / "im")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "jpeg"])
def test_a_mask_of_any_mode_is_cut_at_half(tmp_path: Path, mode: str) -> None:
    write_photograph(tmp_path / "im" / "a.jpg", (16, 16))
    grey = np.repeat(np.repeat(np.array([[0, 127], [128, 255]], np.uint8), 8, axis=0), 8, axis=1)
    path = tmp_path / "gt" / ("a.jpg" if mode == "jpeg" else "a.png")
    path.parent.mkdir()
    if mode == "I;16":
        Image.fromarray(grey.astype(np.uint16) * 257).save(path)
    elif mode == "1":
        Image.fromarray(grey >= 128).save(path)
    elif mode == "P":
        image = Image.fromarray(255 - grey)
        image.putpalette([255 - i // 3 for i in range(768)])
        image.save(path, transparency=0)
    elif mode == "jpeg":
        Image.fromarray(grey).save(path, quality=95)
    else:
        Image.fromarray(grey).convert(mode).save(path)
    [sample] = ingest_both_layers(tmp_path, foreground, own(tmp_path))
    assert [a.bbox for a in sample.annotations] == [(0, 8, 16, 8)]


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("gone", "no mask or label map has this image's name"),
        ("size", "its mask or label map is 9 x 6 pixels, the photograph 8 x 6"),
        ("truncated", r"its mask or label map cannot be decoded \(OSError: .*truncated"),
        ("text", "its mask or label map cannot be decoded: it is a web page"),
        ("red", "its mask or label map is in colour, and a mask of foreground is white on black"),
        ("counts", "its mask or label map holds 0 and 1"),
        ("pipe", "its mask or label map is no file, or a link to none"),
        ("dangling", "its mask or label map is no file, or a link to none"),
        ("secret", "its mask or label map cannot be decoded .*no image of the kinds"),
    ],
)
def test_a_photograph_without_a_usable_mask_is_a_row_that_says_why(tmp_path: Path, kind: str, sentence: str) -> None:
    for name in ("a", "b"):
        write_photograph(tmp_path / "im" / f"{name}.jpg")
        write_label_map(tmp_path / "gt" / f"{name}.png", filled_labels(255))
    path = tmp_path / "gt" / "b.png"
    if kind == "truncated":
        write_label_map(path, np.random.default_rng(0).integers(0, 255, (6, 8)))
        Image.new("L", (800, 600), 255).save(path)
        path.write_bytes(path.read_bytes()[:200])
    elif kind == "size":
        write_label_map(path, filled_labels(255, (9, 6)))
    elif kind == "text":
        path.write_text("<html>")
    elif kind == "red":
        Image.new("RGB", (8, 6), (128, 0, 0)).save(path)
    elif kind == "counts":
        write_label_map(path, [[0, 1] * 4] * 6)
    else:
        path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    if kind == "dangling":
        path.symlink_to(tmp_path / "nothing")
    if kind == "secret":
        (tmp_path / "secret").write_text("a secret")
        path.symlink_to(tmp_path / "secret")
    a, b = ingest_both_layers(tmp_path, foreground, own(tmp_path))
    assert (a.error, len(a.annotations)) == (None, 1)
    assert b.error is not None
    assert (b.file_name, b.height, b.width, b.annotations) == ("b.jpg", 6, 8, ())
    assert re.search(sentence, b.error)
    assert str(tmp_path) not in b.error and "secret" not in b.error
    found = validate_dataset("foreground", tmp_path, annotations=tmp_path / "gt", images=tmp_path / "im")
    [finding] = [f for f in found.splits[0].findings if f.code == "no_labels"]
    assert (finding.count, finding.examples[0].where, finding.examples[0].what) == (1, "b.jpg", b.error)


def test_a_mask_without_a_photograph_is_a_row_too(tmp_path: Path) -> None:
    write_photograph(tmp_path / "im" / "a.jpg")
    for name in ("a.png", "c.png", "a.bmp"):
        write_label_map(tmp_path / "gt" / name, filled_labels(255))
    samples = ingest_both_layers(tmp_path, foreground, own(tmp_path))
    alone = "no photograph has the name of this mask or label map"
    assert {s.file_name: s.error for s in samples} == {"a.jpg": None, "a.png": alone, "c.png": alone}


def test_a_mask_without_foreground_makes_no_annotation(tmp_path: Path) -> None:
    write_photograph(tmp_path / "im" / "a.jpg")
    write_label_map(tmp_path / "gt" / "a.png", filled_labels(127))
    [sample] = ingest_both_layers(tmp_path, foreground, own(tmp_path))
    assert (sample.error, sample.annotations) == (None, ())


def test_a_mask_may_be_drawn_over_the_stored_or_over_the_shown_pixels(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown rotated
    for name, size in (("shown", (6, 8)), ("stored", (8, 6))):
        write_photograph(tmp_path / "im" / f"{name}.jpg", (8, 6), exif=exif)
        write_label_map(tmp_path / "gt" / f"{name}.png", filled_labels(255, size))
    shown, stored = ingest_both_layers(tmp_path, foreground, own(tmp_path))
    assert [(s.error, s.height, s.width) for s in (shown, stored)] == [(None, 8, 6), (None, 6, 8)]
    for sample in (shown, stored):
        assert load_rgb(tmp_path / "im" / sample.file_name, sample.height, sample.width).shape[:2] == (
            sample.height, sample.width
        )  # fmt: skip


def test_an_unreadable_photograph_is_for_the_job_to_tell(tmp_path: Path) -> None:
    write_photograph(tmp_path / "im" / "a.jpg")
    (tmp_path / "im" / "a.jpg").write_text("no image")
    write_label_map(tmp_path / "gt" / "a.png", filled_labels(255))
    [sample] = ingest_both_layers(tmp_path, foreground, own(tmp_path))
    assert (sample.error, sample.height, len(sample.annotations)) == (None, 6, 1)


def test_folders_that_do_not_belong_together_are_a_sentence(tmp_path: Path) -> None:
    write_photograph(tmp_path / "im" / "a.jpg")
    write_label_map(tmp_path / "gt" / "b.png", filled_labels(255))
    with pytest.raises(
        SynthgenError, match=r"no photograph below .*im has the name of a mask .* \(1 and 1 are there\)"
    ):
        list(foreground.read(own(tmp_path), "human"))


def test_odd_names_and_links_to_folders(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ["a b", "ü", "x\ny", "a.b.c", "-rf", "{split}", "$(id)", "%s", "'\""]
    for name in names:
        write_photograph(tmp_path / "im" / f"{name}.JPG", format="JPEG")
        write_label_map(tmp_path / "gt" / f"{name}.png", filled_labels(255))
    latin = os.fsdecode(b"\xe9")
    write_photograph(tmp_path / "im" / f"{latin}.jpg")
    write_label_map(tmp_path / "gt" / f"{latin}.png", filled_labels(255))
    write_photograph(tmp_path / "im" / ".hidden.jpg")
    (tmp_path / "im" / "notes.txt").touch()
    write_photograph(tmp_path / "outside" / "z.jpg")
    (tmp_path / "im" / "away").symlink_to(tmp_path / "outside")
    (tmp_path / "im" / "loop").symlink_to(tmp_path / "im")
    with caplog.at_level(logging.WARNING):
        samples = ingest_both_layers(tmp_path, foreground, own(tmp_path))
    errors = {s.file_name: s.error for s in samples}
    assert errors == {**{f"{name}.JPG": None for name in names}, "?.jpg": "its file name is not UTF-8; rename the file"}
    assert "away is a link and is not followed" in caplog.text and "loop is a link" in caplog.text


def test_masks_below_the_photographs(tmp_path: Path) -> None:
    write_photograph(tmp_path / "im" / "a.jpg")
    write_label_map(tmp_path / "im" / "masks" / "a.png", filled_labels(255))
    files = DatasetFiles(
        {"images": tmp_path / "im", "masks": Path(os.path.relpath(tmp_path / "im" / "masks"))}, tmp_path / "im"
    )
    assert [(s.file_name, s.error) for s in ingest_both_layers(tmp_path, foreground, files)] == [("a.jpg", None)]


def test_a_new_photograph_is_a_change_of_the_source(tmp_path: Path) -> None:
    write_photograph(tmp_path / "im" / "a.jpg")
    write_label_map(tmp_path / "gt" / "a.png", filled_labels(255))
    ingest_both_layers(tmp_path, foreground, own(tmp_path))
    store = ShardStore(tmp_path / "store")
    assert describe_source_change(store, foreground, own(tmp_path), name="given", split="all") is None
    write_photograph(tmp_path / "im" / "b.jpg")
    assert "im is not what given/all/annotations was made from" in str(
        describe_source_change(store, foreground, own(tmp_path), name="given", split="all")
    )


def test_the_reported_bytes_equal_the_announced_ones(tmp_path: Path) -> None:
    for i in range(200):
        write_photograph(tmp_path / "im" / f"{i}.jpg")
        write_label_map(tmp_path / "gt" / f"{i}.png", filled_labels(255))
    told: list[int] = []
    files = own(tmp_path)
    list(foreground.read(DatasetFiles(files.sources, files.image_folder, on_bytes=told.append), "annotations"))
    assert sum(told) == files.total_bytes() and len(told) == 2
