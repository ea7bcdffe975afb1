"""Commands of synthgen in forks of this process, disturbed from inside or outside; for soak.py.

A fork of a process that has imported the program starts in milliseconds. The process itself runs no command and starts
no thread.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

#: Seconds until a command counts as hanging. No command of the soak takes longer than a few.
HANG_SECONDS = 90.0

_CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate"}
_REMOVALS = {"os.remove", "os.rmdir"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT

Prepare = Callable[[], None]


class Ended(NamedTuple):
    """The end of a command: its exit code, negative for a signal, None = it hung; and all that it printed."""

    code: int | None
    text: str


class Running:
    """A command in a fork.

    Args:
        words: after `synthgen`.
        output: the file for what it prints.
        prepare: called in the fork before the command.
    """

    def __init__(self, words: Sequence[object], output: Path, prepare: Sequence[Prepare] = ()) -> None:
        self._output = output
        output.write_bytes(b"")  # the fork may be killed before it does anything
        self.pid = os.fork()
        if self.pid == 0:
            _run_and_exit([str(word) for word in words], output, prepare)

    def send(self, number: int) -> None:
        """Send it a signal. It may have ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self, seconds: float = HANG_SECONDS) -> Ended:
        """Wait for its end. If it does not come, kill it."""
        end = time.monotonic() + seconds
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return Ended(os.waitstatus_to_exitcode(status), self._output.read_text(errors="replace"))
            if time.monotonic() > end:
                self.send(signal.SIGKILL)
                os.waitpid(self.pid, 0)
                return Ended(None, self._output.read_text(errors="replace"))
            time.sleep(0.003)


def _run_and_exit(words: list[str], output: Path, prepare: Sequence[Prepare]) -> None:
    code = 70
    try:
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        target = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(target, 1)
        os.dup2(target, 2)
        sys.stdout, sys.stderr = (open(one, "w", encoding="utf-8", closefd=False) for one in (1, 2))  # noqa: SIM115
        for one in prepare:
            one()
        sys.argv = ["synthgen", *words]
        from synthgen.cli.main import main

        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1 if end.code else 0
    except KeyboardInterrupt:  # before the command handles signals, or after
        code = 128 + signal.SIGINT
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        threading._shutdown()  # as Python does at its end: it waits for the threads of pools
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def call_in_fork(function: Callable[[], Any]) -> Any:
    """The result of a function, which must be JSON. What it imports or starts stays in the fork."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        answer: dict[str, Any] = {}
        try:
            answer = {"result": function()}
        except BaseException:
            answer = {"error": traceback.format_exc()}
        finally:
            with os.fdopen(writer, "w") as pipe:
                pipe.write(json.dumps(answer))
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        answer = json.loads(pipe.read() or '{"error": "the fork died"}')
    os.waitpid(pid, 0)
    if "error" in answer:
        raise RuntimeError(answer["error"])
    return answer["result"]


def at_change(number: int, folder: Path, do: Callable[[], None], *, and_later: bool = False) -> Prepare:
    """Call `do` just before the change number `number` below a folder, counted from 1; with `and_later`, before every
    later one too.

    A change is what Python's audit events tell of: a file opened to be written, a folder made, a name given or taken.
    """
    seen = 0

    def hook(event: str, args: tuple[object, ...]) -> None:
        nonlocal seen
        if event == "open":
            if not (isinstance(args[2], int) and args[2] & _WRITING):
                return
        elif event not in _CHANGES or (and_later and event in _REMOVALS):
            return
        if not str(args[0]).startswith(f"{folder}/"):
            return
        seen += 1
        if seen == number or (and_later and seen > number):
            do()

    return lambda: sys.addaudithook(hook)


def send_to_itself(number: int) -> Callable[[], None]:
    """Send a signal to the command itself; for `at_change`."""
    return lambda: os.kill(os.getpid(), number)


def send_to_itself_soon(number: int, seconds: float) -> Callable[[], None]:
    """The same, so many seconds later; for `at_change`: the change may be done, and what follows not."""

    def send() -> None:
        time.sleep(seconds)
        os.kill(os.getpid(), number)

    return lambda: threading.Thread(target=send, daemon=True).start()


def no_space() -> None:
    """Fail as on a full disk; for `at_change`."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def count_changes(words: Sequence[object], folder: Path, output: Path) -> tuple[int, Ended]:
    """How many changes a command makes below a folder, and its end."""
    reader, writer = os.pipe()
    running = Running(words, output, [at_change(1, folder, lambda: os.write(writer, b".") and None, and_later=True)])
    os.close(writer)
    ended = running.wait()
    with os.fdopen(reader, "rb") as pipe:
        return len(pipe.read()), ended


def jump_clock(seed: int) -> Prepare:
    """Let the clock of the command begin up to ten years off, and jump by up to two days at one call in ten."""

    def prepare() -> None:
        rng = random.Random(seed)
        real, offset = time.time_ns, rng.randint(-10 * 365, 10 * 365) * 86_400 * 10**9

        def time_ns() -> int:
            nonlocal offset
            if rng.random() < 0.1:
                offset += rng.randint(-2 * 86_400, 2 * 86_400) * 10**9
            return real() + offset

        time.time_ns = time_ns
        time.time = lambda: time_ns() / 1e9

    return prepare


def change_times(folders: Sequence[Path], rng: random.Random) -> None:
    """Give the files below some folders modification times up to ten years in the past or the future."""
    for folder in folders:
        for path in sorted(folder.rglob("*")) if folder.is_dir() else [folder]:
            then = time.time() + rng.randint(-10 * 365, 10 * 365) * 86_400
            with contextlib.suppress(FileNotFoundError):
                os.utime(path, (then, then))
