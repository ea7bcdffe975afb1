"""YOLO segmentation: data.yaml, images/<split>/ and labels/<split>/, as Ultralytics reads them.

A label file has a line for each object: the class, counted from 0, and one polygon in fractions of the image. So the
parts of a mask are joined, and holes are cut open, by lines without width. Crowds, scores and captions have no place.
With `task=detect` a line has the class and the box instead.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from synthgen.errors import ArgumentError, shorten_value
from synthgen.export.exporters import ExportContext, ExportItem, ExportNotes
from synthgen.export.exporters._polygon_loss import PolygonLoss, check_tolerance
from synthgen.export.image_files import ImageNames, join_path
from synthgen.images.paths import IMAGE_SUFFIXES
from synthgen.plugin_options import option
from synthgen.records.rle import decode_mask_window
from synthgen.records.sample import Annotation, Sample

TITLE = "YOLO segmentation"
IMAGES = "link"
FLAT_IMAGES = False


@dataclass(frozen=True, kw_only=True)
class YoloOptions:
    """Options of the exporter `yolo`."""

    task: str = option("segment", help="segment: one polygon an object; detect: boxes")
    tolerance: float = option(0.0, help="How far an outline may move, in pixels, to have fewer points; 0 = not at all")

    def __post_init__(self) -> None:
        if self.task not in ("segment", "detect"):
            raise ArgumentError(f"task={shorten_value(self.task)} is not valid; give segment or detect")
        check_tolerance(self.tolerance)


OPTIONS = YoloOptions


class YoloExporter:
    """See the module's docstring.

    Args:
        context: of the export.
        options: of the format.
    """

    def __init__(self, context: ExportContext, options: YoloOptions) -> None:
        self._context, self._options = context, options
        self._classes = {category.id: place for place, category in enumerate(context.categories)}
        self._left_out = Counter[str]()
        # Names of images that stay where they are may leave the folder, or differ only in their suffix.
        self._names = ImageNames(is_flat=False) if context.images == "none" else None
        self._polygons = PolygonLoss("centers")  # Ultralytics fills with cv2.fillPoly
        for split in context.splits:
            for kind in ("images", "labels"):
                (context.folder / kind / split).mkdir(parents=True)

    def image_folder(self, split: str) -> str:
        """images/ and the name of the `split`."""
        return f"images/{split}"

    def write(self, item: ExportItem) -> Sequence[Annotation]:
        """Write the label file of the `item`."""
        is_box = self._options.task == "detect"
        make_line = self._box_line if is_box else self._polygon_line
        lines: list[str] = []
        written: list[Annotation] = []
        for annotation in item.sample.annotations:
            if (line := make_line(annotation, item.sample)) is not None:
                lines.append(line)
                written.append(replace(annotation, segmentation=None) if is_box else annotation)
        name = item.file_name
        if self._names is not None:
            name = self._names.choose(self.image_folder(item.split), item.split, item.file_name, None)
        image = PurePosixPath(name)
        stem = image.with_suffix("") if image.suffix.lower() in IMAGE_SUFFIXES else image
        path = self._context.folder / join_path("labels", item.split, f"{stem}.txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(lines), encoding="ascii")
        return written

    def finish(self) -> ExportNotes:
        """Write data.yaml."""
        Path(self._context.folder, "data.yaml").write_text(self._describe_dataset(), encoding="ascii")
        lines = list(self._polygons.lines())
        if "val" not in self._splits_by_key():
            lines.append(
                "there is no validation split, so data.yaml names the training images for it; --val 0.1 makes one"
            )
        return ExportNotes(+self._left_out, tuple(lines), self._polygons.figures())

    def close(self) -> None:
        """No file is open between two images."""

    def _polygon_line(self, annotation: Annotation, sample: Sample) -> str | None:
        reason = "crowd" if annotation.iscrowd else "no_mask" if annotation.segmentation is None else None
        if reason is not None:
            self._left_out[reason] += 1
            return None
        assert annotation.segmentation is not None  # noqa: S101 - for the type checker
        window = decode_mask_window(annotation.segmentation)
        [ring] = self._polygons.draw(window, self._options.tolerance, single=True)
        points = (ring / [sample.width, sample.height]).ravel().tolist()
        return f"{self._classes[annotation.category_id or 0]} {' '.join([f'{value:.6f}' for value in points])}\n"

    def _box_line(self, annotation: Annotation, sample: Sample) -> str | None:
        x, y, width, height = annotation.bbox
        left, right = max(x, 0.0), min(x + width, sample.width)
        top, bottom = max(y, 0.0), min(y + height, sample.height)
        reason = "crowd" if annotation.iscrowd else "no_box" if not (left < right and top < bottom) else None
        if reason is not None:
            self._left_out[reason] += 1
            return None
        numbers = (
            (left + right) / 2 / sample.width,
            (top + bottom) / 2 / sample.height,
            (right - left) / sample.width,
            (bottom - top) / sample.height,
        )
        return f"{self._classes[annotation.category_id or 0]} {' '.join(f'{value:.6f}' for value in numbers)}\n"

    def _splits_by_key(self) -> dict[str, list[str]]:
        """Key of data.yaml -> names of splits."""
        found: dict[str, list[str]] = {}
        for split in self._context.splits:
            key = "val" if split.startswith("val") else "test" if split.startswith("test") else "train"
            found.setdefault(key, []).append(split)
        return found

    def _describe_dataset(self) -> str:
        """The text of data.yaml. Without the key `path`, Ultralytics reads paths relative to the file."""
        splits = self._splits_by_key()
        everything = [split for names in splits.values() for split in names]
        lines = [f"# {_one_line(self._context.description)}"]
        for key in ("train", "val", *(["test"] if "test" in splits else [])):
            names = splits.get(key) or splits.get("train") or everything
            paths = [_quote(f"images/{name}") for name in names]
            lines.append(f"{key}: {paths[0] if len(paths) == 1 else '[' + ', '.join(paths) + ']'}")
        lines += ["names:"]
        lines += [f"  {place}: {_quote(one.name)}" for place, one in enumerate(self._context.categories)]
        return "\n".join(lines) + "\n"


def _one_line(text: str) -> str:
    """ASCII without line ends, for a comment."""
    return json.dumps(text)[1:-1]


def _quote(text: str) -> str:
    """A text as a quoted scalar of YAML, in ASCII. JSON's would be two half characters for one above U+FFFF."""
    return '"' + "".join(map(_escape, text)) + '"'


def _escape(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    if char.isascii() and char.isprintable():
        return char
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"


def build(context: ExportContext, options: YoloOptions) -> YoloExporter:
    """Make the exporter for `context` with the `options`."""
    return YoloExporter(context, options)
