"""Fuzz targets: datasets whose images are in archives, and the images in them."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pyarrow as pa

from fakes import packed_datasets as packed
from fakes.fuzz_datasets import _target
from fakes.fuzz_mutators import Mutator, mutate_bytes
from fakes.fuzz_runner import FuzzTarget
from synthgen.images.decode import ImageError, find_image, load_rgb, read_image_header
from synthgen.images.packed import open_image

_EDGE_FIELDS = (
    *(
        b"\0",
        b"77777777777\0",
        b"00000000000\0",
        b"-0000000001\0",
        b"\x80" + b"\xff" * 11,
        b"\x80" + b"\0" * 7 + b"\xff" * 4,
    ),
    *(b"../../x.jpg\0", b"/etc/passwd\0", b"a\\b\0", b"\xff\xfe\0", b"x" * 12),
)
_TYPES = b"0123456789xgLKSVDNM\0"
_FIELDS = ((0, 12), (124, 12), (156, 1), (157, 12), (257, 8), (345, 12))  # name, size, type, link, magic, prefix


def packed_targets() -> list[FuzzTarget]:
    """The readers of archives, and their images."""
    tars = {"train-000.tar": _mutate_tar}
    parquets = {"data/train-00000-of-00001.parquet": _mutate_parquet}
    return [
        _with_mutators(_target("webdataset", _tar_seeds, "webdataset"), tars),
        _target("hf", _metadata_seeds, "hf", mutable=("train/metadata.jsonl", "train/metadata.csv")),
        _with_mutators(_target("hf_parquet", _parquet_seeds, "hf"), parquets),
        _target("hf_arrow", _arrow_seeds, "hf", mutable=("data-00000-of-00001.arrow", "state.json")),
        FuzzTarget("tar_images", _tar_seeds, _read_images, mutators=tars),
        FuzzTarget("parquet_images", _parquet_seeds, _read_images, mutators=parquets),
        FuzzTarget("arrow_images", _arrow_seeds, _read_images, mutable=("data-00000-of-00001.arrow",)),
    ]


def _with_mutators(target: FuzzTarget, mutators: dict[str, Mutator]) -> FuzzTarget:
    return FuzzTarget(target.name, target.make_seeds, target.read, mutators=mutators)


def _read_images(folder: Path) -> list[str]:
    """Every image, by the ways in which a job reads it."""
    names = [f"train-000.tar/{i:03d}.jpg" for i in range(4)]
    names += [f"data/train-00000-of-00001.parquet/image/{i}" for i in range(4)]
    names += [f"data-00000-of-00001.arrow/image/{i}" for i in range(4)]
    found = []
    for name in names:
        try:
            source = find_image(folder, name)
            with open_image(source) as file:
                size = len(file.read())
            header = read_image_header(source)
            found.append(f"{size} {header} {load_rgb(source).shape}")
        except (ImageError, OSError) as why:
            if isinstance(why, OSError) and "cannot" not in str(why) and why.errno is None:
                raise
            found.append(str(why))
    return found


def _mutate_tar(data: bytes, rng: random.Random) -> bytes:
    """Change a header and correct its checksum; or any bytes."""
    if rng.random() < 0.3 or len(data) < 1_024:
        return mutate_bytes(data, rng)
    at = 512 * rng.randrange(len(data) // 512)
    block = bytearray(data[at : at + 512])
    for _ in range(rng.choice((1, 1, 2, 3))):
        start, size = rng.choice(_FIELDS)
        new = bytes([rng.choice(_TYPES)]) if size == 1 else rng.choice(_EDGE_FIELDS)[:size]
        block[start : start + len(new)] = new
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return data[:at] + bytes(block) + data[at + 512 :]


def _mutate_parquet(data: bytes, rng: random.Random) -> bytes:
    """Change the pages or the footer, whose length and place stay; or any bytes."""
    length = int.from_bytes(data[-8:-4], "little")
    if rng.random() < 0.3 or not 0 < length < len(data) - 12:
        return mutate_bytes(data, rng)
    pages, footer, end = data[: -8 - length], data[-8 - length : -8], data[-8:]
    if rng.random() < 0.7:
        return bytes(_overwrite(bytearray(pages), rng)) + footer + end
    return pages + bytes(_overwrite(bytearray(footer), rng)) + end


def _overwrite(part: bytearray, rng: random.Random) -> bytearray:
    """The same with some bytes changed; its length stays."""
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        part[rng.randrange(len(part))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return part


def _tar_seeds(folder: Path) -> list[dict[str, bytes]]:
    long = [
        ("a" * 120 + "/000.jpg", packed.jpeg(0)),
        ("a" * 120 + "/000.json", b'{"boxes": [[1, 2, 3, 4]], "labels": [3]}'),
    ]
    polygon = {"bbox": [1, 2, 3, 4], "label": "x", "segmentation": [[1, 1, 9, 1, 9, 9]]}
    masked = [("000.png", packed.jpeg(0)), ("000.json", json.dumps([polygon]).encode()), ("001.jpg", packed.jpeg(1))]
    made = []
    for members, kind in (
        (packed.samples(3), 1),
        (packed.samples(1) + long, 1),
        (packed.samples(1) + long, 2),
        (masked, 0),
    ):
        made.append({"train-000.tar": packed.write_tar(folder / "x.tar", members, format=kind).read_bytes()})
    return made


def _masks() -> list[list[dict[str, object]]]:
    return [[{"bbox": [1.0, 2.0, 3.0, 4.0], "category": i, "segmentation": [[1.0, 1, 9, 1, 9, 9]]}] for i in range(4)]


def _parquet_seeds(folder: Path) -> list[dict[str, bytes]]:
    plain, masked = packed.table(4), packed.table(4, width=[], height=[], image_id=[], objects=_masks())
    paths = packed.table(4, image=[{"bytes": None, "path": f"{i:03d}.jpg"} for i in range(4)])
    variants = [
        (plain, {"compression": "none"}),
        (masked, {"compression": "zstd", "use_dictionary": False}),
        (plain, {"compression": "snappy", "data_page_version": "2.0", "row_group_size": 3}),
        (paths, {"compression": "gzip"}),
    ]
    return [
        {
            "data/train-00000-of-00001.parquet": packed.write_parquet(
                folder / "x.parquet", content, **options
            ).read_bytes()
        }
        for content, options in variants
    ]


def _arrow_seeds(folder: Path) -> list[dict[str, bytes]]:
    made = []
    for content in (packed.table(4), packed.table(4, width=[], height=[], image_id=[], objects=_masks())):
        packed.write_saved(folder / "x", content)
        made.append({path.name: path.read_bytes() for path in sorted((folder / "x").iterdir())})
    file = pa.BufferOutputStream()
    with pa.ipc.new_file(file, packed.table(4).schema) as writer:
        writer.write_table(packed.table(4))
    return [*made, {**made[0], "data-00000-of-00001.arrow": file.getvalue().to_pybytes()}]


def _metadata_seeds(folder: Path) -> list[dict[str, bytes]]:
    lines = [{"file_name": f"{i:03d}.jpg", "objects": packed.columns_of(packed.objects(i))} for i in range(3)]
    lines[2]["objects"] = {"bbox": [[1, 2, 3, 4]], "category": ["x"], "segmentation": [[[1, 1, 9, 1, 9, 9]]]}
    images = {f"train/{i:03d}.jpg": packed.jpeg(i) for i in range(3)}
    cells = [f'{line["file_name"]},"{json.dumps(line["objects"]).replace(chr(34), chr(34) * 2)}"' for line in lines]
    return [
        {**images, "train/metadata.jsonl": "\n".join(map(json.dumps, lines)).encode()},
        {**images, "train/metadata.csv": "\n".join(["file_name,objects", *cells]).encode()},
    ]
