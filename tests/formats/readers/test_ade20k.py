"""ADE20K (SceneParse150): counts of the real excerpt, the benchmark's names, the release's layout."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fakes.label_map_folders import (
    all_annotations,
    filled_labels,
    ingest_both_layers,
    write_label_map,
    write_photograph,
)
from PIL import Image

from synthgen.errors import SynthgenError
from synthgen.formats.readers import (
    Categories,
    ade20k,
)
from synthgen.formats.readers._ade20k import CATEGORY_NAMES, STUFF_LABELS
from synthgen.images.decode import find_image
from synthgen.records.rle import encode_mask

Shared = Callable[[str], Path]


def test_ade20k_excerpt(tmp_path: Path, shared: Shared) -> None:
    files = ade20k.files(shared("data/ade20k_sample"), "validation", None)
    samples = ingest_both_layers(tmp_path, ade20k, files)
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
        write_photograph(root / "images" / split / f"ADE_{short}_00000012.jpg")
        write_label_map(root / "annotations" / split / f"ADE_{short}_00000012.png", filled_labels(value))
    for split, name in (("training", "wall"), ("validation", "flag")):
        samples = ingest_both_layers(tmp_path / split, ade20k, ade20k.files(tmp_path, split, None))
        assert [(s.image_id, [a.category for a in s.annotations]) for s in samples] == [(12, [name])]


def test_a_label_beyond_the_names_is_an_unknown_category(tmp_path: Path) -> None:
    write_photograph(tmp_path / "images" / "training" / "a.jpg")
    write_photograph(tmp_path / "images" / "training" / "b.jpg")
    write_label_map(tmp_path / "annotations" / "training" / "a.png", [[151] * 8] * 3 + [[2] * 8] * 2 + [[0] * 8])
    write_label_map(tmp_path / "annotations" / "training" / "b.png", [[3000] * 8] * 6, np.uint16)
    samples = ingest_both_layers(tmp_path, ade20k, ade20k.files(tmp_path, "training", None))
    assert [(a.category, a.flags, a.bbox) for a in all_annotations(samples)] == [
        ("building", (), (0, 3, 8, 2)),
        ("", ("unknown_category",), (0, 0, 8, 3)),
        ("", ("unknown_category",), (0, 0, 8, 6)),
    ]
    assert [s.image_key for s in samples] == ["given/a.jpg", "given/b.jpg"], "no ADE20K names: nobody else's keys"


def test_categories_come_once_and_whole(shared: Shared) -> None:
    files = ade20k.files(shared("data/ade20k_sample"), "validation", None)
    [categories] = [part for part in ade20k.read(files, "annotations") if isinstance(part, Categories)]
    assert categories.names[1] == "wall" and len(categories.names) == 150


def test_same_files_same_bytes(tmp_path: Path, shared: Shared) -> None:
    root = shared("data/ade20k_sample")
    copy = tmp_path / "copy"
    shutil.copytree(root / "sceneparsing150", copy)
    for place, folder in (("a", root), ("b", copy)):
        ingest_both_layers(tmp_path / place, ade20k, ade20k.files(folder, "validation", None))
    one, two = (sorted((tmp_path / place).rglob("*.parquet")) for place in "ab")
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two] and len(one) == 2
