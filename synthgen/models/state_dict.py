"""Checks that checkpoint tensors fit a network, and descriptions of those that do not."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


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


def check_fits(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Compare weights with a network.

    Args:
        network: any; only its parameter names and shapes are used.
        weights: by parameter name.

    Raises:
        ValueError: they do not fit, or are not finite.
    """
    wanted = network.state_dict()
    wrong = [
        f"{name} is {describe_tensor(weights[name])} instead of {list(own.shape)}"
        for name, own in wanted.items()
        if name in weights
        and (weights[name].shape != own.shape or describe_tensor(weights[name]) != str([*own.shape]))
        and own.is_floating_point()
    ]
    problems = [
        format_names("lacks", [name for name in wanted if name not in weights]),
        format_names("has unknown", [ascii(name[:60])[1:-1] for name in weights if name not in wanted]),
        format_names("differs:", wrong),
    ]
    if told := "; ".join(filter(None, problems)):
        raise ValueError(f"it does not fit the network: {told}")
    if broken := [name for name, value in weights.items() if not bool(torch.isfinite(value).all())]:
        raise ValueError(format_names("it is damaged; not finite:", broken))
