"""The signals that end a command: Ctrl-C (SIGINT), SIGTERM and SIGHUP.

The first one raises an exception in the main thread, so that the command removes its temporary files, ends its worker
processes and prints one line. A second one ends the process at once; the next run removes what is left. Training
handles SIGTERM itself; see `synthgen.training.preemption`.

Python cannot pass on an exception that is raised where it deletes an object. A signal that comes there is sent again.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

#: Within so many seconds of the first signal, another one is the same request: terminals and schedulers may send it to
#: a process and to its group.
REPEAT_SECONDS = 0.5

#: Seconds after which a signal is sent again whose exception got lost.
_AGAIN_SECONDS = 0.01

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
        is_active: whether the command runs, so that signals concern it.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._received_at = 0.0
        self.is_active = True

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

    def send_again_if_lost(self, lost: sys.UnraisableHookArgs) -> bool:
        """Send the signal again if this is its exception; returns whether it is."""
        if self.received is None or not isinstance(lost.exc_value, SignalExit | KeyboardInterrupt):
            return False
        signum, self.received = self.received, None
        # On a thread: a handler that runs here would lose its exception, too.
        threading.Thread(target=self._send_again, args=(signum,), daemon=True).start()
        return True

    def _send_again(self, signum: signal.Signals) -> None:
        time.sleep(_AGAIN_SECONDS)
        if self.is_active and (main := threading.main_thread().ident) is not None:
            signal.pthread_kill(main, signum)  # interrupts what the main thread waits for


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Handle the signals while the block runs. A signal that is ignored stays ignored, as under `nohup` and `&`."""
    request, previous, report = StopRequest(), {}, sys.unraisablehook

    def report_unless_sent_again(lost: sys.UnraisableHookArgs) -> None:
        if not request.send_again_if_lost(lost):
            report(lost)

    if threading.current_thread() is threading.main_thread():
        for one in _SIGNALS:
            # None is a handler that Python did not install.
            if (handler := signal.getsignal(one)) is not None and handler is not signal.SIG_IGN:
                previous[one] = signal.signal(one, request.handle)
        sys.unraisablehook = report_unless_sent_again
    try:
        yield request
    finally:
        request.is_active = False
        if sys.unraisablehook is report_unless_sent_again:
            sys.unraisablehook = report
        for one, handler in previous.items():
            signal.signal(one, handler)
