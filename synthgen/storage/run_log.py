"""The run log of a layer: what its runs did, in the folder `_log/` beside its shards.

`metrics.jsonl` has one line per shard, `failures.jsonl` one line per shard that was not committed, `status.json` the
current state, `run.log` everything else. They are for people and dashboards; no later run depends on them. A part of a
job (`--part 3/8`) writes its own files (`metrics-3-of-8.jsonl`), so that machines do not share files. So does each
worker of a cluster that logs something (`run-10.0.0.7-4711.log`).
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from synthgen.errors import FailedRunError, SynthgenError
from synthgen.storage.atomic import append_line, write_text_atomic
from synthgen.storage.shard_store import ShardStore


def log_folder(store: ShardStore, dataset: str, split: str, layer: str) -> Path:
    """The folder of a layer's run log.

    Args:
        store: where the shards lie.
        dataset: name of the dataset.
        split: name of the split.
        layer: name of the layer.
    """
    return store.layer_folder(dataset, split, layer) / "_log"


class RunLog:
    """Writes the run log of one run, or of one part of it.

    Args:
        folder: see `log_folder`.
        part: (index, number of parts) of the job.
    """

    def __init__(self, folder: Path, part: tuple[int, int] = (0, 1)) -> None:
        self._folder = folder
        self._suffix = "" if part[1] == 1 else f"-{part[0]}-of-{part[1]}"

    @contextlib.contextmanager
    def capture_messages(self) -> Iterator[None]:
        """Write synthgen's log records to `run.log` while the block runs.

        A run that ends before it has started leaves no log of its own: its error says everything.
        """
        path = self._folder / f"run{self._suffix}.log"
        is_new = not path.exists()
        try:
            with log_to_file(path):
                yield
        except SynthgenError as why:
            if is_new and why.exit_code != FailedRunError.exit_code:
                path.unlink(missing_ok=True)
            raise

    def append_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Append a line about one shard to `metrics.jsonl`."""
        self._append("metrics", metrics)

    def append_failure(self, shard: str, error: str) -> None:
        """Append a `shard` that was not committed, and the `error`, to `failures.jsonl`."""
        self._append("failures", {"shard": shard, "error": error})

    def write_status(self, status: Mapping[str, Any]) -> None:
        """Replace `status.json`."""
        text = json.dumps({**status, "updated": time.time()}, indent=1)
        write_text_atomic(self._folder / f"status{self._suffix}.json", text)

    def _append(self, name: str, line: Mapping[str, Any]) -> None:
        text = json.dumps({**line, "time": round(time.time(), 3)}, ensure_ascii=False)
        append_line(self._folder / f"{name}{self._suffix}.jsonl", text)


@contextlib.contextmanager
def log_to_file(path: Path) -> Iterator[None]:
    """Write synthgen's log records to the file at `path`, in a folder that exists, while the block runs."""
    handler = _SilentFileHandler(path, encoding="utf-8", errors="backslashreplace", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("synthgen")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        with contextlib.suppress(OSError):  # it writes the buffer again; see `_SilentFileHandler`
            handler.close()


class _SilentFileHandler(logging.FileHandler):
    """Drops a record that cannot be written. On a full disk the commit reports the error once."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record; the first one opens the file."""
        with contextlib.suppress(OSError):
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Drop the record."""
