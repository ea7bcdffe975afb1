"""Private parts of other packages, each with the reason. `tests/test_compat.py` fails if a package changes one.

No other module uses a private name of another package. Nothing is imported until it is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # typer has its own copy of click and exports neither type. They are the parameters of `format_options`.
    from typer._click import Context as Context
    from typer._click import HelpFormatter as HelpFormatter


def read_pickle_record(path: Path) -> bytes:
    """The pickle in an archive of `torch.save`, not executed.

    PyTorch has no public reader of records. Python's `zipfile` might find a different pickle in a crafted file than
    `torch.load` does.

    Args:
        path: untrusted file.

    Raises:
        RuntimeError: the file is no such archive, or is damaged.
    """
    import torch

    return torch._C.PyTorchFileReader(str(path)).get_record("data.pkl")


def tensor_version(tensor: Any) -> int | None:
    """How often a tensor was written to in place; None for tensors of inference mode, which are not counted.

    PyTorch counts it to detect gradients of changed values, and has no public way to ask. Writes through `.data` and
    by fused optimizers are not counted.

    Args:
        tensor: a torch.Tensor.
    """
    return None if tensor.is_inference() else int(tensor._version)


def set_layer_checkpointing(layer: Any, run: Callable[..., Any], *, enabled: bool) -> None:
    """Set how a layer of transformers recomputes its activations: `run(function, *inputs)`.

    The public `activation_checkpointing_enable` takes no single layers: it also includes the stages around the blocks
    of a Swin.

    Args:
        layer: module of transformers that supports activation checkpointing.
        run: calls a function so that its activations are computed again in the backward pass.
        enabled: whether `run` is used.
    """
    layer.gradient_checkpointing = enabled
    layer._gradient_checkpointing_func = run


def force_sdpa(config: Any) -> None:
    """Let a network of transformers, with all its parts, use PyTorch's attention.

    A configuration file may name an implementation that would be downloaded. The public `attn_implementation` is an
    argument of the functions that also choose the class and read the weights.

    Args:
        config: the configuration of the network, from transformers; changed in place.
    """
    config._attn_implementation = "sdpa"


def set_coco_objects(evaluator: Any, ground_truth: list[dict[str, Any]], detections: list[dict[str, Any]]) -> None:
    """Give a `COCOeval` the objects of one image and one category, both with the id 1.

    The public way is two files in COCO format with all images of a dataset, which stay in memory.

    Args:
        evaluator: a `COCOeval`.
        ground_truth: annotations in COCO's form.
        detections: likewise, with scores.
    """
    evaluator._gts[1, 1], evaluator._dts[1, 1] = ground_truth, detections


def mark_coco_evaluated(evaluator: Any) -> None:
    """Let `COCOeval.accumulate` take `evalImgs` as evaluated with the current parameters.

    Only `evaluate` sets that, which reads the objects of all images from files.

    Args:
        evaluator: a `COCOeval` with `evalImgs`; changed in place.
    """
    evaluator._paramsEval = evaluator.params
