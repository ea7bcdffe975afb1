"""WebDataset: tar shards whose members are grouped into samples by name, `000123.jpg` with `000123.json`.

The format: https://github.com/webdataset/webdataset and https://huggingface.co/docs/hub/datasets-webdataset. A sample
is all members with the same path up to the first dot of the file name. Read are one image (jpg, jpeg, png or webp) and
one `json` of it; other members, such as `cls` or `txt`, hold no boxes and are reported. The shards are not unpacked: an
image is named `train-000.tar/000123.jpg`.

WebDataset defines no form of boxes. A `json` is one of these, with the fields of `_objects` (bbox is x, y, width,
height in pixels; category is a name or a number; an RLE or polygons as in COCO):

    {"annotations": [{"bbox": ..., "category": ...}, ...]}        as in COCO; or under "objects"
    {"objects": {"bbox": [...], "category": [...]}}               as Hugging Face's `datasets` has it
    {"boxes": [...], "labels": [...]}                             a list for each field
    [{"bbox": ..., "category": ...}, ...]

An object may also hold "width" and "height" of the image, and "categories": [{"id": 1, "name": "cat"}, ...], which
names the numbers. Splits: a word in the name of a shard or of its folder (`train-000.tar`, `val/000.tar`), else
"train".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from synthgen.errors import SynthgenError
from synthgen.formats.readers import DatasetFiles, DatasetPart
from synthgen.formats.readers._finding_counter import FindingCounter
from synthgen.formats.readers._ids import text_id
from synthgen.formats.readers._instances import complete
from synthgen.formats.readers._numbers import parse_int, parse_pixels
from synthgen.formats.readers._objects import (
    BatchBuilder,
    ImageObject,
    has_box_field,
    parse_objects,
)
from synthgen.formats.readers._packed_files import (
    fill_size,
    find_archives,
    glance_at_names,
    make_sources,
    pick_split,
    reason_without_paths,
    split_of_path,
)
from synthgen.images.image_error import ImageError
from synthgen.images.tar_archive import TarMember, open_member, scan_tar

SPLITS = ("train", "val", "test")
LAYERS = ("annotations", "human")
TITLE = "WebDataset"
LOOKS_FOR = "tar shards with images and .json files of one name (000.jpg, 000.json)"
LAYOUT_SPLITS = True

__all__ = ["LAYERS", "LAYOUT_SPLITS", "LOOKS_FOR", "SPLITS", "TITLE", "complete", "files", "read", "recognize"]

_IMAGES = ("jpg", "jpeg", "png", "webp")
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_MAX_JSON_BYTES = 2**24
_PROBED_MEMBERS = 64


def recognize(path: Path) -> tuple[str, ...] | None:
    """The splits of a folder of shards, or of one shard, at `path`; its first members must include an image and a
    `json`.
    """
    if not any(name.lower().endswith(".tar") for name in glance_at_names(path)):
        return None
    try:
        shards = _find_shards(path)
    except SynthgenError:
        return None
    first = next((one for found in shards.values() for one in found), None)
    return tuple(sorted(shards)) if first is not None and _looks_like_samples(first) else None


def files(root: Path, split: str, annotations: Path | None) -> DatasetFiles:
    """The shards of a split in `root` and its subfolders, or the one that `annotations` names.

    Args:
        root: folder of the dataset.
        split: one of those that `recognize` returns.
        annotations: one shard; None = find them in `root`.

    Raises:
        SynthgenError: there is none.
    """
    shards = _find_shards(annotations or root)
    if not shards:
        packed = next((p for p in find_archives(annotations or root, _COMPRESSED)), None)
        if packed is not None:
            raise SynthgenError(
                f"{packed} is compressed; unpack it to a plain .tar (gunzip {packed.name}), so that single images can "
                "be read from it"
            )
        raise SynthgenError(f"no .tar files in {annotations or root}; put the shards of the dataset there")
    found = [annotations] if annotations is not None else pick_split(shards, split, root)
    return make_sources(found, root, split)


def read(files: DatasetFiles, layer: str) -> Iterator[DatasetPart]:
    """The content of the shards in the order of their names; see `synthgen.formats.readers`.

    Args:
        files: as `files` returns them.
        layer: one of `LAYERS`.

    Raises:
        SynthgenError: a shard is not a plain tar archive, or no member of any shard is an image.
    """
    findings = FindingCounter()
    builder = BatchBuilder(findings, masked=layer != "annotations")
    num_images = 0
    for path in _shards_of(files):
        shard = path.relative_to(files.image_folder).as_posix()
        try:
            samples = _group(path, shard, findings)
        except ImageError as why:
            raise SynthgenError(f"{path} {why}") from None
        except OSError as why:
            raise SynthgenError(f"cannot read {path} ({why.strerror}); check the path and its permissions") from None
        for sample in samples:
            if sample.image is None:
                findings.add("label_without_image", "files", f"{shard}/{sample.key}", "a json without an image")
                continue
            num_images += 1
            name = f"{shard}/{sample.image.name}"
            record, error = _load(path, sample)
            height, width, objects, names = 0, 0, list[ImageObject](), dict[int, str]()
            if record is not None:
                try:
                    height, width, objects, names = _parse(record)
                except ValueError as why:
                    error = error or f"its json cannot be read: {why}"
            if layer != "annotations" and any(one.segmentation is not None for one in objects):
                height, width = fill_size(files.image_folder, name, height, width)
            yield from builder.add(text_id(name), name, height, width, objects, names, error)
        if files.on_bytes is not None:
            files.on_bytes(path.stat().st_size)
    if not num_images:
        raise SynthgenError(
            f"no member of the shards in {files.image_folder} is an image ({', '.join(_IMAGES)}); are they the right "
            "ones?"
        )
    yield from builder.flush()
    yield builder.categories()
    yield from findings.parts()


@dataclass(slots=True)
class _Sample:
    """The members of one sample: the image, its `json`, and why they are not complete."""

    key: str
    image: TarMember | None = None
    json: TarMember | None = None
    error: str | None = None


def _find_shards(path: Path) -> dict[str, list[Path]]:
    """The shards by split, sorted."""
    shards: dict[str, list[Path]] = {}
    for found in find_archives(path, (".tar",)):
        shards.setdefault(split_of_path(found, path), []).append(found)
    return shards


def _shards_of(files: DatasetFiles) -> list[Path]:
    if any(path.is_dir() for path in files.sources.values()):
        return _find_shards(files.image_folder)[files.split]
    return list(files.sources.values())


def _looks_like_samples(path: Path) -> bool:
    kinds: set[str] = set()
    try:
        for _, member in zip(range(_PROBED_MEMBERS), scan_tar(path), strict=False):
            kinds.add(_split_name(member.name)[1])
    except (ImageError, OSError):
        return False
    return "json" in kinds and not kinds.isdisjoint(_IMAGES)


def _group(path: Path, shard: str, findings: FindingCounter) -> list[_Sample]:
    """The samples of a shard, in the order of their first members."""
    samples: dict[str, _Sample] = {}
    last: _Sample | None = None
    damage = ""
    for member in scan_tar(path):
        if not member.name:
            damage = member.problem
            findings.add("damaged_archive", "files", shard, damage)
            continue
        if member.problem:
            findings.add("refused_members", "files", f"{shard}/{member.name}", member.problem)
        key, kind = _split_name(member.name)
        if not key or (kind != "json" and kind not in _IMAGES):
            findings.add("ignored_members", "files", f"{shard}/{member.name}", "is neither an image nor a json")
            continue
        last = samples.setdefault(key, _Sample(key))
        if kind == "json":
            if last.json is not None:
                findings.add("duplicate_members", "files", f"{shard}/{member.name}", "the last one is used")
            last.json = member
        elif last.image is None or last.image.name == member.name:
            if last.image is not None:
                findings.add("duplicate_members", "files", f"{shard}/{member.name}", "the last one is used")
            last.image = member
        else:
            what = f"its sample has the image {last.image.name}, too, which is used"
            findings.add("ignored_members", "files", f"{shard}/{member.name}", what)
    if damage and last is not None and last.json is None:
        last.error = "its archive is cut off or damaged before its json"
    return list(samples.values())


def _split_name(name: str) -> tuple[str, str]:
    """(the path up to the first dot of the file name, what follows in lower case); ("", "") for a hidden file."""
    folder, slash, base = name.rpartition("/")
    stem, dot, kind = base.partition(".")
    return (f"{folder}{slash}{stem}", kind.lower()) if stem and dot else ("", "")


def _load(path: Path, sample: _Sample) -> tuple[Any, str | None]:
    """(the content of a sample's `json`, why the row has an error)."""
    if sample.image is not None and sample.image.problem:
        return None, f"its image {sample.image.problem}"
    if sample.json is None:
        return None, sample.error
    if sample.json.problem:
        return None, f"its json {sample.json.problem}"
    if sample.json.size > _MAX_JSON_BYTES:
        return None, f"its json has {sample.json.size:,} bytes, more than the limit of {_MAX_JSON_BYTES:,}"
    try:
        with open_member(path, sample.json.start, sample.json.size) as file:
            return msgspec.json.decode(file.read()), None
    except (msgspec.MsgspecError, ValueError, RecursionError) as why:
        return None, f"its json is not valid ({reason_without_paths(why)})"


def _parse(record: Any) -> tuple[int, int, list[ImageObject], dict[int, str]]:
    """(height, width, objects, names of numbers) of a `json`.

    Args:
        record: parsed JSON; untrusted.

    Raises:
        ValueError: it has none of the documented forms.
    """
    if isinstance(record, list):
        return 0, 0, parse_objects(record), {}
    if not isinstance(record, dict):
        raise ValueError("it is neither an object nor a list")
    size = parse_pixels(record.get("height")), parse_pixels(record.get("width"))
    for key in ("annotations", "objects"):
        if key in record:
            return *size, parse_objects(record[key]), _names(record.get("categories"))
    if not has_box_field(record):
        shown = ", ".join(key[:40].encode("utf-8", "replace").decode() for key in list(record)[:12]) or "none"
        raise ValueError(f"it has none of annotations, objects, bbox, boxes (its keys: {shown})")
    return *size, parse_objects({key: value for key, value in record.items() if isinstance(value, list)}), {}


def _names(categories: Any) -> dict[int, str]:
    if not isinstance(categories, list):
        return {}
    return {
        number: one["name"].encode("utf-8", "replace").decode()
        for one in categories
        if isinstance(one, dict)
        and (number := parse_int(one.get("id"))) is not None
        and isinstance(one.get("name"), str)
    }
