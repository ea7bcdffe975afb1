"""The Croissant file of an export, `croissant.json`: JSON-LD that names its files, their digests and their records.

The format: https://docs.mlcommons.org/croissant/docs/croissant-spec-1.0.html. It is version 1.0, which all readers
know. The record sets describe the Parquet files of `hf` and the JSON files of COCO (`coco`, `lvis`, `roboflow`). Of
other formats, the files alone are described.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from synthgen.export.summary import ExportFile, ExportSummary, plain_split_name

#: A folder with more files of one kind is described by a pattern instead of one record for each.
MAX_FILES = 1_000

#: Formats whose annotations are one JSON of COCO for each split.
_COCO_FORMATS = ("coco", "lvis", "roboflow")

_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}

#: Suffix -> media type.
_MEDIA_TYPES = {
    "json": "application/json",
    "jsonl": "application/jsonlines",
    "parquet": "application/x-parquet",
    "tar": "application/x-tar",
    "txt": "text/plain",
    "md": "text/markdown",
    "yaml": "application/yaml",
    "xml": "application/xml",
    "csv": "text/csv",
    "png": "image/png",
}

#: Columns of the Parquet files, and of their objects: (name, type, what it is).
_COLUMNS = (
    ("image_id", "sc:Integer", "The source's number of the image."),
    ("source_file", "sc:Text", "Path of the image in the source."),
    ("width", "sc:Integer", "Width of the image in pixels, as a viewer shows it."),
    ("height", "sc:Integer", "Height of the image in pixels, as a viewer shows it."),
)
_OBJECT_COLUMNS = (
    ("id", "sc:Integer", "The source's number of the object."),
    ("bbox", "sc:Float", "Box as x, y, width, height in pixels."),
    ("category", "sc:Integer", "Number of the category, from 0; see the record set of categories."),
    ("category_id", "sc:Integer", "The source's number of the category."),
    ("area", "sc:Float", "Pixels of the mask, or of the box without a mask."),
    ("iscrowd", "sc:Boolean", "COCO's mark for a group of objects."),
    ("mask_source", "sc:Text", "What drew the mask."),
    ("provenance", "sc:Text", "Who answers for the mask: machine, reviewed or human."),
    ("predicted_iou", "sc:Float", "The segmenter's own score of the mask, in [0, 1]."),
    ("stability_score", "sc:Float", "IoU of the masks at a higher and at a lower threshold, in [0, 1]."),
    ("box_iou", "sc:Float", "IoU of the mask's tight box with the box that prompted it, in [0, 1]."),
    ("soft_iou", "sc:Float", "IoU that the segmenter's own probabilities expect of the mask, in [0, 1]."),
)
#: List of a COCO file -> the members of its records.
_COCO_LISTS: dict[str, tuple[tuple[str, str], ...]] = {
    "images": (("id", "sc:Integer"), ("file_name", "sc:Text"), ("width", "sc:Integer"), ("height", "sc:Integer")),
    "annotations": (
        ("id", "sc:Integer"),
        ("image_id", "sc:Integer"),
        ("category_id", "sc:Integer"),
        ("bbox", "sc:Float"),
        ("area", "sc:Float"),
        ("iscrowd", "sc:Integer"),
    ),
    "categories": (("id", "sc:Integer"), ("name", "sc:Text")),
}


def make_croissant(summary: ExportSummary) -> str:
    """The text of `croissant.json`.

    Args:
        summary: what the export holds.
    """
    return json.dumps(_describe(summary), ensure_ascii=True, allow_nan=False, indent=1) + "\n"


def _describe(summary: ExportSummary) -> dict[str, Any]:
    licenses = [one.url or one.name for one in summary.licenses if one.url or one.name]
    counts = ", ".join(f"{count:,} {key}" for key, count in summary.provenance.items())
    machine = [name for name in summary.models if name != "human"]
    more_files, record_sets = _records(summary)
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": re.sub(r"[^A-Za-z0-9_-]+", "-", f"{summary.layer}-{summary.format}").strip("-") or "export",
        "description": f"{summary.description} Format: {summary.title}. Provenance of the masks: {counts}.",
        "creator": {"@type": "Organization", "name": f"synthgen {summary.version}"},
        **({"license": licenses} if licenses else {}),
        "keywords": ["instance segmentation", "object detection", "synthgen"],
        **({"rai:machineAnnotationTools": machine} if machine else {}),
        "rai:dataLimitations": [
            "A model drew the masks of provenance 'machine'; nobody has looked at them. The licence of each image is "
            "that of its source. Check both before publishing."
        ],
        "distribution": [*_files(summary.files), *more_files],
        "recordSet": record_sets,
    }


def _files(files: Sequence[ExportFile]) -> list[dict[str, Any]]:
    """A FileObject for each file; a FileSet for those of a folder that has very many of a kind."""
    groups: defaultdict[tuple[str, str], list[ExportFile]] = defaultdict(list)
    for one in files:
        path = PurePosixPath(one.path)
        groups[str(path.parent), path.suffix].append(one)
    found = []
    for (folder, suffix), members in groups.items():
        if len(members) > MAX_FILES:
            pattern = f"*{suffix}" if folder == "." else f"{folder}/*{suffix}"
            found.append(_file_set(pattern, [pattern], _media_type(pattern)))
            continue
        found += [_file_object(one, quote(one.path)) for one in members]
    return found


def _records(summary: ExportSummary) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(more files, record sets) of the formats whose records Croissant can describe."""
    if not summary.data_files:
        return [], []
    if summary.format == "hf":
        patterns = [re.sub(r"/\*\*$", "/metadata.parquet", pattern) for pattern in summary.data_files.values()]
        parquet = _file_set("parquet-files", patterns, _MEDIA_TYPES["parquet"])
        return [parquet], [_categories(summary), _parquet_records(summary)]
    if summary.format in _COCO_FORMATS:
        there = {one.path: one for one in summary.files}
        splits: dict[str, str] = {}
        for split, path in summary.data_files.items():
            splits.setdefault(path, split)  # two may share a file
        found = [(split, there[path]) for path, split in splits.items() if path in there]
        # `mlcroissant` reads all fields of a FileObject as columns of one length, so each list has its own.
        lists = [(split, kind, file, f"{quote(file.path)}-{kind}") for split, file in found for kind in _COCO_LISTS]
        objects = [_file_object(file, identity) for _, _, file, identity in lists]
        return objects, [_coco_records(split, kind, identity) for split, kind, _, identity in lists]
    return [], []


def _categories(summary: ExportSummary) -> dict[str, Any]:
    """The categories with their numbers, as records in the Croissant file."""
    kinds = {"label": "sc:Integer", "id": "sc:Integer", "name": "sc:Text"}
    return {
        "@type": "cr:RecordSet",
        "@id": "categories",
        "name": "categories",
        "description": "The number in the column 'category', the source's number, and the name.",
        "key": {"@id": "categories/label"},
        "field": [_field(f"categories/{name}", name, kind, None) for name, kind in kinds.items()],
        "data": [
            {"categories/label": label, "categories/id": one.id, "categories/name": one.name}
            for label, one in enumerate(summary.categories)
        ],
    }


def _parquet_records(summary: ExportSummary) -> dict[str, Any]:
    """The rows of the Parquet files: an image each, with its objects as a list of each field."""
    files = {"fileSet": {"@id": "parquet-files"}}

    def column(name: str, *json_path: str) -> dict[str, Any]:
        transform = {"transform": {"jsonPath": json_path[0]}} if json_path else {}
        return {**files, "extract": {"column": name}, **transform}

    splits = "|".join(map(plain_split_name, summary.data_files))
    split = {
        **files,
        "extract": {"fileProperty": "fullpath"},
        "transform": {"regex": rf"^(?:.*/)?({splits})(?:-\d+-of-\d+\.parquet|/metadata\.parquet)$"},
    }
    fields = [_field("images/split", "split", "sc:Text", split, "Name of the split.")]
    if summary.images == "embed":
        fields.append(_field("images/image", "image", "sc:ImageObject", column("image", "bytes"), "The image."))
    fields += [_field(f"images/{name}", name, kind, column(name), text) for name, kind, text in _COLUMNS]
    objects = [
        {**_field(f"images/objects/{name}", name, kind, column("objects", name), text), "repeated": True}
        for name, kind, text in _OBJECT_COLUMNS
    ]
    fields.append(
        {
            **_field("images/objects", "objects", None, None, "The objects of the image, as a list of each field."),
            "subField": objects,
        }
    )
    return {
        "@type": "cr:RecordSet",
        "@id": "images",
        "name": "images",
        "description": (
            "Images with their objects. The column 'objects' also holds 'segmentation' (COCO's RLE: size and counts; "
            "null without a mask), captions and flags."
        ),
        "field": fields,
    }


def _coco_records(split: str, kind: str, file: str) -> dict[str, Any]:
    """A list of a COCO file as a record set."""
    name = f"{quote(split, safe='')}-{kind}"
    fields = []
    for column, data_type in _COCO_LISTS[kind]:
        source = {"fileObject": {"@id": file}, "extract": {"jsonPath": f"$.{kind}[*].{column}"}}
        is_list = {"repeated": True} if column == "bbox" else {}
        fields.append({**_field(f"{name}/{column}", column, data_type, source), **is_list})
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": f"The {kind} of the split {split}.",
        "field": fields,
    }


def _file_object(file: ExportFile, identity: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": identity,
        "name": PurePosixPath(file.path).name,
        "contentUrl": file.path,
        "contentSize": f"{file.bytes} B",
        "encodingFormat": _media_type(file.path),
        "sha256": file.sha256,
    }


def _field(
    identity: str, name: str, data_type: str | None, source: dict[str, Any] | None, description: str = ""
) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": identity,
        "name": name,
        **({"description": description} if description else {}),
        **({"dataType": data_type} if data_type else {}),
        **({"source": source} if source else {}),
    }


def _file_set(identity: str, patterns: Sequence[str], media_type: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": quote(identity),
        "name": identity,
        "encodingFormat": media_type,
        "includes": list(patterns),
    }


def _media_type(path: str) -> str:
    return _MEDIA_TYPES.get(PurePosixPath(path).suffix.lower().removeprefix("."), "application/octet-stream")
