"""A GPU that is none: tensors that say they are on cuda:0, and are numbers of the CPU; what a GPU would refuse raises.

A wrapper holds a tensor of the CPU. To Python it is on "cuda:0"; to PyTorch's own C++ it is on "meta", which needs no
driver, no streams and no guards, so that autograd works. Every operation is looked at: tensors of the two sides may
meet where PyTorch lets them, and nowhere else. What kernels of a GPU do otherwise, it does not show.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors
from torch.utils._python_dispatch import TorchDispatchMode

from fakes.fake_cuda_autocast import KEYS, fake_autocast

DEVICE = torch.device("cuda", 0)
_CPU, _DEVICE_SEEN_BY_TORCH = torch.device("cpu"), torch.device("meta")

#: The borders: numbers may go from one side to the other.
_COPY_OPS = ("aten::copy_", "aten::to", "aten::_to_copy", "aten::copy", "aten::_foreach_copy_")
#: The index may be of the CPU.
_INDEXING = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index")
#: Beside what is reckoned element by element, these take a single number of the CPU.
_TAKE_NUMBERS = ("aten::fill", "aten::fill_", "aten::masked_fill", "aten::masked_fill_", "aten::index_fill_")
#: They put data into a tensor themselves: C++ would ask a driver, or forget the data.
_FROM_DATA = (torch.tensor, torch.as_tensor, torch.asarray, torch.scalar_tensor, Tensor.new_tensor)


class MixedDevicesError(RuntimeError):
    """What a GPU would refuse."""


class FakeCudaTensor(Tensor):
    """See this module.

    Attributes:
        cpu_tensor: the numbers, on the CPU.
    """

    cpu_tensor: Tensor

    @staticmethod
    def __new__(cls, cpu_tensor: Tensor) -> FakeCudaTensor:
        with torch.inference_mode(False):  # of what is no inference tensor, a view must be none
            return Tensor._make_wrapper_subclass(
                cls, cpu_tensor.size(), strides=cpu_tensor.stride(), storage_offset=cpu_tensor.storage_offset(),
                dtype=cpu_tensor.dtype,
                layout=cpu_tensor.layout, device=_DEVICE_SEEN_BY_TORCH, _extra_dispatch_keys=KEYS,
            )  # fmt: skip

    def __init__(self, cpu_tensor: Tensor) -> None:
        assert cpu_tensor.device == _CPU, cpu_tensor.device
        self.cpu_tensor = cpu_tensor

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, is_plain=False)

    device = property(lambda self: DEVICE)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)
    is_meta = property(lambda self: False)

    def __repr__(self, **_: Any) -> str:
        return f"Pretended({self.cpu_tensor})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.cpu_tensor.__reduce_ex__(protocol)  # what a file has is read onto the CPU

    def tolist(self) -> Any:
        return self.cpu_tensor.tolist()

    def numpy(self, **_: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")

    def __array__(self, *_: Any, **__: Any) -> Any:
        return self.numpy()


def _run(func: Any, args: Sequence[Any], kwargs: dict[str, Any], *, is_plain: bool) -> Any:
    """Do an operation with the numbers that are held; what comes of it is held again.

    Args:
        is_plain: whether "meta" means it.
    """
    tensors = [*_tensors(args), *_tensors(kwargs.values())]
    is_pretended = any(isinstance(one, FakeCudaTensor) for one in tensors)
    asked = next((one for one in (*args, *kwargs.values()) if isinstance(one, torch.device)), None)
    is_asked = asked is not None and asked.type == _DEVICE_SEEN_BY_TORCH.type
    if is_asked and not is_plain and (is_pretended or not any(one.is_meta for one in tensors)):
        is_pretended = True
        args = [_CPU if isinstance(one, torch.device) else one for one in args]
        kwargs = {key: _CPU if isinstance(one, torch.device) else one for key, one in kwargs.items()}
    elif not is_pretended:
        return func(*args, **kwargs)
    elif asked is not None:
        is_pretended = False
    _check(func, args, tensors)
    if func is torch.ops.aten.mm.dtype:  # of GPUs alone
        return FakeCudaTensor(args[0].cpu_tensor.to(args[2]) @ args[1].cpu_tensor.to(args[2]))
    if is_pretended and kwargs.get("generator") is not None:
        raise MixedDevicesError(f"{func}: expected a 'cuda' device type for generator but found 'cpu'")
    held = _map_nested(args, FakeCudaTensor, _held)
    found = func(*held, **{key: _map_nested(one, FakeCudaTensor, _held) for key, one in kwargs.items()})
    name = func._schema.name
    if name.endswith("_") and not name.endswith("__") and args and isinstance(args[0], Tensor):
        if args[0].shape != held[0].shape or args[0].stride() != held[0].stride():
            raise NotImplementedError(f"{func} changes a shape in place")
        return args[0]
    return _map_nested(found, Tensor, FakeCudaTensor) if is_pretended else found


def _held(one: FakeCudaTensor) -> Tensor:
    return one.cpu_tensor


def _tensors(given: Iterable[Any]) -> Iterator[Tensor]:
    for one in given:
        if isinstance(one, Tensor):
            yield one
        elif isinstance(one, tuple | list):
            yield from _tensors(one)


def _map_nested(given: Any, kind: type, do: Callable[[Any], Any]) -> Any:
    """What is of a kind becomes something else, in lists as well."""
    if isinstance(given, kind):
        return do(given)
    return type(given)(_map_nested(one, kind, do) for one in given) if isinstance(given, tuple | list) else given


def _check(func: Any, args: Sequence[Any], tensors: Sequence[Tensor]) -> None:
    """Refuse what PyTorch refuses of tensors of the CPU and of a GPU together."""
    name, others = func._schema.name, [one for one in tensors if not isinstance(one, FakeCudaTensor)]
    if not others or len(others) == len(tensors) or name in _COPY_OPS:
        return
    takes_numbers = torch.Tag.pointwise in func.tags or name in _TAKE_NUMBERS or name.startswith("aten::_foreach_")
    if name in _INDEXING and isinstance(args[0], FakeCudaTensor):
        others, takes_numbers = [one for one in args[2:3] if not isinstance(one, FakeCudaTensor)], True
    writes_here = name.endswith("_") and isinstance(args[0], Tensor) and not isinstance(args[0], FakeCudaTensor)
    if writes_here or any(one.dim() or not takes_numbers for one in others):
        sides = ", ".join(f"{tuple(one.shape)} on {one.device}" for one in tensors)
        raise MixedDevicesError(f"{func}: expected all tensors to be on the same device, but found {sides}")


class _Operations(TorchDispatchMode):
    """What is done where no wrapper is given, and one is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.is_plain = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, is_plain=self.is_plain)


class _Calls(TorchFunctionMode):
    """What Python calls, before C++ looks for a driver: "cuda" becomes what the operations take for it."""

    def __init__(self, operations: _Operations) -> None:
        super().__init__()
        self._operations = operations

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        kwargs.pop("pin_memory", None)  # without a driver there are no such pages
        if func is Tensor.cuda:
            func, args = Tensor.to, (args[0], DEVICE)
        devices = [kwargs.get("device"), *(one for one in args[1:] if _is_device(func, one))]
        asks = any(_is_cuda(one) for one in devices)
        if func in _FROM_DATA and (asks or (args and isinstance(args[0], FakeCudaTensor))):
            return self._of_data(func, args, kwargs, asks=asks)
        if func in (Tensor.__getitem__, Tensor.__setitem__) and isinstance(args[0], FakeCudaTensor):
            args = (args[0], _index(args[1]), *args[2:])
        if asks:
            args = (*args[:1], *(_DEVICE_SEEN_BY_TORCH if _is_device(func, a) and _is_cuda(a) else a for a in args[1:]))
            kwargs = {**kwargs, "device": _DEVICE_SEEN_BY_TORCH} if _is_cuda(kwargs.get("device")) else kwargs
            return func(*args, **kwargs)
        means_it = func in _device_constructors() or any(one is not None and _is(one, "meta") for one in devices)
        before, self._operations.is_plain = self._operations.is_plain, means_it
        try:
            return func(*args, **kwargs)
        finally:
            self._operations.is_plain = before

    def _of_data(self, func: Any, args: Any, kwargs: dict[str, Any], *, asks: bool) -> Tensor:
        data = args[1] if func is Tensor.new_tensor else args[0]
        if isinstance(data, Tensor):
            raise NotImplementedError(f"{func} of a tensor")
        if func is Tensor.new_tensor:
            kwargs = {"dtype": args[0].dtype, "device": args[0].device, **kwargs}
        made: Tensor = torch.tensor(data, **{**kwargs, "device": _CPU})
        return made.to(_DEVICE_SEEN_BY_TORCH) if asks or _is_cuda(kwargs.get("device")) else made


def _is_device(func: Any, given: Any) -> bool:
    return isinstance(given, torch.device) or (func is Tensor.to and isinstance(given, str))


def _is(given: Any, kind: str) -> bool:
    return torch.device(given).type == kind


def _is_cuda(given: Any) -> bool:
    return given is not None and _is(given, "cuda")


def _index(index: Any) -> Any:
    """Lists and arrays become tensors of the CPU, as C++ makes of them what it takes to the device."""
    if isinstance(index, tuple):
        return tuple(_index(one) for one in index)
    if isinstance(index, list | range | np.ndarray):
        return torch.tensor(index, dtype=None if len(index) else torch.int64)
    return index


def _within(calls: _Calls) -> Callable[..., Any]:
    run = torch.autograd._engine_run_backward

    def backward(*args: Any, **kwargs: Any) -> Any:
        with calls:
            return run(*args, **kwargs)

    return backward


@contextmanager
def fake_gpu() -> Iterator[torch.device]:
    """Within it there is a GPU, and `.to("cuda")` is a way to it; of this thread alone."""
    said = {
        "is_available": True, "device_count": 1, "current_device": 0, "is_bf16_supported": True, "synchronize": None,
        "empty_cache": None, "set_device": None, "max_memory_allocated": 2**20, "mem_get_info": (2**36, 2**37),
        "is_current_stream_capturing": False, "get_device_name": "a GPU that is none",
        "get_device_capability": (9, 0), "reset_peak_memory_stats": None,
    }  # fmt: skip
    swaps = torch.__future__.get_swap_module_params_on_conversion()
    with ExitStack() as stack:
        for name, value in said.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, lambda *_, value=value, **__: value))
        stack.enter_context(mock.patch.object(Tensor, "pin_memory", lambda self: self))  # of any thread
        # Loaders ask this one whether to pin what they load ...
        stack.enter_context(mock.patch.object(torch.accelerator, "is_available", lambda: True))
        # ... and optimisers this one whether a graph is captured.
        stack.enter_context(mock.patch.object(torch.accelerator, "current_accelerator", lambda **_: None))
        # Else `Module.to` makes a parameter anew for each module that has it, and what was tied is so no more.
        torch.__future__.set_swap_module_params_on_conversion(True)
        stack.callback(torch.__future__.set_swap_module_params_on_conversion, swaps)
        operations = stack.enter_context(_Operations())
        calls = stack.enter_context(_Calls(operations))
        # PyTorch puts a mode aside while it serves a call, and this one makes activations a second time.
        stack.enter_context(mock.patch.object(torch.autograd, "_engine_run_backward", _within(calls)))
        stack.enter_context(fake_autocast(FakeCudaTensor))
        yield DEVICE
