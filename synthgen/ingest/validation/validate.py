"""Dataset validation (`synthgen doctor`): boxes, ids, categories, splits against each other, image files.

It reads the same stream as an ingest, with the same sorting and the same box checks (`sharding.split_into_shards`), but
writes no layer and needs no store. So its counts equal those of the footers. It also sees what an ingest merges, such
as one name for two ids or a second image with the same id. Beside the memory of `split_into_shards`, it takes 8 bytes
per box and 16 per image while the file is read, and twice that while the ids are sorted: 0.45 GB for the 25.4 M boxes
of Objects365. The boxes themselves are processed one shard at a time.
"""

from __future__ import annotations

import shlex
import tempfile
from collections import Counter, defaultdict
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
    DatasetPart,
    ImageBatch,
    SourceFinding,
)
from synthgen.ingest.sharding import split_into_shards, treat_crowds_as_objects
from synthgen.ingest.validation.boxes import BoxStats, apply_image_sizes, inspect_boxes
from synthgen.ingest.validation.categories import SplitCategories, compare_splits, inspect_categories
from synthgen.ingest.validation.diagnosis import (
    REFUSED_CODES,
    FindingCollector,
    FindingExample,
    SplitReport,
    ValidationReport,
)
from synthgen.ingest.validation.files import UNUSABLE_CODES, ImageFileCheck, check_image_file
from synthgen.ingest.validation.ids import DuplicateIdFinder
from synthgen.ingest.validation.masks import inspect_masks, shorten_payloads
from synthgen.progress import ReportPhase
from synthgen.records.box_table import BoxColumns
from synthgen.records.sample import UNPROMPTED_FLAGS
from synthgen.storage.atomic import remove_stale_files, scratch_folder

#: By default, a job refuses a shard with a larger share of failed images (`Job.max_error_share`).
MAX_UNUSABLE_SHARE = 0.05

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
    crowds_as_objects: bool = False,
    on_progress: ReportPhase | None = None,
) -> ValidationReport:
    """Validate splits of a dataset, and compare their categories. Changes nothing.

    Args:
        dataset: a plugin of `formats.readers`.
        root: the dataset's folder.
        splits: None = all with existing files.
        annotations, images: annotation file and image folder, if they are not at the dataset's default paths.
        check_images: "header" (is every file there, an image, of the right size), "all" (decode every file as a job
            would), "none", or how many files to decode, evenly spread.
        name: the name in the store, if it is not the dataset's default; for the next command.
        crowds_as_objects: take annotations with `iscrowd` for single objects, as `ingest` would.
        on_progress: called from time to time.

    Raises:
        SynthgenError: the files are missing or unreadable, or an argument is invalid.
    """
    mode = _parse_check_images(check_images)
    module: Any = plugins.load_plugin("formats.readers", dataset)
    examined = [_SplitValidator(split) for split in (splits or _available_splits(module, root, annotations))]
    for one in examined:
        one.run(dataset, module, root, annotations, images, mode, on_progress or (lambda *_: None), crowds_as_objects)
    compare_splits([(one.categories(), one.findings) for one in examined])
    found = tuple(one.result() for one in examined)
    given = _dataset_flags(dataset, root, annotations, images)
    first = examined[0].split  # not `splits[0]`, which may be missing
    given += f" --split {shlex.quote(first)}" if first != module.SPLITS[0] else ""
    given += f" --name {shlex.quote(name)}" if name else ""
    given += " --crowds-as-objects" if crowds_as_objects else ""
    verdict, command = _verdict(found, given)
    return ValidationReport(dataset, found, verdict, command)


class _SplitValidator:
    """Validates one split: some findings from the whole stream, all others shard by shard."""

    def __init__(self, split: str) -> None:
        self.split = split
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
        files = module.files(root, self.split, annotations).with_image_folder(images).for_layer(layer)
        folder = files.image_folder
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
            for shard in split_into_shards(
                stream, dataset, scratch, where=where, expected_bytes=total, report=self._add_finding
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
        )

    def _observe(self, parts: Iterable[DatasetPart]) -> Iterator[DatasetPart]:
        """Pass a dataset's stream through, and collect what only the whole stream shows."""
        for part in parts:
            if isinstance(part, Categories):
                self.names.update(part.names)
                self.padded.update(part.padded)
            elif isinstance(part, SourceFinding):
                self._add_finding(part)
            else:
                self.ids.add(part)
                self.images += len(part.file_name) if isinstance(part, ImageBatch) else 0
            if isinstance(part, AnnotationBatch):
                self.boxes += len(part.id)
                for category, count in zip(*np.unique(part.category, return_counts=True), strict=True):
                    self.boxes_per_category[int(category)] += int(count)
            yield part

    def _add_finding(self, found: SourceFinding) -> None:
        examples = (FindingExample(*one) for one in found.examples)
        self.findings.add(found.code, found.unit, found.count, examples, stops=found.code in REFUSED_CODES)

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
        """Detect boxes in another format than COCO's. It is rare, and makes all other findings meaningless."""
        sums = self.box_stats
        if sums.usable < 10:
            return
        if sums.normalized == sums.usable:
            self.findings.add("normalised_boxes", "boxes", sums.usable, stops=True)
        elif sums.fit_as_xywh < 0.5 * sums.usable and sums.fit_as_xyxy > 0.95 * sums.usable:
            self.findings.add("xyxy_boxes", "boxes", sums.fit_as_xyxy, stops=True)


def _available_splits(module: Any, root: Path, annotations: Path | None) -> list[str]:
    """The splits with existing files; with an annotation file from the user, only the first."""
    if annotations is not None:
        return [module.SPLITS[0]]
    found, reasons = [], []
    for split in module.SPLITS:
        try:
            module.files(root, split, None)
            found.append(split)
        except SynthgenError as why:
            reasons.append(why)
    if not found:
        raise reasons[0]
    return found


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


def _dataset_flags(dataset: str, root: Path, annotations: Path | None, images: Path | None) -> str:
    """The command-line options that name the dataset."""
    words = ["--dataset", dataset if "." in dataset else dataset.replace("_", "-")]
    words += ["--annotations", str(annotations)] if annotations else ["--data", str(root.parent)]
    words += ["--images", str(images)] if images else []
    return shlex.join(words)


def _verdict(splits: Sequence[SplitReport], given: str) -> tuple[str, str]:
    """One line, and the next command."""
    found: Counter[str] = Counter()
    for split in splits:
        found.update({finding.code: finding.count for finding in split.findings})
    stops = dict.fromkeys(finding.code for split in splits for finding in split.findings if finding.stops)
    if not stops and not any(split.prompted for split in splits):
        return "not ready: no box can be used; what is wrong with them is named above", f"synthgen doctor {given}"
    if not stops:
        limits = [
            f"{found[flag]:,} boxes get no mask as they are {flag}" for flag in sorted(UNPROMPTED_FLAGS) if found[flag]
        ]
        lost = sum(found[code] for code in UNUSABLE_CODES)
        limits += [f"{lost:,} images are lost"] if lost else []
        return f"ready{': ' if limits else ''}{'; '.join(limits)}", f"synthgen masks {given}"
    if "same_image_id" in stops:
        remedy = "give each image an id of its own in the file"
    elif "xyxy_boxes" in stops:
        remedy = "write the boxes as x, y, width, height (width = x2 - x1, height = y2 - y1)"
    elif "normalised_boxes" in stops:
        remedy = "multiply the boxes by their images' width and height"
    else:
        worst = max(UNUSABLE_CODES, key=lambda code: found[code])
        remedy = {
            "missing": "name the right folder with --images, or complete the download",
            "unreadable": "download the unreadable images again",
            "wrong_size": "these are not the images that were annotated; name the right folder with --images",
        }[worst]
        remedy += f"; a job takes shards with more than {100 * MAX_UNUSABLE_SHARE:g} % lost only with --max-error-share"
        given = given if worst == "unreadable" else _with_images_placeholder(given)
    return f"not ready ({', '.join(stops)}): {remedy}", f"synthgen doctor {given}"


def _with_images_placeholder(given: str) -> str:
    """The same options with a placeholder for the image folder."""
    words = shlex.split(given)
    if "--images" in words:
        place = words.index("--images")
        del words[place : place + 2]
    return f"{shlex.join(words)} --images FOLDER"
