"""What a training tells while it runs: a line of JSON a step, and TensorBoard's scalars and pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter

from synthgen.errors import SynthgenError
from synthgen.storage.atomic import append_line, write_text_atomic
from synthgen.training.run_dir import REMEDY


class MetricsLogger:
    """log.jsonl and tensorboard/ in the folder of a run; what an earlier run wrote of steps to come is taken back.

    Args:
        step: the first step that will be written.

    Raises:
        SynthgenError: what lies there is no log, or cannot be written.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        self._log_path = folder / "log.jsonl"
        if self._log_path.exists():
            lines = self._log_path.read_bytes().splitlines(keepends=True)
            before = [
                line
                for i, line in enumerate(lines, 1)
                if line.endswith(b"\n") and self._parse_step(line, i) < first_step
            ]
            if len(before) < len(lines):
                write_text_atomic(self._log_path, b"".join(before).decode(), remedy=REMEDY)
        self._tensorboard = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step)

    def log_metrics(self, step: int, values: Mapping[str, float], *, prefix: str = "train") -> None:
        """Numbers by name."""
        append_line(self._log_path, json.dumps({"step": step, "of": prefix, **values}), remedy=REMEDY)
        for name, value in values.items():
            self._tensorboard.add_scalar(f"{prefix}/{name}", value, step)

    def _parse_step(self, line: bytes, line_number: int) -> int:
        """Of a line that was written."""
        try:
            return int(json.loads(line)["step"])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            raise SynthgenError(
                f"line {line_number} of {self._log_path} is damaged; take it out, or move the file away: a new one "
                "is begun"
            ) from None

    def log_image(self, step: int, name: str, image: NDArray[np.uint8]) -> None:
        """uint8 [H, W, 3], RGB."""
        self._tensorboard.add_image(name, image, step, dataformats="HWC")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, why: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tensorboard.close()
