"""Roboflow's COCO layout, which RF-DETR reads: train/, valid/ and test/, each with its images and a JSON.

`_annotations.coco.json` lies beside the images of a split. Category 0 is the parent of all others, as Roboflow writes
it; the others count from 1. Masks are lists of polygons, with holes cut open by lines without width. Crowds stay RLEs,
as COCO has them. Scores and provenance are further members of an annotation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from synthgen.export.exporters import ExportContext, ExportItem, ExportNotes
from synthgen.export.exporters._coco_records import CocoFile, info_record, license_records, rle_segmentation
from synthgen.export.exporters._polygon_loss import PolygonLoss, check_tolerance
from synthgen.export.mask_counter import MaskCounter
from synthgen.plugin_options import option
from synthgen.records.rle import decode_mask_window
from synthgen.records.sample import Annotation

TITLE = "Roboflow COCO"
IMAGES = "copy"
FLAT_IMAGES = True

#: The name of the root category.
ROOT = "objects"


@dataclass(frozen=True, kw_only=True)
class RoboflowOptions:
    """Options of the exporter `roboflow`."""

    tolerance: float = option(0.0, help="How far an outline may move, in pixels, to have fewer points; 0 = not at all")

    def __post_init__(self) -> None:
        check_tolerance(self.tolerance)


OPTIONS = RoboflowOptions


class RoboflowExporter:
    """See the module's docstring.

    Args:
        context: of the export.
        options: of the format.
    """

    def __init__(self, context: ExportContext, options: RoboflowOptions) -> None:
        self._context, self._options = context, options
        self._polygons = PolygonLoss()
        self._numbers = {category.id: place for place, category in enumerate(context.categories, start=1)}
        self._files: dict[str, CocoFile] = {}
        self._masks: dict[str, MaskCounter] = {}
        self._num_images = Counter[str]()
        for folder in dict.fromkeys(map(folder_of_split, context.splits)):
            path = context.folder / folder / "_annotations.coco.json"
            self._files[folder] = CocoFile(path, renumber=True, make_segmentation=self._segmentation)
            self._masks[folder] = MaskCounter()

    def image_folder(self, split: str) -> str:
        """Roboflow's name of the `split`."""
        return folder_of_split(split)

    def write(self, item: ExportItem) -> Sequence[Annotation]:
        """Write the `item` to the file of its split."""
        folder = folder_of_split(item.split)
        own = [replace(a, category_id=self._numbers[a.category_id or 0]) for a in item.sample.annotations]
        written = self._files[folder].write(item.sample, item.file_name, own, item.mask_areas)
        self._masks[folder].add(written)
        return written

    def finish(self) -> ExportNotes:
        """Write the categories, the licences and what made the files."""
        taken = {category.name for category in self._context.categories}
        root = ROOT if ROOT not in taken else f"all {ROOT}"
        categories: list[dict[str, Any]] = [{"id": 0, "name": root, "supercategory": "none"}]
        categories += [
            {"id": self._numbers[category.id], "name": category.name, "supercategory": root}
            for category in self._context.categories
        ]
        for folder, file in self._files.items():
            file.finish(info_record(self._context, self._masks[folder]), categories, license_records(self._context))
        lines = list(self._polygons.lines())
        if "valid" not in self._files:
            lines.append("there is no folder valid, which RF-DETR needs; --val 0.1 makes one")
        data_files = {split: f"{folder_of_split(split)}/_annotations.coco.json" for split in self._context.splits}
        return ExportNotes(lines=tuple(lines), figures=self._polygons.figures(), data_files=data_files)

    def close(self) -> None:
        """Close all files."""
        for file in self._files.values():
            file.close()

    def _segmentation(self, annotation: Annotation) -> Any:
        if annotation.segmentation is None or annotation.iscrowd:
            return rle_segmentation(annotation)
        window = decode_mask_window(annotation.segmentation)
        rings = self._polygons.draw(window, self._options.tolerance, single=False)
        return [ring.ravel().tolist() for ring in rings]


def folder_of_split(split: str) -> str:
    """Roboflow's folder for a `split`: "valid" for "val2017" and the like, and "train" for what is no usual name."""
    return "valid" if split.startswith("val") else "test" if split.startswith("test") else "train"


def build(context: ExportContext, options: RoboflowOptions) -> RoboflowExporter:
    """Make the exporter for `context` with the `options`."""
    return RoboflowExporter(context, options)
