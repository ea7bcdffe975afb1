"""What a training says of itself while it runs, and when it cannot go on."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from synthgen.reading.batch import Batch
from synthgen.reading.manifest import Manifest
from synthgen.reading.seen import Seen


def not_finite(step: int, values: Mapping[str, float], portions: Sequence[Batch], manifest: Manifest, run: Path) -> str:
    parts = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
    keys = [target["image_key"] for batch in portions for target in batch.targets][:8]
    half = " or precision: bf16" if manifest.schedule.precision == "bf16" else ""
    return (
        f"step {step} gave what is no number ({parts}; images {', '.join(keys)}); lower schedule.lr "
        f"({manifest.schedule.lr:g}) or schedule.clip{half}; {run} has the last sound checkpoint"
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
