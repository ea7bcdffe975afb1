"""The error message for a non-finite loss or gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from synthgen.dataloading.manifest import Manifest
from synthgen.training import run_dir


def describe_nonfinite_step(
    step: int, values: Mapping[str, float], image_keys: Sequence[Sequence[str]], manifest: Manifest, folder: Path
) -> str:
    """The error message for a step with non-finite values.

    Args:
        step: number of the step.
        values: losses and gradient norm of the step, by name.
        image_keys: keys of the images of each process.
        manifest: gives the settings that the message suggests to change.
        folder: the run directory.
    """
    parts = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
    images = [key for own in image_keys for key in own]
    more = f" and {len(images) - 8:,} more" if len(images) > 8 else ""
    half = ", or with precision: fp32" if manifest.schedule.precision == "bf16" else ""
    last, section = run_dir.latest_checkpoint(folder.absolute()), manifest.network_section
    begins = f", from this one's last sound checkpoint ({section}.weights: {last})" if last is not None else ""
    return (
        f"step {step} gave what is no number ({parts}; images {', '.join(images[:8])}{more}); begin another run, with "
        f"a lower schedule.lr (now {manifest.schedule.lr:g}) or schedule.max_grad_norm{half}, in another --out{begins}"
    )
