"""`torch.autocast` of the GPU that is none: CUDA's own lists of what is done in which precision, from PyTorch's header.

PyTorch keeps a key for backends that it does not know, and nothing under it: there the same casts are put in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.library import Library, fallthrough_kernel

#: What a tensor needs to be seen here.
KEYS = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)

_HEADER = Path(torch.__file__).parent / "include" / "ATen" / "autocast_mode.h"
_OWN, _KEY = "privateuseone", "AutocastPrivateUse1"


def _operations_in_list(name: str) -> list[str]:
    """Operations of one of the header's lists: "linear", "pow.Tensor_Scalar"."""
    found = re.search(rf"#define {name}\(_\)((?:.*\\\n)*.*)", _HEADER.read_text())
    assert found is not None, name
    pairs = re.findall(r"_\((\w+)(?:, (\w+))?\)", found[1])
    return [f"{operation}.{overload}" if overload else operation for operation, overload in pairs]


def _lower(tensors: list[Tensor]) -> torch.dtype:
    return torch.get_autocast_dtype("cuda")


def _full(tensors: list[Tensor]) -> torch.dtype:
    return torch.float32


def _widest(tensors: list[Tensor]) -> torch.dtype:
    return torch.float32 if any(one.dtype == torch.float32 for one in tensors) else _lower(tensors)


def _cast(given: Any, is_seen: Callable[[Any], bool], dtype: torch.dtype) -> Any:
    if isinstance(given, tuple | list):
        return type(given)(_cast(one, is_seen, dtype) for one in given)
    return given.to(dtype) if is_seen(given) else given


def _kernel(name: str, kind: type[Tensor], choose: Callable[[list[Tensor]], torch.dtype]) -> Callable[..., Any]:
    operation, _, overload = name.partition(".")
    call = getattr(getattr(torch.ops.aten, operation), overload or "default")

    def is_seen(one: Any) -> bool:
        return isinstance(one, kind) and one.is_floating_point() and one.dtype != torch.float64

    def run(*args: Any, **kwargs: Any) -> Any:
        flat = [one for own in args for one in (own if isinstance(own, tuple | list) else [own]) if is_seen(one)]
        with torch._C._ExcludeDispatchKeyGuard(KEYS):
            dtype = choose(flat)
            return call(*_cast(args, is_seen, dtype), **{k: _cast(v, is_seen, dtype) for k, v in kwargs.items()})

    return run


class _Autocast(torch.autocast):
    """Of "cuda", it turns this file's casts on and off."""

    def __enter__(self) -> Any:
        found = super().__enter__()
        torch.set_autocast_enabled(_OWN, torch.is_autocast_enabled("cuda"))
        return found

    def __exit__(self, *why: Any) -> Any:
        found = super().__exit__(*why)
        torch.set_autocast_enabled(_OWN, torch.is_autocast_enabled("cuda"))
        return found


@contextmanager
def fake_autocast(kind: type[Tensor]) -> Iterator[None]:
    """Within it, `torch.autocast("cuda")` casts tensors of a kind as CUDA casts its own."""
    lists = {
        "AT_FORALL_LOWER_PRECISION_FP": _lower, "AT_FORALL_FP32": _full, "AT_FORALL_FP32_SET_OPT_DTYPE": _full,
        "AT_FORALL_PROMOTE": _widest,
    }  # fmt: skip
    with ExitStack() as stack:
        others, library = Library("_", "IMPL", _KEY), Library("aten", "IMPL", _KEY)
        stack.callback(others._destroy)
        stack.callback(library._destroy)
        others.fallback(fallthrough_kernel)
        for header, choose in lists.items():
            for name in _operations_in_list(header):
                if name not in ("_convolution.deprecated",):
                    library.impl(name, _kernel(name, kind, choose))
        for place in (torch, torch.amp):
            stack.enter_context(mock.patch.object(place, "autocast", _Autocast))
        yield
