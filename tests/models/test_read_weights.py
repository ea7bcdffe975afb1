"""Files of weights of both kinds: what safetensors may hold, and files that are not what they say."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from synthgen.models.checkpoint_reader import read_weights


def test_safetensors_of_all_precisions_are_read(tmp_path):
    given = {
        "a": torch.arange(3, dtype=torch.bfloat16),
        "b": torch.arange(5, dtype=torch.float16).view(5, 1),
        "c": torch.arange(7, dtype=torch.int64),
        "d": torch.tensor(2.5, dtype=torch.float64),
        "e": torch.zeros(0, 4),
    }
    save_file(given, tmp_path / "x.safetensors")
    found = read_weights(tmp_path / "x.safetensors")
    assert {name: tensor.tolist() for name, tensor in found.items()} == {n: t.tolist() for n, t in given.items()}
    assert {name: tensor.dtype for name, tensor in found.items()} == {n: t.dtype for n, t in given.items()}


def test_numbers_that_do_not_lie_evenly_are_read(tmp_path):
    """The format does not demand it."""
    path = tmp_path / "x.safetensors"
    path.write_bytes(raw({"a": ["F16", [1], 0, 2], "b": ["F32", [1], 2, 6]}, b"\x00\x3c\x00\x00\x80\x3f", pad=3))
    assert {name: tensor.tolist() for name, tensor in read_weights(path).items()} == {"a": [1.0], "b": [1.0]}


def raw(entries: dict, content: bytes, pad: int = 0, length: int | None = None) -> bytes:
    header = {n: {"dtype": e[0], "shape": e[1], "data_offsets": e[2:]} for n, e in entries.items()}
    text = json.dumps(header).encode()
    text += b" " * (pad - len(text) % 8 if pad else -len(text) % 8)
    return (len(text) if length is None else length).to_bytes(8, "little") + text + content


FOUR = bytes(16)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "no safetensors file"),
        (b"12345", "no safetensors file"),
        (b"PK\x03\x04" + bytes(100), "no safetensors file"),
        ((2**63).to_bytes(8, "little") + b"{}", "no safetensors file"),
        ((4).to_bytes(8, "little") + b"[1,2]", "no safetensors file"),
        ((100_000).to_bytes(8, "little") + b"[" * 100_000, "no safetensors file"),
        (raw({"a": ["F32", [4], 0, 16]}, FOUR[:-1]), "damaged"),
        (raw({"a": ["F32", [4], 0, 16]}, FOUR + b"more"), "damaged"),
        (raw({"a": ["F32", [2**40], 0, 16]}, FOUR), "damaged"),
        (raw({"a": ["F32", [2**40, 0], 0, 16]}, FOUR), "damaged"),
        (raw({"a": ["F32", [-4], 0, 16]}, FOUR), "damaged"),
        (raw({"a": ["F32", [True, 4], 0, 16]}, FOUR), "damaged"),
        (raw({"a": ["F32", [4], -16, 0]}, FOUR), "damaged"),
        (raw({"a": ["F32", [4], 0, 16], "b": ["F32", [4], 0, 16]}, FOUR), "damaged"),
        (raw({"a": ["F32", [3], 4, 16]}, FOUR), "damaged"),
        (raw({"a": ["F8_E4M3", [16], 0, 16]}, FOUR), "damaged"),
        (raw({"a": ["F32", "four", 0, 16]}, FOUR), "damaged"),
        (raw({"a": [3, [4], 0, 16]}, FOUR), "damaged"),
        (raw({"a": ["F32", [4], 0]}, FOUR), "damaged"),
        ((8).to_bytes(8, "little") + b'{"a": 3}', "damaged"),
    ],
)
def test_safetensors_that_are_not_what_they_say_are_told(content, sentence, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=sentence) as told:
        read_weights(path)
    assert str(tmp_path) not in str(told.value)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_files_that_are_not_there_are_told(name, tmp_path):
    with pytest.raises(ValueError, match="it cannot be read"):
        read_weights(tmp_path / name)
