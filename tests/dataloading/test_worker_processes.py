"""Reader processes: one thread each, killed readers, the end of their parent process."""

from __future__ import annotations

import errno
import faulthandler
import gc
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from fakes import train_layers
from fakes.batch_examples import make_example, small_manifest

from synthgen.dataloading import batch_memory, worker_channel, worker_processes
from synthgen.dataloading.collate import PackedBatch, ReaderTurn, collate, unpack_batch
from synthgen.dataloading.mixture import StreamItem
from synthgen.dataloading.step_parts import form_parts
from synthgen.dataloading.train_loader import TrainLoader
from synthgen.dataloading.worker_processes import BatchStream, ReaderPool, StoppedWaitingError
from synthgen.errors import SynthgenError

TESTS = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def no_process_is_left():
    yield
    left = multiprocessing.active_children()
    assert not left, "reader processes outlive their loader"


def test_a_killed_reader_is_a_sentence(tmp_path: Path) -> None:
    with (
        pytest.raises(SynthgenError) as why,
        TrainLoader(small_manifest(tmp_path), batch_size=2, num_workers=2) as loader,
    ):
        next(loader)
        victim = multiprocessing.active_children()[0].pid
        os.kill(victim, signal.SIGKILL)
        while True:  # torch tells of it here, or in whatever its host does
            next(loader)
    assert re.fullmatch(
        rf"the reader process {victim} died( \(Killed\))?, most likely for want of memory; lower "
        r"dataloader.num_workers, dataloader.cache_mib or the batch size",
        str(why.value),
    )


def test_a_reader_that_dies_while_its_host_does_something_else_is_a_sentence(tmp_path: Path) -> None:
    with (
        pytest.raises(SynthgenError, match=r"died \(Killed\)"),
        TrainLoader(small_manifest(tmp_path), batch_size=2, num_workers=1) as loader,
    ):
        next(loader)
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
        time.sleep(1)
        for _ in range(4):  # the batches that it sent before are good
            next(loader)


class Stream(BatchStream):
    """Batches of one small image; `before(number)` runs in the worker before each."""

    def __init__(self, before: Callable[[int], object] = lambda number: None, count: int = 3) -> None:
        self.before, self.count = before, count

    def iter_batches(self, worker_id: int) -> Iterator[PackedBatch]:
        for number in range(self.count):
            self.before(number)
            packed = collate([StreamItem(make_example((3, 4), (3, 4), [True]), 0, f"{worker_id}/{number}")])
            packed.turns = [ReaderTurn(worker_id, {"worker": worker_id, "number": number}, {})]
            yield packed


def taken(stream: BatchStream, num_workers: int = 1, **options: Any) -> list[PackedBatch]:
    pool = ReaderPool(stream, num_workers=num_workers, **options)
    try:
        return list(pool)
    finally:
        pool.close()


@pytest.mark.parametrize(
    ("end", "told"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), r"died \(Killed\), most likely for want of memory"),
        (lambda: (faulthandler.disable(), os.kill(os.getpid(), signal.SIGBUS)), r"died \(Bus error\), most"),
        (lambda: os._exit(3), r"died \(exit code 3\), most"),
        (lambda: os._exit(0), r"died, most"),
    ],
)
def test_the_end_of_a_reader_is_a_sentence_within_seconds(end: Callable[[], object], told: str) -> None:
    began = time.monotonic()
    with pytest.raises(SynthgenError, match=told):
        taken(Stream(lambda number: number < 2 or end()), 2)
    assert time.monotonic() - began < 10


def test_a_dead_reader_is_noticed_while_a_process_that_it_started_lives() -> None:
    def leave_a_child(number: int) -> None:
        if number == 1:
            if os.fork() == 0:  # it holds a copy of the channel
                time.sleep(20)
                os._exit(0)
            os.kill(os.getpid(), signal.SIGKILL)

    began = time.monotonic()
    with pytest.raises(SynthgenError, match=r"died \(Killed\)"):
        taken(Stream(leave_a_child))
    assert time.monotonic() - began < 10


def raise_error(why: BaseException) -> Any:
    raise why


@pytest.mark.parametrize(
    ("why", "told"),
    [
        (OSError(errno.EMFILE, "x"), r"no file descriptor left \(.*\d+\); raise it with ulimit -n"),
        (OSError(errno.ENFILE, "x"), "no file descriptor left"),
        (OSError(errno.ENOSPC, "x"), "no memory left; lower dataloader.num_workers"),
        (OSError(errno.ENOMEM, "x"), "no memory left"),
        (MemoryError(), "no memory left"),
    ],
)
def test_a_limit_of_the_machine_is_a_sentence(why: Exception, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(SynthgenError, match=told):
        patch.setattr(batch_memory, "_open_memory", lambda: raise_error(why))
        taken(Stream(), 2)
    if isinstance(why, OSError):  # in the parent
        with monkeypatch.context() as patch, pytest.raises(SynthgenError, match=told):
            patch.setattr(worker_channel, "map_arrays", lambda *_: raise_error(why))
            taken(Stream(), 2)
    with monkeypatch.context() as patch, pytest.raises(SynthgenError, match=told):
        pairs = iter([socket.socketpair()])
        patch.setattr(socket, "socketpair", lambda: next(pairs, None) or raise_error(why))
        taken(Stream(), 2)


def test_no_more_processes_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fork", lambda: raise_error(OSError(errno.EAGAIN, "x")))
    with pytest.raises(SynthgenError, match=r"no more reader processes .* raise the limit of processes \(ulimit -u\)"):
        taken(Stream(), 2)


FEW_DESCRIPTORS = """
    import resource, sys
    sys.path[:0] = [{tests!r}, {tests!r} + "/dataloading"]
    from test_worker_processes import Stream, taken
    from synthgen.errors import SynthgenError
    if __name__ == "__main__":
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        held, used = [], len(__import__("os").listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + {more}, hard))
        try:
            print(len(taken(Stream(count=100), 2)))
        except SynthgenError as why:
            print(why)
"""


def run_program(program: str, timeout: float = 60, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=timeout,
        env={**os.environ, **environment},
    )  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
@pytest.mark.parametrize("more", [1, 8, 16])
def test_too_few_file_descriptors_are_a_sentence(more: int) -> None:
    done = run_program(FEW_DESCRIPTORS.format(tests=str(TESTS), more=more))
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert "no file descriptor left" in done.stdout and "ulimit -n" in done.stdout


TRAIN = """
    import sys
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    from fakes import train_layers
    from synthgen.dataloading.train_loader import TrainLoader
    root = Path({root!r})
    loader = TrainLoader(train_layers.manifest(root, train_layers.source(root)), batch_size=2, num_workers=2)
    for _ in range(9):
        next(loader)
    {check}
    print("done", flush=True)
"""


@pytest.mark.parametrize("length", [76, 120])
def test_a_long_temporary_folder_does_not_matter(tmp_path: Path, length: int) -> None:
    train_layers.commit(tmp_path, 90)
    long = tmp_path / ("x" * max(1, length - len(str(tmp_path)) - 1))
    long.mkdir()
    done = run_program(TRAIN.format(tests=str(TESTS), root=str(tmp_path), check=""), TMPDIR=str(long))
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
    assert not list(long.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_batches_need_no_dev_shm(tmp_path: Path) -> None:
    """It may be full or missing, as in a container."""
    train_layers.commit(tmp_path, 90)
    check = """
    import multiprocessing, os
    for pid in ("self", *(child.pid for child in multiprocessing.active_children())):
        assert "/dev/shm" not in Path(f"/proc/{{pid}}/maps").read_text()
        assert not any("/dev/shm" in os.readlink(fd) for fd in Path(f"/proc/{{pid}}/fd").iterdir() if fd.is_symlink())
    """.strip()
    done = run_program(TRAIN.format(tests=str(TESTS), root=str(tmp_path), check=check.format()))
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


@pytest.mark.parametrize("end", ["sys.exit(0)", "raise ValueError"])
def test_a_program_that_forgets_to_close_its_readers_ends(tmp_path: Path, end: str) -> None:
    train_layers.commit(tmp_path, 90)
    done = run_program(TRAIN.format(tests=str(TESTS), root=str(tmp_path), check=end))
    assert done.returncode == ("raise" in end), done.stderr
    assert done.stderr.count("Traceback") == ("raise" in end)


def test_a_forgotten_pool_stops_its_readers() -> None:
    pool = ReaderPool(Stream(), num_workers=2)
    next(pool)
    assert len(multiprocessing.active_children()) == 2
    del pool
    gc.collect()
    assert not multiprocessing.active_children()


def test_a_process_that_is_told_to_end_does_not_wait_for_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_processes, "STOP_GRACE_SECONDS", 0.2)
    told = []
    pool = ReaderPool(Stream(lambda number: number and time.sleep(60)), num_workers=1, is_stopping=lambda: bool(told))
    assert next(pool).turns[0].position == {"worker": 0, "number": 0}
    threading.Timer(1, told.append, [True]).start()
    began = time.monotonic()
    with pytest.raises(StoppedWaitingError):
        next(pool)
    assert 1 < time.monotonic() - began < 10
    assert list(pool) == []


def test_a_wait_for_storage_is_warned_of(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(worker_processes, "_WARNING_SECONDS", 0.1)
    assert len(taken(Stream(lambda number: number == 1 and time.sleep(2)))) == 3
    assert [re.sub(r"\d+", "0", told) for told in caplog.messages] == [
        "no batch for 0 s; do the readers wait for their storage?"
    ]


@pytest.mark.parametrize("workers", [1, 3])
def test_a_thread_unpacks_ahead(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Into page-locked memory, if there is a GPU."""
    used = []
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 7)
    monkeypatch.setattr(torch.cuda, "set_device", used.append)
    monkeypatch.setattr("synthgen.dataloading.collate.PackedBatch.pin_memory", unpack_in_place)
    found = taken(Stream(), workers, pin_memory=True)
    assert used == [7] and all(one.batch is not None for one in found)
    expected = [{"worker": worker, "number": number} for number in range(3) for worker in range(workers)]
    assert [one.turns[0].position for one in found] == expected
    with pytest.raises(SynthgenError, match="a sentence"):
        taken(Stream(lambda number: number and raise_error(SynthgenError("a sentence"))), workers, pin_memory=True)
    assert not [thread for thread in threading.enumerate() if thread.name == "pin-memory"]


def test_a_thread_unpacks_regrouped_batches_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr("synthgen.dataloading.collate.PackedBatch.pin_memory", unpack_in_place)
    regroup = partial(form_parts, num_batches=2, max_images=1)
    found = taken(Stream(), 2, regroup=regroup, pin_memory=True)
    assert [[turn.position["number"] for turn in one.turns] for one in found] == [[], [0, 0], [], [1, 1], [], [2, 2]]
    assert [one.batch.targets[0]["image_key"] for one in found if one.batch] == [
        "0/0",
        "1/0",
        "0/1",
        "1/1",
        "0/2",
        "1/2",
    ]
    pool = ReaderPool(Stream(count=50), num_workers=2, regroup=regroup, pin_memory=True)
    next(pool)
    pool.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "pin-memory"]


def unpack_in_place(packed: PackedBatch) -> PackedBatch:
    packed.batch = unpack_batch(packed)
    return packed


def test_a_pool_that_is_closed_early_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr("synthgen.dataloading.collate.PackedBatch.pin_memory", unpack_in_place)
    pool = ReaderPool(Stream(count=50), num_workers=2, pin_memory=True)
    next(pool)
    began = time.monotonic()
    pool.close()
    assert time.monotonic() - began < 5
    assert not [thread for thread in threading.enumerate() if thread.name == "pin-memory"]


def test_a_batch_arrives_as_it_was_made() -> None:
    class Mixed(BatchStream):
        def iter_batches(self, worker_id: int) -> Iterator[PackedBatch]:
            yield from mixed_batches()

    for sent, made in zip(taken(Mixed()), mixed_batches(), strict=True):
        for sent_pixels, made_pixels in zip(sent.pixels, made.pixels, strict=True):
            for one, other in zip(sent_pixels, made_pixels, strict=True):
                assert one.dtype == other.dtype and np.array_equal(one, other)
        assert [target["image_key"] for target in sent.targets] == [target["image_key"] for target in made.targets]


def mixed_batches() -> Iterator[PackedBatch]:
    """No example, none with a mask, several of several sizes."""
    draw = np.random.default_rng(0)
    for trim, sizes in product([False, True], ([], [(5, 7)], [(33, 4), (70, 80), (2, 2)])):
        made = [make_example(size, size, [bool(i), True][: 2 * i]) for i, size in enumerate(sizes)]
        packed = collate([StreamItem(one, 0, f"k/{i}") for i, one in enumerate(made)], trim=trim)
        for pixels in packed.pixels:
            pixels.image[:] = draw.integers(0, 256, pixels.image.shape)
            pixels.masks[:] = draw.random(pixels.masks.shape) < 0.5
            pixels.ignore[:] = draw.random(pixels.ignore.shape) < 0.5
        yield packed


def test_a_reader_is_one_thread_deaf_to_ctrl_c_and_unpacks_nothing() -> None:
    class Telling(BatchStream):
        def iter_batches(self, worker_id: int) -> Iterator[PackedBatch]:
            packed = collate([StreamItem(make_example((3, 4), (3, 4), [True]), 0, "k")])
            deaf = {signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)} == {signal.SIG_IGN}
            seen = {
                "worker": worker_id, "opencv": cv2.getNumThreads(), "torch": torch.get_num_threads(), "deaf": deaf,
                "shared": packed.memory is not None,
            }  # fmt: skip
            packed.turns = [ReaderTurn(worker_id, seen, {})]
            yield packed

    readers = ReaderPool(Telling(), num_workers=2)
    sent = list(readers)
    readers.close()
    assert [p.turns[0].position for p in sent] == [
        {"worker": i, "opencv": 1, "torch": 1, "deaf": True, "shared": True} for i in (0, 1)
    ]
    assert all(p.batch is None for p in sent)
    if sys.platform == "linux":
        maps = Path("/proc/self/maps").read_text()
        assert f"{maps_of(maps, sent[0].pixels[0].image.ctypes.data)}".endswith("/memfd:synthgen-batch (deleted)")


def maps_of(maps: str, address: int) -> str:
    """The line of /proc/PID/maps for an address."""
    for line in maps.splitlines():
        first, last = (int(end, 16) for end in line.split()[0].split("-"))
        if first <= address < last:
            return line
    return ""


CTRL_C = """
    import multiprocessing, sys
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    from fakes import train_layers
    from synthgen.dataloading.train_loader import TrainLoader
    root = Path({root!r})
    loader = TrainLoader(train_layers.manifest(root, train_layers.source(root)), batch_size=2, num_workers=2)
    try:
        for number, batch in enumerate(loader):
            if number == 3:
                print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.parametrize("how", ["ctrl-c", pytest.param("killed", marks=pytest.mark.slow)])
def test_readers_end_with_their_host(tmp_path: Path, how: str) -> None:
    train_layers.commit(tmp_path, 90)
    program = textwrap.dedent(CTRL_C.format(tests=str(TESTS), root=str(tmp_path)))
    host = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    readers = [int(pid) for pid in host.stdout.readline().split()]
    assert len(readers) == 2
    if how == "ctrl-c":
        os.killpg(host.pid, signal.SIGINT)  # the terminal tells all of them
    else:
        host.kill()
    _, errors = host.communicate(timeout=60)
    assert host.returncode == (130 if how == "ctrl-c" else -signal.SIGKILL)
    if how == "ctrl-c":
        assert "Traceback" not in errors, errors
    until = time.monotonic() + 30
    while any(map(alive, readers)):
        assert time.monotonic() < until, "readers outlive their host"
        time.sleep(0.1)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"
