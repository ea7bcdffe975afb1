"""LVIS: a COCO-style file with the categories that were looked for in each image, as lvis-api reads it.

annotations/lvis_<split>.json, and the images in images/<split>/. Masks are compressed RLEs. Each category has the
number of its images and annotations, and LVIS's letter for it: "r" (up to 10 images), "c" (up to 100), "f" (more). LVIS
has no crowds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from synthgen.export.exporters import ExportCategory, ExportContext, ExportItem, ExportNotes
from synthgen.export.exporters._coco_records import CocoFile, category_record, info_record, license_records
from synthgen.export.mask_counter import MaskCounter
from synthgen.plugin_options import option
from synthgen.records.sample import Annotation

TITLE = "LVIS"
IMAGES = "link"
FLAT_IMAGES = False

#: Most images of a rare category, and of a common one (Gupta et al., 2019).
_RARE, _COMMON = 10, 100


@dataclass(frozen=True, kw_only=True)
class LvisOptions:
    """Options of the exporter `lvis`."""

    renumber: bool = option(False, help="Number images and annotations from 1")


OPTIONS = LvisOptions


class LvisExporter:
    """See the module's docstring.

    Args:
        context: of the export.
        options: of the format.
    """

    def __init__(self, context: ExportContext, options: LvisOptions) -> None:
        self._context = context
        self._ids = {category.name: category.id for category in context.categories}
        self._splits = {
            split: _LvisSplit(
                CocoFile(context.folder / f"annotations/lvis_{split}.json", renumber=options.renumber),
                MaskCounter(),
                Counter(),
                Counter(),
            )
            for split in context.splits
        }
        self._left_out = Counter[str]()

    def image_folder(self, split: str) -> str:
        """images/ and the name of the `split`."""
        return f"images/{split}"

    def write(self, item: ExportItem) -> Sequence[Annotation]:
        """Write the `item` to the file of its split."""
        sample, split = item.sample, self._splits[item.split]
        places = [i for i, annotation in enumerate(sample.annotations) if not annotation.iscrowd]
        objects, areas = [sample.annotations[i] for i in places], [item.mask_areas[i] for i in places]
        self._left_out["crowd"] += len(sample.annotations) - len(objects)
        # Absence is known only of the names that annotators looked for; None = they looked for all names.
        there = item.present.union(annotation.category for annotation in sample.annotations)
        looked_for = self._ids if sample.neg_categories is None else sample.neg_categories
        absent = [self._ids[name] for name in looked_for if name in self._ids and name not in there]
        more = [self._ids[name] for name in sample.not_exhaustive_categories if name in self._ids]
        members = {"neg_category_ids": sorted(absent), "not_exhaustive_category_ids": sorted(more)}
        written = split.file.write(sample, item.file_name, objects, areas, members)
        split.count(written)
        return written

    def finish(self) -> ExportNotes:
        """Write the categories with their counts, the licences and what made the file."""
        for split in self._splits.values():
            categories = [split.category_record(category) for category in self._context.categories]
            info = info_record(self._context, split.masks)
            split.file.finish(info, categories, license_records(self._context))
        data_files = {split: f"annotations/lvis_{split}.json" for split in self._splits}
        return ExportNotes(left_out=+self._left_out, data_files=data_files)

    def close(self) -> None:
        """Close all files."""
        for split in self._splits.values():
            split.file.close()


@dataclass(slots=True)
class _LvisSplit:
    """The file of a split, and the counts of its categories.

    Attributes:
        file: the file.
        masks: counts masks by who drew them.
        images: id of a category -> images with an annotation of it.
        instances: id of a category -> annotations.
    """

    file: CocoFile
    masks: MaskCounter
    images: Counter[int | None]
    instances: Counter[int | None]

    def count(self, written: Sequence[Annotation]) -> None:
        self.masks.add(written)
        ids = [annotation.category_id for annotation in written]
        self.instances.update(ids)
        self.images.update(set(ids))

    def category_record(self, category: ExportCategory) -> dict[str, object]:
        images = self.images[category.id]
        letter = "r" if images <= _RARE else "c" if images <= _COMMON else "f"
        counts = {"image_count": images, "instance_count": self.instances[category.id], "frequency": letter}
        return category_record(category) | counts


def build(context: ExportContext, options: LvisOptions) -> LvisExporter:
    """Make the exporter for `context` with the `options`."""
    return LvisExporter(context, options)
