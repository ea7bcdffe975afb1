"""Load untrusted weights into networks of transformers: executes nothing, and checks that all weights fit."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

#: Buffers that follow from the network's sizes; files may or may not contain them.
_DERIVED_NAMES = re.compile(r".*(position_ids|relative_position_index|attn_mask|num_batches_tracked)")


def load_pretrained(
    model_class: type[PreTrainedModel],
    config: PreTrainedConfig,
    weights: Mapping[str, Tensor],
    *,
    ignored_names: str = "",
    optional_names: str = "",
    **options: Any,
) -> Any:
    """Build a network with these weights, in float32 on the CPU, in evaluation mode.

    Args:
        model_class: its class. It maps the key names of older versions of transformers and prefixes of larger models.
        config: sizes of the network.
        weights: float tensors of any precision, with their names.
        ignored_names: pattern of keys that may be present and are not used.
        optional_names: pattern of keys that may be missing and keep their initial values.
        **options: arguments of the class.

    Raises:
        ValueError: missing or unknown keys, different shapes, or non-finite values; one sentence.
    """
    kept = {
        name: tensor
        for name, tensor in weights.items()
        if not _DERIVED_NAMES.fullmatch(name) and not (ignored_names and re.fullmatch(ignored_names, name))
    }
    for name, tensor in kept.items():
        if not tensor.is_floating_point():
            raise ValueError(f"the weights do not fit: {_printable(name)} is of {tensor.dtype}")
        if not tensor.isfinite().all():
            raise ValueError(f"the weights are damaged: {_printable(name)} holds what is no number")
    # Copied, because memory-mapped tensors are invalid after the file is closed.
    own = {name: tensor.to(torch.float32, copy=True) for name, tensor in kept.items()}
    try:
        with silence_transformers():
            network, info = model_class.from_pretrained(
                None, config=config, state_dict=own, dtype=torch.float32,
                ignore_mismatched_sizes=True, output_loading_info=True, **options,
            )  # fmt: skip
    except Exception as why:  # inconsistent tensors can raise any exception
        raise ValueError(f"the weights do not fit: {first_line(why)}") from None
    lacking = [
        n for n in info["missing_keys"] if not _DERIVED_NAMES.fullmatch(n) and not re.fullmatch(optional_names, n)
    ]
    wrong = [f"{_printable(n)} is {list(found)} instead of {list(own)}" for n, found, own in info["mismatched_keys"]]
    faults = [
        _format_names("lack", lacking),
        _format_names(
            "have", [_printable(name) for name in info["unexpected_keys"]], " that this network has no place for"
        ),
        _format_names("differ:", wrong),
        _format_names("cannot be converted:", [first_line(why) for why in info["error_msgs"]]),
    ]
    if any(faults):
        raise ValueError("the weights do not fit: they " + ", and ".join(fault for fault in faults if fault))
    return network


def first_line(why: object) -> str:
    """The first non-empty line of the message of `why`, an exception or a text."""
    return _printable(next((line.strip() for line in str(why).splitlines() if line.strip()), type(why).__name__), 160)


def _printable(name: str, most: int = 80) -> str:
    """Without control characters that a terminal would interpret."""
    return (name if name.isprintable() else ascii(name))[:most]


def _format_names(verb: str, names: Iterable[str], tail: str = "", most: int = 3) -> str:
    all_names = sorted(names)
    if not all_names:
        return ""
    more = f" and {len(all_names) - most} more" if len(all_names) > most else ""
    return f"{verb} {', '.join(all_names[:most])}{more}{tail}"


@contextlib.contextmanager
def silence_transformers() -> Iterator[None]:
    """Suppress the report and progress bar of transformers: problems are reported once, by an error."""
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
