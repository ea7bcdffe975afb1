"""Handle SIGTERM: schedulers and spot instances send it some seconds before they kill a process."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

#: Exit code after SIGTERM: 128 plus the signal's number, as in shells.
EXIT_CODE = 128 + signal.SIGTERM

#: Within so many seconds of the first SIGTERM, another one is the same request: a scheduler may send it to all
#: processes of a job, and torchrun sends it on to those that it started.
REPEAT_SECONDS = 5.0


class SigtermHandler:
    """Records SIGTERM while the block runs, instead of exiting. Effective in the main thread only, where signals
    arrive.

    Attributes:
        received: whether SIGTERM was received. After `REPEAT_SECONDS`, another one ends the process at once.
    """

    def __init__(self) -> None:
        self.received = False
        self._received_at = 0.0
        self._exits_immediately = False
        self._previous_handler: Any = None
        self._is_main_thread = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> Self:
        if self._is_main_thread:
            self._previous_handler = signal.signal(signal.SIGTERM, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, why: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_main_thread:
            signal.signal(signal.SIGTERM, self._previous_handler)

    @contextmanager
    def exit_immediately(self) -> Iterator[None]:
        """Exit at once on SIGTERM while the block runs, with SystemExit; for work that can be repeated."""
        self._exits_immediately = True
        try:
            if self.received:
                raise SystemExit(EXIT_CODE)
            yield
        finally:
            self._exits_immediately = False

    def _handle(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if not self.received:
            self.received, self._received_at = True, time.monotonic()
        elif time.monotonic() - self._received_at > REPEAT_SECONDS:
            os._exit(EXIT_CODE)
        if self._exits_immediately:
            raise SystemExit(EXIT_CODE)
