"""Temporary files and scratch folders: those of live writers stay, those of killed writers go, on any host."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest
from fakes.temporary_writer import writing_elsewhere

from synthgen.errors import FailedRunError, SynthgenError
from synthgen.storage import atomic

NO_LOCKS = [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP]


def temporary_paths(folder: Path) -> list[Path]:
    return sorted(folder.glob(".*.tmp"))


def make_old(path: Path) -> None:
    """As if nobody had changed it for a little more than a day."""
    long_ago = time.time() - atomic.STALE_SECONDS - 60
    for one in [*path.rglob("*"), path]:
        os.utime(one, (long_ago, long_ago))


def killed_writer(folder: Path) -> list[Path]:
    """What a writer that was killed with kill -9 leaves: a file and a folder. They are young."""
    with writing_elsewhere(folder) as writer:
        left = temporary_paths(folder)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    assert [path.is_dir() for path in left] == [False, True]
    return left


# --- live and killed writers -----------------------------------------------------------------------------------------


def test_a_live_writers_files_stay_and_a_killed_ones_go(tmp_path):
    with writing_elsewhere(tmp_path) as writer:
        left = temporary_paths(tmp_path)
        for path in left:
            make_old(path)  # a writer may compute for days between two writes
        assert atomic.remove_stale_files(tmp_path) == 0
        assert [(path / "part" if path.is_dir() else path).read_bytes() for path in left] == [b"half", b"half"]
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        # Its child lives, and could inherit files that are not closed on exec.
        assert atomic.remove_stale_files(tmp_path) == 2
    assert list(tmp_path.iterdir()) == []


def test_names_tell_neither_host_nor_process(tmp_path, monkeypatch):
    """So the next run may be on another host, or have the process id of the writer that was killed."""
    left = killed_writer(tmp_path)
    assert not any(os.uname().nodename in path.name for path in left)
    monkeypatch.setattr("socket.gethostname", lambda: "another-host")
    assert atomic.remove_stale_files(tmp_path) == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(shutil.which("unshare") is None, reason="this system has no unshare command")
def test_a_writer_in_another_pid_namespace_is_alive(tmp_path):
    """There its process id is that of another process here, or of none."""
    prefix = ["unshare", "--pid", "--fork", "--kill-child"]
    tried = subprocess.run([*prefix, "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"this machine lets nobody make a pid namespace: {tried.stderr.strip()}")
    with writing_elsewhere(tmp_path, prefix):
        assert atomic.remove_stale_files(tmp_path) == 0
        assert len(temporary_paths(tmp_path)) == 2
    end = time.monotonic() + 10
    while list(tmp_path.iterdir()) and time.monotonic() < end:  # the writer may die a moment after `unshare`
        atomic.remove_stale_files(tmp_path)
        time.sleep(0.05)
    assert list(tmp_path.iterdir()) == []


def test_a_writer_of_this_process_is_alive(tmp_path):
    with atomic.atomic_write(tmp_path / "file") as temporary, atomic.scratch_folder(tmp_path) as scratch:
        temporary.write_text("new")
        (scratch / "part").touch()
        assert atomic.remove_stale_files(tmp_path) == 0
        assert (temporary.exists(), (scratch / "part").exists()) == (True, True)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "new"


def test_a_scratch_folder_of_a_forked_child_is_free_afterwards(tmp_path):
    """A child of a fork shares the lock. It must not keep it when the block has ended."""
    with atomic.scratch_folder(tmp_path) as scratch:
        lock = scratch / ".lock"
        handle = os.open(lock, os.O_RDWR)
        child = os.fork()
        if child == 0:
            time.sleep(30)
            os._exit(0)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert list(tmp_path.iterdir()) == []
    finally:
        os.close(handle)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


# --- races -----------------------------------------------------------------------------------------------------------


def write_file(folder: Path) -> None:
    with atomic.atomic_write(folder / "file") as temporary:
        temporary.write_text("new")


def write_scratch(folder: Path) -> None:
    with atomic.scratch_folder(folder) as scratch:
        (scratch / "part").touch()
        assert atomic.remove_stale_files(folder) == 0
        assert (scratch / "part").exists()


@pytest.mark.parametrize("write", [write_file, write_scratch])
def test_a_file_that_is_removed_before_it_is_locked_is_made_again(tmp_path, monkeypatch, write):
    real, removed = atomic.try_lock, []

    def other_run_first(handle: int) -> bool | None:
        if not removed:
            removed.append(0)  # the other run locks as well
            removed.append(atomic.remove_stale_files(tmp_path))
        return real(handle)

    monkeypatch.setattr(atomic, "try_lock", other_run_first)
    write(tmp_path)
    assert removed == [0, 1]
    assert temporary_paths(tmp_path) == []


@pytest.mark.parametrize("write", [write_file, write_scratch])
def test_a_file_that_another_run_has_locked_is_left_to_it(tmp_path, monkeypatch, write):
    """The other run has the lock and is about to delete the file."""
    real, held = atomic.try_lock, []

    def other_run_first(handle: int) -> bool | None:
        if not held:
            held.append(os.open(f"/proc/self/fd/{handle}", os.O_RDWR))
            assert real(held[0])
        return real(handle)

    if not Path("/proc/self/fd").exists():
        pytest.skip("this system has no /proc")
    monkeypatch.setattr(atomic, "try_lock", other_run_first)
    write(tmp_path)
    assert len(temporary_paths(tmp_path)) == 1, "the first one is deleted by who has its lock"
    os.close(held[0])
    assert atomic.remove_stale_files(tmp_path) == 1


def test_a_file_that_gets_its_final_name_while_it_is_examined_stays(tmp_path, monkeypatch):
    (left,) = [path for path in killed_writer(tmp_path) if path.is_file()]
    real = atomic.try_lock

    def writer_is_faster(handle: int) -> bool | None:
        if left.exists():
            left.rename(tmp_path / "final")
            left.write_text("of another writer")
        return real(handle)

    monkeypatch.setattr(atomic, "try_lock", writer_is_faster)
    assert atomic._remove_if_stale(left) is False
    assert ((tmp_path / "final").read_bytes(), left.read_text()) == (b"half", "of another writer")


def test_a_folder_that_takes_no_files_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "try_lock", lambda handle: False)
    for write in (write_file, write_scratch):
        with pytest.raises(SynthgenError, match=f"another program deletes or locks each new file in {tmp_path}"):
            write(tmp_path)


# --- without locks, and what is no temporary file -------------------------------------------------------------------


def refuse_locks(code: int) -> Callable[[int, int], None]:
    def refuse(handle: int, how: int) -> None:
        raise OSError(code, os.strerror(code))

    return refuse


@pytest.mark.parametrize("code", NO_LOCKS)
def test_without_locks_only_what_is_old_is_removed(tmp_path, monkeypatch, caplog, code):
    left = killed_writer(tmp_path)
    monkeypatch.setattr(fcntl, "flock", refuse_locks(code))
    assert atomic.remove_stale_files(tmp_path) == 0
    assert temporary_paths(tmp_path) == left
    make_old(left[1])
    (left[1] / "part").touch()  # its writer may live
    assert atomic.remove_stale_files(tmp_path) == 0
    for path in left:
        make_old(path)
    assert atomic.remove_stale_files(tmp_path) == 2
    assert list(tmp_path.iterdir()) == []
    assert f"removing {left[0]}: nobody has changed it for a day" in caplog.text


@pytest.mark.parametrize("code", NO_LOCKS)
def test_without_locks_writes_work_and_a_warning_is_said_once(tmp_path, monkeypatch, caplog, code):
    monkeypatch.setattr(fcntl, "flock", refuse_locks(code))
    for text in ("one", "two"):
        atomic.write_text_atomic(tmp_path / "file", text)
        assert (tmp_path / "file").read_text() == text
    with atomic.scratch_folder(tmp_path):
        assert atomic.remove_stale_files(tmp_path) == 0
    warnings = [record.message for record in caplog.records if str(tmp_path) + " is on" in record.message]
    assert warnings == [
        f"{tmp_path} is on a file system without locks: what a killed run leaves there is removed after a day at the "
        "earliest"
    ]


def test_the_age_is_by_the_clock_of_the_file_server(tmp_path, monkeypatch):
    left = tmp_path / ".file.host.4711.01234567.tmp"
    left.touch()
    monkeypatch.setattr(time, "time", lambda: 1e11)  # the clock of this machine is wrong
    assert atomic.remove_stale_files(tmp_path) == 0
    monkeypatch.undo()
    make_old(left)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert atomic.remove_stale_files(tmp_path) == 1


def test_a_lock_that_cannot_be_asked_for_keeps_the_file(tmp_path, monkeypatch, caplog):
    left = killed_writer(tmp_path)
    monkeypatch.setattr(fcntl, "flock", refuse_locks(errno.EIO))
    assert atomic.remove_stale_files(tmp_path) == 0
    assert temporary_paths(tmp_path) == left
    assert f"cannot tell whether {left[0]} is in use (Input/output error), and keep it" in caplog.text


@pytest.mark.parametrize("name", [".x.0123456789abcdef.tmp", ".x.host.1.01234567.tmp"])
def test_links_and_pipes_are_left_alone(tmp_path, name):
    target = tmp_path / "target"
    target.mkdir()
    (target / "part").touch()
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / name).symlink_to(target)
    os.mkfifo(folder / f".pipe{name}")
    assert atomic.remove_stale_files(folder) == 0
    assert len(list(folder.iterdir())) == 2
    assert list(target.iterdir()) == [target / "part"]
    (folder / name).unlink()
    (folder / name).mkdir()
    (folder / name / "link").symlink_to(target)
    if "host" in name:
        long_ago = time.time() - atomic.STALE_SECONDS - 60
        for path in (folder / name / "link", folder / name):
            os.utime(path, (long_ago, long_ago), follow_symlinks=False)
    assert atomic.remove_stale_files(folder) == 1
    assert list(target.iterdir()) == [target / "part"], "a link in a leftover leads out of it"


# --- folders that are gone, second names ----------------------------------------------------------------------------


def test_later_writes_create_no_folder(tmp_path):
    folder = tmp_path / "share" / "layer"
    for write in (
        lambda: atomic.write_text_atomic(folder / "file", "x"),
        lambda: atomic.append_line(folder / "log.jsonl", "x"),
        lambda: write_scratch(folder),
        lambda: atomic.link_or_copy(tmp_path, folder / "best.pt", remedy="choose another --out"),
    ):
        with pytest.raises(FailedRunError, match=f"{folder} has gone during the run .*; if its disk was unmounted, m"):
            write()
    assert list(tmp_path.iterdir()) == []


def test_a_check_before_the_work_creates_the_folder_and_leaves_no_file(tmp_path):
    atomic.check_writable(tmp_path / "new" / "deep" / "file", remedy="choose another --out")
    assert list((tmp_path / "new" / "deep").iterdir()) == []
    for path in (tmp_path / "new", Path("/proc/1/file")):
        with pytest.raises(SynthgenError, match=rf"cannot write {path} \(.*\); choose another --out"):
            atomic.check_writable(path, remedy="choose another --out")


class Stop(BaseException):
    """As the exception of a signal that ends the command: it may come before or after any call."""


def write_whole_file(folder: Path) -> None:
    with atomic.atomic_write(folder / "file") as temporary:
        temporary.write_bytes(b"whole")


def write_part_in_scratch(folder: Path) -> None:
    with atomic.scratch_folder(folder) as scratch:
        (scratch / "part").write_bytes(b"half")


def check(folder: Path) -> None:
    atomic.check_writable(folder / "file", remedy="")


@pytest.mark.parametrize("write", [write_whole_file, write_part_in_scratch, check])
def test_a_signal_between_any_two_calls_leaves_no_temporary_file(tmp_path, write):
    """Python runs the handler of a signal where a function begins, and where one in C has returned."""
    stopped = 0
    for place in range(1, 10_000):
        seen = 0

        def profile(frame, event, _, place=place):
            nonlocal seen
            if event in ("call", "c_return") and is_below_atomic(frame):
                seen += 1
                if seen == place:
                    raise Stop

        folder = tmp_path / str(place)
        folder.mkdir()
        sys.setprofile(profile)
        try:
            write(folder)
        except Stop:
            stopped += 1
        else:
            break
        finally:
            sys.setprofile(None)
        left = [path.name for path in folder.iterdir()]
        assert left in ([], ["file"]), f"after a signal at call {place}"
        assert all((folder / name).read_bytes() == b"whole" for name in left)
    assert stopped > 20, "the test found too few places to mean anything"


def is_below_atomic(frame: FrameType | None) -> bool:
    """Whether a function of the module runs, and none of `shutil`, which closes a handle twice after an exception."""
    is_below = False
    while frame is not None:
        if frame.f_code.co_filename == shutil.__file__:
            return False
        is_below |= frame.f_code.co_filename == atomic.__file__
        frame = frame.f_back
    return is_below


@pytest.mark.parametrize("has_links", [True, False])
def test_a_second_name_is_a_link_or_else_a_copy(tmp_path, monkeypatch, has_links):
    source, final = tmp_path / "step.pt", tmp_path / "best.pt"
    if not has_links:
        monkeypatch.setattr(os, "link", refuse_locks(errno.EPERM))
    for content in (b"one", b"two"):
        source.unlink(missing_ok=True)
        source.write_bytes(content)
        atomic.link_or_copy(source, final, remedy="choose another --out")
        assert final.read_bytes() == content
        assert final.samefile(source) is has_links
    assert sorted(tmp_path.iterdir()) == [final, source]
