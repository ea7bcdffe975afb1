"""ADE20K, foreground and semantic folders, DaTaSeg: counts of the real files, names of every kind, hostile folders."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from synthgen import plugins
from synthgen.errors import SynthgenError
from synthgen.formats.readers import (
    Categories,
    DatasetFiles,
    ade20k,
    ade20k_full,
    dataseg_objects365,
    foreground,
    objects365,
    semantic_folder,
)
from synthgen.formats.readers._ade20k import CATEGORY_NAMES, STUFF_LABELS
from synthgen.formats.readers._label_names import cityscapes_labels, read_label_names
from synthgen.generate import dataset_spec
from synthgen.images.decode import find_image, load_rgb
from synthgen.ingest.ingest import IngestReport, describe_source_change, ingest
from synthgen.ingest.validation.validate import validate_dataset
from synthgen.records.geometry import decode_mask, encode_mask, rle_bbox_xyxy
from synthgen.records.sample import ANNOTATION_FLAGS, Annotation, Sample
from synthgen.storage.shard_store import ShardStore

Shared = Callable[[str], Path]


def ingested(
    folder: Path, module: ModuleType, files: DatasetFiles, layer: str = "human"
) -> tuple[list[Sample], IngestReport]:
    store = ShardStore(folder / "store")
    report = ingest(store, module, files, name="given", split="all", layer=layer)
    return [s for shard in store.list_shards("given", "all", layer) for s in store.read_samples(shard)], report


def both(folder: Path, module: ModuleType, files: DatasetFiles) -> list[Sample]:
    """The layer of masks, which is the layer of boxes but for the masks."""
    boxes, few = ingested(folder, module, files, "annotations")
    samples, many = ingested(folder, module, files)
    assert (few.images, few.annotations, few.errors) == (many.images, many.annotations, many.errors)
    assert few.masks == 0
    for box_sample, sample in zip(boxes, samples, strict=True):
        assert box_sample.error == sample.error
        for box, masked in zip(box_sample.annotations, sample.annotations, strict=True):
            assert (box.id, box.bbox, box.category, box.isthing, box.flags) == (
                masked.id, masked.bbox, masked.category, masked.isthing, masked.flags
            )  # fmt: skip
            if masked.segmentation is not None:
                assert masked.mask_source == "human"
                assert masked.segmentation.size == (sample.height, sample.width)
                x1, y1, x2, y2 = rle_bbox_xyxy(masked.segmentation)
                assert masked.bbox == (x1, y1, x2 - x1, y2 - y1)
    return samples


def photograph(path: Path, size: tuple[int, int] = (8, 6), **options: Any) -> None:
    """An image file of (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (9, 99, 199)).save(path, **options)


def label_map(path: Path, values: Any, dtype: Any = np.uint8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, dtype)).save(path)


def filled(value: int, size: tuple[int, int] = (8, 6)) -> np.ndarray:
    return np.full(size[::-1], value, np.uint8)


def flat(samples: list[Sample]) -> list[Annotation]:
    return [a for s in samples for a in s.annotations]


# ------------------------------------------------------------------------------------------------------- the shelf


@pytest.mark.parametrize("name", plugins.list_plugins("formats.readers"))
def test_every_file_on_the_shelf_is_a_dataset(name: str, tmp_path: Path) -> None:
    module: Any = plugins.load_plugin("formats.readers", name)
    assert module.__doc__ and "\n" not in module.__doc__.splitlines()[0]
    assert module.SPLITS and module.LAYERS[0] == "annotations"
    assert callable(module.read) and (len(module.LAYERS) == 1 or callable(module.complete))
    for split in module.SPLITS:
        with pytest.raises(SynthgenError) as why:
            module.files(tmp_path / "nowhere", split, None)
        assert "\n" not in str(why.value)


# ------------------------------------------------------------------------------------------------- SceneParse150


def test_ade20k_excerpt(tmp_path: Path, shared: Shared) -> None:
    files = ade20k.files(shared("data/ade20k_sample"), "validation", None)
    samples = both(tmp_path, ade20k, files)
    assert [(s.image_id, s.image_key, s.file_name, s.height, s.width, len(s.annotations)) for s in samples] == [
        (1, "ade20k/ADE_val_00000001", "ADE_val_00000001.jpg", 512, 683, 7),
        (2, "ade20k/ADE_val_00000002", "ADE_val_00000002.jpg", 364, 500, 6),
        (3, "ade20k/ADE_val_00000003", "ADE_val_00000003.jpg", 300, 400, 12),
    ]
    for sample in samples:
        png = files.sources["labels"] / f"{Path(sample.file_name).stem}.png"
        theirs = np.asarray(Image.open(png))
        for annotation in sample.annotations:
            label = CATEGORY_NAMES.index(annotation.category) + 1
            assert annotation.segmentation == encode_mask(theirs == label)
            assert annotation.isthing == (label not in STUFF_LABELS)
        assert find_image(files.image_folder, sample.file_name).is_file()
    with pytest.raises(SynthgenError, match=r"no folders images/training and annotations/training in .*unpack"):
        ade20k.files(shared("data/ade20k_sample"), "training", None)


def test_the_names_are_the_benchmarks(shared: Shared) -> None:
    lines = (shared("data/ade20k_sample/sceneparsing150") / "objectInfo150.txt").read_text().splitlines()[1:]
    assert list(CATEGORY_NAMES) == [line.split("\t")[4].split(",")[0].strip() for line in lines]
    assert (len(CATEGORY_NAMES), len(set(CATEGORY_NAMES)), len(STUFF_LABELS)) == (150, 150, 50)
    assert {"wall", "sky", "road"} <= {CATEGORY_NAMES[label - 1] for label in STUFF_LABELS}
    assert {"person", "car", "windowpane"}.isdisjoint(CATEGORY_NAMES[label - 1] for label in STUFF_LABELS)


def test_ade20k_as_the_release_unpacks(tmp_path: Path) -> None:
    root = tmp_path / "ADEChallengeData2016"
    for split, short, value in (("training", "train", 1), ("validation", "val", 150)):
        photograph(root / "images" / split / f"ADE_{short}_00000012.jpg")
        label_map(root / "annotations" / split / f"ADE_{short}_00000012.png", filled(value))
    for split, name in (("training", "wall"), ("validation", "flag")):
        samples = both(tmp_path / split, ade20k, ade20k.files(tmp_path, split, None))
        assert [(s.image_id, [a.category for a in s.annotations]) for s in samples] == [(12, [name])]


def test_a_label_beyond_the_names_is_an_unknown_category(tmp_path: Path) -> None:
    photograph(tmp_path / "images" / "training" / "a.jpg")
    photograph(tmp_path / "images" / "training" / "b.jpg")
    label_map(tmp_path / "annotations" / "training" / "a.png", [[151] * 8] * 3 + [[2] * 8] * 2 + [[0] * 8])
    label_map(tmp_path / "annotations" / "training" / "b.png", [[3000] * 8] * 6, np.uint16)
    samples = both(tmp_path, ade20k, ade20k.files(tmp_path, "training", None))
    assert [(a.category, a.flags, a.bbox) for a in flat(samples)] == [
        ("building", (), (0, 3, 8, 2)),
        ("", ("unknown_category",), (0, 0, 8, 3)),
        ("", ("unknown_category",), (0, 0, 8, 6)),
    ]
    assert [s.image_key for s in samples] == ["given/a.jpg", "given/b.jpg"], "no ADE20K names: nobody else's keys"


# ---------------------------------------------------------------------------------------------- the full release


def test_ade20k_full_excerpt(tmp_path: Path, shared: Shared) -> None:
    root = shared("data/ade20k_sample/full/ADE20K_2021_17_01")
    files = ade20k_full.files(root, "training", None)
    samples = both(tmp_path, ade20k_full, files)
    assert [(s.image_id, s.image_key, len(s.annotations)) for s in samples] == [
        (16869, "ade20k/ADE_train_00016869", 70),
        (16900, "ade20k/ADE_train_00016900", 37),
        (16964, "ade20k/ADE_train_00016964", 32),
    ]
    everything = flat(samples)
    assert len(everything) == 139 and all(a.segmentation for a in everything)
    assert Counter(flag for a in everything for flag in a.flags) == {"part": 30}
    names = Counter(a.category for a in samples[0].annotations)
    assert (names["car"], names["person"], names["traffic light"]) == (11, 9, 7)
    assert {a.category for a in everything if not a.isthing} >= {"sky", "road", "tree"}
    # What is seen of an object that is no part is, but for its rim, one colour of the release's map of the instances.
    colours = load_rgb(files.image_folder / "urban" / "street" / "ADE_train_00016964_seg.png")[..., 2]
    for annotation in samples[2].annotations:
        if "part" not in annotation.flags and annotation.segmentation is not None:
            mask = decode_mask(annotation.segmentation)
            own_colour = np.bincount(colours[mask]).argmax()
            assert (mask ^ (colours == own_colour)).sum() < 0.02 * mask.sum()


def full(folder: Path, objects: Any, *, size: tuple[int, int] = (8, 6), text: bytes | None = None) -> DatasetFiles:
    """A release of one photograph."""
    place = folder / "images" / "ADE" / "training" / "a" / "b"
    photograph(place / "ADE_train_00000007.jpg", size)
    content = json.dumps({"annotation": {"object": objects}}).encode() if text is None else text
    (place / "ADE_train_00000007.json").write_bytes(content)
    return ade20k_full.files(folder, "training", None)


def test_what_is_hidden_is_not_in_the_mask(tmp_path: Path) -> None:
    one = {"id": 4, "name": "cat, true cat", "parts": {"part_level": 0, "hasparts": []}, "instance_mask": "ADE/i.png"}
    files = full(tmp_path, one)  # as MATLAB writes a list of one
    label_map(files.image_folder / "a" / "b" / "ADE" / "i.png", [[0, 128, 255, 255, 0, 0, 0, 0]] * 6)
    [sample] = both(tmp_path, ade20k_full, files)
    [cat] = sample.annotations
    assert (cat.id, cat.category, cat.bbox, cat.flags) == (4, "cat", (2, 0, 2, 6), ())


@pytest.mark.parametrize(
    "png", ["gone", "climbs", "absolute", "link", "truncated", "colour", "size", "hidden", "number"]
)
def test_an_object_without_a_usable_png_keeps_the_box_of_its_polygon(tmp_path: Path, png: str) -> None:
    name: Any = "i.png"
    if png in ("climbs", "absolute"):
        label_map(tmp_path / "secret.png", filled(255))
        name = "../../../../../secret.png" if png == "climbs" else str(tmp_path / "secret.png")
    polygon = {"x": [1, 4, 4], "y": [2, 2, 5]}
    files = full(
        tmp_path, [{"id": 1, "name": "cat", "instance_mask": 5 if png == "number" else name, "polygon": polygon}]
    )
    path = files.image_folder / "a" / "b" / "i.png"
    if png == "truncated":
        label_map(path, np.random.default_rng(0).integers(0, 255, (600, 800)))
        path.write_bytes(path.read_bytes()[:2000])
    if png == "colour":
        photograph(path)
    if png in ("size", "hidden"):
        label_map(path, filled(255, (9, 6)) if png == "size" else filled(128))
    if png == "link":
        (tmp_path / "secret.txt").write_text("a secret")
        path.symlink_to(tmp_path / "secret.txt")
    [sample] = both(tmp_path, ade20k_full, files)
    assert [(a.bbox, a.flags, a.segmentation) for a in sample.annotations] == [
        ((1, 2, 3, 3), ("bad_segmentation",), None)
    ]


def test_an_object_without_anything(tmp_path: Path) -> None:
    [sample] = both(
        tmp_path, ade20k_full, full(tmp_path, [{}, {"id": "x", "name": 5, "parts": [], "polygon": {"x": [1]}}])
    )
    assert [a.id for a in sample.annotations] == [0, 1]
    for annotation in sample.annotations:
        assert {"bad_segmentation", "no_box", "degenerate", "unknown_category"} <= set(annotation.flags)


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"{", b'{"annotation": {"object": 7}}', b"[" * 100_000, b'{"annotation": null}', b"\xff\xfe\x00"],
)
def test_a_json_that_cannot_be_read_is_the_rows_error(tmp_path: Path, text: bytes) -> None:
    [sample] = both(tmp_path, ade20k_full, full(tmp_path, None, text=text))
    assert sample.error == "its JSON cannot be read as the release's"
    assert (sample.height, sample.width, sample.annotations) == (6, 8, ())


def test_a_photograph_without_a_json_and_one_in_latin_1(tmp_path: Path) -> None:
    files = full(tmp_path, None, text='{"annotation": {"object": [{"id": 1, "name": "caf\xe9"}]}}'.encode("latin-1"))
    photograph(files.image_folder / "a" / "b" / "ADE_train_00000008.jpg")
    first, second = both(tmp_path, ade20k_full, files)
    assert first.annotations[0].category == "café"
    assert (second.error, second.image_id) == ("its JSON is not there", 8)


# ---------------------------------------------------------------------------------------------------- foreground


def test_davis_2016(tmp_path: Path, shared: Shared) -> None:
    files = foreground.files(shared("data/davis2016"), "train", None)
    samples = both(tmp_path, foreground, files)
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
    photograph(tmp_path / "data" / images / "a.jpg")
    label_map(tmp_path / "data" / masks / "a.png", filled(255))
    found = foreground.files(tmp_path / "data", split, None)
    assert (found.sources["images"], found.sources["masks"]) == (tmp_path / "data" / images, tmp_path / "data" / masks)
    [sample] = both(tmp_path, foreground, found)
    assert (sample.file_name, sample.error, len(sample.annotations)) == ("a.jpg", None, 1)
    for other in set(foreground.SPLITS) - {split}:
        with pytest.raises(SynthgenError, match=f"no photographs with masks of '{other}'"):
            foreground.files(tmp_path / "data", other, None)


def test_several_releases_are_one_dataset(tmp_path: Path) -> None:
    for images, (masks, _) in LAYOUTS.items():
        photograph(tmp_path / "data" / images / "a.jpg")
        label_map(tmp_path / "data" / masks / "a.png", filled(255))
    files = foreground.files(tmp_path / "data", "train", None)
    samples = both(tmp_path, foreground, files)
    assert {s.file_name for s in samples} == {f"{i}/a.jpg" for i, (_, split) in LAYOUTS.items() if split == "train"}
    assert all(find_image(files.image_folder, s.file_name).is_file() and s.error is None for s in samples)
    assert len({s.image_key for s in samples}) == len(samples)
    with pytest.raises(SynthgenError, match=r"--images .* names one folder, and masks were found in several"):
        list(foreground.read(files.with_image_folder(tmp_path / "other"), "human"))


def test_a_key_has_the_folder_in_it_whatever_lies_beside(tmp_path: Path) -> None:
    """Releases number their files alike: a photograph is another one's by its folder, and by nothing else."""

    def lay(images: str, masks: str) -> None:
        photograph(tmp_path / "data" / images / "1.jpg")
        label_map(tmp_path / "data" / masks / "1.png", filled(255))

    def keys(split: str, **named: Path) -> list[str]:
        given = dataset_spec.resolve_dataset(
            "foreground", "given", split, tmp_path, named.get("masks"), named.get("images")
        )
        files = foreground.files(tmp_path / "data", split, given.annotations).with_image_folder(given.images)
        samples = both(tmp_path / f"store{len(list(tmp_path.glob('store*')))}", foreground, files)
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


def test_keys_of_label_maps_have_the_folder_in_them(tmp_path: Path) -> None:
    (tmp_path / "class_names.txt").write_text("void\nroad\n")
    for split in ("train", "val"):
        photograph(tmp_path / "images" / split / "1.jpg")
        label_map(tmp_path / "labels" / split / "1.png", filled(255))
        [sample] = both(tmp_path / split, semantic_folder, semantic_folder.files(tmp_path, split, None))
        assert (sample.image_key, sample.file_name) == (f"given/images/{split}/1.jpg", "1.jpg")


@pytest.mark.parametrize(("module", "labels"), [(foreground, "masks"), (semantic_folder, "labels")])
def test_no_split_is_another_ones_images(tmp_path: Path, module: Any, labels: str) -> None:
    """Or a model would be judged by what it was trained on."""
    (tmp_path / "class_names.txt").write_text("void\nroad\n")
    for split in ("train", "val"):
        photograph(tmp_path / "images" / split / f"{split}.jpg")
        label_map(tmp_path / labels / split / f"{split}.png", filled(255))
        [sample] = both(tmp_path / split, module, module.files(tmp_path, split, None))
        assert sample.file_name.endswith(f"{split}.jpg")
        if split == "train":
            with pytest.raises(SynthgenError, match="'val'"):
                module.files(tmp_path, "val", None)
    with pytest.raises(SynthgenError, match="'test'"):
        module.files(tmp_path, "test", None)
    for folder in ("images", labels):
        for split in ("train", "val"):
            shutil.rmtree(tmp_path / folder / split)
    photograph(tmp_path / "images" / "a.jpg")
    label_map(tmp_path / labels / "a.png", filled(255))
    assert len(both(tmp_path / "flat", module, module.files(tmp_path, "train", None))) == 1
    for split in ("val", "test"):
        with pytest.raises(SynthgenError, match=f"'{split}'"):
            module.files(tmp_path, split, None)


def test_two_folders_of_ones_own(tmp_path: Path) -> None:
    photograph(tmp_path / "mine" / "deep" / "a.jpg")
    label_map(tmp_path / "drawn" / "deep" / "a.png", filled(255))
    given = dataset_spec.resolve_dataset(
        "foreground", "own", None, tmp_path / "data", tmp_path / "drawn", tmp_path / "mine"
    )
    [sample] = both(tmp_path, foreground, given.locate_files())
    assert (sample.file_name, len(sample.annotations)) == ("deep/a.jpg", 1)
    assert given.resolve_image_folder() == tmp_path / "mine"
    found = validate_dataset("foreground", tmp_path / "data", annotations=tmp_path / "drawn", images=tmp_path / "mine")
    assert found.is_ready
    with pytest.raises(SynthgenError, match=r"no folder .*data/foreground; name the right one with --images"):
        other = dataset_spec.resolve_dataset("foreground", "own", None, tmp_path / "data", tmp_path / "drawn", None)
        list(foreground.read(other.locate_files(), "human"))
    with pytest.raises(SynthgenError, match=r"no file .*nothing; --annotations"):
        dataset_spec.resolve_dataset("foreground", "own", None, tmp_path, tmp_path / "nothing", None)


def own(folder: Path) -> DatasetFiles:
    """A folder of photographs and a folder of masks."""
    return DatasetFiles({"images": folder / "im", "masks": folder / "gt"}, folder / "im")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "jpeg"])
def test_a_mask_of_any_mode_is_cut_at_half(tmp_path: Path, mode: str) -> None:
    photograph(tmp_path / "im" / "a.jpg", (16, 16))
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
    [sample] = both(tmp_path, foreground, own(tmp_path))
    assert [a.bbox for a in sample.annotations] == [(0, 8, 16, 8)]


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("gone", "no mask or label map has this image's name"),
        ("size", "its mask or label map is 9 x 6 pixels, the photograph 8 x 6"),
        ("truncated", r"its mask or label map cannot be decoded \(OSError: .*truncated"),
        ("text", "its mask or label map cannot be decoded .*no image of the kinds"),
        ("red", "its mask or label map is in colour, and a mask of foreground is white on black"),
        ("counts", "its mask or label map holds 0 and 1"),
        ("pipe", "its mask or label map is no file, or a link to none"),
        ("dangling", "its mask or label map is no file, or a link to none"),
        ("secret", "its mask or label map cannot be decoded .*no image of the kinds"),
    ],
)
def test_a_photograph_without_a_usable_mask_is_a_row_that_says_why(tmp_path: Path, kind: str, sentence: str) -> None:
    for name in ("a", "b"):
        photograph(tmp_path / "im" / f"{name}.jpg")
        label_map(tmp_path / "gt" / f"{name}.png", filled(255))
    path = tmp_path / "gt" / "b.png"
    if kind == "truncated":
        label_map(path, np.random.default_rng(0).integers(0, 255, (6, 8)))
        Image.new("L", (800, 600), 255).save(path)
        path.write_bytes(path.read_bytes()[:200])
    elif kind == "size":
        label_map(path, filled(255, (9, 6)))
    elif kind == "text":
        path.write_text("<html>")
    elif kind == "red":
        Image.new("RGB", (8, 6), (128, 0, 0)).save(path)
    elif kind == "counts":
        label_map(path, [[0, 1] * 4] * 6)
    else:
        path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    if kind == "dangling":
        path.symlink_to(tmp_path / "nothing")
    if kind == "secret":
        (tmp_path / "secret").write_text("a secret")
        path.symlink_to(tmp_path / "secret")
    a, b = both(tmp_path, foreground, own(tmp_path))
    assert (a.error, len(a.annotations)) == (None, 1)
    assert b.error is not None
    assert (b.file_name, b.height, b.width, b.annotations) == ("b.jpg", 6, 8, ())
    assert re.search(sentence, b.error)
    assert str(tmp_path) not in b.error and "secret" not in b.error
    found = validate_dataset("foreground", tmp_path, annotations=tmp_path / "gt", images=tmp_path / "im")
    [finding] = [f for f in found.splits[0].findings if f.code == "no_labels"]
    assert (finding.count, finding.examples[0].where, finding.examples[0].what) == (1, "b.jpg", b.error)


def test_a_mask_without_a_photograph_is_a_row_too(tmp_path: Path) -> None:
    photograph(tmp_path / "im" / "a.jpg")
    for name in ("a.png", "c.png", "a.bmp"):
        label_map(tmp_path / "gt" / name, filled(255))
    samples = both(tmp_path, foreground, own(tmp_path))
    alone = "no photograph has the name of this mask or label map"
    assert {s.file_name: s.error for s in samples} == {"a.jpg": None, "a.png": alone, "c.png": alone}


def test_a_mask_without_foreground_makes_no_annotation(tmp_path: Path) -> None:
    photograph(tmp_path / "im" / "a.jpg")
    label_map(tmp_path / "gt" / "a.png", filled(127))
    [sample] = both(tmp_path, foreground, own(tmp_path))
    assert (sample.error, sample.annotations) == (None, ())


def test_a_mask_may_be_drawn_over_the_stored_or_over_the_shown_pixels(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown rotated
    for name, size in (("shown", (6, 8)), ("stored", (8, 6))):
        photograph(tmp_path / "im" / f"{name}.jpg", (8, 6), exif=exif)
        label_map(tmp_path / "gt" / f"{name}.png", filled(255, size))
    shown, stored = both(tmp_path, foreground, own(tmp_path))
    assert [(s.error, s.height, s.width) for s in (shown, stored)] == [(None, 8, 6), (None, 6, 8)]
    for sample in (shown, stored):
        assert load_rgb(tmp_path / "im" / sample.file_name, sample.height, sample.width).shape[:2] == (
            sample.height, sample.width
        )  # fmt: skip


def test_an_unreadable_photograph_is_for_the_job_to_tell(tmp_path: Path) -> None:
    photograph(tmp_path / "im" / "a.jpg")
    (tmp_path / "im" / "a.jpg").write_text("no image")
    label_map(tmp_path / "gt" / "a.png", filled(255))
    [sample] = both(tmp_path, foreground, own(tmp_path))
    assert (sample.error, sample.height, len(sample.annotations)) == (None, 6, 1)


def test_folders_that_do_not_belong_together_are_a_sentence(tmp_path: Path) -> None:
    photograph(tmp_path / "im" / "a.jpg")
    label_map(tmp_path / "gt" / "b.png", filled(255))
    with pytest.raises(
        SynthgenError, match=r"no photograph below .*im has the name of a mask .* \(1 and 1 are there\)"
    ):
        list(foreground.read(own(tmp_path), "human"))


def test_odd_names_and_links_to_folders(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ["a b", "ü", "x\ny", "a.b.c", "-rf", "{split}", "$(id)", "%s", "'\""]
    for name in names:
        photograph(tmp_path / "im" / f"{name}.JPG", format="JPEG")
        label_map(tmp_path / "gt" / f"{name}.png", filled(255))
    latin = os.fsdecode(b"\xe9")
    photograph(tmp_path / "im" / f"{latin}.jpg")
    label_map(tmp_path / "gt" / f"{latin}.png", filled(255))
    photograph(tmp_path / "im" / ".hidden.jpg")
    (tmp_path / "im" / "notes.txt").touch()
    photograph(tmp_path / "outside" / "z.jpg")
    (tmp_path / "im" / "away").symlink_to(tmp_path / "outside")
    (tmp_path / "im" / "loop").symlink_to(tmp_path / "im")
    with caplog.at_level(logging.WARNING):
        samples = both(tmp_path, foreground, own(tmp_path))
    errors = {s.file_name: s.error for s in samples}
    assert errors == {**{f"{name}.JPG": None for name in names}, "?.jpg": "its file name is not UTF-8; rename the file"}
    assert "away is a link and is not followed" in caplog.text and "loop is a link" in caplog.text


def test_masks_below_the_photographs(tmp_path: Path) -> None:
    photograph(tmp_path / "im" / "a.jpg")
    label_map(tmp_path / "im" / "masks" / "a.png", filled(255))
    files = DatasetFiles(
        {"images": tmp_path / "im", "masks": Path(os.path.relpath(tmp_path / "im" / "masks"))}, tmp_path / "im"
    )
    assert [(s.file_name, s.error) for s in both(tmp_path, foreground, files)] == [("a.jpg", None)]


def test_a_new_photograph_is_a_change_of_the_source(tmp_path: Path) -> None:
    photograph(tmp_path / "im" / "a.jpg")
    label_map(tmp_path / "gt" / "a.png", filled(255))
    both(tmp_path, foreground, own(tmp_path))
    store = ShardStore(tmp_path / "store")
    assert describe_source_change(store, own(tmp_path), name="given", split="all") is None
    photograph(tmp_path / "im" / "b.jpg")
    assert "im is not what given/all/annotations was made from" in str(
        describe_source_change(store, own(tmp_path), name="given", split="all")
    )


def test_the_bytes_that_are_told_are_those_that_were_promised(tmp_path: Path) -> None:
    for i in range(200):
        photograph(tmp_path / "im" / f"{i}.jpg")
        label_map(tmp_path / "gt" / f"{i}.png", filled(255))
    told: list[int] = []
    files = own(tmp_path)
    list(foreground.read(DatasetFiles(files.sources, files.image_folder, on_bytes=told.append), "annotations"))
    assert sum(told) == files.total_bytes() and len(told) == 2


# ------------------------------------------------------------------------------------------------ semantic folders


def test_camvid(tmp_path: Path, shared: Shared) -> None:
    files = semantic_folder.files(shared("data/camvid"), "train", None)
    samples = both(tmp_path, semantic_folder, files)
    assert len(samples) == 74 and all(s.error is None for s in samples)
    names = json.loads((shared("data/camvid") / "class_names.json").read_text())
    counts: Counter[str] = Counter()
    for sample in samples:
        theirs = np.asarray(Image.open(files.sources["labels"] / sample.file_name))
        counts.update(names[label] for label in np.unique(theirs))
        for annotation in sample.annotations:
            assert annotation.segmentation == encode_mask(theirs == names.index(annotation.category))
    assert counts.pop("Unlabelled") == 74
    assert Counter(a.category for a in flat(samples)) == counts
    assert counts.total() == 713 and len(counts) == 11
    with pytest.raises(SynthgenError, match="no photographs with label maps of 'val'"):
        semantic_folder.files(shared("data/camvid"), "val", None)


def test_voc_sample(tmp_path: Path, shared: Shared) -> None:
    root = shared("data/voc_labelme_sample")
    files = semantic_folder.files(root, "train", None)
    elsewhere = semantic_folder.files(tmp_path, "train", root / "SegmentationClass")
    assert elsewhere == replace(files, image_key_prefix=f"{root.name}/{files.image_key_prefix}")
    samples = both(tmp_path, semantic_folder, files)
    assert [sorted(a.category for a in s.annotations) for s in samples] == [
        ["bottle", "person"], ["chair", "person", "sofa"], ["bus", "car"]
    ]  # fmt: skip
    coco = json.loads((root / "coco_annotations.json").read_text())
    names = {c["id"]: c["name"] for c in coco["categories"]}
    used = {names[a["category_id"]] for a in coco["annotations"]}
    assert {a.category for a in flat(samples)} == used


def test_voc_as_it_unpacks(tmp_path: Path) -> None:
    root = tmp_path / "VOC2012"
    for name in ("a", "b", "c", "d"):
        photograph(root / "JPEGImages" / f"{name}.jpg")
    for name in ("a", "b"):
        label_map(root / "SegmentationClass" / f"{name}.png", [[0] * 8] * 2 + [[15] * 8] * 2 + [[255] * 8] * 2)
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("b\n")
    (lists / "val.txt").write_text("a\nc\n../../../etc/passwd\n")
    [b] = both(tmp_path / "1", semantic_folder, semantic_folder.files(root, "train", None))
    assert (b.file_name, [(a.category, a.bbox) for a in b.annotations]) == ("b.jpg", [("person", (0, 2, 8, 2))])
    errors = {
        s.file_name: s.error for s in both(tmp_path / "2", semantic_folder, semantic_folder.files(root, "val", None))
    }
    assert errors.pop("a.jpg") is None
    assert set(errors) == {"c.jpg", "../../../etc/passwd"} and all(errors.values())


def test_cityscapes_as_it_unpacks(tmp_path: Path) -> None:
    stem = "aachen_000000_000019"
    photograph(tmp_path / "leftImg8bit" / "train" / "aachen" / f"{stem}_leftImg8bit.png")
    maps = tmp_path / "gtFine" / "train" / "aachen"
    label_map(maps / f"{stem}_gtFine_labelIds.png", [[0] * 8, [4] * 8, [7] * 8, [9] * 8, [26] * 8, [33] * 8])
    label_map(maps / f"{stem}_gtFine_instanceIds.png", [[26001] * 8] * 6, np.uint16)
    photograph(maps / f"{stem}_gtFine_color.png")
    [sample] = both(tmp_path / "1", semantic_folder, semantic_folder.files(tmp_path, "train", None))
    assert sample.file_name == f"aachen/{stem}_leftImg8bit.png"
    assert [(a.category, a.isthing) for a in sample.annotations] == [
        ("road", False), ("parking", False), ("car", True), ("bicycle", True)
    ]  # fmt: skip
    (maps / f"{stem}_gtFine_labelIds.png").unlink()
    label_map(maps / f"{stem}_gtFine_labelTrainIds.png", [[0] * 8, [255] * 8, [13] * 8, [18] * 8, [18] * 8, [255] * 8])
    [sample] = both(tmp_path / "2", semantic_folder, semantic_folder.files(tmp_path, "train", None))
    assert [a.category for a in sample.annotations] == ["road", "car", "bicycle"]
    assert len(cityscapes_labels(train_ids=True).categories.names) == 19


def test_labels_that_nobody_names_are_refused(tmp_path: Path) -> None:
    photograph(tmp_path / "images" / "train" / "a.jpg")
    label_map(tmp_path / "labels" / "train" / "a.png", filled(1))
    with pytest.raises(
        SynthgenError, match=r"nothing says what the labels in .* mean; lay a file class_names.json there"
    ):
        list(semantic_folder.read(semantic_folder.files(tmp_path, "train", None), "annotations"))
    (tmp_path / "class_names.json").write_text('["a", "b"]')
    [sample] = both(tmp_path, semantic_folder, semantic_folder.files(tmp_path, "train", None))
    assert [(a.category, a.isthing) for a in sample.annotations] == [("b", False)]


@pytest.mark.parametrize(
    ("name", "text", "names", "unlabelled"),
    [
        ("class_names.json", '["Void", "road", "sky "]', {1: "road", 2: "sky"}, {0, 255}),
        ("classes.json", '{"3": "road", "7": "background"}', {3: "road"}, {7, 255}),
        ("classes.json", '{"road": 3, "unlabelled": 0}', {3: "road"}, {0, 255}),
        ("classes.json", '[{"id": 255, "name": "road"}, {"name": "sky"}]', {255: "road", 1: "sky"}, set()),
        ("c.json", '[{"name": "r", "color": [1, 2, 3]}, {"name": "x", "colour": [0, 0, 9]}]', {66051: "r", 9: "x"}, ()),
        ("classes.txt", "\ufeff_background_\nroad\n\nsky\n", {1: "road", 2: "sky"}, {0, 255}),
        ("classes.txt", "__ignore__\n_background_\nroad\n", {1: "road"}, {-1, 0, 255}),
        ("label_colors.txt", "64 128 64\tAnimal\n0 0 0\t\tVoid\n", {4227136: "Animal"}, {0}),
    ],
)  # fmt: skip
def test_names_in_the_forms_that_people_write(
    tmp_path: Path, name: str, text: str, names: dict[int, str], unlabelled: Any
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    found = read_label_names(tmp_path / name)
    assert (found.categories.names, found.ignore_labels) == (names, frozenset(unlabelled))
    assert found.is_color_coded == (66051 in names or 4227136 in names)
    assert found.categories.stuff == frozenset(names), "nothing says what is a thing"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"", "Input data was truncated"),
        (b"7", "it is neither a list nor an object"),
        (b"[]", "it is neither a list nor an object"),
        (b"[1, 2]", "its elements are neither names nor objects"),
        (b'["void", "background"]', "it names no category"),
        (b'[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]', "it names a label twice"),
        (b'[{"id": "x", "name": "a"}]', "'x' is no label"),
        (b'[{"id": 9999999999, "name": "a"}]', "9999999999 is no label"),
        (b'[{"id": 1}]', "label 1 has no name"),
        (b'["a", "  "]', "label 1 has no name"),
        (b'[{"name": "a", "color": [1, 2, 300]}]', "is no colour"),
        (b"\xff\xfe", "codec can't decode"),
        (b"[" * 200_000, "cannot be understood"),
        (b"[" + b" " * 2**20 + b"]", "it is larger than a megabyte"),
    ],
)
def test_names_that_cannot_be_understood_are_a_sentence(tmp_path: Path, text: bytes, sentence: str) -> None:
    (tmp_path / "class_names.json").write_bytes(text)
    with pytest.raises(SynthgenError, match=sentence) as why:
        read_label_names(tmp_path / "class_names.json")
    assert "write a JSON list of names" in str(why.value) and "\n" not in str(why.value)


def test_label_maps_in_colour_need_colours(tmp_path: Path) -> None:
    photograph(tmp_path / "train" / "a.png")
    red_over_blue = np.array([[[255, 0, 0]] * 8] * 2 + [[[0, 0, 255]] * 8] * 3 + [[[1, 1, 1]] * 8], np.uint8)
    label_map(tmp_path / "trainannot" / "a.png", red_over_blue)
    (tmp_path / "class_names.txt").write_text("road\nsky\n")
    [sample] = both(tmp_path / "1", semantic_folder, semantic_folder.files(tmp_path, "train", None))
    assert sample.error == ("its mask or label map has colours (mode RGB), and a label map has one number a pixel")
    (tmp_path / "class_names.txt").write_text("255 0 0 road\n0 0 255 sky\n")
    [sample] = both(tmp_path / "2", semantic_folder, semantic_folder.files(tmp_path, "train", None))
    found = {a.category: (a.bbox, a.flags) for a in sample.annotations}
    assert found == {
        "road": ((0, 0, 8, 2), ()), "sky": ((0, 2, 8, 3), ()), "": ((0, 5, 8, 1), ("unknown_category",))
    }  # fmt: skip


def test_a_photograph_as_label_map_is_the_rows_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    photograph(tmp_path / "train" / "a.png", (80, 80))
    label_map(tmp_path / "trainannot" / "a.png", rng.integers(0, 2**16, (80, 80)), np.uint16)
    (tmp_path / "class_names.txt").write_text("road\n")
    [sample] = both(tmp_path, semantic_folder, semantic_folder.files(tmp_path, "train", None))
    assert sample.error is not None and "labels, more than the limit of 4,096: is it a photograph?" in sample.error


# ------------------------------------------------------------------------------------------------------- DaTaSeg


def test_dataseg_has_the_keys_of_objects365(tmp_path: Path, shared: Shared) -> None:
    content = json.loads((shared("data/objects365_excerpt") / "zhiyuan_objv2_excerpt.json").read_text())
    content["images"] = [image for image in content["images"] if image["id"] == 215264]
    polygon = [[10, 10, 40.5, 10, 40.5, 50, 10, 50]]
    box = {"id": 9, "image_id": 215264, "category_id": 84, "bbox": [10, 10, 30.5, 40], "iscrowd": 0}
    content["annotations"] = [
        {**box, "isfake": 0, "isreflected": 0, "segmentation": polygon},
        {**box, "id": 10, "bbox": [1, 2, 3, 4], "isfake": "1", "isreflected": 1, "segmentation": [[1, 2]]},
    ]
    (tmp_path / "o365_instance_seg_val.json").write_text(json.dumps(content))
    files = dataseg_objects365.files(tmp_path, "val", None)
    [boxes], _ = ingested(tmp_path, dataseg_objects365, files, "annotations")
    [sample], report = ingested(tmp_path, dataseg_objects365, files)
    drawn, odd = sample.annotations
    assert (sample.height, sample.width, report.masks) == (512, 683, 1)
    assert drawn.segmentation is not None and drawn.mask_source == "human" and drawn.flags == ()
    assert (drawn.bbox, drawn.category) == (
        (10, 10, 30.5, 40),
        "Bakset" if drawn.category == "Bakset" else drawn.category,
    )
    assert odd.flags == ("bad_segmentation", "fake", "reflected")
    assert [a.flags for a in boxes.annotations] == [(), ("fake", "reflected")]
    # The same photograph, as Objects365 itself lists it: an exclude list of the one holds for the other.
    (tmp_path / "zhiyuan_objv2_val.json").write_text(json.dumps(content))
    [theirs], _ = ingested(tmp_path / "o", objects365, objects365.files(tmp_path, "val", None), "annotations")
    assert theirs.image_key == sample.image_key == "objects365/00215264"
    assert theirs.annotations == boxes.annotations
    assert find_image(shared("data/objects365_excerpt"), sample.file_name).is_file()


# ---------------------------------------------------------------------------------------------- categories, flags


def test_flags_are_in_the_contract() -> None:
    assert {"part", "bad_segmentation", "no_box"} <= set(ANNOTATION_FLAGS)


def test_the_doctor_reads_them_all(tmp_path: Path, shared: Shared) -> None:
    for name, folder, counts in (
        ("ade20k", "data/ade20k_sample", (3, 25)),
        ("ade20k_full", "data/ade20k_sample", (3, 139)),
        ("foreground", "data/davis2016", (91, 91)),
        ("semantic_folder", "data/camvid", (74, 713)),
    ):
        found = validate_dataset(name, shared(folder))
        [split] = found.splits
        assert found.is_ready and (split.images, split.boxes) == counts
        assert not {f.code for f in split.findings} - {"unused_category", "part", "same_annotation_id_elsewhere"}


def test_the_doctors_next_command_names_the_split_that_is_there(shared: Shared) -> None:
    found = validate_dataset("ade20k", shared("data/ade20k_sample"))
    assert found.next.endswith("--split validation")


def test_categories_come_once_and_whole(shared: Shared) -> None:
    files = ade20k.files(shared("data/ade20k_sample"), "validation", None)
    [categories] = [part for part in ade20k.read(files, "annotations") if isinstance(part, Categories)]
    assert categories.names[1] == "wall" and len(categories.names) == 150


def test_same_files_same_bytes(tmp_path: Path, shared: Shared) -> None:
    root = shared("data/ade20k_sample")
    copy = tmp_path / "copy"
    shutil.copytree(root / "sceneparsing150", copy)
    for place, folder in (("a", root), ("b", copy)):
        both(tmp_path / place, ade20k, ade20k.files(folder, "validation", None))
    one, two = (sorted((tmp_path / place).rglob("*.parquet")) for place in "ab")
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two] and len(one) == 2
