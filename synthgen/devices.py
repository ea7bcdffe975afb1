"""Devices and precisions: what `--device` and `--precision` mean."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable

import torch

from synthgen.errors import SynthgenError, did_you_mean

log = logging.getLogger(__name__)


PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def check_device_options(device: str, precision: str, batch_size: str | int) -> None:
    """Check the options that can be checked when a job starts, on a machine that may lack the device.

    Args:
        device: value of `--device`.
        precision: value of `--precision`.
        batch_size: value of `--batch-size`: a number of images, or "auto".

    Raises:
        SynthgenError: with the flag and what it should be.
    """
    check_choice("--precision", precision, PRECISIONS)
    if batch_size != "auto" and not re.fullmatch(r"[1-9]\d{0,5}", str(batch_size)):
        raise SynthgenError(f"--batch-size {batch_size} should be a number of images, or auto")
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", str(device)):
        raise SynthgenError(f"--device {device} should be auto, cpu, cuda, cuda:1, ... or mps")


def check_choice(flag: str, value: str, choices: Iterable[str]) -> None:
    """Refuse a value that is not among the choices.

    Args:
        flag: names the option in the message, such as "--precision".
        value: what the user gives.
        choices: values that are accepted.

    Raises:
        SynthgenError: with the choices.
    """
    names = list(choices)
    if value not in names:
        raise SynthgenError(f"{flag} {value} should be {' or '.join(names)}{did_you_mean(str(value), names)}")


def resolve_device(name: str) -> torch.device:
    """The device of `--device`; "auto" = the first CUDA device, else the CPU.

    Args:
        name: value of `--device`, as `check_device_options` accepts it.

    Raises:
        SynthgenError: this machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind = name.split(":")[0]
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}[kind]
    device = torch.device(name)
    if not there or (kind == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
        raise SynthgenError(
            f"--device {name}: PyTorch sees no such device here; `nvidia-smi` should list it, or say cpu"
        )
    return device


def free_memory_gib(device: torch.device) -> float:
    """Free memory of a CUDA device in GiB; 0 for other devices, whose batch size does not depend on it."""
    return float(torch.cuda.mem_get_info(device)[0]) / 2**30 if device.type == "cuda" else 0.0
