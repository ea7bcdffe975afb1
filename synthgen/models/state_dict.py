"""Descriptions of checkpoint tensors that do not fit a network, for error messages."""

from __future__ import annotations

import torch
from torch import Tensor


def describe_tensor(value: object) -> str:
    """The shape of a float tensor, or a description of any other value."""
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    if value.layout != torch.strided or value.untyped_storage().nbytes() < value.nbytes:
        return f"{list(value.shape)} without as many numbers"  # a stride of 0 claims many numbers from one
    return f"{list(value.shape)}" if value.is_floating_point() else f"{list(value.shape)} of {value.dtype}"


def format_names(verb: str, names: list[str], tail: str = "", most: int = 5) -> str:
    """`verb` and the first `most` names; "" if there are none.

    Args:
        verb: the start of the sentence, without a space at its end.
        names: the names to list.
        tail: text that follows the names.
        most: the largest number of names; the others are counted.
    """
    if not names:
        return ""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{verb} {', '.join(names[:most])}{more}{tail}"
