"""PNG masks, in one of three layouts, beside the images in images/<split>/.

- "instance": instances/<split>/<image>.png, 16 bits: 0 is background, and each object has a number from 1 on.
- "semantic": labels/<split>/<image>.png, 8 bits (16 from 255 categories on): 0 is background, and each category has a
  number from 1 on; `class_names.json` lists them. synthgen's own format `semantic_folder` reads it.
- "binary": masks/<split>/<image>/<annotation id>.png, 8 bits: 255 is the object.

Where objects overlap, the smaller one is on top; of two that are equally large, the later one. An object without a
visible pixel is left out and counted, in "semantic" only if the pixels show another category. In "binary" nothing is
hidden. The layouts "instance" and "binary" have a file <split>.json beside the masks' folder: for each image its
objects, with number or file, annotation id, category, box, scores, provenance and captions.

The text `synthgen:provenance` in a PNG names who drew its masks ("human", "machine", "reviewed"; several with commas),
and `synthgen:models` is a JSON list of the models.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from synthgen.errors import ArgumentError, SynthgenError, shorten_value
from synthgen.export.exporters import ExportContext, ExportItem, ExportNotes
from synthgen.export.exporters._object_list import ObjectList
from synthgen.export.image_files import ImageNames
from synthgen.images.decode import MAX_IMAGE_PIXELS
from synthgen.images.paths import IMAGE_SUFFIXES
from synthgen.images.png_file import write_png
from synthgen.plugin_options import option
from synthgen.records.rle import MaskWindow, decode_mask_window
from synthgen.records.sample import Annotation, Rle, mask_provenance

TITLE = "PNG masks"
IMAGES = "link"
FLAT_IMAGES = False

#: Layout -> the folder of the masks.
_FOLDERS = {"instance": "instances", "semantic": "labels", "binary": "masks"}

_MAX_NUMBER = 2**16 - 1  # of an object or a category in a map
_IGNORED = 255  # in 8-bit maps: readers take it for "no label"


@dataclass(frozen=True, kw_only=True)
class PngOptions:
    """Options of the exporter `png`.

    Raises:
        ArgumentError: a value is not valid.
    """

    layout: str = option(
        "instance",
        metavar="instance|semantic|binary",
        help="A map of objects for each image, a map of categories, or one file for each object",
    )

    def __post_init__(self) -> None:
        if self.layout not in _FOLDERS:
            raise ArgumentError(f"layout={shorten_value(self.layout)} is not valid; give one of {', '.join(_FOLDERS)}")


OPTIONS = PngOptions


class _Object(NamedTuple):
    """An annotation with a mask, and the mask's number of pixels."""

    annotation: Annotation
    mask: Rle
    area: int


class PngExporter:
    """See the module's docstring.

    Args:
        context: of the export.
        options: of the format.

    Raises:
        SynthgenError: there are more categories than numbers.
    """

    def __init__(self, context: ExportContext, options: PngOptions) -> None:
        self._context, self._layout = context, options.layout
        self._lists: dict[str, ObjectList] = {}
        self._left_out = Counter[str]()
        self._pixels = self._covered = self._overlapping = self._without_map = 0
        # Images that stay in their place have the names of the source, which may differ in their suffix alone.
        self._names = ImageNames(is_flat=False) if context.images == "none" else None
        folder = context.folder / _FOLDERS[self._layout]
        folder.mkdir()
        if self._layout == "semantic":
            self._values = {category.id: number for number, category in enumerate(context.categories, 1)}
            if len(self._values) > _MAX_NUMBER:
                raise SynthgenError(
                    f"{len(self._values):,} categories do not fit into a map of 16 bits; join some with a map of "
                    "categories, or choose layout=binary"
                )
            self._depth = np.uint8 if len(self._values) < _IGNORED else np.uint16
            _write_class_names(context)
        else:
            self._lists = {split: ObjectList(folder / f"{split}.json", context) for split in context.splits}

    def image_folder(self, split: str) -> str:
        """A folder for each `split`."""
        return f"images/{split}"

    def write(self, item: ExportItem) -> Sequence[Annotation]:
        """Write the masks of the `item`."""
        sample = item.sample
        objects = [
            _Object(annotation, annotation.segmentation, area)
            for annotation, area in zip(sample.annotations, item.mask_areas, strict=True)
            if annotation.segmentation is not None
        ]
        self._left_out["no_mask"] += len(sample.annotations) - len(objects)
        name, image = item.file_name, f"{self.image_folder(item.split)}/{item.file_name}"
        if self._names is not None:
            name, image = self._names.choose(item.split, item.split, item.file_name, None), item.file_name
        members: dict[str, Any] = {}
        if self._layout == "binary":
            records = self._write_binary(objects, self._mask_path(item.split, name))
        elif 0 < sample.height * sample.width <= MAX_IMAGE_PIXELS:
            members["map"] = f"{self._mask_path(item.split, name)}.png"
            objects, records = self._write_map(objects, members["map"], sample.height, sample.width)
        else:
            self._left_out["image_too_large"] += len(objects)
            self._without_map += 1
            objects, records = [], []
        if self._lists:
            listed = [(one.annotation, one.area, own) for one, own in zip(objects, records, strict=True)]
            self._lists[item.split].write(sample, image, members, listed)
        return [one.annotation for one in objects]

    def finish(self) -> ExportNotes:
        """Write the ends of the lists."""
        for one in self._lists.values():
            one.finish()
        lines = []
        if self._covered:
            share = 100 * self._covered / self._pixels
            lines.append(
                f"{self._overlapping:,} masks have pixels below a smaller object: {self._covered:,} pixels, "
                f"{share:.2g} % of all"
            )
        if self._without_map:
            lines.append(f"{self._without_map:,} images have no map, as their size is not known or too large")
        figures = {"overlapping_masks": self._overlapping, "covered_pixels": self._covered, "mask_pixels": self._pixels}
        return ExportNotes(dict(+self._left_out), tuple(lines), figures)

    def close(self) -> None:
        """Close all files."""
        for one in self._lists.values():
            one.close()

    def _mask_path(self, split: str, name: str) -> str:
        """Where the masks of an image are, below the folder of the export; without suffix."""
        path = PurePosixPath(name)
        stem = path.with_suffix("") if path.suffix.lower() in IMAGE_SUFFIXES else path
        return (PurePosixPath(_FOLDERS[self._layout]) / split / stem).as_posix()

    def _write_binary(self, objects: Sequence[_Object], place: str) -> list[dict[str, Any]]:
        """One file for each object; returns the members that say which."""
        files: dict[str, None] = {}
        for one in objects:
            window = decode_mask_window(one.mask)
            pixels = np.zeros(one.mask.size, np.uint8)
            _cut(pixels, window)[window.pixels] = 255
            file = f"{place}/{one.annotation.id}.png"
            while file in files:  # the source may give two annotations one id
                file = f"{file.removesuffix('.png')}_.png"
            files[file] = None
            self._write(file, pixels, [one])
        return [{"file": file} for file in files]

    def _write_map(
        self, objects: Sequence[_Object], file: str, height: int, width: int
    ) -> tuple[list[_Object], list[dict[str, Any]]]:
        """The map of an image; returns the objects that are visible, and the members that say where."""
        is_semantic = self._layout == "semantic"
        most = len(objects) if is_semantic else _MAX_NUMBER
        self._left_out["too_many_objects"] += len(objects[most:])
        objects = objects[:most]
        values: Sequence[int] = range(1, len(objects) + 1)
        if is_semantic:
            values = [self._values[one.annotation.category_id or 0] for one in objects]
        areas = [one.area for one in objects]
        pixels = np.zeros((height, width), self._depth if is_semantic else np.uint16)
        for one, value in sorted(zip(objects, values, strict=True), key=lambda pair: -pair[0].area):
            window = decode_mask_window(one.mask)
            _cut(pixels, window)[window.pixels] = value
        visible = areas
        if sum(areas) != np.count_nonzero(pixels):  # else no two overlap
            visible = []
            for one, value in zip(objects, values, strict=True):
                window = decode_mask_window(one.mask)
                visible.append(int(np.count_nonzero(_cut(pixels, window)[window.pixels] == value)))
        self._pixels += sum(areas)
        self._covered += sum(areas) - sum(visible)
        self._overlapping += sum(seen < area for seen, area in zip(visible, areas, strict=True))
        self._left_out["hidden"] += visible.count(0)
        shown = [one for one, seen in zip(objects, visible, strict=True) if seen]
        self._write(file, pixels, shown)
        return shown, [
            {"value": value, "visible_pixels": seen} for value, seen in zip(values, visible, strict=True) if seen
        ]

    def _write(self, file: str, pixels: NDArray[Any], objects: Sequence[_Object]) -> None:
        """Write a PNG below the folder of the export, with the provenance of its objects."""
        path = self._context.folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn = {(mask_provenance(one.annotation) or "", one.annotation.mask_source) for one in objects}
        models = {source for provenance, source in drawn if source and provenance != "human"}
        texts = {
            "synthgen:provenance": ",".join(sorted({provenance for provenance, _ in drawn})),
            "synthgen:models": json.dumps(sorted(models)) if models else "",
        }
        write_png(path, pixels, {keyword: text for keyword, text in texts.items() if text})


def build(context: ExportContext, options: PngOptions) -> PngExporter:
    """Make the exporter for `context` with the `options`."""
    return PngExporter(context, options)


def _cut(pixels: NDArray[Any], window: MaskWindow) -> NDArray[Any]:
    """The part [h, w] of a map [H, W] where a mask is; a view."""
    height, width = window.pixels.shape
    return pixels[window.top : window.top + height, window.left : window.left + width]


def _write_class_names(context: ExportContext) -> None:
    """The numbers and names of the categories, as `semantic_folder` reads them."""
    names = [{"id": 0, "name": "background"}]
    names += [
        {"id": number, "name": category.name, "category_id": category.id}
        for number, category in enumerate(context.categories, 1)
    ]
    with (context.folder / "class_names.json").open("x", encoding="ascii") as file:
        file.write("[\n" + ",\n".join(map(json.dumps, names)) + "\n]\n")
