"""Reader processes: one thread each, killed readers, the end of their parent process."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest
import torch
from fakes import train_layers
from fakes.batch_examples import make_example, small_manifest

from synthgen.dataloading.collate import PackedBatch, collate
from synthgen.dataloading.mixture import StreamItem
from synthgen.dataloading.train_loader import TrainLoader
from synthgen.dataloading.worker_processes import BatchStream, ReaderPool, describe_worker_death
from synthgen.errors import SynthgenError

TESTS = Path(__file__).parents[1]
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


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
        rf"the reader process {victim} died( \(Killed\))?, most likely for want of memory; lower readers.workers, "
        r"readers.cache_mib or the batch size",
        str(why.value),
    )


def test_a_reader_that_dies_while_its_host_does_something_else_is_a_sentence(tmp_path: Path) -> None:
    with (
        pytest.raises(SynthgenError, match=r"died \(Killed\)"),
        TrainLoader(small_manifest(tmp_path), batch_size=2, num_workers=1) as loader,
    ):
        next(loader)
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
        time.sleep(10)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("DataLoader worker (pid 12) is killed by signal: Bus error. It is possible that dataloader's workers are out "
         "of shared memory. Please try to raise your shared memory limit.", "12 ran out of shared memory; enlarge"),
        ("DataLoader worker (pid(s) 12, 13) exited unexpectedly", "12, 13 died, most"),
        ("DataLoader worker (pid 12) exited unexpectedly with exit code 1. Details are lost", "12 died, most"),
        ("CUDA out of memory", None),
        ("Caught ValueError in DataLoader worker process 0.", None),
    ],
)  # fmt: skip
def test_what_torch_says_of_a_dead_reader(said: str, told: str | None) -> None:
    sentence = describe_worker_death(RuntimeError(said))
    assert (sentence is None) == (told is None) and (told or "") in (sentence or "")


def test_a_reader_is_one_thread_deaf_to_ctrl_c_and_unpacks_nothing() -> None:
    class Telling(BatchStream):
        def iter_batches(self, worker_id: int) -> Iterator[PackedBatch]:
            packed = collate([StreamItem(make_example((3, 4), (3, 4), [True]), 0, "k")])
            deaf = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
            packed.position = {
                "worker": worker_id, "opencv": cv2.getNumThreads(), "torch": torch.get_num_threads(), "deaf": deaf,
                "shared": packed.images.is_shared() and packed.masks.is_shared(),
            }  # fmt: skip
            yield packed

    readers = ReaderPool(Telling(), num_workers=2)
    sent = list(readers)
    readers.close()
    assert [p.position for p in sent] == [
        {"worker": i, "opencv": 1, "torch": 1, "deaf": True, "shared": True} for i in (0, 1)
    ]
    assert all(p.batch is None for p in sent)


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
