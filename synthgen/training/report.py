"""The result of a training, and the message for a non-finite loss."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from synthgen.dataloading.manifest import Manifest
from synthgen.dataloading.sample_stats import SampleStats
from synthgen.evaluation import results
from synthgen.evaluation.results import EvalResult
from synthgen.training import run_dir


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


def describe_nonfinite_step(
    step: int, values: Mapping[str, float], image_keys: Sequence[Sequence[str]], manifest: Manifest, folder: Path
) -> str:
    """The error message for a step with non-finite values.

    Args:
        values: losses and gradient norm of the step, by name.
        image_keys: keys of the images of each process.
    """
    parts = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
    images = [key for own in image_keys for key in own]
    more = f" and {len(images) - 8:,} more" if len(images) > 8 else ""
    half = ", or with precision: fp32" if manifest.schedule.precision == "bf16" else ""
    last, section = run_dir.latest_checkpoint(folder.absolute()), "model" if manifest.captioner is None else "captioner"
    begins = f", from this one's last sound checkpoint ({section}.weights: {last})" if last is not None else ""
    return (
        f"step {step} gave what is no number ({parts}; images {', '.join(images[:8])}{more}); begin another run, with "
        f"a lower schedule.lr (now {manifest.schedule.lr:g}) or schedule.clip{half}, in another --out{begins}"
    )


def format_progress(values: Mapping[str, float]) -> str:
    parts = " ".join(
        f"{name} {value:.3g}" for name, value in values.items()
        if name not in ("images_per_s", "data_share", "memory_mib", "lr", "gradient")
    )  # fmt: skip
    return f"{parts}, waiting {values['data_share']:.0%}, {values['memory_mib'] / 1024:.1f} GiB"


def peak_memory_mib(device: torch.device) -> float:
    """Peak memory in MiB: of tensors on a GPU, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)


def describe_device(device: torch.device) -> str:
    return (
        torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device} ({torch.get_num_threads()} threads)"
    )


def format_sample_stats(manifest: Manifest, seen: Mapping[str, Any]) -> list[str]:
    whole = SampleStats([f"{source.shards} {source.task}" for source in manifest.mixture])
    for own in seen.values():
        whole.merge_state(own)
    return whole.format_table()
