"""The metrics of a training: a line of JSON per step, and TensorBoard scalars and images."""

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
    """Writes log.jsonl and tensorboard/ of a run directory. Entries of a killed run that are made again are removed.

    Args:
        folder: the run directory.
        first_step: the first step that will be logged.
        repeats_evaluation: whether the evaluation after the step before it will be logged, too.

    Raises:
        SynthgenError: log.jsonl is not a log, or cannot be written.
    """

    def __init__(self, folder: Path, first_step: int, *, repeats_evaluation: bool = False) -> None:
        self._log_path = folder / "log.jsonl"
        if self._log_path.exists():
            lines = self._log_path.read_bytes().splitlines(keepends=True)
            end = (first_step - 1, True) if repeats_evaluation else (first_step, False)
            before = [line for i, line in enumerate(lines, 1) if line.endswith(b"\n") and self._position(line, i) < end]
            if len(before) < len(lines):
                write_text_atomic(self._log_path, b"".join(before).decode(), remedy=REMEDY)
        self._tensorboard = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step)

    def log_metrics(self, step: int, values: Mapping[str, float], *, prefix: str = "train") -> None:
        """Log numbers by name.

        Args:
            step: the step after which the numbers hold.
            values: number by name.
            prefix: what the numbers are of: the value of "of" in log.jsonl, and the prefix of names in TensorBoard.
        """
        append_line(self._log_path, json.dumps({"step": step, "of": prefix, **values}), remedy=REMEDY)
        for name, value in values.items():
            self._tensorboard.add_scalar(f"{prefix}/{name}", value, step)

    def _position(self, line: bytes, line_number: int) -> tuple[int, bool]:
        """The step of a log line, and whether it is of the evaluation after it."""
        try:
            entry = json.loads(line.decode())
            return int(entry["step"]), entry.get("of", "train") != "train"
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            raise SynthgenError(
                f"line {line_number} of {self._log_path} is damaged; take it out, or move the file away: a new one "
                "is begun"
            ) from None

    def log_image(self, step: int, name: str, image: NDArray[np.uint8]) -> None:
        """Log an image.

        Args:
            step: completed steps.
            name: of the image in TensorBoard.
            image: uint8 [H, W, 3], RGB.
        """
        self._tensorboard.add_image(name, image, step, dataformats="HWC")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, why: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tensorboard.close()
