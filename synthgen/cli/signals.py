"""The signals that end a command: Ctrl-C (SIGINT), SIGTERM and SIGHUP.

The first one raises an exception in the main thread, so that the command removes its temporary files, ends its worker
processes and prints one line. A second one ends the process at once; the next run removes what is left. Training
handles SIGTERM itself; see `synthgen.training.preemption`.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

#: Within so many seconds of the first signal, another one is the same request: terminals and schedulers may send it to
#: a process and to its group.
REPEAT_SECONDS = 0.5

_SHOW_CURSOR = b"\x1b[?25h\n"  # a progress bar hides it


def exit_code(signum: int) -> int:
    """The exit code after a signal: 128 plus its number, as in shells."""
    return 128 + signum


class SignalExit(SystemExit):
    """Raised in the main thread by the first SIGTERM or SIGHUP; Ctrl-C raises KeyboardInterrupt."""


class StopRequest:
    """What was asked of the command so far.

    Attributes:
        received: the first signal; None = there was none.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._received_at = 0.0

    def handle(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """The handler of all these signals."""
        if self.received is None:
            self.received, self._received_at = signal.Signals(signum), time.monotonic()
            if signum == signal.SIGINT:
                raise KeyboardInterrupt
            raise SignalExit(exit_code(signum))
        if time.monotonic() - self._received_at > REPEAT_SECONDS:
            if os.isatty(2):
                os.write(2, _SHOW_CURSOR)
            os._exit(exit_code(signum))


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Handle the signals while the block runs. A signal that is ignored stays ignored, as under `nohup` and `&`."""
    request, previous = StopRequest(), {}
    if threading.current_thread() is threading.main_thread():
        for one in _SIGNALS:
            # None is a handler that Python did not install.
            if (handler := signal.getsignal(one)) is not None and handler is not signal.SIG_IGN:
                previous[one] = signal.signal(one, request.handle)
    try:
        yield request
    finally:
        for one, handler in previous.items():
            signal.signal(one, handler)
