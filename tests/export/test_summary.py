"""What an export holds: counts of splits, categories, licences and provenance, and the digests of files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from fakes import packed_exports as fake
from fakes.packed_summaries import export_with_summary

from synthgen.errors import SynthgenError
from synthgen.export.exporters import hf, webdataset
from synthgen.export.summary import CategoryCounts, LicenseCounts, SplitCounts, hash_files, plain_split_name


def test_counts_are_those_of_the_export(tmp_path: Path) -> None:
    _, summary = export_with_summary(tmp_path, "hf", hf)  # images 0, 2, 4 in train have 5 annotations, 1 and 3 two
    assert summary.splits == (SplitCounts("train", 3, 12, 9), SplitCounts("val", 2, 4, 2))
    assert summary.categories == (
        CategoryCounts(3, "cat", 8, 8),
        CategoryCounts(17, fake.HOSTILE, 5, 0),
        CategoryCounts(90, "Straße 🚗", 3, 3),
    )
    assert summary.provenance == {"machine": 3, "reviewed": 5, "human": 3}
    assert summary.models == {"lite": 8}
    assert summary.left_out == {"no_mask": 3}
    assert summary.licenses == (
        LicenseCounts(1, "CC BY", fake.LICENSES[0].url, 2),
        LicenseCounts(2, fake.HOSTILE, "x", 1),
        LicenseCounts(7, "", "", 1),
        LicenseCounts(None, "", "", 1),
    )


def test_files_have_their_sizes_and_digests(tmp_path: Path) -> None:
    folder, summary = export_with_summary(tmp_path, "webdataset", webdataset)
    assert [one.path for one in summary.files] == ["dataset.json", "train-000000.tar", "val-000000.tar"]
    for one in summary.files:
        data = (folder / one.path).read_bytes()
        assert (one.bytes, one.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_images_of_image_folders_are_left_out(tmp_path: Path) -> None:
    for name in ("train/a.JPG", "train/sub/b.png", "train/annotations.json", "masks/a.png", "trainer/c.jpg", "d.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "train/link.x").symlink_to(tmp_path / "d.jpg")
    found = [one.path for one in hash_files(tmp_path, ["train"])]
    assert found == ["d.jpg", "masks/a.png", "train/annotations.json", "trainer/c.jpg"]
    assert [one.path for one in hash_files(tmp_path, [""])] == ["train/annotations.json"]


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    with pytest.raises(SynthgenError, match="export it again"):
        hash_files(tmp_path)


@pytest.mark.parametrize(
    ("split", "name"), [("train", "train"), ("a-b.c/../d", "a_b_c____d"), ("", "_"), ("Straße", "Stra_e")]
)
def test_names_of_splits_are_plain(split: str, name: str) -> None:
    assert plain_split_name(split) == name
