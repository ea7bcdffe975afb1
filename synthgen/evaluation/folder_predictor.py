"""Predict objects in many images, in batches, and write the results as one set of files."""

from __future__ import annotations

import filecmp
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthgen.errors import MultipleErrors, escape_control_chars, job_has_started
from synthgen.evaluation import postprocess
from synthgen.evaluation.metrics import PanopticMap, SemanticMap
from synthgen.evaluation.network_predictor import DEFAULT_BATCH_SIZE, DEFAULT_THRESHOLD, Predictor
from synthgen.evaluation.prediction_files import (
    CocoWriter,
    PanopticWriter,
    PredictedImage,
    PredictionWriter,
    ResultHead,
    ResultsWriter,
    SemanticWriter,
    count_kinds,
)
from synthgen.evaluation.prediction_pictures import Found, draw_found
from synthgen.evaluation.query_shares import compute_shares, format_shares
from synthgen.evaluation.result_folder import PICTURES, REMEDY, REPORT_FILE, check_folders, publish
from synthgen.evaluation.result_names import ResultNames
from synthgen.evaluation.results import printable_json
from synthgen.images.decode import ImageError, find_image, read_image_header
from synthgen.images.prefetch import prefetch_images
from synthgen.oom import explain_out_of_memory
from synthgen.progress import NoProgress, OpenProgress
from synthgen.records.sample import Sample
from synthgen.storage.atomic import check_writable, remove_stale_files, scratch_folder
from synthgen.visualize.drawing import save_png

#: Rows of images without predictions that are kept, and that are printed.
_MAX_ROWS, _MAX_PRINTED_ROWS = 10_000, 10

#: Reading headers waits for the disk, decoding takes the CPU.
_HEADER_THREADS, _DECODE_THREADS = 8, 4
_HEADER_BLOCK = 1_000


@dataclass(frozen=True, slots=True)
class PredictOptions:
    """How images are predicted.

    Attributes:
        task: "instance", "detection", "panoptic", "semantic", "referring" or "foreground".
        batch_size: the maximum number of images at once.
        min_score: detections with a lower score are left out; panoptic and semantic maps have their own rules.
        max_detections: per image, as above.
        pictures: whether each image is drawn with what was found in it, with scores of at least 0.25.
        color_by: see `prediction_pictures.draw_found`.
        has_given_ids: whether the ids are those of an annotation file, so that a list of COCO results is written.
        is_category_name: see `Predictor.look_batch`.
    """

    task: str = "instance"
    batch_size: int = DEFAULT_BATCH_SIZE
    min_score: float = 0.0
    max_detections: int = postprocess.MAX_DETECTIONS
    pictures: bool = False
    color_by: str = "object"
    has_given_ids: bool = False
    is_category_name: bool | None = None

    @property
    def min_confident_score(self) -> float:
        """The least score of detections that are drawn, and counted by the kind of their query."""
        return max(self.min_score, DEFAULT_THRESHOLD)

    @property
    def writer(self) -> type[CocoWriter | ResultsWriter | PanopticWriter | SemanticWriter]:
        """The writer of the task's files."""
        if self.task == "panoptic":
            return PanopticWriter
        if self.task == "semantic":
            return SemanticWriter
        return ResultsWriter if self.has_given_ids else CocoWriter

    @property
    def folders(self) -> tuple[str, ...]:
        """The names of the folders that a run writes."""
        maps = (Path(self.writer.FILE).stem,) if self.task in ("panoptic", "semantic") else ()
        return (*maps, *((PICTURES,) if self.pictures else ()))


@dataclass(frozen=True, slots=True)
class PredictionReport:
    """What `predict_folder` did.

    Attributes:
        path: the JSON file of the predictions.
        report_path: a JSON file with this report.
        task: the task.
        images: the number of images with predictions.
        objects: the number of detections, segments or regions.
        num_failed: the number of images without predictions, as they cannot be read.
        failed: the first 10,000 of them: (file name, reason).
        skipped: what else was left out, by reason: the number, and the first names.
        by_kind: see `query_shares.compute_shares`.
        min_counted_score: detections with lower scores do not count in `by_kind`; 0 for maps, whose segments all count.
        replaced: whether the JSON file replaced another one.
        old_pictures: the folder of an earlier run's pictures, which stay, as this run drew none; None = there is none.
    """

    path: Path
    report_path: Path
    task: str
    images: int
    objects: int
    num_failed: int
    failed: tuple[tuple[str, str], ...]
    skipped: Mapping[str, tuple[int, tuple[str, ...]]]
    by_kind: Mapping[str, Mapping[str, float]]
    min_counted_score: float
    replaced: bool = False
    old_pictures: Path | None = None

    def format_lines(self) -> Iterator[str]:
        """The lines to print."""
        what = {"panoptic": "segment", "semantic": "region"}.get(self.task, "object")
        yield f"{_count(self.images, 'image')}, {_count(self.objects, what)}"
        counted = f" with scores of at least {self.min_counted_score:g}" if self.min_counted_score else ""
        yield from (f"{line}{counted}" for line in format_shares(self.by_kind))
        if self.num_failed:
            yield f"{_count(self.num_failed, 'image')} could not be read:"
            yield from (f"  {name}: {reason}" for name, reason in self.failed[:_MAX_PRINTED_ROWS])
            if self.num_failed > _MAX_PRINTED_ROWS:
                yield f"  ... and {self.num_failed - _MAX_PRINTED_ROWS:,} more"
        for reason, (number, names) in self.skipped.items():
            more = ", ..." if number > len(names[:_MAX_PRINTED_ROWS]) else ""
            listed = f": {', '.join(names[:_MAX_PRINTED_ROWS])}{more}" if names else ""
            yield f"{reason}: {number:,}{listed}"
        if self.replaced:
            yield f"replaced an earlier {self.path.name} that was different; --out FOLDER keeps both"
        if self.old_pictures is not None:
            yield f"{self.old_pictures} is of an earlier run; add --pictures to replace it"
        yield f"predictions: {self.path}"
        yield f"report: {self.report_path}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def check_out(out: Path, options: PredictOptions, reads: Sequence[Path]) -> None:
    """Check that results can be written, and create their folder.

    Args:
        out: the folder.
        options: of the run.
        reads: files and folders that the run reads.

    Raises:
        SynthgenError: it cannot be written, or the run would replace what it reads, or what no run has written.
    """
    check_folders(out, options.folders, reads)
    for name in (options.writer.FILE, REPORT_FILE):
        check_writable(out / name, remedy=REMEDY)
    remove_stale_files(out)


def predict_images(
    predictor: Predictor,
    root: Path,
    images: Sequence[tuple[int, str]],
    head: ResultHead,
    options: PredictOptions,
    out: Path,
    *,
    skipped: Mapping[str, tuple[int, tuple[str, ...]]],
    progress: OpenProgress = NoProgress,
) -> PredictionReport:
    """Predict objects in images, and write the files of the task into a folder. They appear when all are complete.

    Files and folders of an earlier run of the task are replaced. Images are sorted by the size of the network's input,
    so that those of a batch have one size.

    Args:
        predictor: the network.
        root: the folder of the images.
        images: (id, path below `root` with forward slashes), at least one.
        head: categories and origin of the predictions.
        options: of the run.
        out: an existing folder; see `check_out`.
        skipped: as in `PredictionReport`.
        progress: opens a progress bar.

    Raises:
        SynthgenError: a file cannot be written, no image can be read, or the memory of the device is too small.
    """
    remedy = "lower --batch-size, or --short"
    with job_has_started(), scratch_folder(out, remedy=REMEDY) as scratch, explain_out_of_memory(remedy):
        folder = scratch / "files"
        folder.mkdir()
        with closing(options.writer(folder, head)) as writer:
            run = _Run(predictor, head, options, writer, folder)
            run.predict_all(root, images, progress)
            writer.finish()
        if not run.num_images:
            raise _no_images_error(run, out)
        path = out / options.writer.FILE
        report = PredictionReport(
            path=path,
            report_path=out / REPORT_FILE,
            task=options.task,
            images=run.num_images,
            objects=run.num_objects,
            num_failed=run.num_failed,
            failed=tuple(run.failed),
            skipped=skipped,
            by_kind=compute_shares(run.kinds),
            min_counted_score=0.0 if options.task in ("panoptic", "semantic") else options.min_confident_score,
            replaced=path.exists() and not filecmp.cmp(path, folder / path.name, shallow=False),
            old_pictures=out / PICTURES if not options.pictures and (out / PICTURES).is_dir() else None,
        )
        (folder / REPORT_FILE).write_text(printable_json(_as_json(report, head, options)), encoding="utf-8")
        check_folders(out, options.folders, ())  # hours may have passed
        publish(folder, out, scratch)
    return report


def _no_images_error(run: _Run, out: Path) -> MultipleErrors:
    what = "the image" if run.num_failed == 1 else f"any of the {run.num_failed:,} images"
    rows = [f"{name}: {reason}" for name, reason in run.failed[:_MAX_PRINTED_ROWS]]
    return MultipleErrors(f"cannot read {what}, and leave {out} as it is; check the files:", rows)


@dataclass
class _Run:
    """The state of one run."""

    predictor: Predictor
    head: ResultHead
    options: PredictOptions
    writer: PredictionWriter
    folder: Path
    num_images: int = 0
    num_objects: int = 0
    num_failed: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    kinds: Counter[tuple[str, str]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._texts = [one.name for one in self.head.categories]
        self._stuff = frozenset(one.name for one in self.head.categories if one.is_thing is False)
        self._pictures: ResultNames | None = None
        if self.options.pictures:
            self._pictures = ResultNames(self.folder / PICTURES, ".found.png", drop_suffix=False)

    def predict_all(self, root: Path, images: Sequence[tuple[int, str]], progress: OpenProgress) -> None:
        """Predict all images, in batches of one input size."""
        with progress("reading image sizes", len(images), "images") as bar:
            sizes = list(self._read_sizes(root, images, bar.advance))
        usable = [i for i, size in enumerate(sizes) if size is not None]
        usable.sort(key=lambda i: (self.predictor.input_size(sizes[i] or (1, 1)), i))
        # The decoder compares these sizes with the files, which may change.
        samples = (Sample(images[i][0], "", images[i][1], *(sizes[i] or (0, 0))) for i in usable)
        batch: list[tuple[PredictedImage, NDArray[np.uint8]]] = []
        batch_input = (0, 0)
        with progress("predicting", len(usable), "images") as bar:
            for sample, pixels in prefetch_images(samples, root, num_threads=_DECODE_THREADS):
                if not isinstance(pixels, np.ndarray):
                    self._fail(sample.file_name, str(pixels))
                    bar.advance(1)
                    continue
                size = self.predictor.input_size((sample.height, sample.width))
                if batch and (size != batch_input or len(batch) == self.options.batch_size):
                    self._predict(batch)
                    bar.advance(len(batch))
                    batch = []
                batch_input = size
                height, width = pixels.shape[:2]
                batch.append((PredictedImage(sample.image_id, sample.file_name, height, width), pixels))
            if batch:
                self._predict(batch)
                bar.advance(len(batch))

    def _read_sizes(
        self, root: Path, images: Sequence[tuple[int, str]], advance: Callable[[int], None]
    ) -> Iterator[tuple[int, int] | None]:
        """(height, width) of each image in pixels; None for those that cannot be read, which are counted."""

        def read(file_name: str) -> tuple[int, int] | str:
            try:
                file_name.encode()
                return read_image_header(find_image(root, file_name))[:2]
            except UnicodeEncodeError:
                return "its name is not UTF-8; rename it"
            except ImageError as why:
                return str(why)

        with ThreadPoolExecutor(_HEADER_THREADS, thread_name_prefix="header") as pool:
            for start in range(0, len(images), _HEADER_BLOCK):
                block = images[start : start + _HEADER_BLOCK]
                for (_, file_name), found in zip(block, pool.map(read, [name for _, name in block]), strict=True):
                    if isinstance(found, str):
                        self._fail(file_name, found)
                    yield None if isinstance(found, str) else found
                advance(len(block))

    def _fail(self, file_name: str, reason: str) -> None:
        self.num_failed += 1
        if len(self.failed) < _MAX_ROWS:
            self.failed.append((file_name.encode("utf-8", "backslashreplace").decode(), reason))

    def _predict(self, batch: Sequence[tuple[PredictedImage, NDArray[np.uint8]]]) -> None:
        """Predict the images of a batch, and write what was found."""
        every = self.predictor.map_batch(
            lambda seen: (self._postprocess(seen), seen.num_conditional), [pixels for _, pixels in batch], self._texts,
            is_category_name=self.options.is_category_name, stuff_names=self._stuff,
        )  # fmt: skip
        for (image, pixels), (found, num_conditional) in zip(batch, every, strict=True):
            self.writer.write(image, found, num_conditional)
            categories, threshold = self.head.categories, self.options.min_confident_score
            self.kinds.update(count_kinds(found, categories, num_conditional, min_score=threshold))
            self.num_images += 1
            self.num_objects += _num_objects(found)
            if self._pictures is not None:
                drawn = [d for d in found if d.score >= threshold] if isinstance(found, list) else found
                footer = f"{escape_control_chars(image.file_name)}   {_num_objects(drawn)} found   {self.head.model}"
                picture = draw_found(
                    pixels, drawn, self._texts, footer, num_conditional=num_conditional,
                    color_by=self.options.color_by, stuff_names=self._stuff,
                )  # fmt: skip
                save_png(self._pictures.folder / self._pictures.choose(image.file_name), picture)

    def _postprocess(self, seen: postprocess.RawPrediction) -> Found:
        task, most = self.options.task, self.options.max_detections
        if task == "panoptic":
            return postprocess.panoptic(seen)
        if task == "semantic":
            return postprocess.semantic(seen)
        if task == "instance":
            found = postprocess.instances(seen, max_detections=most)
        elif task == "detection":
            found = postprocess.boxes(seen, max_detections=most)
        else:
            found = sorted(postprocess.referring(seen), key=lambda one: -one.score)[:most]
        return [one for one in found if one.score >= self.options.min_score]


def _num_objects(found: Found) -> int:
    if isinstance(found, PanopticMap):
        return len(found.segments)
    return len(found.query_by_label) if isinstance(found, SemanticMap) else len(found)


def _as_json(report: PredictionReport, head: ResultHead, options: PredictOptions) -> dict[str, Any]:
    return {
        "synthgen": head.version,
        "model": head.model,
        "options": asdict(options),
        "num_images": report.images,
        "num_objects": report.objects,
        "by_kind": report.by_kind,
        "min_counted_score": report.min_counted_score,
        "num_failed": report.num_failed,
        "failed": [{"file_name": name, "reason": reason} for name, reason in report.failed],
        "skipped": {reason: {"number": number, "names": names} for reason, (number, names) in report.skipped.items()},
    }
