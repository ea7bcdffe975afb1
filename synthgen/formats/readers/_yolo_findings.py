"""Counts what is unusual in a YOLO dataset while its rows are read, in bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from synthgen.formats.readers import SourceFinding
from synthgen.formats.readers._yolo_config import YoloConfig
from synthgen.formats.readers._yolo_pairs import Strays
from synthgen.formats.readers._yolo_rows import RowKind, YoloRow

_MAX_EXAMPLES = 3
_MAX_CLASSES = 100_000  # class numbers that are counted one by one

#: With a larger share of rows in pixels or percent, the whole dataset is.
_MAX_PIXEL_SHARE = 0.5


class YoloFindings:
    """The findings of one split.

    Attributes:
        strays: label files without an image, and lines of lists without one.
        num_images_with_labels: images that have a label file.
    """

    def __init__(self, names: dict[int, str], config: YoloConfig) -> None:
        self.strays = Strays()
        self.num_images_with_labels = 0
        self._names, self._config = names, config
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, list[tuple[str, str]]] = {}
        self._kinds: Counter[RowKind] = Counter()
        self._classes: Counter[int] = Counter()

    def add(self, file_name: str, rows: Sequence[YoloRow], *, has_labels: bool, owner: str) -> None:
        """Count the rows of one image.

        Args:
            owner: file name of the other image that has its label file; "" if there is none.
        """
        self.num_images_with_labels += has_labels and not owner
        if not has_labels:
            self._note("no_label_file", file_name, "no label file has its name")
        if owner:
            self._note("shared_label_file", file_name, f"its label file went to {owner}")
        for row in rows:
            self._kinds[row.kind] += 1
            if row.class_id is not None and (row.class_id in self._classes or len(self._classes) < _MAX_CLASSES):
                self._classes[row.class_id] += 1
            if row.kind is RowKind.BROKEN:
                self._note("broken_row", file_name, f"line {row.line} of its label file: {row.reason}")
            elif not row.is_fraction:
                self._note("pixel_rows", file_name, f"line {row.line} of its label file has values far above 1")

    def add_missing_splits(self, config: str, splits: Mapping[str, Sequence[str]]) -> None:
        """Note splits that the config file names and that are not there, with their paths."""
        for split, paths in splits.items():
            self._note("split_not_found", config, f"{split}: {', '.join(paths)[:200]}")

    def names(self) -> dict[int, str]:
        """The names by class; made from the numbers if nothing names them."""
        if self._names:
            return self._names
        listed = range(min(self._config.num_classes or 0, _MAX_CLASSES))
        return {number: f"class_{number}" for number in sorted({*self._classes, *listed}) if number >= 0}

    def parts(self) -> Iterator[SourceFinding]:
        """The findings, after all images were added."""
        readable = self._kinds.total() - self._kinds[RowKind.BROKEN]
        for code, unit in (
            ("no_label_file", "images"),
            ("shared_label_file", "images"),
            ("broken_row", "boxes"),
            ("split_not_found", "files"),
        ):
            yield from self._finding(code, unit, self._counts[code], self._examples.get(code, ()))
        pixels = self._counts["pixel_rows"]
        stops = pixels > _MAX_PIXEL_SHARE * readable
        yield from self._finding("pixel_rows", "boxes", pixels, self._examples.get("pixel_rows", ()), stops=stops)
        strays = self.strays
        yield from self._finding("label_without_image", "files", strays.orphans, strays.orphan_examples)
        yield from self._finding("broken_list_line", "files", strays.bad_lines, strays.line_examples)
        polygons = self._kinds[RowKind.POLYGON]
        example = ("label files", f"{readable - polygons:,} boxes and {polygons:,} polygons")
        yield from self._finding("mixed_rows", "boxes", min(polygons, readable - polygons), [example])
        yield from self._finding("keypoints_ignored", "boxes", self._kinds[RowKind.BOX_WITH_KEYPOINTS])
        yield from self._finding("confidence_ignored", "boxes", self._kinds[RowKind.BOX_WITH_CONFIDENCE])
        yield from self._class_findings()

    def _class_findings(self) -> Iterator[SourceFinding]:
        if not self._names:
            numbers = len(self.names())
            example = ("names", "write names into data.yaml, or a name a line into classes.txt")
            yield from self._finding("no_class_names", "categories", numbers, [example])
            return
        unnamed = sorted(number for number in self._classes if number not in self._names)
        examples = [(f"class {number}", f"{self._classes[number]:,} rows have it") for number in unnamed]
        yield from self._finding("class_outside_names", "categories", len(unnamed), examples)
        said = self._config.num_classes
        if said is not None and said != len(self._names):
            example = ("nc", f"says {said:,}, and there are {len(self._names):,} names")
            yield from self._finding("other_class_count", "categories", 1, [example])

    def _note(self, code: str, where: str, what: str) -> None:
        self._counts[code] += 1
        kept = self._examples.setdefault(code, [])
        if len(kept) < _MAX_EXAMPLES:
            kept.append((_utf8_safe(where), _utf8_safe(what)))

    def _finding(
        self, code: str, unit: str, count: int, examples: Sequence[tuple[str, str]] = (), *, stops: bool = False
    ) -> Iterator[SourceFinding]:
        if count:
            yield SourceFinding(code, unit, count, tuple(examples[:_MAX_EXAMPLES]), stops)


def _utf8_safe(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
