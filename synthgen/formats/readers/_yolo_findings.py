"""Counts what is unusual in a YOLO dataset while its rows are read, in bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from synthgen.formats.readers import SourceFinding
from synthgen.formats.readers._finding_counter import FindingCounter
from synthgen.formats.readers._yolo_config import YoloConfig
from synthgen.formats.readers._yolo_pairs import Strays
from synthgen.formats.readers._yolo_rows import RowKind, YoloRow

_MAX_CLASSES = 100_000  # class numbers that are counted one by one

#: With a larger share of rows in pixels or percent, the whole dataset is.
_MAX_PIXEL_SHARE = 0.5


class YoloFindings:
    """The findings of one split.

    Attributes:
        strays: label files without an image, and lines of lists without one.
        num_images_with_labels: images that have a label file.

    Args:
        names: names of the classes by number; empty = none are known.
        config: content of the dataset's YAML file.
    """

    def __init__(self, names: dict[int, str], config: YoloConfig) -> None:
        self.strays = Strays()
        self.num_images_with_labels = 0
        self._names, self._config = names, config
        self._found = FindingCounter()
        self._kinds: Counter[RowKind] = Counter()
        self._classes: Counter[int] = Counter()

    def add(self, file_name: str, rows: Sequence[YoloRow], *, has_labels: bool, owner: str) -> None:
        """Count the rows of one image.

        Args:
            file_name: of the image, for examples.
            rows: of its label file.
            has_labels: whether it has a label file.
            owner: file name of the other image that has its label file; "" if there is none.
        """
        self.num_images_with_labels += has_labels and not owner
        if not has_labels:
            self._found.add("no_label_file", "images", file_name, "no label file has its name")
        if owner:
            self._found.add("shared_label_file", "images", file_name, f"its label file went to {owner}")
        for row in rows:
            self._kinds[row.kind] += 1
            if row.class_id is not None and (row.class_id in self._classes or len(self._classes) < _MAX_CLASSES):
                self._classes[row.class_id] += 1
            where = f"line {row.line} of its label file"
            if row.kind is RowKind.BROKEN:
                self._found.add("broken_row", "boxes", file_name, f"{where}: {row.reason}")
            elif not row.is_fraction:
                self._found.add("pixel_rows", "boxes", file_name, f"{where} has values far above 1")

    def add_missing_splits(self, config: str, splits: Mapping[str, Sequence[str]]) -> None:
        """Note splits that the config file names and that are not there, with their paths."""
        for split, paths in splits.items():
            self._found.add("split_not_found", "splits", config, f"{split}: {', '.join(paths)[:200]}")

    def add_unlabeled_splits(self, root: Path, splits: Mapping[str, Path]) -> None:
        """Note splits without labels, with the folders or lists of their images below `root`."""
        for split, path in splits.items():
            self._found.add("unlabeled_split", "files", path.relative_to(root).as_posix(), f"'{split}' has no labels")

    def names(self) -> dict[int, str]:
        """The names by class; made from the numbers if nothing names them."""
        if self._names:
            return self._names
        listed = range(min(self._config.num_classes or 0, _MAX_CLASSES))
        return {number: f"class_{number}" for number in sorted({*self._classes, *listed}) if number >= 0}

    def parts(self) -> Iterator[SourceFinding]:
        """The findings, after all images were added."""
        found, strays = self._found, self.strays
        readable = self._kinds.total() - self._kinds[RowKind.BROKEN]
        if found.count("pixel_rows") > _MAX_PIXEL_SHARE * readable:
            found.stop("pixel_rows")
        found.add_many("label_without_image", "files", strays.orphans, strays.orphan_examples)
        found.add_many("broken_list_line", "files", strays.bad_lines, strays.line_examples)
        polygons = self._kinds[RowKind.POLYGON]
        example = ("label files", f"{readable - polygons:,} boxes and {polygons:,} polygons")
        found.add_many("mixed_rows", "boxes", min(polygons, readable - polygons), [example])
        found.add_many("keypoints_ignored", "boxes", self._kinds[RowKind.BOX_WITH_KEYPOINTS])
        found.add_many("confidence_ignored", "boxes", self._kinds[RowKind.BOX_WITH_CONFIDENCE])
        self._add_class_findings()
        yield from found.parts()

    def _add_class_findings(self) -> None:
        if not self._names:
            example = ("names", "write names into data.yaml, or a name a line into classes.txt")
            self._found.add_many("no_class_names", "categories", len(self.names()), [example])
            return
        unnamed = sorted(number for number in self._classes if number not in self._names)
        examples = ((f"class {number}", f"{self._classes[number]:,} rows have it") for number in unnamed)
        self._found.add_many("class_outside_names", "categories", len(unnamed), examples)
        said = self._config.num_classes
        if said is not None and said != len(self._names):
            example = ("nc", f"says {said:,}, and there are {len(self._names):,} names")
            self._found.add_many("other_class_count", "categories", 1, [example])
