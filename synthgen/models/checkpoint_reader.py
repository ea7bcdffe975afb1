"""Read untrusted checkpoint files: no code is executed, and a file cannot make us allocate more than it contains."""

from __future__ import annotations

import contextlib
import pickle
import pickletools
import re
import struct
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from synthgen import compat

#: The pickle of a state dict contains only names and shapes: 60 kB for a ViT-H.
MAX_PICKLE_BYTES = 8 * 2**20

#: Tied weights are one tensor with several names. A file that claims more than this many times its size is rejected.
MAX_TIED_RATIO = 4

#: The globals allowed in a pickle. `weights_only` allows more, and some of them allocate a size given by the file
#: (bytearray, torch.FloatTensor, torch.storage.UntypedStorage) or create tensors without content.
_TENSOR_GLOBALS = re.compile(
    r"collections OrderedDict|torch._utils _rebuild_(tensor_v2|parameter)|"
    r"torch (Float|Double|Half|BFloat16|Long|Int|Short|Char|Byte|Bool)Storage"
)

#: Globals of training frameworks beside the weights, for settings and numbers; harmless when executed.
_HARMLESS_GLOBALS = re.compile(
    r"argparse Namespace|(omegaconf|fairseq)(\.\w+)* \w+|numpy(\.\w+)* (dtype|scalar|ndarray|_reconstruct)|"
    r"_codecs encode|collections (defaultdict|Counter)|torch (Size|device)|typing Any|"
    r"__builtin__ (dict|set|int|long|float|list)"
)

#: Extracts the weights from a trusted file.
EXTRACT_WEIGHTS_COMMAND = (
    """`python -c "import torch; torch.save(torch.load('OLD.pt', weights_only=False)['model'], 'pytorch_model.bin')"`"""
)

#: The end records of a zip archive, 32 and 64 bits (PKWARE's APPNOTE, 4.3.14 and 4.3.16).
_ZIP_END_RECORD, _ZIP64_END_RECORDS = struct.Struct("<4s4H2LH"), struct.Struct("<4sQ2H2L4Q")

#: Limits of safetensors files: bytes of the header, and dtypes of weights.
_MAX_HEADER_BYTES = 8 * 2**20
_SAFETENSORS_DTYPES = frozenset({torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64})

_LEGACY_MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, 2)


class NonTensorContentError(ValueError):
    """The file also contains settings of a training framework. The message explains how to extract the weights."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a `.safetensors`, or of a `.bin`, `.pt` or `.pth` written by `torch.save`, without executing
    code.

    The tensors are memory-mapped.

    Args:
        path: an untrusted file; its suffix decides the format.

    Raises:
        ValueError: not readable, or not such a file; one sentence without the path.
    """
    return _read_safetensors(path) if path.suffix == ".safetensors" else load_state_dict(path)


def read_pretrained(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file, or of a folder in Hugging Face format (*.safetensors, else pytorch_model*.bin).

    The tensors are memory-mapped.

    Args:
        path: an untrusted file or folder.

    Raises:
        ValueError: no weights, or not readable. The message is one sentence without the path.
    """
    if not path.is_dir():
        return read_weights(path)
    files = sorted(path.glob("*.safetensors")) or sorted(path.glob("pytorch_model*.bin"))
    if not files:
        raise ValueError("it has no model.safetensors and no pytorch_model.bin")
    found: dict[str, Tensor] = {}
    for file in files:
        try:
            own = read_weights(file)
        except ValueError as why:
            raise ValueError(f"{file.name}: {why}") from None
        if twice := found.keys() & own.keys():
            raise ValueError(f"its files have {_printable(min(twice))} twice")
        found |= own
    return found


def load_state_dict(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a `.pth` written by `torch.save`: a state dict, or one under the key "model" or "state_dict".

    Other entries of a training checkpoint are ignored if they are tensors and plain values. The tensors are
    memory-mapped.

    Args:
        path: an untrusted file, an archive of `torch.save` (PyTorch 1.6 or newer).

    Raises:
        NonTensorContentError: the file contains other values; one sentence without the path, with the remedy.
        ValueError: not readable, or not such a file; one sentence without the path.
    """
    return as_state_dict(_select_state_dict(safe_load(path)), path)


def safe_load(path: Path) -> object:
    """Read the whole content of such a file: tensors and plain values.

    Args:
        path: an untrusted file, an archive of `torch.save` (PyTorch 1.6 or newer).

    Raises:
        NonTensorContentError, ValueError: see `load_state_dict`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # problems are reported once, by an error
        _check_archive(path)
        return _load_archive(path)


def as_state_dict(content: object, path: Path) -> dict[str, Tensor]:
    """Check that a part of a file's content is a state dict, and return it.

    Args:
        content: names and tensors, from `safe_load`.
        path: the file that it is from. All tensors together may claim `MAX_TIED_RATIO` times its size in bytes.

    Raises:
        ValueError: it is not; one sentence without the path.
    """
    if not isinstance(content, dict) or not content:
        raise ValueError(f"it holds a {type(content).__name__}, not a state dict of names and tensors")
    claimed, most = 0, MAX_TIED_RATIO * path.stat().st_size
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ValueError(
                f"it is no plain state dict: '{_printable(name)}' is a {type(value).__name__}, not a tensor"
            )
        claimed += value.nbytes
        # A stride of 0 makes many numbers of one, and a tensor can be listed under many names.
        if value.nbytes > value.untyped_storage().nbytes() or claimed > most:
            raise ValueError(f"its tensor '{_printable(name)}' of {list(value.shape)} claims more numbers than it has")
    return {name: value.detach() for name, value in content.items()}


def _select_state_dict(content: object) -> object:
    """The value under "model" or "state_dict", if exactly one of them exists; else the whole content."""
    if not isinstance(content, dict):
        return content
    named = [content[name] for name in ("model", "state_dict") if name in content]
    return named[0] if len(named) == 1 and (isinstance(named[0], dict) or len(content) == 1) else content


def _check_archive(path: Path) -> None:
    """Reject files that are not archives of `torch.save` before PyTorch reads them."""
    try:
        with path.open("rb") as file:
            start = file.read(len(_LEGACY_MAGIC))
            entries = zipfile.ZipFile(file).infolist() if zipfile.is_zipfile(file) else None
            one_way = entries is None or _is_unambiguous_zip(file, path.stat().st_size)
    except OSError as why:
        raise ValueError(f"it cannot be read ({why.strerror or why})") from None
    except Exception as why:
        raise ValueError(f"it is damaged ({_first_line(why)})") from None
    if start == _LEGACY_MAGIC:  # reading it allocates the size that it claims: 32 GiB for a file of 1.5 kB
        raise ValueError("it is a checkpoint of PyTorch before 1.6; torch.load it and torch.save it again")
    if path.suffix == ".safetensors":  # `torch.load` decides by this suffix
        raise ValueError("it is called .safetensors; a .pth, as torch.save writes it, is read here")
    if entries is None:
        raise ValueError("it is no PyTorch checkpoint, or a truncated one")
    if not one_way:
        raise ValueError("it can be read in two ways, and was made for that")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("it is a compressed archive, and torch.save writes none")
    if any(entry.filename.endswith(".pkl") and entry.file_size > MAX_PICKLE_BYTES for entry in entries):
        raise ValueError("its list of tensors is far larger than any model's")


def _is_unambiguous_zip(file: BinaryIO, size: int) -> bool:
    """Whether the central directory ends where the end record begins, and the end record at the end of the file.

    Otherwise the readers of Python and PyTorch may find different directories, and the checks would not cover what is
    loaded.
    """
    file.seek(max(0, size - _ZIP_END_RECORD.size))
    sign, *_, length, start, comment = _ZIP_END_RECORD.unpack(file.read(_ZIP_END_RECORD.size))
    if sign != b"PK\5\6" or comment:
        return False
    if start == 0xFFFFFFFF or length == 0xFFFFFFFF:  # larger than 4 GiB: given by the 64-bit record
        file.seek(max(0, size - _ZIP_END_RECORD.size - 20 - _ZIP64_END_RECORDS.size))
        sign, *_, length, start = _ZIP64_END_RECORDS.unpack(file.read(_ZIP64_END_RECORDS.size))
        whole: bool = start + length + _ZIP64_END_RECORDS.size + 20 + _ZIP_END_RECORD.size == size
        return sign == b"PK\6\6" and whole
    # PyTorch always writes the 64-bit records, besides 32-bit counts.
    return start + length + _ZIP_END_RECORD.size in (size, size - _ZIP64_END_RECORDS.size - 20)


def _load_archive(path: Path) -> object:
    """Load the archive, after checking that its pickle uses only allowed globals."""
    with _errors_as_value_error():
        pickled = compat.read_pickle_record(path)
        names = [str(argument) for code, argument, _ in pickletools.genops(pickled) if "GLOBAL" in code.name]
    if others := [name for name in names if not _TENSOR_GLOBALS.fullmatch(name)]:
        harmless = all(_HARMLESS_GLOBALS.fullmatch(name) for name in others)
        problem = f"it holds more than tensors, which is not executed here: {_printable(others[0].replace(' ', '.'))}"
        if not harmless:
            raise ValueError(problem)
        raise NonTensorContentError(
            f"{problem}; if you trust who made it, {EXTRACT_WEIGHTS_COMMAND} keeps its weights alone"
        )
    with _errors_as_value_error():
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


@contextlib.contextmanager
def _errors_as_value_error() -> Iterator[None]:
    try:
        yield
    except pickle.UnpicklingError:  # PyTorch's long message suggests to execute the file anyway
        raise ValueError("it holds more than tensors, which is not executed here") from None
    except Exception as why:  # damaged content can raise any exception, with long messages
        raise ValueError(f"it is damaged ({_first_line(why)})") from None


def _printable(name: object) -> str:
    """At most 60 characters of a name in the file, without line breaks and control characters."""
    text = str(name)[:60]
    return text if text.isprintable() else ascii(text)[1:-1]


def _first_line(why: Exception) -> str:
    return (str(why).splitlines() or [""])[0][:120]


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with path.open("rb") as file:
            header_bytes = int.from_bytes(file.read(8), "little")
        found: dict[str, Tensor] = load_file(path) if header_bytes <= _MAX_HEADER_BYTES else {}
    except OSError as why:
        raise ValueError(f"it cannot be read ({why.strerror or why})") from None
    except (SafetensorError, ValueError, RuntimeError, KeyError, TypeError, OverflowError):
        header_bytes = 0
    if not 0 < header_bytes <= _MAX_HEADER_BYTES:
        raise ValueError("it is no safetensors file, or a damaged one")
    for name, tensor in found.items():
        if tensor.dtype not in _SAFETENSORS_DTYPES:
            raise ValueError(f"its tensor '{_printable(name)}' is of {tensor.dtype}, and weights are not")
    return found
