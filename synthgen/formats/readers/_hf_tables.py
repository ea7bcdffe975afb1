"""Rows of a dataset of Hugging Face's `datasets`: from Parquet and Arrow files, and from metadata files of ImageFolder.

Of a table, only the columns of objects are decoded. Their size is checked before, as a compressed file may expand
without end.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from synthgen.errors import SynthgenError
from synthgen.formats.readers._finding_counter import FindingCounter
from synthgen.formats.readers._objects import BOX_FIELDS, LABEL_FIELDS, MASK_FIELDS
from synthgen.images import arrow_stream
from synthgen.images.image_error import ImageError, utf8_safe
from synthgen.images.packed import row_name
from synthgen.images.parquet_footer import BYTE_ARRAY, ParquetFooter, read_footer
from synthgen.images.parquet_pages import check_sizes

#: What Arrow raises for a file that it cannot parse.
PARSE_ERRORS = (pa.ArrowException, OSError, ValueError, LookupError, OverflowError, MemoryError, RecursionError)

#: Columns beside the image and the objects.
SCALARS = ("image_id", "width", "height")

#: Maximum bytes of the objects of one row group, and of one row.
MAX_GROUP_BYTES = 2**30
MAX_ROW_BYTES = 2**24

_IMAGE_NAMES = ("image", "img", "jpg", "png", "jpeg", "webp", "pixel_values")
_BATCH_BYTES = 2**22  # decoded to Python objects at once; they take some 20 times as much
_BATCH_ROWS = 1_000
_MAX_LINE_BYTES = 2**24
_MAX_CLASSES = 100_000
_COLUMN_NAME = re.compile(r"[^/\\\0]{1,200}")


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Attributes:
        file_name: of the image, below the file's folder, or the row of the table; "" = there is none.
        values: the columns of objects, "image_id", "width" and "height".
        error: why it cannot be read.
    """

    file_name: str
    values: dict[str, Any]
    error: str | None = None


@dataclass(frozen=True, slots=True)
class TableShape:
    """What is known of a table before its rows are read.

    Attributes:
        image: the column of images; objects: the columns of objects.
        class_names: of the numbers of categories; empty = unknown.
        scalars: those of `SCALARS` that it has.
        is_path: the column of images holds only paths.
    """

    image: str
    objects: tuple[str, ...]
    class_names: tuple[str, ...]
    scalars: tuple[str, ...]
    is_path: bool


def read_schema(path: Path) -> pa.Schema:
    """The schema of a Parquet or Arrow file.

    Args:
        path: Parquet or Arrow file; untrusted.

    Raises:
        SynthgenError: it cannot be read.
    """
    try:
        if path.name.lower().endswith(".arrow"):
            return arrow_stream.open_stream(path).schema
        read_footer(path)
        schema = pq.read_schema(path)
        arrow_stream.check_names(schema)
        return schema
    except ImageError as why:
        raise SynthgenError(f"{path} {_about_file(why)}; download it again") from None
    except PARSE_ERRORS as why:
        raise SynthgenError(f"cannot read {path} ({type(why).__name__}); download it again") from None


def describe_table(schema: pa.Schema, where: Path) -> TableShape:
    """The columns that matter.

    Args:
        schema: of the table, with the metadata that `datasets` writes.
        where: the table's file, for messages; `metadata.parquet` names its images by file name.

    Raises:
        SynthgenError: there is no column of images, or none of objects.
    """
    features = read_features(schema.metadata)
    names = [name for name in schema.names if _COLUMN_NAME.fullmatch(name) and name not in (".", "..")]
    typed = [n for n in names if isinstance(features.get(n), dict) and features[n].get("_type") == "Image"]
    likely = {n for n in names if n in _IMAGE_NAMES and (_holds_images(kind := schema.field(n).type) or _is_text(kind))}
    images = [n for n in names if n in typed or n in likely]
    images = images or [n for n in names if _is_image_struct(schema.field(n).type)]
    if where.name == "metadata.parquet":
        images = [n for n in names if n == "file_name"]
    image = next((n for n in _IMAGE_NAMES if n in images), images[0] if images else None)
    have = ", ".join(utf8_safe(name) for name in schema.names[:20]) or "none"
    if image is None:
        raise SynthgenError(f"{where} has no column of images (its columns: {have}); is it a dataset of images?")
    kind = schema.field(image).type
    if not _holds_images(kind) and not _is_text(kind):
        raise SynthgenError(f"the column '{image}' of {where} holds neither images nor paths of images ({kind})")
    objects = tuple(n for n in ("objects", "annotations") if n in names)[:1]
    objects = objects or tuple(n for n in (*BOX_FIELDS, *LABEL_FIELDS, *MASK_FIELDS) if n in names)
    if not {"objects", "annotations", *BOX_FIELDS, *MASK_FIELDS}.intersection(objects):
        raise SynthgenError(f"{where} has no column of objects or boxes (its columns: {have}); synthgen needs boxes")
    scalars = tuple(n for n in SCALARS if n in names and pa.types.is_integer(schema.field(n).type))
    return TableShape(image, objects, find_class_names(features, objects), scalars, _is_text(kind))


def read_features(metadata: dict[bytes, bytes] | None) -> dict[str, Any]:
    """The features that `datasets` writes into a schema, by column; empty if there are none."""
    try:
        content = json.loads((metadata or {}).get(b"huggingface", b"{}"))
        features = content["info"]["features"]
        return features if isinstance(features, dict) else {}
    except (ValueError, LookupError, TypeError, RecursionError):
        return {}


def find_class_names(features: dict[str, Any], objects: tuple[str, ...]) -> tuple[str, ...]:
    """The names of a ClassLabel in the objects; empty if there is none."""
    for name in objects:
        inner = _unwrap(features.get(name))
        fields = inner if isinstance(inner, dict) and "_type" not in inner else {name: inner}
        for label in LABEL_FIELDS:
            one = _unwrap(fields.get(label))
            if isinstance(one, dict) and one.get("_type") == "ClassLabel":
                names = one.get("names")
                if isinstance(names, list) and len(names) <= _MAX_CLASSES and all(isinstance(n, str) for n in names):
                    return tuple(n.encode("utf-8", "replace").decode() for n in names)
    return ()


def iter_image_ids(path: Path) -> Iterator[list[Any]]:
    """The column "image_id" of a file, in parts; a part that cannot be read gives [None]."""
    for batch, _, _ in _iter_batches(path, ["image_id"], ""):
        yield [None] if batch is None else batch.column(0).to_pylist()


def iter_rows(path: Path, shape: TableShape, prefix: str) -> Iterator[Row]:
    """The rows of a file, in its order. Rows of a part that cannot be read have an error.

    Args:
        path: Parquet or Arrow file; untrusted.
        shape: its columns, from `describe_table`.
        prefix: path of the file below the image folder.
    """
    wanted = [*dict.fromkeys([*shape.objects, *shape.scalars])]
    row = 0
    for batch, paths, num_lost in _iter_batches(path, wanted, shape.image):
        if batch is None:
            for _ in range(num_lost):
                yield Row(f"{prefix}/{row_name(shape.image, row)}", {}, "its row lies in a damaged part of its file")
                row += 1
            continue
        done = 0
        for part in _split_batch(batch):
            is_large = part.num_rows == 1 and part.nbytes > MAX_ROW_BYTES
            for record in [{}] if is_large else part.to_pylist():
                name, error = _image_name(shape, prefix, row, paths[done] if paths else None)
                if is_large:
                    error = f"its objects take more than {MAX_ROW_BYTES // 2**20} MiB"
                yield Row(name, record, error)
                row, done = row + 1, done + 1


def iter_metadata(path: Path, prefix: str, findings: FindingCounter) -> Iterator[Row]:
    """The rows of `metadata.jsonl` or `metadata.csv`; a line that cannot be read is reported.

    Args:
        path: `metadata.jsonl` or `metadata.csv`; untrusted.
        prefix: path of its folder below the image folder, with a slash, or "".
        findings: counts lines that cannot be read.
    """
    records = _iter_csv(path) if path.name.lower().endswith(".csv") else _iter_json_lines(path)
    for number, record in records:
        name = record.get("file_name") if isinstance(record, dict) else None
        if not isinstance(record, dict) or not isinstance(name, str) or not name:
            what = record if isinstance(record, str) else "has no file_name"
            findings.add("unreadable_line", "lines", f"{path.name}, line {number:,}", what)
            continue
        yield Row(prefix + name.encode("utf-8", "replace").decode(), record)


def _iter_json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """(number of a line, its record; a text says why it cannot be read)."""
    with path.open("rb") as file:
        number, is_rest = 0, False
        while line := file.readline(_MAX_LINE_BYTES):
            was_rest, is_rest = is_rest, not line.endswith(b"\n") and len(line) == _MAX_LINE_BYTES
            number += not was_rest
            if was_rest or not line.strip():
                continue
            if is_rest:
                yield number, f"has more than {_MAX_LINE_BYTES // 2**20} MiB"
                continue
            try:
                record = msgspec.json.decode(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
            except (msgspec.MsgspecError, ValueError, RecursionError):
                yield number, "is not valid JSON"
                continue
            yield number, record


def _iter_csv(path: Path) -> Iterator[tuple[int, Any]]:
    """The same of a table with a header; cells of objects hold JSON."""
    csv.field_size_limit(_MAX_LINE_BYTES)
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        rows = csv.DictReader(_bounded_lines(file))
        while True:
            try:
                record: dict[str, Any] | None = next(rows, None)
            except csv.Error as why:
                yield rows.line_num, f"cannot be read ({why})"
                continue
            if record is None:
                return
            yield rows.line_num, {key: _parse_cell(key, value) for key, value in record.items() if key is not None}


def _bounded_lines(file: Any) -> Iterator[str]:
    while line := file.readline(_MAX_LINE_BYTES):
        yield line


def _parse_cell(key: str, value: Any) -> Any:
    if key in ("objects", "annotations", *BOX_FIELDS, *LABEL_FIELDS, *MASK_FIELDS) and isinstance(value, str):
        try:
            return msgspec.json.decode(value) if value.lstrip()[:1] in ("[", "{") else value or None
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return value
    return value


def _image_name(shape: TableShape, prefix: str, row: int, path: str | None) -> tuple[str, str | None]:
    """(name of a row's image, why it cannot be used)."""
    packed = f"{prefix}/{row_name(shape.image, row)}"
    if path is None:
        return packed, "its row names no image" if shape.is_path else None
    safe = path.encode("utf-8", "replace").decode()
    if re.match(r"/|[A-Za-z]:|[a-z][a-z0-9+.-]*://|\\\\", safe):
        return packed, "its row names an image outside the folder; write the images into the files with save_to_disk"
    return safe, None


def _iter_batches(
    path: Path, columns: list[str], image: str
) -> Iterator[tuple[pa.RecordBatch | None, list[str | None] | None, int]]:
    """(the columns of some rows; their images' paths where the images are not in the file; the rows that are lost)."""
    try:
        if path.name.lower().endswith(".arrow"):
            yield from _iter_arrow(path, columns, image)
        else:
            yield from _iter_parquet(path, columns, image)
    except ImageError as why:
        raise SynthgenError(f"{path} {_about_file(why)}; download it again") from None
    except OSError as why:
        raise SynthgenError(f"cannot read {path} ({why.strerror}); check the path and its permissions") from None


def _iter_arrow(
    path: Path, columns: list[str], image: str
) -> Iterator[tuple[pa.RecordBatch | None, list[str | None] | None, int]]:
    index = arrow_stream.open_stream(path)
    for number in range(len(index.starts)):
        try:
            batch = arrow_stream.read_batch(path, number)
        except ImageError:
            yield None, None, int(index.first_rows[number + 1] - index.first_rows[number])
            continue
        yield batch.select(columns), _paths_of(batch.column(image)) if image else None, 0


def _iter_parquet(
    path: Path, columns: list[str], image: str
) -> Iterator[tuple[pa.RecordBatch | None, list[str | None] | None, int]]:
    footer = read_footer(path)
    with pq.ParquetFile(path, memory_map=False, pre_buffer=False) as file:
        for group, chunks in enumerate(footer.groups):
            extra = _path_leaf(footer, group, image)
            names = [*columns, *([extra] if extra else [])]
            wanted = {
                number
                for number, leaf in enumerate(footer.leaves)
                if any(leaf.path == name or leaf.path.startswith(f"{name}.") for name in names)
            }
            done = 0
            try:
                check_sizes(path, footer, group, wanted, MAX_GROUP_BYTES)
                for batch in file.iter_batches(_BATCH_ROWS, [group], names, use_threads=False):
                    batch.validate(full=True)
                    yield batch.select(columns), _paths_of(batch.column(image)) if extra else None, 0
                    done += batch.num_rows
            except (ImageError, *PARSE_ERRORS):
                yield None, None, max(0, chunks[0].num_rows - done if chunks else 0)


def _path_leaf(footer: ParquetFooter, group: int, image: str) -> str:
    """The column of paths, if a row group holds no image; "" if it does."""
    places = {leaf.path: number for number, leaf in enumerate(footer.leaves)}
    if image in places:  # a column of texts or of bytes
        return image if footer.leaves[places[image]].is_text else ""
    if not image or f"{image}.path" not in places or f"{image}.bytes" not in places:
        return ""
    number = places[f"{image}.bytes"]
    chunk = footer.groups[group][number]
    is_empty = footer.leaves[number].physical_type != BYTE_ARRAY or 0 < chunk.num_rows <= chunk.num_nulls
    return f"{image}.path" if is_empty else ""


def _paths_of(images: pa.Array) -> list[str | None] | None:
    """The paths of images that are not in the table; None = all are."""
    if _is_text(images.type):
        return [str(path) if path is not None else None for path in images.to_pylist()]
    if not pa.types.is_struct(images.type) or images.type.get_field_index("path") < 0:
        return None
    if images.type.get_field_index("bytes") >= 0:
        there = images.field("bytes").is_valid().to_pylist()
        if all(there):
            return None
    else:
        there = [False] * len(images)
    paths = images.field("path").to_pylist()
    return [None if in_file or not isinstance(path, str) else path for in_file, path in zip(there, paths, strict=True)]


def _split_batch(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The rows in parts of some megabytes."""
    if batch.nbytes <= _BATCH_BYTES or batch.num_rows <= 1:
        yield batch
        return
    half = batch.num_rows // 2
    yield from _split_batch(batch.slice(0, half))
    yield from _split_batch(batch.slice(half))


def _unwrap(feature: Any) -> Any:
    """A feature without the lists around it."""
    for _ in range(16):
        if isinstance(feature, list) and len(feature) == 1:
            feature = feature[0]
        elif isinstance(feature, dict) and isinstance(feature.get("feature"), dict | list):
            feature = feature["feature"]
        else:
            break
    return feature


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _holds_images(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or _is_image_struct(kind))


def _is_image_struct(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        return False
    inner = kind.field("bytes").type
    return bool(pa.types.is_binary(inner) or pa.types.is_large_binary(inner) or pa.types.is_null(inner))


def _about_file(why: ImageError) -> str:
    """An error of an image, as one of its file."""
    return re.sub(r"^is in an? ((Parquet|Arrow) )?file (that|whose|with) ", r"is a file \3 ", str(why))
