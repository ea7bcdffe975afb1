"""Records what makes the CPU wait for the GPU of `fake_cuda`: values read back, and sizes that depend on them."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

import synthgen
from fakes import fake_cuda
from fakes.fake_cuda import FakeCudaTensor

#: What comes of them depends on numbers that are on the device.
_SYNCHRONIZING_OPS = (
    "aten::_local_scalar_dense",
    "aten::item",
    "aten::nonzero",
    "aten::masked_select",
    "aten::_unique2",
    "aten::equal",
)


@contextmanager
def record_cuda_syncs() -> Iterator[list[str]]:
    """Whose function waits while the block lasts, and by which operation: "module.function aten::item", in order."""
    found: list[str] = []
    run, tolist = fake_cuda._run, FakeCudaTensor.tolist

    def heard(func: Any, args: Sequence[Any], kwargs: dict[str, Any], *, is_plain: bool) -> Any:
        name = func._schema.name
        if _synchronizes(name, args, kwargs):
            found.append(f"{_calling_function()} {name}")
        return run(func, args, kwargs, is_plain=is_plain)

    def told(self: FakeCudaTensor) -> Any:
        found.append(f"{_calling_function()} tolist")
        return tolist(self)

    with mock.patch.object(fake_cuda, "_run", heard), mock.patch.object(FakeCudaTensor, "tolist", told):
        yield found


def _synchronizes(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    there = [isinstance(one, FakeCudaTensor) for one in args if isinstance(one, Tensor)]
    if name in _SYNCHRONIZING_OPS:
        return any(there)
    if name == "aten::copy_":
        return there[0] != there[1] and not (len(args) > 2 and args[2])
    if name == "aten::_to_copy":
        asked = kwargs.get("device")
        crosses = asked is not None and (asked.type == "cpu") == there[0]
        return crosses and not kwargs.get("non_blocking")
    if name.startswith("aten::index") and there[0]:
        picked = [one for one in args[1] if isinstance(one, Tensor)] if isinstance(args[1], list | tuple) else []
        return any(not isinstance(one, FakeCudaTensor) or one.dtype == torch.bool for one in picked)
    return False


def _calling_function() -> str:
    home = Path(synthgen.__file__).parent
    ours = [frame for frame in traceback.extract_stack() if home in Path(frame.filename).parents]
    return f"{Path(ours[-1].filename).stem}.{ours[-1].name}" if ours else "?"
