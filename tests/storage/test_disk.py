"""Folders that survive a power failure; disks that are gone; paths as users give them."""

from __future__ import annotations

import errno
import os
import re
import threading
from pathlib import Path
from typing import Any

import pytest

from synthgen.errors import ArgumentError, FailedRunError, SynthgenError
from synthgen.storage import disk


def test_each_parent_of_a_new_folder_is_flushed(tmp_path, monkeypatch):
    flushed, real = [], disk.sync_folder
    monkeypatch.setattr(disk, "sync_folder", lambda folder: (flushed.append(folder), real(folder)))
    disk.create_folder(tmp_path / "a" / "b" / "c")
    assert flushed == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]
    flushed.clear()
    disk.create_folder(tmp_path / "a" / "b" / "c")
    assert flushed == []
    disk.create_folder(tmp_path / "a" / "d")
    assert flushed == [tmp_path / "a"]


def test_a_relative_folder_is_created_where_the_process_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    disk.create_folder(Path("shards"))
    disk.create_folder(Path())
    assert [path.name for path in tmp_path.iterdir()] == ["shards"]


def test_many_processes_may_create_the_same_folder(tmp_path):
    errors = []

    def create() -> None:
        try:
            disk.create_folder(tmp_path.joinpath(*"abcdefgh"))
        except BaseException as why:
            errors.append(why)

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert tmp_path.joinpath(*"abcdefgh").is_dir()


@pytest.mark.parametrize("inner", ["file", "file/inner"])
def test_a_file_in_the_way_is_named(tmp_path, inner):
    (tmp_path / "file").touch()
    with pytest.raises(SynthgenError) as why:
        disk.create_folder(tmp_path / inner, remedy="choose another --out")
    assert str(why.value) == (
        f"cannot write {tmp_path / 'file'} (a file lies where a folder should be); move it away, or choose another "
        "--out"
    )
    assert why.value.exit_code == 2


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_cannot_flush_folders_is_used_all_the_same(tmp_path, monkeypatch, code):
    def refuse(handle: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    disk.create_folder(tmp_path / "new")
    assert (tmp_path / "new").is_dir()


def test_a_disk_that_fails_to_flush_is_no_success(tmp_path, monkeypatch):
    def fail(handle: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        disk.create_folder(tmp_path / "new")


@pytest.mark.parametrize("code", [errno.ENOENT, errno.ESTALE, errno.ENOTCONN])
def test_a_share_that_does_not_answer_is_gone(tmp_path, monkeypatch, code):
    def fail(self: Path) -> None:
        raise OSError(code, os.strerror(code), str(self))

    assert disk.check_folder_exists(tmp_path).st_ino == tmp_path.stat().st_ino
    monkeypatch.setattr(Path, "stat", fail)
    with pytest.raises(FailedRunError, match=rf"gone during the run \({os.strerror(code)}\); .* mount it again"):
        disk.check_folder_exists(tmp_path)


@pytest.mark.parametrize(("code", "exit_code"), [(errno.ENOSPC, 1), (errno.EDQUOT, 1), (errno.EACCES, 2)])
def test_a_full_disk_is_no_wrong_input(tmp_path, code, exit_code):
    with pytest.raises(SynthgenError) as why, disk.translate_os_errors(tmp_path):
        raise OSError(code, os.strerror(code))
    assert why.value.exit_code == exit_code


@pytest.mark.parametrize(
    "url", ["s3://bucket/folder/boxes.json", "gs://bucket", "https://a.org/x.zip", "hdfs://h:1/a", "S3://b/c"]
)
def test_a_url_is_no_local_path(url):
    with pytest.raises(
        SynthgenError, match=rf"^{re.escape(url)} is a URL, and synthgen reads and writes local folders"
    ):
        disk.reject_url(Path(url))


@pytest.mark.parametrize("path", ["boxes.json", "/data/a:b/c", "a:b", "../s3/x", "."])
def test_a_local_path_is_passed_on(path):
    assert disk.reject_url(Path(path)) == Path(path)
    assert disk.reject_url(None) is None


def test_a_folder_whose_name_ends_with_a_colon_is_local(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("data:").mkdir()
    assert disk.reject_url(Path("data:/boxes.json")) == Path("data:/boxes.json")


@pytest.mark.parametrize("path", ["a/b.json", Path("a/b.json")])
def test_a_path_is_a_text_or_a_path(path: Any) -> None:
    assert disk.check_path("out", path) == disk.require_path("out", path) == Path("a/b.json")


class BytesPath:
    def __fspath__(self) -> bytes:
        return b"a"


@pytest.mark.parametrize("path", [3, b"a", ["a"], "a\0b", BytesPath()])
def test_everything_else_is_not_a_path(path: Any) -> None:
    with pytest.raises(ArgumentError, match=r"^out=.* is not a path; give a text or a pathlib\.Path$"):
        disk.check_path("out", path)


def test_an_empty_path_is_not_the_working_directory() -> None:
    with pytest.raises(ArgumentError, match=r"^out='' is empty; give a path, or '\.' for the working directory$"):
        disk.check_path("out", "")
    assert disk.check_path("out", ".") == Path()


def test_a_surrogate_is_not_a_character_of_a_path() -> None:
    with pytest.raises(ArgumentError, match=r"^out='a.*' has a character that no path has; rename it$"):
        disk.check_path("out", "a\ud800")


def test_none_is_a_path_only_where_it_is_allowed() -> None:
    assert disk.check_path("out", None) is None
    with pytest.raises(ArgumentError, match=r"^manifest is None; give"):
        disk.require_path("manifest", None)  # type: ignore[arg-type]


def test_a_block_that_fails_leaves_no_empty_folder(tmp_path):
    (tmp_path / "there").mkdir()

    @disk.without_empty_folders()
    def fail(why: BaseException | None) -> None:
        disk.create_folder(tmp_path / "there" / "a" / "b")
        with disk.without_empty_folders():
            disk.create_folder(tmp_path / "inner" / "c")
        disk.create_folder(tmp_path / "filled" / "d")
        (tmp_path / "filled" / "x").touch()
        if why is not None:
            raise why

    for why in (SynthgenError("wrong"), KeyboardInterrupt()):
        with pytest.raises(type(why)):
            fail(why)
        assert sorted(path.name for path in tmp_path.rglob("*")) == ["filled", "there", "x"]
    fail(None)
    assert (tmp_path / "there" / "a" / "b").is_dir() and (tmp_path / "inner" / "c").is_dir()


def test_a_folder_that_takes_the_place_of_one_that_was_made_stays(tmp_path):
    with pytest.raises(SynthgenError), disk.without_empty_folders():
        disk.create_folder(tmp_path / "share" / "store")
        (tmp_path / "share").rename(tmp_path / "unmounted")
        (tmp_path / "share").mkdir()  # the mount point
        raise SynthgenError("gone")
    assert (tmp_path / "share").is_dir()
