"""Progress messages of workers, through a mailbox that is not an actor; the last test uses a real one."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from synthgen.errors import SynthgenError

pytest.importorskip("ray", reason="Ray is not installed")

from synthgen.cluster import progress_channel

ROOT = Path(__file__).parents[2]


class Bar:
    """A bar that notes what is done with it."""

    def __init__(self, log: list[Any], *header: Any) -> None:
        self.log = log
        log.append(header)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.log.append("end")

    def advance(self, count: int, note: str | None = None) -> None:
        self.log.append((count, note))


@pytest.fixture
def mailbox(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Calls of it are made at once."""
    own = progress_channel._Mailbox()
    made = SimpleNamespace(put=SimpleNamespace(remote=own.put), fetch=SimpleNamespace(remote=own.fetch))
    remote = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda: made))
    context = SimpleNamespace(get_node_id=lambda: "0" * 56)
    ray = SimpleNamespace(
        get=lambda outcome: outcome, kill=lambda _: None, remote=lambda _: remote, get_runtime_context=lambda: context,
        exceptions=progress_channel.ray.exceptions,
    )  # fmt: skip
    monkeypatch.setattr(progress_channel, "ray", ray)
    return made


@pytest.mark.parametrize("is_reporter", [True, False])
def test_bars_warnings_and_the_result_come_from_the_reporter_alone(mailbox, caplog, is_reporter):
    drawn: list[Any] = []
    with progress_channel.ProgressChannel(lambda *header: Bar(drawn, *header)) as channel:
        with progress_channel.progress_writer(mailbox, is_reporter=is_reporter) as writer:
            with writer.open_progress("learning", 9, "steps") as bar:
                bar.advance(2)  # is sent at once, the next only after an interval
                bar.advance(3, "loss 1.0")
                bar.advance(4)
            writer.emit(logging.LogRecord("synthgen.training", logging.WARNING, "", 0, "slow %s", ("disk",), None))
            writer.send_result("trained")
        channel.receive()
        channel.receive()  # nothing is left
    assert drawn == ([("learning", 9, "steps"), (2, None), (7, "loss 1.0"), "end"] if is_reporter else [])
    assert channel.result == ("trained" if is_reporter else None)
    assert channel.error is None
    assert ("slow disk" in caplog.text) == is_reporter


def test_the_first_error_of_any_worker_is_kept_and_a_bar_is_closed(mailbox):
    drawn: list[Any] = []
    with progress_channel.ProgressChannel(lambda *header: Bar(drawn, *header)) as channel:
        mailbox.put.remote("begin", ("learning", 9, "steps"))
        for sentence in ("no store", "no photo"):
            with (
                pytest.raises(SynthgenError, match=sentence),
                progress_channel.progress_writer(mailbox, is_reporter=False),
            ):
                raise SynthgenError(sentence)
        channel.receive()
    assert str(channel.error) == "no store"
    assert drawn == [("learning", 9, "steps"), "end"]


@pytest.mark.slow
def test_messages_arrive_complete_and_a_killed_mailbox_stops_nobody_but_the_driver():
    """In a process of its own: `ray.init` leaves a token in the environment that other clusters refuse."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", REAL_MAILBOX]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout.strip()) == (0, "complete"), done.stderr


REAL_MAILBOX = """
import logging
import ray
from synthgen.cluster import progress_channel

class Bar:
    def __init__(self, *header):
        drawn.append(header)
    def __enter__(self):
        return self
    def __exit__(self, *_):
        drawn.append("end")
    def advance(self, count, note=None):
        drawn.append((count, note))

drawn = []
ray.init(address="local", num_cpus=1, include_dashboard=False, logging_level=logging.ERROR)
with progress_channel.ProgressChannel(Bar) as channel:
    writer = progress_channel.ProgressWriter(channel.mailbox, is_reporter=True)
    writer.send("begin", ("learning", 300, "steps"))
    for i in range(300):
        writer.send("advance", (i, None))
    channel.receive()
    assert drawn == [("learning", 300, "steps"), *((i, None) for i in range(300))]
    ray.kill(channel.mailbox)
    try:
        while True:  # the kill takes effect a moment later
            channel.receive()
    except ray.exceptions.RayError:
        pass
    writer.send("advance", (1, None))  # lost, without waiting
assert drawn[-1] == "end"
ray.shutdown()
print("complete")
"""
