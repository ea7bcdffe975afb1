"""COCO instances: annotations/instances_<split>.json, and the images in images/<split>/.

Masks are compressed RLEs, which hold every pixel, or polygons by option. Ids of images, annotations and categories are
the source's own. Scores, `mask_source`, `provenance`, captions and flags are further members of an annotation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from synthgen.export.exporters import ExportContext, ExportItem, ExportNotes
from synthgen.export.exporters._coco_records import CocoFile, category_record, info_record, license_records
from synthgen.export.mask_counter import MaskCounter
from synthgen.plugin_options import option
from synthgen.records.sample import Annotation

TITLE = "COCO instances"
IMAGES = "link"
FLAT_IMAGES = False


@dataclass(frozen=True, kw_only=True)
class CocoOptions:
    """Options of the exporter `coco`."""

    renumber: bool = option(False, help="Number images and annotations from 1")


OPTIONS = CocoOptions


class CocoExporter:
    """See the module's docstring.

    Args:
        context: of the export.
        options: of the format.
    """

    def __init__(self, context: ExportContext, options: CocoOptions) -> None:
        self._context = context
        self._files = {
            split: CocoFile(context.folder / f"annotations/instances_{split}.json", renumber=options.renumber)
            for split in context.splits
        }
        self._masks = {split: MaskCounter() for split in context.splits}

    def image_folder(self, split: str) -> str:
        """images/ and the name of the `split`."""
        return f"images/{split}"

    def write(self, item: ExportItem) -> Sequence[Annotation]:
        """Write the `item` to the file of its split."""
        written = self._files[item.split].write(item.sample, item.file_name, item.sample.annotations, item.mask_areas)
        self._masks[item.split].add(written)
        return written

    def finish(self) -> ExportNotes:
        """Write the categories, the licences and what made the file."""
        categories = [category_record(category) for category in self._context.categories]
        for split, file in self._files.items():
            info = info_record(self._context, self._masks[split])
            file.finish(info, categories, license_records(self._context))
        return ExportNotes(data_files={split: f"annotations/instances_{split}.json" for split in self._files})

    def close(self) -> None:
        """Close all files."""
        for file in self._files.values():
            file.close()


def build(context: ExportContext, options: CocoOptions) -> CocoExporter:
    """Make the exporter for `context` with the `options`."""
    return CocoExporter(context, options)
