"""The file or folder of an import: what it is, its digest, and its masks sorted by image."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from synthgen.errors import SynthgenError
from synthgen.formats.mask_files import MaskFileHead, png_payload, read_head, read_masks
from synthgen.formats.readers import AnnotationBatch
from synthgen.generate.imports.image_index import ImageIndex
from synthgen.ingest.external_sort import EMPTY_RUN, ExternalSorter, SortedRun
from synthgen.ingest.folder_listing import list_image_files
from synthgen.ingest.source_digests import file_sha256
from synthgen.progress import ReportPhase
from synthgen.records.box_table import NO_ID

_BLOCK_FILES = 10_000
_MAX_EXAMPLES = 3
_MAX_EXAMPLE_CHARS = 200
_MAX_DIGITS = 19  # a number with fewer fits 64 bits


@dataclass(frozen=True, slots=True)
class MaskSource:
    """A file or folder of masks.

    Attributes:
        path: a COCO file, or a folder of PNG files.
        sha256: the digest of its content.
        state: size and times of a file when the digest was computed; empty for a folder.
    """

    path: Path
    sha256: str
    state: tuple[int, ...] = ()

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder of PNG files."""
        return self.path.is_dir()


@dataclass
class UnusedMasks:
    """The masks of a file that became no mask of a layer.

    Attributes:
        counts: by a key of `matching.UNUSED_REASONS`.
        examples: the first ones of each reason.
    """

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, example: str, count: int = 1) -> None:
        """Count masks.

        Args:
            reason: a key of `matching.UNUSED_REASONS`.
            example: what to call one of them; the first ones are kept.
            count: how many.
        """
        self.counts[reason] += count
        kept = self.examples.setdefault(reason, [])
        if len(kept) < _MAX_EXAMPLES:
            kept.append(example[:_MAX_EXAMPLE_CHARS])


def open_source(path: Path) -> MaskSource:
    """The file or folder at a path, with its digest.

    Args:
        path: what the user named.

    Raises:
        SynthgenError: it is missing, cannot be read, or is a folder without PNG files.
    """
    if not path.is_dir():
        if not path.exists():
            raise SynthgenError(f"no file or folder {path}; name a COCO JSON file, or a folder of PNG masks")
        state = _file_state(path)
        return MaskSource(path, file_sha256(path), state)
    digest, count = hashlib.sha256(), 0
    for name in _png_names(path):
        digest.update(b"%s\0%s\n" % (name.encode(), file_sha256(path / name).encode()))
        count += 1
    if not count:
        raise SynthgenError(f"no PNG files in {path}; name a folder of PNG masks, or a COCO JSON file")
    return MaskSource(path, digest.hexdigest())


def check_unchanged(source: MaskSource) -> None:
    """Check that a file is what it was when its digest was computed. A folder's files are read later.

    Args:
        source: as `open_source` returned it.

    Raises:
        SynthgenError: it changed.
    """
    if not source.is_folder and _file_state(source.path) != source.state:
        raise SynthgenError(f"{source.path} changed while it was read; run the same command again")


def _file_state(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


class SortedMasks:
    """The masks of a source, sorted by the image's number in an `ImageIndex`, on disk.

    Attributes:
        head: what a COCO file says beside its annotations.
        unused: masks without an image of the layer, or without a segmentation.
        num_masks: masks with an image.

    Args:
        source: the file or folder.
        index: the images of the layer.
        scratch: an empty folder.
        tell: called with the phase, the units done and the units in all.

    Raises:
        SynthgenError: the file is not such a file, or cannot be read.
    """

    def __init__(self, source: MaskSource, index: ImageIndex, scratch: Path, tell: ReportPhase) -> None:
        self.source, self.unused, self.num_masks = source, UnusedMasks(), 0
        self.head = MaskFileHead(is_list=True)
        self._index, self._tell = index, tell
        self._rows = np.arange(len(index))
        self._sorter = ExternalSorter(scratch, 0 if source.is_folder else source.path.stat().st_size)
        if source.is_folder:
            self._read_folder()
        else:
            self._read_file()
        self._runs = self._sorter.sorted_runs(self._rows)
        self._ahead = EMPTY_RUN

    def take(self, start: int, stop: int) -> SortedRun:
        """The masks of the images [start, stop), sorted by image. Earlier images are skipped.

        Args:
            start: number of the first image.
            stop: number after the last one; it never decreases from call to call.
        """
        while not len(self._ahead.image_id) or self._ahead.image_id[-1] < stop:
            run = next(self._runs, None)
            if run is None:
                break
            self._ahead += run
        begin, end = np.searchsorted(self._ahead.image_id, [start, stop]).tolist()
        run = self._ahead.select_rows(begin, end)
        self._ahead = self._ahead.select_rows(end, len(self._ahead.image_id))
        return run

    def _add(self, batch: AnnotationBatch, numbers: NDArray[np.int64], name: Callable[[int], str]) -> None:
        """Add a batch to the sorter, and count the masks without an image.

        Args:
            batch: annotations of the file.
            numbers: int64 [M], the number of each one's image in the index, -1 = there is none.
            name: what to call the annotation of a row in a message.
        """
        payloads = batch.payload or []
        kept = []
        for row, number in enumerate(numbers.tolist()):
            if number >= 0 and payloads[row] is not None:
                kept.append(row)
            else:
                self.unused.add("no_segmentation" if payloads[row] is None else "no_image", name(row))
        self.num_masks += len(kept)
        if kept:
            part = AnnotationBatch(
                image_id=numbers[kept],
                id=batch.id[kept],
                bbox=batch.bbox[kept],
                category=batch.category[kept],
                iscrowd=batch.iscrowd[kept],
                payload=[payloads[row] for row in kept],
            )
            self._sorter.add(part, self._rows)

    def _read_file(self) -> None:
        """Read the annotations of a COCO file. Its list of images may stand behind them, so it is read twice."""
        path, total = self.source.path, self.source.path.stat().st_size
        listed, done = _ListedImages(), 0

        def on_images(ids: NDArray[np.int64], names: list[str]) -> None:
            listed.add(ids, self._index.find_images(ids, names))

        def on_bytes(count: int) -> None:
            nonlocal done
            done += count
            self._tell("reading", min(done, total), total)

        self.head = read_head(path, on_images)
        for batch in read_masks(path, self.head, on_bytes):
            find = listed.find if listed.count else self._index.find_ids
            self._add(batch, find(batch.image_id), partial(_name_record, batch))

    def _read_folder(self) -> None:
        """Read the names of PNG files: the image's id map, or binary masks in a folder named as the image."""
        block: list[str] = []
        for name in _png_names(self.source.path):
            block.append(name)
            if len(block) == _BLOCK_FILES:
                self._add_files(block)
                block = []
        self._add_files(block)

    def _add_files(self, names: list[str]) -> None:
        paths = [PurePosixPath(name) for name in names]
        own = self._index.find_names(names)
        # A name with a suffix, as `find_names` cuts one off, which the name of a folder may have, too.
        above = self._index.find_names([f"{path.parent}.png" if path.parent.name else "" for path in paths])
        # In 3/1.png, the mask 1 of the image 3, the last part alone may be the name of another image.
        is_map = (own >= 0) & ((above < 0) | (self._index.find_exact(names) >= 0))
        count = len(names)
        batch = AnnotationBatch(
            image_id=own,
            id=np.array([NO_ID if is_map[row] else _stem_id(path) for row, path in enumerate(paths)], np.int64),
            bbox=np.full((count, 4), np.nan),
            category=np.full(count, NO_ID, np.int64),
            iscrowd=np.zeros(count, np.bool_),
            payload=[png_payload(name, is_id_map=m) for name, m in zip(names, is_map.tolist(), strict=True)],
        )
        self._add(batch, np.where(is_map, own, above), names.__getitem__)


class _ListedImages:
    """The images that a file lists: the number of each in the layer, by the file's id."""

    def __init__(self) -> None:
        self._ids: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
        self._numbers: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
        self.count = 0

    def add(self, ids: NDArray[np.int64], numbers: NDArray[np.int64]) -> None:
        self._ids.append(ids)
        self._numbers.append(numbers)
        self.count += len(ids)

    def find(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        if len(self._ids) > 1:  # sorted once, when all are there
            unique, first = np.unique(np.concatenate(self._ids), return_index=True)
            self._ids, self._numbers = [unique], [np.concatenate(self._numbers)[first]]
        known, numbers = self._ids[0], self._numbers[0]
        if not len(known):
            return np.full(len(ids), -1, np.int64)
        place = np.minimum(np.searchsorted(known, ids), len(known) - 1)
        return np.where(known[place] == ids, numbers[place], -1)


def _png_names(folder: Path) -> Iterator[str]:
    names = list_image_files(folder)
    for start in range(0, len(names), _BLOCK_FILES):
        block = names.take(np.arange(start, min(start + _BLOCK_FILES, len(names))))
        yield from (name for name in block if name.lower().endswith(".png"))


def _name_record(batch: AnnotationBatch, row: int) -> str:
    number = int(batch.id[row])
    what = f"annotation {number}" if number != NO_ID else "an annotation"
    return f"{what} of image {batch.image_id[row]}"


def _stem_id(path: PurePosixPath) -> int:
    """The number that names a file; `NO_ID` for another name."""
    stem = path.stem
    return int(stem) if stem.isascii() and stem.isdigit() and len(stem) < _MAX_DIGITS else NO_ID
