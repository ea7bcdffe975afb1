"""Untrusted checkpoints and safetensors files: read or refused, never executed."""

from __future__ import annotations

import json
import os
import pickle
import random
import re
import subprocess
import sys
import warnings
import zipfile
from argparse import Namespace
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import tiny_sam
from safetensors.torch import save_file
from torch.storage import TypedStorage, UntypedStorage

from synthgen.models import checkpoint_reader
from synthgen.models.checkpoint_reader import NonTensorContentError, load_state_dict, read_weights


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return tiny_sam.checkpoint(tmp_path)


def test_a_checkpoint_is_read(good):
    found = load_state_dict(good)
    assert found.keys() == tiny_sam.weights("sam_tiny").keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in tiny_sam.weights("sam_tiny").items())


@pytest.mark.parametrize("name", ["model", "state_dict"])
def test_what_lies_alone_under_a_usual_name_is_read(tmp_path, name):
    torch.save({name: {"weight": torch.arange(3.0)}}, tmp_path / "x.pth")
    assert load_state_dict(tmp_path / "x.pth")["weight"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "beside",
    [
        {"epoch": torch.ones(1)},
        {"extra_state": {"epoch": 1, "best": 0.5, "iterator": [1, (2, None)], "done": True}, "args": None},
        {"optimizer_history": [{"name": "adam", "momentum": torch.ones(9)}], "huge": torch.ones(1).expand(2**40)},
    ],
)
def test_what_a_training_leaves_beside_the_weights_is_left_behind(tmp_path, beside):
    torch.save({**beside, "model": {"weight": torch.arange(3.0)}}, tmp_path / "x.pth")
    found = load_state_dict(tmp_path / "x.pth")
    assert found.keys() == {"weight"}
    assert found["weight"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("setting", [Namespace(lr=0.1), np.float64(0.5), np.arange(3), defaultdict(int)], ids=repr)
def test_settings_beside_the_weights_are_reported_with_a_line_that_takes_these_out(tmp_path, monkeypatch, setting):
    monkeypatch.chdir(tmp_path)
    weights = {"weight": torch.arange(3.0)}
    torch.save({"cfg": {"model": setting}, "model": weights}, "OLD.pt")
    with pytest.raises(
        NonTensorContentError, match=r"which is not executed here: .*; if you trust who made it"
    ) as told:
        load_state_dict(Path("OLD.pt"))
    code = re.search(r'`python -c "(.*)"`', str(told.value))[1]
    subprocess.run([sys.executable, "-c", code], check=True)
    assert load_state_dict(Path("pytorch_model.bin"))["weight"].tolist() == [0, 1, 2]


def test_no_message_suggests_executing_what_is_no_setting(tmp_path):
    torch.save({"cfg": Namespace(evil=Evil(tmp_path / "mark")), "model": {"weight": torch.ones(1)}}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match="more than tensors") as told:
        load_state_dict(tmp_path / "x.pt")
    assert not isinstance(told.value, NonTensorContentError)
    assert "python -c" not in str(told.value)


def test_what_modules_and_optimisers_leave_in_tensors_is_left_behind(tmp_path):
    """State dicts have metadata, parameters want gradients, tied weights are one storage; only content counts."""
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 2))
    module[2].weight = module[0].weight
    torch.save(module.state_dict(keep_vars=True), tmp_path / "x.pth")
    found = load_state_dict(tmp_path / "x.pth")
    assert found.keys() == module.state_dict().keys()
    for name, tensor in module.state_dict().items():
        assert torch.equal(found[name], tensor)
        assert (type(found[name]), found[name].requires_grad) == (torch.Tensor, False)


class Call:
    """What unpickles to the result of a call."""

    def __init__(self, function, *arguments):
        self.how = function, arguments

    def __reduce__(self):
        return self.how


def Evil(mark: Path) -> Call:
    return Call(os.system, f"touch {mark}")


def tensor_of(*sizes: int, strides: tuple[int, ...] | None = None, offset: int = 0) -> Call:
    """A tensor of one number, said to be of these sizes."""
    storage = TypedStorage(wrap_storage=torch.ones(1).untyped_storage(), dtype=torch.float32, _internal=True)
    strides = strides or (1,) * len(sizes)
    return Call(torch._utils._rebuild_tensor_v2, storage, offset, sizes, strides, False, OrderedDict())


def most_memory() -> int:
    """The largest address space that this process has had, in bytes: what is allocated and never used counts too."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmPeak"))
    return int(line.split()[1]) * 1024


def test_nothing_is_executed(tmp_path):
    mark = tmp_path / "mark"
    pickle.loads(pickle.dumps(Evil(mark)))
    assert mark.exists(), "the trap does not work"
    mark.unlink()
    for content in ({"weight": torch.ones(2), "evil": Evil(mark)}, {"model": Evil(mark)}, Evil(mark)):
        torch.save(content, tmp_path / "evil.pth")
        with pytest.raises(ValueError, match=r"holds more than tensors, which is not executed here: posix\.system"):
            load_state_dict(tmp_path / "evil.pth")
        torch.save(content, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
        with pytest.raises(ValueError, match=r"of PyTorch before 1\.6; torch\.load it and torch\.save it again"):
            load_state_dict(tmp_path / "old.pth")
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Evil(mark)))
    with pytest.raises(ValueError, match="no PyTorch checkpoint"):
        load_state_dict(tmp_path / "bare.pth")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("claim", "sentence"),
    [
        # What `weights_only` admits and calls as it is told to.
        (Call(torch.FloatTensor, 2**32), "more than tensors"),
        (Call(bytearray, 2**33), "more than tensors"),
        (Call(UntypedStorage, 2**33), "more than tensors"),
        (Call(torch._utils._rebuild_meta_tensor_no_storage, torch.float32, (2**40,), (1,), False), "more than tensors"),
        # What the file does not hold.
        (tensor_of(2**31), "damaged"),
        (tensor_of(2**60), "damaged"),
        (tensor_of(2**32, 2**32, strides=(0, 0)), "damaged"),
        (tensor_of(1, offset=2**40), "damaged"),
        (tensor_of(2, strides=(-1,)), "damaged"),
        (tensor_of(2**60, strides=(0,)), "claims more numbers than it has"),
    ],
)
def test_what_is_claimed_is_not_allocated(tmp_path, claim, sentence):
    torch.save({"weight": claim}, tmp_path / "x.pth")
    before = most_memory()
    with pytest.raises(ValueError, match=sentence):
        load_state_dict(tmp_path / "x.pth")
    assert most_memory() - before < 2**30


def test_one_tensor_is_not_many_by_many_names(tmp_path):
    tensor = torch.ones(10_000)
    torch.save({"tied": tensor, "too": tensor}, tmp_path / "x.pth")
    assert len(load_state_dict(tmp_path / "x.pth")) == 2
    torch.save({str(i): tensor for i in range(100)}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"\[10000\] claims more numbers than it has"):
        load_state_dict(tmp_path / "x.pth")


def test_scripts_are_refused_without_a_warning(good):
    with zipfile.ZipFile(good, "a") as archive:  # what PyTorch knows its scripts by
        archive.writestr(f"{archive.namelist()[0].split('/')[0]}/constants.pkl", b"")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="TorchScript"):
            load_state_dict(good)


def test_the_name_does_not_choose_another_reader(good, tmp_path):
    good.rename(tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=r"a \.pth, as torch\.save writes it, is read here"):
        load_state_dict(tmp_path / "x.safetensors")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.7, 0.99, 0.9999])
def test_truncated_files_are_reported(good, share):
    content = good.read_bytes()
    good.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match="no PyTorch checkpoint, or a truncated one"):
        load_state_dict(good)


@pytest.mark.parametrize("content", [b"\0" * 5000, b"PK\3\4 not really", b'{"a": 1}', b"\x80\x02}q\0."])
def test_other_files_are_reported(tmp_path, content):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(ValueError, match="no PyTorch checkpoint"):
        load_state_dict(tmp_path / "x.pth")


def test_what_is_no_file_is_reported(tmp_path):
    for path in (tmp_path, tmp_path / "missing.pth"):
        with pytest.raises(ValueError, match=r"cannot be read \((Is a directory|No such file or directory)\)"):
            load_state_dict(path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([torch.ones(1)], "holds a list, not a state dict"),
        ({}, "holds a dict, not a state dict"),
        ({"model": {"weight": torch.ones(1)}, "state_dict": {"weight": torch.ones(1)}}, "'model' is a dict"),
        ({"model": [torch.ones(1)], "epoch": 3}, "'model' is a list, not a tensor"),
        ({"model": {"model": {"weight": torch.ones(1)}}}, "'model' is a dict, not a tensor"),
        ({"model": torch.ones(1)}, "holds a Tensor, not a state dict"),
        ({"epoch": 3}, "'epoch' is a int, not a tensor"),
        ({3: torch.ones(1)}, "'3' is a Tensor"),
        ({torch.zeros(2): torch.zeros(1)}, r"plain state dict: 'tensor\(\[0\., 0\.\]\)' is a Tensor"),
        ({"a\nb\x1b": 7}, r"plain state dict: 'a\\nb\\x1b' is a int, not a tensor$"),
        ({"huge": torch.ones(1).expand(2**40)}, r"'huge' of \[1099511627776\] claims more numbers than it has"),
        ({"sparse": torch.eye(3).to_sparse()}, "more than tensors"),
    ],
)
def test_what_is_no_state_dict_is_reported(tmp_path, content, sentence):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=sentence):
        load_state_dict(tmp_path / "x.pth")


def test_archives_that_grow_are_refused(good, tmp_path):
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(tmp_path / "x.pth", "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(ValueError, match="compressed archive"):
        load_state_dict(tmp_path / "x.pth")


def two_ways(honest: bytes, other: bytes) -> bytes:
    """An archive with a second list of entries before its end: some readers take the one, some the other."""
    end = honest.rindex(b"PK\5\6")
    return honest[:end] + other + honest[end:]


def test_an_archive_to_be_read_in_two_ways_is_refused(good, tmp_path):
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(tmp_path / "x.zip", "w") as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    plain = (tmp_path / "x.zip").read_bytes()
    start, end = plain.index(b"PK\1\2"), plain.rindex(b"PK\5\6")
    for crooked in (two_ways(plain, plain[start:end]), plain + b"a comment", plain + plain[start:]):
        (tmp_path / "x.pth").write_bytes(crooked)
        with pytest.raises(ValueError, match=r"^it (can be read in two ways|is damaged|is no PyTorch)"):
            load_state_dict(tmp_path / "x.pth")
    (tmp_path / "x.pth").write_bytes(plain)
    assert load_state_dict(tmp_path / "x.pth").keys() == load_state_dict(good).keys()


def test_an_archive_said_to_span_disks_is_reported(good):
    content = bytearray(good.read_bytes())
    content[content.rindex(b"PK\6\7") + 16] = 2  # how many disks
    good.write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged \(zipfiles that span multiple disks"):
        load_state_dict(good)


@pytest.mark.parametrize(
    "pickled",
    [
        b"",
        b"\x80\x02K\x05Q.",  # a tensor known by a number
        b"\x80\x02h\x07.",  # what was never put
        b"\x80\x02}X\x01\0\0\0\x80K\x01s.",  # a name of no letters
        b"\x80\x02X\xff\xff\xff\x7fabc.",  # a name of 2 GiB
        b"\x80\x02c__torch__\n\xe4\n.",
        b"\x80\x02" + b"(" * 5000 + b"t" * 5000 + b".",
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x02ls\x85R.",
        b"(S'ls'\niposix\nsystem\n.",
    ],
)
def test_a_hostile_list_of_tensors_is_reported(good, tmp_path, pickled):
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(tmp_path / "x.pth", "w") as target:
        for name in source.namelist():
            target.writestr(name, pickled if name.endswith("data.pkl") else source.read(name))
    with pytest.raises(ValueError, match=r"^it (is damaged|holds)") as told:
        load_state_dict(tmp_path / "x.pth")
    assert "\n" not in str(told.value)


def test_a_list_of_tensors_larger_than_any_models_is_not_read(good, monkeypatch):
    monkeypatch.setattr(checkpoint_reader, "MAX_PICKLE_BYTES", 1000)
    with pytest.raises(ValueError, match="its list of tensors is far larger than any model's"):
        load_state_dict(good)


def test_damage_anywhere_is_read_or_reported(good):
    """A flipped bit in the numbers is a number; elsewhere it is a sentence. Neither is a crash."""
    content = good.read_bytes()
    rng = random.Random(0)
    told = 0
    for _ in range(150):
        damaged = bytearray(content)
        for _ in range(rng.choice([1, 1, 50])):
            # Half of them where the archive's structure lies, at its ends.
            place = rng.choice([rng.randrange(len(content)), rng.randrange(40_000), -1 - rng.randrange(20_000)])
            damaged[place] ^= 1 << rng.randrange(8)
        good.write_bytes(damaged)
        try:
            load_state_dict(good)
        except ValueError as why:
            told += 1
            assert "\n" not in str(why)
    assert told > 20


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
        (b"", "safetensors file, or a damaged one"),
        (b"12345", "safetensors file, or a damaged one"),
        (b"PK\x03\x04" + bytes(100), "safetensors file, or a damaged one"),
        ((2**63).to_bytes(8, "little") + b"{}", "safetensors file, or a damaged one"),
        ((4).to_bytes(8, "little") + b"[1,2]", "safetensors file, or a damaged one"),
        ((100_000).to_bytes(8, "little") + b"[" * 100_000, "safetensors file, or a damaged one"),
        (raw({"a": ["F32", [4], 0, 16]}, FOUR[:-1]), "safetensors file, or a damaged one"),
        (raw({"a": ["F32", [4], 0, 16]}, FOUR + b"more"), "safetensors file, or a damaged one"),
        (raw({"a": ["F32", [2**40], 0, 16]}, FOUR), "safetensors file, or a damaged one"),
        (raw({"a": ["F32", [2**40, 0], 0, 16]}, FOUR), "safetensors file, or a damaged one"),
        (raw({"a": ["F32", [-4], 0, 16]}, FOUR), "safetensors file, or a damaged one"),
        (raw({"a": ["F32", [True, 4], 0, 16]}, FOUR), "safetensors file, or a damaged one"),
        (raw({"a": ["F32", [4], -16, 0]}, FOUR), "safetensors file, or a damaged one"),
        (raw({"a": ["F32", [4], 0, 16], "b": ["F32", [4], 0, 16]}, FOUR), "safetensors file, or a damaged one"),
        (raw({"a": ["F32", [3], 4, 16]}, FOUR), "safetensors file, or a damaged one"),
        (raw({"a": ["F8_E4M3", [16], 0, 16]}, FOUR), "its tensor 'a' is of torch.float8_e4m3fn"),
        (raw({"a": ["C64", [2], 0, 16]}, FOUR), "its tensor 'a' is of torch.complex64"),
        (raw({"a": ["F4", [32], 0, 16]}, FOUR), "its tensor 'a' is of torch.float4|or a damaged one"),
        (raw({"a": ["F6_E2M3", [8], 0, 6]}, FOUR[:6]), "safetensors file, or a damaged one"),
        (raw({"a": ["F32", [4], 0, 16], "b": ["F32", [0], 0, 16]}, FOUR), "safetensors file, or a damaged one"),
        (raw({"a": ["F32", "four", 0, 16]}, FOUR), "safetensors file, or a damaged one"),
        (raw({"a": [3, [4], 0, 16]}, FOUR), "safetensors file, or a damaged one"),
        (raw({"a": ["F32", [4], 0]}, FOUR), "safetensors file, or a damaged one"),
        ((8).to_bytes(8, "little") + b'{"a": 3}', "safetensors file, or a damaged one"),
    ],
)
def test_safetensors_that_are_not_what_they_say_are_reported(content, sentence, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=sentence) as told:
        read_weights(path)
    assert str(tmp_path) not in str(told.value)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_files_that_are_not_there_are_reported(name, tmp_path):
    with pytest.raises(ValueError, match="it cannot be read"):
        read_weights(tmp_path / name)


def test_headers_larger_than_any_models_are_not_read(tmp_path):
    """The library reads up to 100 MB of them, and makes a tensor of every 60 bytes."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(raw({"a": ["F32", [4], 0, 16]}, FOUR, pad=2**23))
    with pytest.raises(ValueError, match="safetensors file, or a damaged one"):
        read_weights(path)
