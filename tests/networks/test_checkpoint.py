"""Checkpoints of strangers: read, or refused in a sentence; never executed, never believed about their size."""

from __future__ import annotations

import os
import pickle
import random
import zipfile
from pathlib import Path

import pytest
import torch
from toys import tiny_sam

from synthgen.networks.checkpoint import load_state_dict


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return tiny_sam.checkpoint(tmp_path)


def test_a_checkpoint_is_read(good):
    found = load_state_dict(good)
    assert found.keys() == tiny_sam.weights("sam_tiny").keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in tiny_sam.weights("sam_tiny").items())


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def test_nothing_is_executed(tmp_path):
    mark = tmp_path / "mark"
    pickle.loads(pickle.dumps(Evil(mark)))
    assert mark.exists(), "the trap does not work"
    mark.unlink()
    torch.save({"weight": torch.ones(2), "evil": Evil(mark)}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="holds more than tensors, which is not executed"):
        load_state_dict(tmp_path / "evil.pth")
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Evil(mark)))
    with pytest.raises(ValueError, match="no PyTorch checkpoint"):
        load_state_dict(tmp_path / "bare.pth")
    assert not mark.exists()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.7, 0.99, 0.9999])
def test_truncated_files_are_told(good, share):
    content = good.read_bytes()
    good.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match="no PyTorch checkpoint, or a truncated one"):
        load_state_dict(good)


@pytest.mark.parametrize("content", [b"\0" * 5000, b"PK\3\4 not really", b'{"a": 1}', b"\x80\x02}q\0."])
def test_other_files_are_told(tmp_path, content):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(ValueError, match="no PyTorch checkpoint"):
        load_state_dict(tmp_path / "x.pth")


def test_what_is_no_file_is_told(tmp_path):
    for path in (tmp_path, tmp_path / "missing.pth"):
        with pytest.raises(ValueError, match=r"cannot be read \((Is a directory|No such file or directory)\)"):
            load_state_dict(path)


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([torch.ones(1)], "holds a list, not a state dict"),
        ({}, "holds a dict, not a state dict"),
        ({"model": {"weight": torch.ones(1)}}, "'model' is a dict, not a tensor"),
        ({"epoch": 3}, "'epoch' is a int, not a tensor"),
        ({3: torch.ones(1)}, "'3' is a Tensor"),
        ({"huge": torch.ones(1).expand(2**40)}, r"'huge' of \[1099511627776\] claims more numbers than it has"),
        ({"sparse": torch.eye(3).to_sparse()}, "'sparse' of"),
    ],
)
def test_what_is_no_state_dict_is_told(tmp_path, content, sentence):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=sentence):
        load_state_dict(tmp_path / "x.pth")


def test_archives_that_grow_are_refused(good, tmp_path):
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(tmp_path / "x.pth", "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(ValueError, match="compressed archive"):
        load_state_dict(tmp_path / "x.pth")


def test_damage_anywhere_is_read_or_told(good):
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
