"""Threads of batches: results, exceptions, timeouts, and what is known of images that hang."""

from __future__ import annotations

import asyncio
import faulthandler
import itertools
import pickle
import threading
import time

import numpy as np
import pytest

from synthgen.generate import batch_threads
from synthgen.generate.batch_threads import BatchTimeoutError, HungRows, StartedBatch, start_batch, wait_for_batch
from synthgen.generate.output_checks import PluginError
from synthgen.records.sample import Sample

PIXELS = np.zeros((2, 2, 3), np.uint8)


def batch(*rows: int) -> batch_threads.Batch:
    return [(row, Sample(row, f"toy/{row}", f"{row}.png", 2, 2), PIXELS) for row in rows]


def samples(own: batch_threads.Batch) -> list[Sample]:
    return [sample for _, sample, _ in own]


@pytest.fixture
def hang():
    """A stage that hangs until the end of the test."""
    over = threading.Event()

    def process(own: batch_threads.Batch) -> list[Sample]:
        over.wait()
        return samples(own)

    yield process
    over.set()


def after(seconds: float) -> StartedBatch:
    def process(own: batch_threads.Batch) -> list[Sample]:
        time.sleep(seconds)
        return samples(own)

    return start_batch(process, batch(int(seconds * 100)), None)


def test_a_batch_runs_on_a_daemon_thread_and_returns_its_samples():
    seen = []

    def process(own):
        seen.append(threading.current_thread())
        return samples(own)

    own = batch(3, 5)
    assert wait_for_batch(start_batch(process, own, None), [], "toy", None) == samples(own)
    assert seen[0].daemon
    assert seen[0] is not threading.main_thread()


@pytest.mark.parametrize(
    ("raised", "becomes", "sentence"),
    [
        (ValueError("no"), ValueError, "no"),
        (KeyboardInterrupt(), KeyboardInterrupt, ""),
        (SystemExit(), PluginError, "it raised SystemExit"),
        (SystemExit("bye"), PluginError, "it raised SystemExit: bye"),
        (GeneratorExit(), PluginError, "it raised GeneratorExit"),
        (asyncio.CancelledError(), PluginError, "it raised CancelledError"),
        (type("Odd", (BaseException,), {})("x"), PluginError, "it raised Odd: x"),
    ],
)
def test_what_would_end_the_program_is_an_error_of_the_plugin(raised, becomes, sentence):
    def process(_):
        raise raised

    with pytest.raises(becomes) as caught:
        wait_for_batch(start_batch(process, batch(1), None), [], "toy", None)
    assert str(caught.value) == sentence
    assert raised in (caught.value, caught.value.__cause__)


def test_whether_a_batch_is_running():
    over = threading.Event()
    started = start_batch(lambda own: samples(own) if over.wait() else [], batch(1), None)
    assert batch_threads.is_batch_running()
    over.set()
    wait_for_batch(started, [], "toy", None)
    end = time.monotonic() + 10
    while batch_threads.is_batch_running() and time.monotonic() < end:
        time.sleep(0.01)
    assert not batch_threads.is_batch_running()


@pytest.mark.parametrize(
    ("rows", "others", "sentence"),
    [
        ((4,), [], "toy did not answer within 0.05 s for 4.png"),
        ((4, 5, 6, 7), [], "toy did not answer within 0.05 s for 4.png and 3 more"),
        ((4, 5), [(6, 7)], "toy did not answer within 0.05 s for 4.png and 3 more"),
    ],
)
def test_a_batch_that_hangs_is_named_with_all_that_are_not_done(hang, rows, others, sentence):
    started, *beside = [start_batch(hang, batch(*own), 0.05) for own in (rows, *others)]
    quick = start_batch(samples, batch(9), 0.05)
    wait_for_batch(quick, [], "toy", None)
    with pytest.raises(BatchTimeoutError) as caught:
        wait_for_batch(started, [*beside, quick], "toy", 0.05)
    assert str(caught.value) == sentence
    assert caught.value.rows == (*rows, *(row for own in others for row in own))
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.rows) == (sentence, caught.value.rows)


def test_the_time_begins_anew_with_each_batch_that_is_done():
    """Two batches share a device, so that one may take as long as both."""
    first = after(2.4)
    began = time.monotonic()
    assert len(wait_for_batch(first, [after(0.8), after(1.6)], "toy", 1.6)) == 1
    assert time.monotonic() - began > 1.6


def test_a_batch_that_is_done_at_the_last_moment_is_done(hang):
    """As the waiting thread looks, at the first time and at the second."""
    other = start_batch(hang, batch(2), None)
    for moment in (1, 2):
        started = StartedBatch(batch(1), batch_threads.Future())
        looks = itertools.count(1)

        def done(future=started.future, looks=looks, moment=moment):
            if next(looks) == moment:
                future.set_result([])
            return batch_threads.Future.done(future)

        started.future.done = done
        assert wait_for_batch(started, [other], "toy", 0.05) == []


def test_an_image_is_proven_to_hang_only_if_it_hung_alone():
    def hung(*rows: int) -> BatchTimeoutError:
        return BatchTimeoutError("", rows)

    known = HungRows().after(hung(4))  # a batch of one, but others may have run beside it
    assert known == HungRows(frozenset({4}), frozenset(), 1)
    known = known.after(hung(4))
    assert known == HungRows(frozenset(), frozenset({4}), 2)
    known = known.after(hung(5, 6, 7))
    assert known == HungRows(frozenset({5, 6, 7}), frozenset({4}), 3)
    known = known.after(hung(6))
    assert known == HungRows(frozenset({5, 7}), frozenset({4, 6}), 4)
    assert known.after(hung(8)) == HungRows(frozenset({5, 7, 8}), frozenset({4, 6}), 5)


def test_the_watchdog_watches_while_a_batch_runs(monkeypatch, hang):
    told = []
    monkeypatch.setattr(faulthandler, "dump_traceback_later", lambda seconds, **more: told.append((seconds, more)))
    monkeypatch.setattr(faulthandler, "cancel_dump_traceback_later", lambda: told.append("over"))
    armed = (2 * 3.0 + 5, {"exit": True, "file": 2})
    over = threading.Event()
    started = start_batch(lambda own: samples(own) if over.wait() else [], batch(1), 3.0)
    other = start_batch(hang, batch(2), 3.0)
    assert told == [armed, armed]
    over.set()
    wait_for_batch(started, [other], "toy", 60)
    assert told == [armed] * 3  # anew, for the other
    with pytest.raises(BatchTimeoutError):
        wait_for_batch(other, [], "toy", 0.05)
    assert told == [armed] * 3 + ["over"]  # another worker goes on in this process
    start_batch(samples, batch(1), None).future.result()
    assert len(told) == 4


def test_a_batch_is_watched_before_its_thread_starts(monkeypatch):
    """A plugin that keeps the GIL from its first line on would else never be watched."""
    events = []
    monkeypatch.setattr(batch_threads._watchdog, "watch", lambda *_: events.append("watched"))
    monkeypatch.setattr(threading.Thread, "start", lambda _: events.append("started"))
    start_batch(samples, batch(1), 5)
    assert events == ["watched", "started"]


def test_the_watchdog_spares_a_process_whose_python_runs(monkeypatch, hang):
    """A batch hangs while the next images are read for longer than the countdown."""
    armed = []
    monkeypatch.setattr(faulthandler, "dump_traceback_later", lambda seconds, **_: armed.append(time.monotonic()))
    monkeypatch.setattr(batch_threads, "_HEARTBEAT_SECONDS", 0.02)
    watchdog = batch_threads._Watchdog()
    monkeypatch.setattr(batch_threads, "_watchdog", watchdog)
    started = start_batch(hang, batch(1), 5)
    end = time.monotonic() + 20
    while len(armed) < 5 and time.monotonic() < end:
        time.sleep(0.01)
    assert len(armed) >= 5
    watchdog.forget(started.future)
    while watchdog._has_heartbeat and time.monotonic() < end:
        time.sleep(0.01)
    assert not watchdog._has_heartbeat
