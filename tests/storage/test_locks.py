"""File locks: one process at a time, released at its end; file systems without locks."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from pathlib import Path

import pytest
from fakes.lock_holder import lock_held_elsewhere

from synthgen.errors import SynthgenError
from synthgen.storage.locks import file_lock, lock_folder, use_folder

SAID = {"lock_timeout": 0.0, "timeout_message": "it is taken; wait", "remedy": "choose another --out"}


def test_it_is_one_processs_and_free_when_that_ends(tmp_path):
    path = tmp_path / "deep" / "lock"
    with lock_held_elsewhere(path), pytest.raises(SynthgenError, match="it is taken; wait"), file_lock(path, **SAID):
        pass
    with file_lock(path, **SAID):
        with pytest.raises(SynthgenError, match="it is taken"), file_lock(path, **SAID):
            pass
        child = os.fork()  # as readers are: it has the file open, and outlives the block
        if child == 0:
            time.sleep(30)
            os._exit(0)
    try:
        with file_lock(path, **SAID):
            pass
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_who_waits_says_so(tmp_path, caplog):
    path = tmp_path / "lock"
    with (
        lock_held_elsewhere(path),
        pytest.raises(SynthgenError, match="taken"),
        file_lock(path, **{**SAID, "lock_timeout": 4.0}),
    ):
        pass
    assert [record.message for record in caplog.records] == [
        f"another process holds {path}: waiting for it, 4 s at most"
    ]


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_reported(tmp_path, monkeypatch, caplog, code):
    def refused(handle: int, how: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refused)
    with file_lock(tmp_path / "lock", **SAID):
        pass
    assert "a file system without locks: see to it that nobody else writes there" in caplog.text


def test_what_cannot_be_a_lock_is_reported(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    inside = tmp_path / "file" / "lock"
    for path, named in ((tmp_path / "link",) * 2, (tmp_path / "folder",) * 2, (inside, inside.parent)):
        with (
            pytest.raises(
                SynthgenError, match=rf"cannot write {named} \(.*\); (move it away, or )?choose another --out"
            ),
            file_lock(path, **SAID),
        ):
            pass
    assert not Path(tmp_path / "elsewhere").exists(), "a link leads out of the folder"


def test_many_may_use_a_folder_and_none_while_one_has_it_alone(tmp_path):
    with use_folder(tmp_path), use_folder(tmp_path), lock_folder(tmp_path) as (_, is_ours):
        assert is_ours is False
    with lock_folder(tmp_path) as (_, is_ours):
        assert is_ours is True
        with pytest.raises(SynthgenError, match="is being deleted; wait for `synthgen rm`"), use_folder(tmp_path):
            pass
    with use_folder(tmp_path), use_folder(tmp_path / "gone"):
        pass


def test_a_folder_without_locks_is_used_all_the_same(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.EBADF, "as NFS does")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with use_folder(tmp_path), lock_folder(tmp_path) as (_, is_ours):
        assert is_ours is None
