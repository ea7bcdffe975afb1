"""The report of a dataset validation: findings as plain data, and as lines of text. Reads no files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from synthgen.errors import escape_control_chars
from synthgen.records.sample import ANNOTATION_FLAGS

#: Number of examples kept of each finding.
MAX_EXAMPLES = 3

#: The codes of findings, beside the flags of boxes, and what they mean.
FINDING_CODES: dict[str, str] = {
    **ANNOTATION_FLAGS,
    "near_duplicate": "an earlier box of the same image and category covers nearly the same place (IoU >= 0.95)",
    "xyxy_boxes": "most boxes only fit their images when read as x1, y1, x2, y2; COCO's are x, y, width, height",
    "normalised_boxes": "all boxes lie between 0 and 1; they should be in pixels of the image",
    "unlisted_image": "an annotation names an image that the file does not list",
    "same_annotation_id": "an annotation has the id of another one of its image",
    "same_annotation_id_elsewhere": "an annotation has the id of one in another image",
    "same_image_id": "an image has the id of another one",
    "same_file_name": "an image has the file name of another one",
    "no_file_name": "the file gives no name for an image; it stays, as a row with an error",
    "no_boxes": "an image without a box; it stays, as a row with none",
    "no_labels": "an image's mask or label map is missing, unreadable or of another size, or has no image; it stays, "
    "as a row with an error",
    "unused_category": "a category without a box",
    "no_class_names": "categories are numbers without names; the number is the name",
    "label_without_image": "an annotation file has no image; it is not read",
    "unlabeled_image": "an image that no annotation belongs to; it is not part of the dataset",
    "damaged_archive": "an archive is cut off or damaged; what lies before the damage is read",
    "refused_members": "a member of an archive is a link, a device or a sparse file, or its name leaves the archive",
    "duplicate_members": "an archive has several members of one name; the last one is used, as tar does",
    "ignored_members": "a member of an archive is neither an image nor an annotation; it is not read",
    "unreadable_line": "a line of an annotation file cannot be read; it is left out",
    "outer_blanks": "a category's name has blanks around it; they are stripped",
    "same_name": "a category has the name of another one; both become one, as names are what is stored",
    "nearly_same_name": "a category's name differs from another's only in case or blanks; they stay two",
    "missing": "an image has no file below the image folder",
    "unreadable": "an image file is truncated, or none",
    "wrong_size": "an image file has another size than the annotations say",
    "too_many_lost": "a shard with more than 5 % of its images lost is not committed",
    "turned": "an image file is to be shown rotated (EXIF); it is used as the annotations' size says",
    "other_path": "an image was found without the first folders of its name: they are not below the image folder",
    "id_renamed": "a category id has another name in this split; names decide here, but tools that go by id go wrong",
    "not_in_split": "a category is named in another split and not in this one",
    "other_order": "the categories of this split are in another order; names decide here, but tools that go by "
    "position go wrong",
}

#: Findings that need no fix.
INFO_CODES = frozenset(
    {"crowd", "fake", "reflected", "no_boxes", "unused_category", "outer_blanks", "turned", "other_path", "clipped"}
    | {
        "ignored_members",
        "unlabeled_image",
        "part",
        "same_annotation_id_elsewhere",
        "not_in_split",
        "other_order",
        "id_renamed",
        "nearly_same_name",
    }
)


@dataclass(frozen=True, slots=True)
class FindingExample:
    """One example of a finding.

    Attributes:
        where: the image's file name, or the category's name.
        what: the problem there.
        annotation_id: the dataset's own id; None if it is not about a box.
        bbox: (x, y, width, height), absolute pixels; None for a number that is not finite.
    """

    where: str
    what: str
    annotation_id: int | None = None
    bbox: tuple[float | None, float | None, float | None, float | None] | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """All occurrences of one problem in a split.

    Attributes:
        code: key of `FINDING_CODES`.
        unit: what is counted: "boxes", "annotations", "images", "categories", "files", "lines" or "shards".
        count: number of occurrences; of: total number.
        images: number of images with it; None if not applicable.
        stops: a job on this dataset would fail or be useless.
        examples: the first ones, in the order of image ids.
    """

    code: str
    unit: str
    count: int
    of: int
    images: int | None = None
    stops: bool = False
    examples: tuple[FindingExample, ...] = ()

    @property
    def share(self) -> float:
        """count / of, in [0, 1]."""
        return self.count / self.of if self.of else 0.0


class FindingCollector:
    """Collects the findings of one split."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._images: dict[str, int] = {}
        self._units: dict[str, str] = {}
        self._stops: set[str] = set()
        self._examples: dict[str, list[FindingExample]] = {}

    def add(
        self,
        code: str,
        unit: str,
        count: int,
        examples: Iterable[FindingExample] = (),
        *,
        images: int | None = None,
        stops: bool = False,
    ) -> None:
        """Count `count` more; takes only as many `examples` as are still needed."""
        if not count:
            return
        self._units[code] = unit
        self._counts[code] = self._counts.get(code, 0) + count
        if images is not None:
            self._images[code] = self._images.get(code, 0) + images
        if stops:
            self._stops.add(code)
        self.add_examples(code, examples)

    def add_examples(self, code: str, examples: Iterable[FindingExample]) -> None:
        """Add examples of a finding that is counted elsewhere; takes only as many as are still needed."""
        kept = self._examples.setdefault(code, [])
        kept.extend(islice(examples, MAX_EXAMPLES - len(kept)))

    def needs_examples(self, code: str) -> bool:
        """Whether a finding of this code lacks examples."""
        return code in self._counts and len(self._examples[code]) < MAX_EXAMPLES

    def count(self, code: str) -> int:
        """The count so far."""
        return self._counts.get(code, 0)

    def result(self, totals: dict[str, int]) -> tuple[Finding, ...]:
        """All findings in the order of `FINDING_CODES`; `totals`: unit -> total number."""
        return tuple(
            Finding(
                code,
                self._units[code],
                self._counts[code],
                max(totals.get(self._units[code], 0), self._counts[code]),
                self._images.get(code),
                code in self._stops,
                tuple(self._examples[code]),
            )
            for code in FINDING_CODES
            if code in self._counts
        )


@dataclass(frozen=True, slots=True)
class BoxSizeStats:
    """Number of small, medium and large boxes (COCO's sizes, by box area), and boxes per image.

    Attributes:
        small, medium, large: boxes below 32 x 32, below 96 x 96, and the others; boxes without an area are in none.
        median_per_image, max_per_image: boxes an image, images without a box counted.
    """

    small: int
    medium: int
    large: int
    median_per_image: float
    max_per_image: int


@dataclass(frozen=True, slots=True)
class SplitReport:
    """One split.

    Attributes:
        images, boxes, categories: how many the files list; boxes of unlisted images counted.
        prompted: boxes that a job can use.
        files_checked: image files looked at; files_decoded: of them, decoded to the last pixel.
        findings: what was found, in the order of `FINDING_CODES`; a code that was not found is not there.
    """

    split: str
    images: int
    boxes: int
    prompted: int
    categories: int
    files_checked: int
    files_decoded: int
    sizes: BoxSizeStats
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class ValidationReport:
    """A dataset.

    Attributes:
        dataset: its name.
        splits: those examined.
        verdict: one line: ready, or what to fix first.
        next: the next command.
    """

    dataset: str
    splits: tuple[SplitReport, ...]
    verdict: str
    next: str

    @property
    def is_ready(self) -> bool:
        """Whether there is a box for a job, and no finding would make it fail."""
        has_boxes = any(split.prompted for split in self.splits)
        return has_boxes and not any(finding.stops for split in self.splits for finding in split.findings)


def report_to_dict(report: ValidationReport) -> dict[str, Any]:
    """The report as dictionaries and lists for JSON."""
    return {**asdict(report), "ready": report.is_ready}


def format_validation_report(report: ValidationReport) -> list[str]:
    """The report as lines for a terminal."""
    return [
        *(line for split in report.splits for line in _format_split(report.dataset, split)),
        report.verdict,
        f"next: {report.next}",
    ]


def _format_split(dataset: str, split: SplitReport) -> Iterator[str]:
    yield f"{dataset} {split.split}: {split.images:,} images, {split.boxes:,} boxes, {split.categories:,} categories"
    yield f"  {'boxes':10} {_format_sizes(split.sizes)}"
    yield f"  {'files':10} {_format_files(split)}"
    stops = [finding for finding in split.findings if finding.stops]
    notes = [finding for finding in split.findings if not finding.stops and finding.code in INFO_CODES]
    rest = [finding for finding in split.findings if finding not in stops and finding not in notes]
    for heading, findings in (("mend first", stops), ("look at", rest), ("know", notes)):
        if findings:
            yield f"  {heading}:"
            yield from _format_findings(findings)
    if not split.findings:
        yield "  nothing wrong was found"
    yield ""


def _format_findings(findings: Iterable[Finding]) -> Iterator[str]:
    for finding in findings:
        where = f" in {finding.images:,} images" if finding.images is not None else ""
        count = f"{finding.count:,} of {finding.of:,} {finding.unit} ({_format_percent(finding.share)}){where}"
        yield f"    {finding.code}: {count}: {FINDING_CODES[finding.code]}"
        for example in finding.examples:
            yield f"      {_format_example(example)}"


def _format_example(example: FindingExample) -> str:
    text = escape_control_chars(example.where)
    if example.annotation_id is not None:
        text += f", annotation {example.annotation_id}"
    if example.bbox is not None:
        text += ", box " + " ".join("?" if value is None else f"{value:.6g}" for value in example.bbox)
    return f"{text}: {escape_control_chars(example.what)}"


def _format_sizes(sizes: BoxSizeStats) -> str:
    total = max(sizes.small + sizes.medium + sizes.large, 1)
    return (
        f"{_format_percent(sizes.small / total)} small (below 32 x 32 pixels), "
        f"{_format_percent(sizes.medium / total)} medium "
        f"(below 96 x 96), {_format_percent(sizes.large / total)} large; an image has {sizes.median_per_image:g} "
        f"(median), at most {sizes.max_per_image:,}"
    )


def _format_files(split: SplitReport) -> str:
    if not split.files_checked:
        return "not looked at"
    if not split.files_decoded:
        return f"{split.files_checked:,} headers read; only --check-images all finds truncated files"
    return f"{split.files_checked:,} of {split.images:,} decoded"


def _format_percent(share: float) -> str:
    """A percentage with two digits, never rounded to 0 % or 100 %."""
    if share in (0.0, 1.0):
        return f"{100 * share:.0f} %"
    if share < 0.0001:
        return "< 0.01 %"
    return "> 99.99 %" if share > 0.9999 else f"{100 * share:.{2 if share < 0.1 or share > 0.99 else 0}f} %"
