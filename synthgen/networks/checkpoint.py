"""Checkpoint files of strangers -> tensors: nothing in them is executed, and none makes us allocate what it claims."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import torch
from torch import Tensor

#: The pickle of a state dict holds names and shapes only: a ViT-H's has 60 kB.
MAX_PICKLE = 64 * 2**20


def load_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.pth` as `torch.save` writes it: names and tensors, nothing around them.

    The tensors lie in the mapped file, and cost memory when they are used.

    Raises:
        ValueError: it cannot be read, or is no such file; one sentence without the path.
    """
    try:
        _look_into(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except OSError as why:
        raise ValueError(f"it cannot be read ({why.strerror or why})") from None
    except pickle.UnpicklingError:
        raise ValueError("it holds more than tensors, which is not executed here") from None
    except (RuntimeError, EOFError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as why:
        # What `torch.load` says of damaged content is of many kinds and many lines.
        raise ValueError(f"it is damaged ({(str(why).splitlines() or [''])[0][:120]})") from None
    if not isinstance(content, dict) or not content:
        raise ValueError(f"it holds a {type(content).__name__}, not a state dict of names and tensors")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ValueError(f"it is no plain state dict: '{str(name)[:60]}' is a {type(value).__name__}, not a tensor")
        # One number can be said to be a million by a stride of 0.
        if value.layout is not torch.strided or value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise ValueError(f"its tensor '{name[:60]}' of {list(value.shape)} claims more numbers than it has")
    return dict(content)


def _look_into(path: Path) -> None:
    """Refuse what is no archive of `torch.save`, before PyTorch gets it.

    Raises:
        OSError: it cannot be read.
        ValueError: it is none.
    """
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError("it is no PyTorch checkpoint, or a truncated one")
        try:
            entries = zipfile.ZipFile(file).infolist()
        except (zipfile.BadZipFile, ValueError, NotImplementedError) as why:
            raise ValueError(f"it is damaged ({why})") from None
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("it is a compressed archive, which PyTorch does not write")
    if any(entry.filename.endswith(".pkl") and entry.file_size > MAX_PICKLE for entry in entries):
        raise ValueError("its list of tensors is far larger than any model's")
