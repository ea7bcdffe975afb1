"""What the workers of a training tell its driver: how far they are, what they warn of, how it ended."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from typing import Any, Self

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from synthgen.errors import SynthgenError
from synthgen.reading.check import NewBar
from synthgen.train.telling import Trained

log = logging.getLogger(__name__)

#: Seconds between two letters of a bar.
_EVERY = 1.0


class _Post:
    """Keeps letters until they are fetched; an actor beside the driver."""

    def __init__(self) -> None:
        self.waiting: list[tuple[str, Any]] = []

    def put(self, kind: str, content: Any = None) -> None:
        self.waiting.append((kind, content))

    def fetch(self) -> list[tuple[str, Any]]:
        fetched, self.waiting = self.waiting, []
        return fetched


class Box:
    """The driver's end; `open` it now and then.

    Attributes:
        address: what the workers write to.
        refused: the first mistake that one of them told.
        done: what the training came to.
    """

    def __init__(self, bar: NewBar) -> None:
        beside = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        post: Any = ray.remote(_Post)
        self.address = post.options(num_cpus=0, scheduling_strategy=beside).remote()
        self.refused: SynthgenError | None = None
        self.done: Trained | None = None
        self._bar, self._bars = bar, list[Any]()

    def open(self) -> None:
        """Read what has come."""
        for kind, content in ray.get(self.address.fetch.remote()):
            match kind:
                case "begin":
                    self._bars.append(self._bar(*content).__enter__())
                case "advance":
                    self._bars[-1].advance(*content)
                case "end":
                    self._bars.pop().__exit__(None, None, None)
                case "warning":
                    log.warning("%s", content)
                case "refused":
                    self.refused = self.refused or content
                case "done":
                    self.done = content

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while self._bars:
            self._bars.pop().__exit__(None, None, None)
        with contextlib.suppress(ray.exceptions.RayError):
            ray.kill(self.address)


class Writer(logging.Handler):
    """A worker's end; those that do not speak tell of mistakes alone."""

    def __init__(self, address: Any, speaks: bool) -> None:
        super().__init__(logging.WARNING)
        self._address, self._speaks = address, speaks

    def tell(self, kind: str, content: Any = None) -> None:
        """Without waiting: letters of one worker come in order."""
        if self._speaks:
            self._address.put.remote(kind, content)

    def refused(self, why: SynthgenError) -> None:
        """Surely told once this returns, whoever speaks."""
        ray.get(self._address.put.remote("refused", why))

    def done(self, trained: Trained) -> None:
        """Surely told once this returns."""
        if self._speaks:
            ray.get(self._address.put.remote("done", trained))

    def emit(self, record: logging.LogRecord) -> None:
        """A warning of the house."""
        self.tell("warning", record.getMessage())

    def bar(self, what: str, total: int, unit: str) -> _Bar:
        """Counts for the driver's bar."""
        return _Bar(self, what, total, unit)


class _Bar:
    """A `synthgen.progress.Bar` that the driver draws."""

    def __init__(self, writer: Writer, what: str, total: int, unit: str) -> None:
        self._writer, self._about = writer, (what, total, unit)
        self._count, self._told = 0, 0.0
        self._note: str | None = None

    def __enter__(self) -> Self:
        self._writer.tell("begin", self._about)
        return self

    def __exit__(self, *_: object) -> None:
        self._send()
        self._writer.tell("end")

    def advance(self, count: int, note: str | None = None) -> None:
        """Count `count` more as done."""
        self._count += count
        self._note = note or self._note
        if time.monotonic() - self._told >= _EVERY:
            self._send()

    def _send(self) -> None:
        self._told = time.monotonic()
        self._writer.tell("advance", (self._count, self._note))
        self._count = 0


@contextlib.contextmanager
def written(address: Any, *, speaks: bool) -> Iterator[Writer]:
    """A worker's end of the box; what the house warns of meanwhile, and a mistake that ends it, are told."""
    writer, house = Writer(address, speaks), logging.getLogger("synthgen")
    house.addHandler(writer)
    try:
        yield writer
    except SynthgenError as why:
        writer.refused(why)
        raise
    finally:
        house.removeHandler(writer)
