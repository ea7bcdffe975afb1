"""WebDataset: tar shards of each split with the bytes of the images, and a JSON of the annotations beside each.

    train-000000.tar        000000000.jpg, 000000000.json, 000000001.jpg, ...
    dataset.json            the layer, its recipe, categories and licences; the shards with their numbers of samples

The format: https://github.com/webdataset/webdataset. A key is the place of the image in its split, since a file name
may hold dots and slashes, which have a meaning there. A JSON holds the file's name, the size of the image, its licence
and "annotations" as in COCO, with masks as RLE. The headers of the archives hold no time and no user.
"""

from __future__ import annotations

import contextlib
import json
import tarfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

from synthgen.errors import SynthgenError
from synthgen.export.exporters import ExportContext, ExportItem, ExportNotes, ImageMode
from synthgen.export.exporters._packed_samples import (
    describe_empty_splits,
    describe_source,
    find_turn,
    license_members,
    list_objects,
    plain_split_names,
    plain_text,
    read_image,
)
from synthgen.export.image_files import image_suffix
from synthgen.plugin_options import option
from synthgen.records.sample import Annotation
from synthgen.storage.disk import translate_os_errors

TITLE = "WebDataset"
IMAGES: ImageMode = "embed"
FLAT_IMAGES = False

#: The suffixes that WebDataset's own decoder of images does not know.
_UNDECODED = ("avif", "bin")

_REMEDY = "choose another --out"
_BLOCK, _RECORD = 512, 10_240  # bytes of a tar archive's blocks; an archive is a multiple of a record


@dataclass(frozen=True, kw_only=True)
class WebdatasetOptions:
    """Options of the format."""

    max_shard_mb: int = option(512, help="Size at which a new shard starts, in MB", minimum=1)
    max_shard_images: int = option(10_000, help="Images at which a new shard starts", minimum=1)


OPTIONS = WebdatasetOptions


def build(context: ExportContext, options: WebdatasetOptions) -> WebdatasetExporter:
    """The exporter; see `synthgen.export.exporters`.

    Args:
        context: what is known before the first image.
        options: of the format.

    Raises:
        SynthgenError: the images shall be linked or copied, or a name of a split cannot be used.
    """
    if context.images not in ("embed", "none"):
        raise SynthgenError(
            f"WebDataset holds the images in its shards, so they cannot be beside them ({context.images}); use "
            "--image-mode embed, or --image-mode none for annotations alone"
        )
    return WebdatasetExporter(context, options)


@dataclass(slots=True)
class _Split:
    """The open shard of a split, and the images and bytes of each of its shards."""

    name: str
    file: IO[bytes] | None
    shards: list[list[int]]
    images: int = 0


class WebdatasetExporter:
    """Writes tar shards; see `synthgen.export.exporters.Exporter`.

    Args:
        context: what is known before the first image.
        options: of the format.
    """

    def __init__(self, context: ExportContext, options: WebdatasetOptions) -> None:
        self._context, self._options = context, options
        self._splits = {split: _Split(name, None, []) for split, name in plain_split_names(context).items()}
        self._licenses = {one.id: one for one in context.licenses}
        self._left_out, self._undecoded = Counter[str](), Counter[str]()
        self._without_image = self._turned = 0

    def image_folder(self, split: str) -> str:  # noqa: ARG002
        """See `Exporter`; no images are beside the shards.

        Args:
            split: any.
        """
        return ""

    def write(self, item: ExportItem) -> Sequence[Annotation]:
        """See `Exporter`.

        Args:
            item: the image.

        Raises:
            ImageError: the image cannot be read; nothing of it is written.
            SynthgenError: the shard cannot be written.
        """
        split = self._splits[item.split]
        image = read_image(item) if self._context.images == "embed" else None
        suffix = image_suffix(image) or "bin" if image is not None else ""
        if image is None:
            self._without_image += 1
        else:
            self._undecoded[suffix] += suffix in _UNDECODED
            self._turned += find_turn(item) == "turned"
        kept = list_objects(item)
        record = self._record(item, kept)
        key = f"{split.images:09d}"
        members = [(f"{key}.json", json.dumps(record, ensure_ascii=True, allow_nan=False).encode("ascii"))]
        if image is not None:
            members.insert(0, (f"{key}.{suffix}", image))
        parts = [part for name, data in members for part in _tar_member(name, data)]
        with translate_os_errors(self._context.folder, remedy=_REMEDY):
            file = self._open_shard(split, sum(map(len, parts)))
            for part in parts:
                file.write(part)
        split.images += 1
        split.shards[-1][0] += 1
        split.shards[-1][1] += sum(map(len, parts))
        return [one for one, _ in kept]

    def finish(self) -> ExportNotes:
        """See `Exporter`.

        Raises:
            SynthgenError: a file cannot be written.
        """
        with translate_os_errors(self._context.folder, remedy=_REMEDY):
            for split in self._splits.values():
                if split.file is not None:
                    _end_shard(split, split.file)
            source = describe_source(self._context)
            # Not "images", "categories" and "licenses": readers of COCO would take the file for one of theirs.
            classes, licenses = source.pop("categories"), source.pop("licenses")
            content = {
                **source,
                "classes": classes,
                "image_licenses": licenses,
                "splits": {
                    split.name: [
                        {"file": _shard_name(split.name, number), "samples": images, "bytes": size}
                        for number, (images, size) in enumerate(split.shards)
                    ]
                    for split in self._splits.values()
                },
            }
            text = json.dumps(content, ensure_ascii=True, indent=1) + "\n"
            (self._context.folder / "dataset.json").write_text(text, encoding="ascii")
        lines = describe_empty_splits(split for split, one in self._splits.items() if not one.images)
        if self._turned:
            lines.append(
                f"{self._turned:,} images are turned by their EXIF tag, which WebDataset's decoder ignores; the masks "
                "are of the turned images: apply PIL.ImageOps.exif_transpose"
            )
        if self._undecoded.total():
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self._undecoded.items()) if count)
            lines.append(f"images of these formats need a decoder of your own in WebDataset: {kinds}")
        if self._without_image and self._context.images == "embed":
            lines.append(f"{self._without_image:,} images have no file, so that their samples hold the JSON alone")
        return ExportNotes(
            left_out=dict(sorted(self._left_out.items())),
            lines=tuple(lines),
            figures={"shards": float(sum(len(split.shards) for split in self._splits.values()))},
            data_files={split: f"{one.name}-*.tar" for split, one in self._splits.items() if one.images},
        )

    def close(self) -> None:
        """See `Exporter`."""
        for split in self._splits.values():
            file, split.file = split.file, None
            if file is not None:
                with contextlib.suppress(OSError):  # the disk may be full, which `write` has reported
                    file.close()

    def _open_shard(self, split: _Split, size: int) -> IO[bytes]:
        """The shard that takes `size` bytes more."""
        if split.file is not None:
            images, full = split.shards[-1]
            limit = self._options.max_shard_mb * 10**6
            if images >= self._options.max_shard_images or (images and full + size > limit):
                _end_shard(split, split.file)
        if split.file is None:
            path = self._context.folder / _shard_name(split.name, len(split.shards))
            split.file = path.open("xb")
            split.shards.append([0, 0])
        return split.file

    def _record(self, item: ExportItem, kept: Sequence[tuple[Annotation, dict[str, Any]]]) -> dict[str, Any]:
        """The JSON of a sample."""
        sample = item.sample
        record: dict[str, Any] = {
            "image_id": sample.image_id,
            "file_name": plain_text(sample.file_name),
            "width": sample.width,
            "height": sample.height,
        }
        if sample.license_id is not None:
            record["license"] = license_members(sample.license_id, self._licenses)
        if sample.neg_categories is not None:
            record["neg_categories"] = [plain_text(name) for name in sample.neg_categories]
        if sample.not_exhaustive_categories:
            record["not_exhaustive_categories"] = [plain_text(name) for name in sample.not_exhaustive_categories]
        if lost := len(sample.annotations) - len(kept):
            self._left_out["no_box"] += lost
        annotations = [
            {
                "category": plain_text(annotation.category),
                **{key: value for key, value in members.items() if value is not None and value != []},
            }
            for annotation, members in kept
        ]
        return {**record, "annotations": annotations}


def _shard_name(split: str, number: int) -> str:
    return f"{split}-{number:06d}.tar"


def _tar_member(name: str, data: bytes) -> tuple[bytes, bytes, bytes]:
    """The header of a file in a tar archive, its content, and what fills its last block."""
    info = tarfile.TarInfo(name)  # no time, no user
    info.size = len(data)
    return info.tobuf(tarfile.USTAR_FORMAT), data, bytes(-len(data) % _BLOCK)


def _end_shard(split: _Split, file: IO[bytes]) -> None:
    """Write the end of an archive: two empty blocks, and the rest of a record."""
    full = split.shards[-1][1]
    end = 2 * _BLOCK + -(full + 2 * _BLOCK) % _RECORD
    file.write(bytes(end))
    file.close()
    split.shards[-1][1] = full + end
    split.file = None
