"""Files of datasets in archives: what is looked at, how many, splits in names."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes import packed_datasets as packed

from synthgen.errors import SynthgenError
from synthgen.formats.readers import _packed_files, hf, webdataset
from synthgen.formats.readers._packed_files import find_archives, glance_at_names, list_folder, split_word


def test_a_glance_ends_after_some_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_packed_files, "_GLANCED_ENTRIES", 30)
    monkeypatch.setattr(_packed_files, "_GLANCED_FOLDERS", 2)
    for i in range(100):
        (tmp_path / f"{i}.txt").touch()
    assert len(list(glance_at_names(tmp_path))) == 30
    for name in "abc":
        (tmp_path / "more" / name).mkdir(parents=True)
        for i in range(40):
            (tmp_path / "more" / name / f"{i}.txt").touch()
    assert len(list(glance_at_names(tmp_path / "more"))) == 3 + 60
    assert list(glance_at_names(tmp_path / "3.txt")) == ["3.txt"]
    assert not list(glance_at_names(tmp_path / "nowhere"))


def test_a_folder_with_too_many_files_is_refused_and_not_recognised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed.write_tar(tmp_path / "a.tar", packed.samples(1))
    packed.write_parquet(tmp_path / "a.parquet", packed.table(1))
    assert hf.recognize(tmp_path) and webdataset.recognize(tmp_path)
    monkeypatch.setattr(_packed_files, "MAX_ENTRIES", 1)
    with pytest.raises(SynthgenError, match="has more than 1 files"):
        list_folder(tmp_path)
    assert hf.recognize(tmp_path) is None and webdataset.recognize(tmp_path) is None


def test_hidden_files_and_deeper_folders_are_left_out(tmp_path: Path) -> None:
    for name in ("b.tar", "a.TAR", ".c.tar", "x/d.tar", "x/y/e.tar", ".z/f.tar", "g.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in find_archives(tmp_path, (".tar",))]
    assert found == ["a.TAR", "b.tar", "x/d.tar"]


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("train-000.tar", "train"), ("cc3m-Train-0.tar", "train"), ("x_val_3", "val"), ("latest.tar", ""),
        ("validation.parquet", "validation"), ("test1.tar", "test"), ("dev", "dev"), ("trainer-0.tar", ""),
        ("value.tar", ""), ("", ""),
    ],
)  # fmt: skip
def test_a_split_is_a_whole_word(name: str, word: str) -> None:
    assert split_word(name) == word
