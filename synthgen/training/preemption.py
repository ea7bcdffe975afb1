"""Notice to quit: schedulers and spot machines send SIGTERM, and kill some seconds later."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

#: What a process ends with that heard it: 128 and the signal's number, as shells have it.
EXIT_CODE = 128 + signal.SIGTERM


class SigtermHandler:
    """Hears SIGTERM while the block lasts, instead of dying of it; in the main thread alone, as signals are its.

    Attributes:
        received: whether it came.
    """

    def __init__(self) -> None:
        self.received = False
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
        """In the block it is obeyed at once, by SystemExit: what is done there can be done again."""
        self._exits_immediately = True
        try:
            if self.received:
                raise SystemExit(EXIT_CODE)
            yield
        finally:
            self._exits_immediately = False

    def _handle(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.received = True
        if self._exits_immediately:
            raise SystemExit(EXIT_CODE)
