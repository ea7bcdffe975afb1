"""Dataset validation (`synthgen doctor`): boxes, ids, categories, splits against each other, image files.

It reads the same stream as an ingest, with the same sorting and the same box checks (`sharding.split_into_shards`), but
writes no layer and needs no store. So its counts equal those of the footers. It also sees what an ingest merges, such
as one name for two ids or a second image with the same id. Beside the memory of `split_into_shards`, it takes 8 bytes
per box and 16 per image while the file is read, and twice that while the ids are sorted: 0.45 GB for the 25.4 M boxes
of Objects365. The boxes themselves are processed one shard at a time.
"""

from __future__ import annotations

import contextlib
import shlex
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from synthgen import plugins
from synthgen.errors import SynthgenError
from synthgen.formats.readers import (
    AnnotationBatch,
    Categories,
    DatasetFiles,
    DatasetPart,
    DatasetReader,
    ImageBatch,
    Licenses,
    SourceFinding,
)
from synthgen.formats.recognition import find_splits
from synthgen.ingest.image_table import StringColumn
from synthgen.ingest.name_matching import NameMatches
from synthgen.ingest.name_matching import match_names as find_matches
from synthgen.ingest.sharding import split_into_shards, treat_crowds_as_objects
from synthgen.ingest.validation.box_conventions import judge_conventions
from synthgen.ingest.validation.boxes import BoxStats, apply_image_sizes, inspect_boxes
from synthgen.ingest.validation.categories import SplitCategories, compare_splits, inspect_categories
from synthgen.ingest.validation.diagnosis import (
    FindingCollector,
    FindingExample,
    SplitReport,
    ValidationReport,
)
from synthgen.ingest.validation.files import ImageFileCheck, SizeFactors, check_image_file
from synthgen.ingest.validation.finding_codes import REFUSED_CODES
from synthgen.ingest.validation.ids import DuplicateIdFinder
from synthgen.ingest.validation.masks import inspect_masks, shorten_payloads
from synthgen.ingest.validation.verdict import FEW_USABLE, MAX_UNUSABLE_SHARE, name_dataset_options, reach_verdict
from synthgen.progress import ReportPhase
from synthgen.records.box_table import BoxColumns
from synthgen.storage.atomic import remove_stale_files, scratch_folder

#: Where as many annotations are crowds, the exporter may have marked objects so.
_MANY_CROWDS = 0.9

_THREADS = 16  # reading headers waits for the disk, not for the CPU


def validate_dataset(
    dataset: str,
    root: Path,
    splits: Sequence[str] | None = None,
    *,
    annotations: Path | None = None,
    images: Path | None = None,
    check_images: str | int = "header",
    name: str | None = None,
    store_name: str | None = None,
    path: Path | None = None,
    match_names: bool = False,
    crowds_as_objects: bool = False,
    on_progress: ReportPhase | None = None,
) -> ValidationReport:
    """Validate splits of a dataset, and compare their categories. Changes nothing.

    Args:
        dataset: a plugin of `formats.readers`.
        root: the dataset's folder.
        splits: None = all with existing files.
        annotations: annotation file, if it is not at the dataset's default path.
        images: image folder, if it is not at the dataset's default path.
        check_images: "header" (is every file there, an image, of the right size), "all" (decode every file as a job
            would), "none", or how many files to decode, evenly spread.
        name: the name in the store, if it is not the dataset's default; for the next command.
        store_name: the name in the store, default or not; for the report. None = the plugin's name.
        path: the path by which the user named the dataset; for the next command.
        match_names: also take image files that are there under another form of their name, as an ingest with it does.
        crowds_as_objects: take annotations with `iscrowd` for single objects, as `ingest` would.
        on_progress: called from time to time.

    Raises:
        SynthgenError: the files are missing or unreadable, or an argument is invalid.
    """
    mode = _parse_check_images(check_images)
    module: Any = plugins.load_plugin("formats.readers", dataset)
    chosen = splits or find_splits(dataset, root, annotations)
    examined = [_SplitValidator(split, accepts_matches=match_names) for split in chosen]
    for one in examined:
        one.run(dataset, module, root, annotations, images, mode, on_progress or (lambda *_: None), crowds_as_objects)
    nothing = not any(one.has_output() for one in examined)
    for one in examined:
        one.check_usable(stops=nothing)
    compare_splits([(one.categories(), one.findings) for one in examined])
    found = tuple(one.result() for one in examined)
    given = name_dataset_options(dataset, root, annotations, images, path)
    first = examined[0].split  # not `splits[0]`, which may be missing
    if path is None:
        is_one_of_several = first != module.SPLITS[0]
    else:
        is_one_of_several = len(chosen) == 1 and len(find_splits(dataset, root, annotations)) > 1
    given += f" --split {shlex.quote(first)}" if is_one_of_several else ""
    given += f" --name {shlex.quote(name)}" if name else ""
    given += " --match-names" if match_names else ""
    given += " --crowds-as-objects" if crowds_as_objects else ""
    verdict, command = reach_verdict(found, given)
    return ValidationReport(store_name or dataset, found, verdict, command)


class _SplitValidator:
    """Validates one split: some findings from the whole stream, all others shard by shard."""

    def __init__(self, split: str, *, accepts_matches: bool = False) -> None:
        self.split, self.accepts_matches = split, accepts_matches
        self.folder = Path()
        self.names_of_files: StringColumn | None = None
        self.matches: NameMatches | None = None
        self.size_factors = SizeFactors()
        self.has_masks = self.has_machine_masks = False
        self.findings = FindingCollector()
        self.box_stats = BoxStats()
        self.names: dict[int, str] = {}
        self.padded: dict[int, str] = {}
        self.boxes_per_category: defaultdict[int, int] = defaultdict(int)
        self.ids = DuplicateIdFinder()
        self.images = self.boxes = self.checked = self.decoded = self.unusable = self.shards = 0

    def run(
        self,
        dataset: str,
        module: Any,
        root: Path,
        annotations: Path | None,
        images: Path | None,
        mode: str | int,
        tell: ReportPhase,
        crowds_as_objects: bool = False,
    ) -> None:
        """Validate the split's annotation file and images."""
        mask_problems: Any = getattr(module, "mask_problems", None)
        layer = "annotations" if mask_problems is None else "human"  # the same boxes, and their masks
        located = module.files(root, self.split, annotations).with_image_folder(images)
        files = located.for_layer(layer)
        folder = self.folder = files.image_folder
        if mode != "none" and not folder.is_dir():
            raise SynthgenError(
                f"no folder {folder} with the images; name it with --images, or leave them out with --check-images none"
            )
        total, done, seen = files.total_bytes(), 0, 0

        def on_bytes(count: int) -> None:
            nonlocal done
            done += count
            tell("reading", min(done, total), total)

        stream = self._observe(module.read(replace(files, on_bytes=on_bytes), layer))
        if mask_problems is not None:
            stream = shorten_payloads(stream, module.shorten_mask)
        if crowds_as_objects:
            stream = treat_crowds_as_objects(stream)
        place = Path(tempfile.gettempdir())
        remove_stale_files(place)
        with (
            scratch_folder(place, remedy="set $TMPDIR to another folder") as scratch,
            ThreadPoolExecutor(_THREADS, thread_name_prefix="look") as pool,
        ):
            where = ", ".join(map(str, files.sources.values()))
            resolve = self._match_names if self.accepts_matches and mode != "none" else self._keep_names
            for shard in split_into_shards(
                stream,
                dataset,
                scratch,
                where=where,
                expected_bytes=total,
                resolve_names=resolve,
                report=self._add_finding,
            ):
                if not self.shards:
                    self.ids.finish_reading()
                self.shards += 1
                columns = self._check_files(pool, folder, shard.columns, mode, seen)
                seen += len(columns.image_id)
                self.ids.inspect_shard(columns, self.findings)
                inspect_boxes(columns, self.findings, self.box_stats)
                if mask_problems is not None:
                    inspect_masks(columns, shard.payloads, mask_problems, self.findings)
                tell("examining", min(seen, self.images), self.images)
        self.ids.report_duplicates(self.findings)
        inspect_categories(self.categories(), self.findings)
        self._check_box_format()
        if "human" in module.LAYERS:
            self.has_masks = _has_mask(module, located, only_first=self.box_stats.prompted > 0)
        self._check_names(mode)
        if (resized := self.size_factors.describe()) is not None:
            self.findings.add_note("wrong_size", resized)
        if self._is_sampled(mode) and self.unusable and self.unusable / self.checked > MAX_UNUSABLE_SHARE:
            self.findings.add("too_many_lost", "files", self.unusable, stops=True)

    def categories(self) -> SplitCategories:
        """The split's categories."""
        return SplitCategories(self.split, self.names, self.padded, self.boxes_per_category)

    def result(self) -> SplitReport:
        """The report of the split."""
        of = {
            "images": self.images,
            "boxes": self.boxes,
            "files": self.checked,
            "shards": self.shards,
            "categories": len(self.names),
        }
        return SplitReport(
            split=self.split,
            images=self.images,
            boxes=self.boxes,
            prompted=self.box_stats.prompted,
            categories=len(self.names),
            files_checked=self.checked,
            files_decoded=self.decoded,
            sizes=self.box_stats.size_stats(),
            findings=self.findings.result(of),
            masks=self.has_masks and not self.has_machine_masks,
        )

    def _observe(self, parts: Iterable[DatasetPart]) -> Iterator[DatasetPart]:
        """Pass a dataset's stream through, and collect what only the whole stream shows."""
        for part in parts:
            if isinstance(part, Categories):
                self.names.update(part.names)
                self.padded.update(part.padded)
            elif isinstance(part, SourceFinding):
                self._add_finding(part)
            elif not isinstance(part, Licenses):
                self.ids.add(part)
                self.images += len(part.file_name) if isinstance(part, ImageBatch) else 0
            if isinstance(part, AnnotationBatch):
                self.boxes += len(part.id)
                for category, count in zip(*np.unique(part.category, return_counts=True), strict=True):
                    self.boxes_per_category[int(category)] += int(count)
            yield part

    def _add_finding(self, found: SourceFinding) -> None:
        self.has_machine_masks |= found.code == "machine_masks"
        examples = (FindingExample(*one) for one in found.examples)
        self.findings.add(
            found.code, found.unit, found.count, examples, stops=found.stops or found.code in REFUSED_CODES
        )

    def _check_files(
        self, pool: Executor, folder: Path, columns: BoxColumns, mode: str | int, first: int
    ) -> BoxColumns:
        """Check the image files of a shard whose first image has number `first`; fill in missing sizes."""
        rows = [] if mode == "none" else [i for i, error in enumerate(columns.error) if error is None]
        if isinstance(mode, int) and self._is_sampled(mode):
            chosen = set((np.linspace(0, self.images - 1, mode).astype(np.int64) - first).tolist())
            rows = [i for i in rows if i in chosen]
        height, width = columns.height.copy(), columns.width.copy()

        def one(row: int) -> ImageFileCheck:
            return check_image_file(
                folder, columns.file_name[row], int(height[row]), int(width[row]), decode=mode != "header"
            )

        lost = 0
        for row, seen in zip(rows, pool.map(one, rows), strict=True):
            height[row], width[row] = seen.height, seen.width
            lost += seen.is_unusable
            if seen.real_size is not None and any(code == "wrong_size" for code, _ in seen.problems):
                self.size_factors.add((seen.height, seen.width), seen.real_size)
            for code, what in seen.problems:
                self.findings.add(code, "files", 1, [FindingExample(columns.file_name[row], what)])
        self.checked += len(rows)
        self.decoded += len(rows) if mode != "header" else 0
        self.unusable += lost
        if lost and lost / len(rows) > MAX_UNUSABLE_SHARE and not self._is_sampled(mode):
            where = f"images {columns.image_id[0]} to {columns.image_id[-1]}"
            example = FindingExample(where, f"{lost} of {len(rows)} lost")
            self.findings.add("too_many_lost", "shards", 1, [example], stops=True)
        return apply_image_sizes(columns, height, width)

    def _is_sampled(self, mode: str | int) -> bool:
        """Whether only some image files are checked; then a single shard cannot be judged."""
        return isinstance(mode, int) and mode < self.images

    def _check_box_format(self) -> None:
        """Detect boxes in another convention. It makes all other findings meaningless."""
        found = judge_conventions(self.box_stats.conventions)
        if found is not None:
            self.findings.add(found.code, "boxes", found.count, stops=found.stops, note=found.what)

    def has_output(self) -> bool:
        """Whether masks can come out of this split."""
        return self.box_stats.prompted > 0 or self.has_masks

    def check_usable(self, *, stops: bool) -> None:
        """Detect a split of which few boxes, or none, can be given to a segmenter.

        Args:
            stops: no split of the dataset has any.
        """
        crowds, prompted = self.box_stats.crowds, self.box_stats.prompted
        if crowds and crowds >= _MANY_CROWDS * self.boxes:
            self.findings.add("all_crowds", "boxes", crowds, stops=stops)
        elif prompted < FEW_USABLE * self.boxes:
            self.findings.add("few_usable", "boxes", self.boxes - prompted, stops=stops, note=f"{prompted:,} can")

    def _check_names(self, mode: str | int) -> None:
        """Look for the files of missing images under other forms of their names."""
        if mode == "none" or not self.findings.count("missing") or self.names_of_files is None:
            return
        try:
            found = self.matches or find_matches(self.folder, self.names_of_files)
        except SynthgenError as why:  # the other findings are still worth a report
            self.findings.add_note("missing", f"other forms of their names were not looked for: {why}")
            return
        kinds = [kind for kind, _ in found.kinds.most_common(3)]
        note = f"{found.matched:,} of {found.missing:,} missing files are there under {', or '.join(kinds)}"
        examples = [FindingExample(name, f"is there as {path}") for name, path in found.examples]
        if self.matches is None:
            self.findings.add("other_name", "files", found.matched, examples, note=note)
        examples = [FindingExample(name, why) for name, why in found.refusals]
        self.findings.add("unclear_name", "files", found.refused, examples)

    def _keep_names(self, names: StringColumn) -> StringColumn:
        """Keep the names of all images, in case that files are missing."""
        self.names_of_files = names
        return names

    def _match_names(self, names: StringColumn) -> StringColumn:
        """Resolve the names of all images, as `ingest` does."""
        found = self.matches = find_matches(self.folder, names)
        examples = [FindingExample(name, f"is there as {path}") for name, path in found.examples]
        self.findings.add("matched_name", "files", found.matched, examples)
        return self._keep_names(found.names)


def _has_mask(module: DatasetReader, files: DatasetFiles, *, only_first: bool) -> bool:
    """Whether the layer "human" has the mask of an object, which no crowd is. Reads until the first one.

    Args:
        module: reader of the dataset.
        files: of one split.
        only_first: read no more than the first batch of annotations.
    """
    with contextlib.suppress(SynthgenError):
        for part in module.read(files.for_layer("human"), "human"):
            if isinstance(part, AnnotationBatch) and part.payload is not None:
                has_payload = np.fromiter(map(bool, part.payload), np.bool_, len(part.payload))
                if (has_payload & ~part.iscrowd).any():
                    return True
                if only_first:
                    return False
    return False


def _parse_check_images(check_images: str | int) -> str | int:
    if check_images in ("header", "all", "none"):
        return check_images
    try:
        count = int(check_images)
    except ValueError:
        count = 0
    if count < 1:
        raise SynthgenError(
            f"--check-images {check_images} should be header, all, none, or a number of images to decode"
        )
    return count
