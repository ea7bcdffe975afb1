"""The report of a dataset validation: findings as plain data, and as lines of text. Reads no files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, NamedTuple

from synthgen.errors import escape_control_chars
from synthgen.ingest.validation.finding_codes import FINDING_CODES, INFO_CODES

#: Number of examples kept of each finding.
MAX_EXAMPLES = 3

#: A report has fewer examples where it would have more lines.
MAX_LINES = 26


_SINGULARS = {"boxes": "box", "categories": "category"}

#: Units of what the reader has left out: nothing says how many there are in all.
_WITHOUT_TOTAL = frozenset({"shapes", "masks", "splits"})


class _Detail(NamedTuple):
    """How many examples each kind of finding gets; None = all findings of the kind on one line."""

    stops: int | None
    rest: int | None
    notes: int | None


_DETAILS = (
    *(_Detail(3, count, count) for count in (3, 2, 1)),
    *(_Detail(2, count, 0) for count in (2, 1, 0)),
    *(_Detail(count, count, None) for count in (2, 1, 0)),
    *(_Detail(count, None, None) for count in (3, 2, 1, 0)),
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
        unit: what is counted: "boxes", "annotations", "images", "categories", "files", "lines", "shards",
            "shapes", "masks" or "splits".
        count: number of occurrences; of: total number.
        images: number of images with it; None if not applicable.
        stops: a job on this dataset would fail or be useless.
        examples: the first ones, in the order of image ids.
        note: what all occurrences show together; "" = nothing.
    """

    code: str
    unit: str
    count: int
    of: int
    images: int | None = None
    stops: bool = False
    examples: tuple[FindingExample, ...] = ()
    note: str = ""

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
        self._notes: dict[str, str] = {}

    def add(
        self,
        code: str,
        unit: str,
        count: int,
        examples: Iterable[FindingExample] = (),
        *,
        images: int | None = None,
        stops: bool = False,
        note: str = "",
    ) -> None:
        """Count occurrences of a finding.

        Args:
            code: key of `FINDING_CODES`.
            unit: what is counted, see `Finding`.
            count: number of occurrences.
            examples: occurrences to show; only as many are taken as are still needed.
            images: number of images with it; None = not applicable.
            stops: a job on this dataset would fail or be useless.
            note: what all occurrences show together; "" = nothing. A later note replaces an earlier one.
        """
        if not count:
            return
        self._units[code] = unit
        self._counts[code] = self._counts.get(code, 0) + count
        if images is not None:
            self._images[code] = self._images.get(code, 0) + images
        if stops:
            self._stops.add(code)
        if note:
            self._notes[code] = note
        self.add_examples(code, examples)

    def add_examples(self, code: str, examples: Iterable[FindingExample]) -> None:
        """Add examples of a finding that is counted elsewhere; takes only as many as are still needed.

        Args:
            code: key of `FINDING_CODES`.
            examples: occurrences to show.
        """
        kept = self._examples.setdefault(code, [])
        kept.extend(islice(examples, MAX_EXAMPLES - len(kept)))

    def add_note(self, code: str, note: str) -> None:
        """Say what all occurrences of a finding show together.

        Args:
            code: key of `FINDING_CODES`.
            note: one clause; it replaces an earlier one.
        """
        self._notes[code] = note

    def needs_examples(self, code: str) -> bool:
        """Whether a finding of this code lacks examples."""
        return code in self._counts and len(self._examples[code]) < MAX_EXAMPLES

    def count(self, code: str) -> int:
        """The count so far of a finding, `code`."""
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
                self._notes.get(code, ""),
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
        prompted: boxes that a job can give to a segmenter.
        masks: the source has masks of its own. Where boxes can be given to a segmenter, only the first batch of
            annotations is asked.
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
    masks: bool = False


@dataclass(frozen=True, slots=True)
class ValidationReport:
    """A dataset.

    Attributes:
        dataset: its name in the store.
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
        """Whether masks can come out, and no finding would make a job fail."""
        has_output = any(split.prompted or split.masks for split in self.splits)
        return has_output and not any(finding.stops for split in self.splits for finding in split.findings)


def report_to_dict(report: ValidationReport) -> dict[str, Any]:
    """The report as dictionaries and lists for JSON."""
    return {**asdict(report), "ready": report.is_ready}


def format_validation_report(report: ValidationReport) -> list[str]:
    """The report as lines for a terminal: at most about `MAX_LINES`, with fewer examples where there are many findings.

    All examples are in `report_to_dict`.
    """
    lines: list[str] = []
    for detail in _DETAILS:
        lines = [line for split in report.splits for line in _format_split(report.dataset, split, detail)]
        if len(lines) + 2 <= MAX_LINES:
            break
    return [*lines, report.verdict, f"next: {report.next}"]


def _format_split(dataset: str, split: SplitReport, detail: _Detail) -> Iterator[str]:
    counts = ((split.images, "images"), (split.boxes, "boxes"), (split.categories, "categories"))
    yield f"{dataset}/{split.split}: {', '.join(format_count(number, unit) for number, unit in counts)}"
    yield f"  {'boxes':10} {_format_sizes(split.sizes)}"
    yield f"  {'files':10} {_format_files(split)}"
    if split.masks:
        yield f"  {'masks':10} the files have masks of their own; `synthgen ingest` with `--layer human` reads them"
    stops = [finding for finding in split.findings if finding.stops]
    notes = [finding for finding in split.findings if not finding.stops and finding.code in INFO_CODES]
    rest = [finding for finding in split.findings if finding not in stops and finding not in notes]
    for heading, findings, examples in (
        ("fix first", stops, detail.stops),
        ("look at", rest, detail.rest),
        ("know", notes, detail.notes),
    ):
        if findings and examples is not None:
            yield f"  {heading}:"
            yield from _format_findings(findings, examples)
        elif findings:
            listed = ", ".join(f"{finding.code} {finding.count:,}" for finding in findings)
            yield f"  {heading}: {listed}; --json says more"
    if not split.findings:
        yield "  nothing wrong was found"
    yield ""


def _format_findings(findings: Iterable[Finding], examples: int) -> Iterator[str]:
    for finding in findings:
        where = f" in {format_count(finding.images, 'images')}" if finding.images is not None else ""
        total = format_count(finding.of, finding.unit)
        count = f"{finding.count:,} of {total} ({_format_percent(finding.share)}){where}"
        if finding.unit in _WITHOUT_TOTAL:
            count = format_count(finding.count, finding.unit)
        note = f" ({escape_control_chars(finding.note)})" if finding.note else ""
        yield f"    {finding.code}: {count}: {FINDING_CODES[finding.code]}{note}"
        for example in finding.examples[:examples]:
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
    small, medium, large = (_format_percent(size / total) for size in (sizes.small, sizes.medium, sizes.large))
    return (
        f"{small} small (below 32 x 32), {medium} medium (below 96 x 96), {large} large; "
        f"{sizes.median_per_image:g} per image (median), at most {sizes.max_per_image:,}"
    )


def _format_files(split: SplitReport) -> str:
    if not split.files_checked:
        return "not looked at"
    if not split.files_decoded:
        return f"{format_count(split.files_checked, 'headers')} read; only --check-images all finds truncated files"
    return f"{split.files_checked:,} of {split.images:,} decoded"


def format_count(count: int, unit: str) -> str:
    """A `count` of a `unit`, which is in the plural as findings name it: "1 box", "2 boxes"."""
    return f"{count:,} {_SINGULARS.get(unit, unit.removesuffix('s')) if count == 1 else unit}"


def _format_percent(share: float) -> str:
    """A percentage with two digits, never rounded to 0 % or 100 %."""
    if share in (0.0, 1.0):
        return f"{100 * share:.0f} %"
    if share < 0.0001:
        return "< 0.01 %"
    return "> 99.99 %" if share > 0.9999 else f"{100 * share:.{2 if share < 0.1 or share > 0.99 else 0}f} %"
