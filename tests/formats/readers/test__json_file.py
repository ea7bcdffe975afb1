"""JSON files, compressed or not, and files of other kinds."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import msgspec
import pytest

from synthgen.errors import SynthgenError
from synthgen.formats.readers import coco_json
from synthgen.formats.readers._coco_json import stream_records

CONTENT = {
    "images": [{"id": i, "file_name": f"{i}.png", "height": 48, "width": 64} for i in range(3000)],
    "annotations": [{"id": i, "image_id": i, "category_id": 1, "bbox": [1, 2, 3, 4]} for i in range(3000)],
}


class Record(msgspec.Struct):
    id: int


def ids(path: Path, on_bytes: object = None) -> list[int]:
    kinds: dict[str, type[msgspec.Struct]] = {"images": Record, "annotations": Record}
    return [r.id for _, batch in stream_records(path, kinds, on_bytes=on_bytes) for r in batch]  # type: ignore[arg-type]


def test_a_gzip_file_is_read_as_its_content_is(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(CONTENT))
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(json.dumps(CONTENT).encode()))
    read: list[int] = []
    assert ids(tmp_path / "a.json.gz", read.append) == ids(tmp_path / "a.json")
    assert sum(read) == (tmp_path / "a.json.gz").stat().st_size, "progress counts compressed bytes"


def test_several_gzip_members_are_one_file(tmp_path: Path) -> None:
    text = json.dumps(CONTENT).encode()
    (tmp_path / "a.gz").write_bytes(gzip.compress(text[:5000]) + gzip.compress(text[5000:]))
    assert len(ids(tmp_path / "a.gz")) == 6000


@pytest.mark.parametrize("damage", ["cut", "changed", "no header", "wrong sum"])
def test_damaged_gzip_data_is_refused_in_a_sentence(tmp_path: Path, damage: str) -> None:
    data = bytearray(gzip.compress(json.dumps(CONTENT).encode()))
    if damage == "cut":
        data = data[: len(data) // 2]
    elif damage == "changed":
        data[40:60] = bytes(20)
    elif damage == "no header":
        data = data[:2]
    else:
        data[-6] ^= 1
    (tmp_path / "a.gz").write_bytes(data)
    with pytest.raises(SynthgenError, match=r"a\.gz") as why:
        ids(tmp_path / "a.gz")
    assert "\n" not in str(why.value)


def test_a_gzip_bomb_takes_little_memory(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "bomb.gz", "wb", compresslevel=1) as file:
        file.write(b'{"info": "')
        for _ in range(64):
            file.write(b"x" * 2**20)
        file.write(b'", "images": [{"id": 7}]}')
    tracemalloc.start()
    assert ids(tmp_path / "bomb.gz") == [7]
    assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    tracemalloc.stop()


def _zip() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("boxes.json", "{}")
    return data.getvalue()


def _tar_gz() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("boxes.json"))
    return data.getvalue()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        pytest.param(_zip(), "is a zip archive, not JSON; unpack it", id="zip"),  # its bytes hold the time
        pytest.param(gzip.compress(_zip()), "is a zip archive", id="zip in gzip"),
        pytest.param(_tar_gz(), "is a tar archive; unpack it", id="tar in gzip"),
        (b"BZh91AY", "is a bzip2 file"),
        (b"\xfd7zXZ\x00\x00", "is an xz file"),
        (b"\x28\xb5\x2f\xfd", "is a zstd file"),
        (b"<!DOCTYPE html><html>", "is XML or HTML, not JSON; .* the download failed"),
        (b"\n <annotation>", "is XML or HTML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS"),
        (b"\x89PNG\r\n\x1a\n", "is a PNG image"),
        (b"", "nothing where a JSON object"),
        (b"\x1f\x8b", "damaged gzip data"),
    ],
)
def test_a_file_of_another_kind_is_named(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "boxes.json"
    path.write_bytes(content)
    files = coco_json.files(tmp_path, "train", path)
    with pytest.raises(SynthgenError, match=sentence) as why:
        list(coco_json.read(files, "annotations"))
    assert "\n" not in str(why.value)
