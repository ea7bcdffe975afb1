"""Hugging Face `datasets`: Parquet files of each split, which `datasets.load_dataset(FOLDER)` reads.

    data/train-00000-of-00002.parquet      with --image-mode embed: the bytes of the images in the column "image"
    data/train-00000-of-00001.parquet      with --image-mode none: the column "image" holds the source's file names
    train/metadata.parquet                 with --image-mode link or copy: an ImageFolder, with
    train/images/...                       the images

The column "objects" holds a list for each field, as in
https://huggingface.co/docs/datasets/object_detection: "bbox" as x, y, width, height in pixels, "category" as a
ClassLabel, "segmentation" as COCO's RLE (null for an object without a mask), scores, "mask_source", "provenance" and
captions. The metadata of each file hold the recipe, the categories' own ids, and the licences.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from synthgen.export.exporters import ExportContext, ExportItem, ExportNotes, ImageMode
from synthgen.export.exporters._hf_schema import ImageColumn, make_features, make_schema
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
from synthgen.plugin_options import option
from synthgen.records.sample import Annotation
from synthgen.storage.disk import translate_os_errors

TITLE = "Hugging Face datasets"
IMAGES: ImageMode = "embed"
IMAGE_MODES: tuple[ImageMode, ...] = ("embed", "link", "copy", "none")
FLAT_IMAGES = False

_REMEDY = "choose another --out"

#: A row group is written at this size or number of rows. `datasets` and its viewer read whole row groups.
_GROUP_BYTES = 2**25
_GROUP_ROWS = 1_000

#: Bytes of the members of an object in memory, beside its mask and texts; an estimate.
_OBJECT_BYTES = 200


@dataclass(frozen=True, kw_only=True)
class HfOptions:
    """Options of the format."""

    max_file_mb: int = option(500, help="Size at which a new Parquet file starts, in MB", minimum=1)


OPTIONS = HfOptions


def build(context: ExportContext, options: HfOptions) -> HfExporter:
    """The exporter; see `synthgen.export.exporters`.

    Args:
        context: what is known before the first image.
        options: of the format.

    Raises:
        SynthgenError: two splits get one name.
    """
    return HfExporter(context, options)


@dataclass(slots=True)
class _Split:
    """The open file of a split, its files, and the rows that are not written yet."""

    name: str
    files: list[Path] = field(default_factory=list)
    file: IO[bytes] | None = None
    writer: pq.ParquetWriter | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    row_bytes: int = 0


class HfExporter:
    """Writes Parquet files; see `synthgen.export.exporters.Exporter`.

    Args:
        context: what is known before the first image.
        options: of the format.
    """

    def __init__(self, context: ExportContext, options: HfOptions) -> None:
        self._context, self._options = context, options
        self._splits = {split: _Split(name) for split, name in plain_split_names(context).items()}
        self._licenses = {one.id: one for one in context.licenses}
        self._classes = {one.id: number for number, one in enumerate(context.categories)}
        columns: dict[ImageMode, ImageColumn] = {"embed": "bytes", "none": "path"}
        self._image = columns.get(context.images, "file_name")
        features = make_features(self._image, _unique_names(context))
        self._schema = make_schema(features, describe_source(context))
        self._left_out = Counter[str]()
        self._without_image = self._unturned = 0

    def image_folder(self, split: str) -> str:
        """See `Exporter`; the metadata of an ImageFolder lie above its images, so that no image has their name.

        Args:
            split: one of the context's.
        """
        return f"{self._splits[split].name}/images"

    def write(self, item: ExportItem) -> Sequence[Annotation]:
        """See `Exporter`.

        Args:
            item: the image.

        Raises:
            ImageError: the image cannot be read; nothing of it is written.
            SynthgenError: the file cannot be written.
        """
        sample, split = item.sample, self._splits[item.split]
        image, size = self._image_cell(item)
        kept = list_objects(item)
        if lost := len(sample.annotations) - len(kept):
            self._left_out["no_box"] += lost
        names = [name for name in self._schema.field("objects").type.names if name != "category"]
        objects: dict[str, list[Any]] = {name: [members[name] for _, members in kept] for name in names}
        objects["category"] = [self._classes[members["category_id"]] for _, members in kept]
        split.rows.append(
            {
                **image,
                "image_id": sample.image_id,
                "source_file": plain_text(sample.file_name),
                "width": sample.width,
                "height": sample.height,
                "license": license_members(sample.license_id, self._licenses),
                "neg_categories": _names(sample.neg_categories),
                "not_exhaustive_categories": _names(sample.not_exhaustive_categories),
                "objects": objects,
            }
        )
        masks = (one.segmentation.counts for one, _ in kept if one.segmentation is not None)
        texts = (caption.text for one, _ in kept for caption in one.captions)
        split.row_bytes += size + _OBJECT_BYTES * len(kept) + sum(map(len, masks)) + sum(map(len, texts))
        if split.row_bytes >= _GROUP_BYTES or len(split.rows) >= _GROUP_ROWS:
            with translate_os_errors(self._context.folder, remedy=_REMEDY):
                self._flush(split)
        return [one for one, _ in kept]

    def finish(self) -> ExportNotes:
        """See `Exporter`.

        Raises:
            SynthgenError: a file cannot be written.
        """
        with translate_os_errors(self._context.folder, remedy=_REMEDY):
            for split in self._splits.values():
                if split.rows:
                    self._flush(split)
                _end_file(split)
                if self._image != "file_name":
                    for number, path in enumerate(split.files):
                        path.rename(path.with_name(f"{split.name}-{number:05d}-of-{len(split.files):05d}.parquet"))
        lines = describe_empty_splits(split for split, one in self._splits.items() if not one.files)
        if self._without_image:
            lines.append(f"{self._without_image:,} images have no file, so that their rows have no image")
        if self._unturned:
            lines.append(
                f"{self._unturned:,} images have masks of their stored pixels, and `datasets` turns them by their EXIF "
                "tag; turn the masks of those whose width and height differ from the image's"
            )
        pattern = "{}/**" if self._image == "file_name" else "data/{}-*.parquet"
        return ExportNotes(
            left_out=dict(sorted(self._left_out.items())),
            lines=tuple(lines),
            figures={"files": float(sum(len(split.files) for split in self._splits.values()))},
            data_files={split: pattern.format(one.name) for split, one in self._splits.items() if one.files},
        )

    def close(self) -> None:
        """See `Exporter`."""
        for split in self._splits.values():
            with contextlib.suppress(OSError, pa.ArrowException):  # the disk may be full, which `write` has reported
                _end_file(split)

    def _folder(self, split: _Split) -> Path:
        """The folder for the tables of a split."""
        return self._context.folder / (split.name if self._image == "file_name" else "data")

    def _image_cell(self, item: ExportItem) -> tuple[dict[str, Any], int]:
        """The column of a row's image, and its bytes."""
        if self._image == "file_name":
            return {"file_name": f"images/{plain_text(item.file_name)}"}, 0
        if self._image == "path":
            return {"image": plain_text(item.sample.file_name)}, 0
        data = read_image(item)
        if data is None:
            self._without_image += 1
            return {"image": None}, 0
        self._unturned += find_turn(item) == "unturned"
        return {"image": {"bytes": data, "path": plain_text(item.file_name)}}, len(data)

    def _flush(self, split: _Split) -> None:
        """Write the rows of a split as a row group."""
        if split.file is not None and self._is_full(split.file):
            _end_file(split)
        if split.file is None or split.writer is None:
            name = "metadata.parquet" if self._image == "file_name" else f"{split.name}-{len(split.files):05d}"
            path = self._folder(split) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            split.file = path.open("xb")
            split.files.append(path)
            split.writer = pq.ParquetWriter(
                split.file,
                self._schema,
                compression=_compression(self._schema),
                use_dictionary=[path for path in _leaves(self._schema) if path != "image.bytes"],
                write_page_checksum=True,
            )
        table = pa.Table.from_pylist(split.rows, self._schema)
        split.rows, split.row_bytes = [], 0
        split.writer.write_table(table, row_group_size=max(1, table.num_rows))

    def _is_full(self, file: IO[bytes]) -> bool:
        """Whether a file takes no more row groups. An ImageFolder has one file of metadata for each folder."""
        return self._image != "file_name" and file.tell() >= self._options.max_file_mb * 10**6


def _end_file(split: _Split) -> None:
    writer, file, split.writer, split.file = split.writer, split.file, None, None
    try:
        if writer is not None:
            writer.close()
    finally:
        if file is not None:
            file.close()


def _names(names: tuple[str, ...] | None) -> list[str | None] | None:
    return None if names is None else [plain_text(name) for name in names]


def _unique_names(context: ExportContext) -> list[str]:
    """The names of a ClassLabel, which must differ: of categories with one name, the later ones show their ids."""
    names: dict[str, None] = {}
    for one in context.categories:
        name = plain_text(one.name) or ""
        while name in names:
            name = f"{name} ({one.id})"
        names[name] = None
    return list(names)


def _leaves(schema: pa.Schema) -> list[str]:
    """The columns of the Parquet file of a schema, by their paths."""
    empty = pa.BufferOutputStream()
    with pq.ParquetWriter(empty, schema) as writer:
        writer.write_table(schema.empty_table())
    found = pq.read_metadata(pa.BufferReader(empty.getvalue())).schema
    return [found.column(number).path for number in range(len(found))]


def _compression(schema: pa.Schema) -> dict[str, str]:
    """By column; the images are compressed already."""
    return {path: "none" if path == "image.bytes" else "zstd" for path in _leaves(schema)}
