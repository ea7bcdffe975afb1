"""The JSON file beside the masks of a split: each image with its objects, as COCO's records.

Its keys are not COCO's, as it is not a COCO file: readers would take it for one, and find no mask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from synthgen.export.exporters import ExportContext
from synthgen.export.exporters._coco_records import annotation_record, category_record, license_records
from synthgen.records.sample import Annotation, Sample

_encode = msgspec.json.Encoder().encode


class ObjectList:
    """A file that is written image by image.

    Args:
        path: the file, new.
        context: of the export.
    """

    def __init__(self, path: Path, context: ExportContext) -> None:
        self._is_first = True
        self._file = path.open("xb", buffering=2**18)
        about = {
            "description": context.description,
            "synthgen": {"version": context.version, "layer": context.layer, "recipe": dict(context.recipe)},
            "classes": [category_record(category) for category in context.categories],
            "image_licenses": license_records(context),
        }
        for name, value in about.items():
            self._file.write((b"{" if name == "description" else b",\n") + _encode(name) + b": " + _encode(value))
        self._file.write(b',\n"masks": [')

    def write(
        self,
        sample: Sample,
        file_name: str,
        members: Mapping[str, Any],
        objects: Sequence[tuple[Annotation, int, Mapping[str, Any]]],
    ) -> None:
        """Write an image.

        Args:
            sample: the image.
            file_name: its path in the export, or below its own folder if it stays in its place.
            members: further members of its record.
            objects: annotations, with the number of pixels of the mask and further members of the record of each.
        """
        record = {"id": sample.image_id, "file_name": file_name, "height": sample.height, "width": sample.width}
        record |= {"license": sample.license_id} if sample.license_id is not None else {}
        record |= {**members, "objects": [_object_record(sample, *one) for one in objects]}
        self._file.write((b"\n" if self._is_first else b",\n") + _encode(record))
        self._is_first = False

    def finish(self) -> None:
        """Write the end of the file, and close it."""
        self._file.write(b"\n]}\n")
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _object_record(sample: Sample, annotation: Annotation, pixels: int, members: Mapping[str, Any]) -> dict[str, Any]:
    record = annotation_record(annotation, annotation.id, sample.image_id, None, pixels)
    return {**msgspec.to_builtins(record), **members}
