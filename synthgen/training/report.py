"""What a training reports: its result, its progress, its device."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from synthgen.dataloading.manifest import Manifest
from synthgen.dataloading.sample_stats import SampleStats
from synthgen.evaluation import results
from synthgen.evaluation.results import EvalResult


@dataclass(frozen=True, slots=True)
class TrainResult:
    """The result of a run.

    Attributes:
        folder: the run directory.
        last_checkpoint: the last checkpoint.
        best_checkpoint: the checkpoint with the best evaluation; None = nothing was evaluated.
        new_steps: steps trained in this call.
        eval_results: the last evaluation.
        sample_report: lines about the samples used since the first step.
        is_rank0: whether this is rank 0, which prints the result.
    """

    folder: Path
    last_checkpoint: Path
    best_checkpoint: Path | None
    new_steps: int
    eval_results: tuple[EvalResult, ...]
    sample_report: tuple[str, ...]
    is_rank0: bool

    def format_lines(self) -> list[str]:
        """The lines to print."""
        outcome = (
            f"{self.new_steps:,} step{'s' * (self.new_steps != 1)} learned"
            if self.new_steps
            else "nothing was left to learn"
        )
        lines = [f"{outcome}; the network is {self.best_checkpoint or self.last_checkpoint}", ""]
        return (
            lines
            + [*results.format_results(self.eval_results), ""] * bool(self.eval_results)
            + list(self.sample_report)
        )


def format_progress(values: Mapping[str, float]) -> str:
    """The line for the progress bar: losses and numbers of `values`, by name, as logged after a step."""
    parts = " ".join(
        f"{name} {value:.3g}" for name, value in values.items()
        if name not in ("images_per_s", "data_share", "memory_mib", "lr", "gradient")
    )  # fmt: skip
    return f"{parts}, waiting {values['data_share']:.0%}, {values['memory_mib'] / 1024:.1f} GiB"


def peak_memory_mib(device: torch.device) -> float:
    """Peak memory in MiB: of tensors if `device` is a GPU, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)


def describe_device(device: torch.device) -> str:
    """The name of a GPU, or the type of another `device` with the number of PyTorch's threads."""
    return (
        torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device} ({torch.get_num_threads()} threads)"
    )


def format_sample_stats(manifest: Manifest, seen: Mapping[str, Any]) -> list[str]:
    """A table of what became of the samples of each source, over all readers.

    Args:
        manifest: names the sources.
        seen: reader -> `SampleStats.state_dict`.
    """
    whole = SampleStats([f"{source.shards} {source.task}" for source in manifest.mixture])
    for own in seen.values():
        whole.merge_state(own)
    return whole.format_table()
