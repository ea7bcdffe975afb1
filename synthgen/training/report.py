"""What a training says of itself while it runs, and when it cannot go on."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from synthgen.dataloading.manifest import Manifest
from synthgen.dataloading.sample_stats import Seen
from synthgen.evaluation import results
from synthgen.evaluation.results import Measured
from synthgen.training import run_dir


@dataclass(frozen=True, slots=True)
class Trained:
    """What came of a run.

    Attributes:
        folder: of the run. checkpoint: the last one. best: the best evaluated one; None = nothing was evaluated.
        steps: learned in this call.
        measured: of the last evaluation; see `evaluate.Measured`.
        seen: lines on what the network saw, since its first step.
        is_first: whether this is the process that speaks.
    """

    folder: Path
    checkpoint: Path
    best: Path | None
    steps: int
    measured: tuple[Measured, ...]
    seen: tuple[str, ...]
    is_first: bool

    def lines(self) -> list[str]:
        """For a person."""
        told = f"{self.steps:,} step{'s' * (self.steps != 1)} learned" if self.steps else "nothing was left to learn"
        lines = [f"{told}; the network is {self.best or self.checkpoint}", ""]
        return lines + [*results.lines(self.measured), ""] * bool(self.measured) + list(self.seen)


def not_finite(
    step: int, values: Mapping[str, float], keys: Sequence[Sequence[str]], manifest: Manifest, run: Path
) -> str:
    """A sentence.

    Args:
        values: what the step gave, by name.
        keys: of the images of each process.
    """
    parts = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
    images = [key for own in keys for key in own]
    more = f" and {len(images) - 8:,} more" if len(images) > 8 else ""
    half = ", or with precision: fp32" if manifest.schedule.precision == "bf16" else ""
    last, section = run_dir.newest(run.absolute()), "model" if manifest.captioner is None else "captioner"
    begins = f", from this one's last sound checkpoint ({section}.weights: {last})" if last is not None else ""
    return (
        f"step {step} gave what is no number ({parts}; images {', '.join(images[:8])}{more}); begin another run, with "
        f"a lower schedule.lr (now {manifest.schedule.lr:g}) or schedule.clip{half}, in another --out{begins}"
    )


def note(values: Mapping[str, float]) -> str:
    parts = " ".join(
        f"{name} {value:.3g}" for name, value in values.items()
        if name not in ("images_per_s", "data_share", "memory_mib", "lr", "gradient")
    )  # fmt: skip
    return f"{parts}, waiting {values['data_share']:.0%}, {values['memory_mib'] / 1024:.1f} GiB"


def memory(device: torch.device) -> float:
    """MiB: the most that tensors took of a GPU; of a CPU, the most that the process had."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)


def device_words(device: torch.device) -> str:
    return (
        torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device} ({torch.get_num_threads()} threads)"
    )


def seen_lines(manifest: Manifest, seen: Mapping[str, Any]) -> list[str]:
    whole = Seen([f"{source.shards} {source.task}" for source in manifest.mixture])
    for own in seen.values():
        whole.add(own)
    return whole.lines()
