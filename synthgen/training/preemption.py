"""Notice to quit: schedulers and spot machines send SIGTERM, and kill some seconds later."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

#: What a process ends with that heard it: 128 and the signal's number, as shells have it.
EXIT = 128 + signal.SIGTERM


class Notice:
    """Hears SIGTERM while the block lasts, instead of dying of it; in the main thread alone, as signals are its.

    Attributes:
        given: whether it came.
    """

    def __init__(self) -> None:
        self.given = False
        self._at_once = False
        self._before: Any = None
        self._hears = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> Self:
        if self._hears:
            self._before = signal.signal(signal.SIGTERM, self._heard)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, why: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._hears:
            signal.signal(signal.SIGTERM, self._before)

    @contextmanager
    def obeyed(self) -> Iterator[None]:
        """In the block it is obeyed at once, by SystemExit: what is done there can be done again."""
        self._at_once = True
        try:
            if self.given:
                raise SystemExit(EXIT)
            yield
        finally:
            self._at_once = False

    def _heard(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.given = True
        if self._at_once:
            raise SystemExit(EXIT)
