"""Progress messages from the workers of a training to its driver: progress bars, warnings, and how the training ended.

The driver holds a `ProgressChannel`, and each worker a `ProgressWriter`. Between them is an actor on the driver's node
that keeps messages, (kind, content), until the driver fetches them.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from typing import Any, Self

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from synthgen.errors import SynthgenError
from synthgen.progress import OpenProgress
from synthgen.training.report import TrainResult

log = logging.getLogger(__name__)

#: Seconds between two messages of one progress bar.
_INTERVAL = 1.0


class _Mailbox:
    """An actor on the driver's node that keeps messages until they are fetched.

    `ray.util.queue.Queue` waits for each message, and fails in the worker if the actor is dead. Its actor is
    asynchronous: sent without waiting, the last messages may be missing when the driver fetches.
    """

    def __init__(self) -> None:
        self.messages: list[tuple[str, Any]] = []

    def put(self, kind: str, content: Any = None) -> None:
        self.messages.append((kind, content))

    def fetch(self) -> list[tuple[str, Any]]:
        fetched, self.messages = self.messages, []
        return fetched


class ProgressChannel:
    """The driver's end: call `receive` regularly.

    Attributes:
        mailbox: the actor that workers write to.
        error: the first error that a worker reported.
        result: the result of the training, once it is there.

    Args:
        progress: creates progress bars.
    """

    def __init__(self, progress: OpenProgress) -> None:
        driver_node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor: Any = ray.remote(_Mailbox)
        self.mailbox = actor.options(num_cpus=0, scheduling_strategy=driver_node).remote()
        self.error: SynthgenError | None = None
        self.result: TrainResult | None = None
        self._open_progress, self._open_bars = progress, list[Any]()

    def receive(self) -> None:
        """Process the messages that have arrived."""
        for kind, content in ray.get(self.mailbox.fetch.remote()):
            match kind:
                case "begin":
                    self._open_bars.append(self._open_progress(*content).__enter__())
                case "advance":
                    self._open_bars[-1].advance(*content)
                case "end":
                    self._open_bars.pop().__exit__(None, None, None)
                case "warning":
                    log.warning("%s", content)
                case "error":
                    self.error = self.error or content
                case "result":
                    self.result = content

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while self._open_bars:
            self._open_bars.pop().__exit__(None, None, None)
        with contextlib.suppress(ray.exceptions.RayError):
            ray.kill(self.mailbox)


class ProgressWriter(logging.Handler):
    """A worker's end. A worker that is not the reporter sends its error and nothing else.

    Args:
        mailbox: the driver's actor, `ProgressChannel.mailbox`.
        is_reporter: whether this worker sends progress; one worker does.
    """

    def __init__(self, mailbox: Any, is_reporter: bool) -> None:
        super().__init__(logging.WARNING)
        self._mailbox, self._is_reporter = mailbox, is_reporter

    def send(self, kind: str, content: Any = None) -> None:
        """Send a message without waiting; the messages of one worker arrive in order.

        Args:
            kind: name of the message, such as "begin" or "end".
            content: any picklable value.
        """
        if self._is_reporter:
            self._mailbox.put.remote(kind, content)

    def send_error(self, error: SynthgenError) -> None:
        """Send an error, from any worker, and wait until it has arrived."""
        ray.get(self._mailbox.put.remote("error", error))

    def send_result(self, result: TrainResult) -> None:
        """Send the result, from the reporter, and wait until it has arrived."""
        if self._is_reporter:
            ray.get(self._mailbox.put.remote("result", result))

    def emit(self, record: logging.LogRecord) -> None:
        """Send a warning with the message of `record`."""
        self.send("warning", record.getMessage())

    def open_progress(self, description: str, total: int, unit: str) -> _RemoteProgress:
        """Return a progress bar that the driver draws.

        Args:
            description: what is counted, in a few words.
            total: number of units in all.
            unit: name of the units in the plural.
        """
        return _RemoteProgress(self, description, total, unit)


class _RemoteProgress:
    """A `synthgen.progress.ProgressBar` that sends its counts to the driver, which draws it."""

    def __init__(self, writer: ProgressWriter, description: str, total: int, unit: str) -> None:
        self._writer, self._header = writer, (description, total, unit)
        self._count, self._sent_at = 0, 0.0
        self._note: str | None = None

    def __enter__(self) -> Self:
        self._writer.send("begin", self._header)
        return self

    def __exit__(self, *_: object) -> None:
        self._send()
        self._writer.send("end")

    def advance(self, count: int, note: str | None = None) -> None:
        """Count `count` more as done."""
        self._count += count
        self._note = note or self._note
        if time.monotonic() - self._sent_at >= _INTERVAL:
            self._send()

    def _send(self) -> None:
        self._sent_at = time.monotonic()
        self._writer.send("advance", (self._count, self._note))
        self._count = 0


@contextlib.contextmanager
def progress_writer(mailbox: Any, *, is_reporter: bool) -> Iterator[ProgressWriter]:
    """Open a worker's end; warnings of synthgen while the block runs, and a `SynthgenError` that ends it, are sent.

    Args:
        mailbox: see `ProgressWriter`.
        is_reporter: see `ProgressWriter`.

    Raises:
        SynthgenError: the error of the block, after it was sent.
    """
    writer, logger = ProgressWriter(mailbox, is_reporter), logging.getLogger("synthgen")
    logger.addHandler(writer)
    try:
        yield writer
    except SynthgenError as why:
        writer.send_error(why)
        raise
    finally:
        logger.removeHandler(writer)
