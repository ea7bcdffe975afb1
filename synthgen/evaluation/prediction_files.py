"""Writes predictions image by image, in bounded memory: COCO files, COCO results, panoptic and semantic label maps.

Each object has the member `query`: which kind of query found it, "conditional", "learnable", or for a merged stuff
segment "both".

Formats: https://cocodataset.org/#format-data, https://cocodataset.org/#format-results
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from synthgen.errors import SynthgenError
from synthgen.evaluation.metrics import Detection, PanopticMap, SemanticMap
from synthgen.evaluation.query_shares import query_kind
from synthgen.evaluation.result_folder import CLASSES
from synthgen.evaluation.result_names import ResultNames
from synthgen.images.png_file import write_png
from synthgen.images.png_text import MODELS_KEYWORD, PROVENANCE_KEYWORD
from synthgen.records.boxes import xyxy_to_xywh
from synthgen.records.rle import rle_area
from synthgen.storage.coco_stream import CocoStream, JsonListWriter

#: Odd, so that the multiples of it are different ids of 24 bits; neighbours have unlike colours.
_ID_STEP = 0x9E3779B1
_MAX_SEGMENT_ID = 2**24 - 1

#: In 8-bit maps, readers take 255 for "no label"; the largest number of a 16-bit map.
_IGNORED, _MAX_LABEL = 255, 2**16 - 1


@dataclass(frozen=True, slots=True)
class PredictedCategory:
    """A category as result files name it.

    Attributes:
        id: its id in the files.
        name: the text that the network was given.
        is_thing: COCO panoptic's `isthing`; None = nobody said it.
    """

    id: int
    name: str
    is_thing: bool | None = None

    @property
    def kind(self) -> str:
        """A kind of `query_shares.OBJECT_KINDS`."""
        return "objects" if self.is_thing is None else "things" if self.is_thing else "stuff"


@dataclass(frozen=True, slots=True)
class PredictedImage:
    """An image as result files name it.

    Attributes:
        id: its id in the files.
        file_name: path below the folder of the images, with forward slashes.
        height: in pixels, as a viewer shows the image.
        width: likewise.
    """

    id: int
    file_name: str
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class ResultHead:
    """What all files of one run have in common.

    Attributes:
        categories: in the order of the network's texts.
        model: what made the predictions, in a few words.
        version: of synthgen.
    """

    categories: Sequence[PredictedCategory]
    model: str
    version: str

    def info(self, num_masks: int) -> dict[str, Any]:
        """COCO's member `info`, which says that a machine drew the masks: `num_masks` of them."""
        own = {"version": self.version, "provenance": {"machine": num_masks}, "models": [self.model]}
        return {"description": f"predictions of {self.model}", "synthgen": own}

    def png_texts(self) -> dict[str, str]:
        """The texts of a PNG file, which say the same."""
        return {PROVENANCE_KEYWORD: "machine", MODELS_KEYWORD: json.dumps([self.model])}


class PredictionWriter(Protocol):
    """Writes the predictions of one task; see `open_writer`."""

    def write(self, image: PredictedImage, found: Any, num_conditional: int) -> None:
        """Write what was found in an image.

        Args:
            image: the image.
            found: what the function of the task in `postprocess` returns.
            num_conditional: the number of conditional queries; they come first.
        """
        ...

    def finish(self) -> None:
        """Write the ends of the files."""
        ...

    def close(self) -> None:
        """Close the files; a second time has no effect."""
        ...


class CocoWriter:
    """A COCO file with images, categories and annotations that have scores: `predictions.json`.

    Args:
        folder: where it is written, empty.
        head: of the run.
    """

    FILE = "predictions.json"

    def __init__(self, folder: Path, head: ResultHead) -> None:
        self._stream, self._head, self._count = CocoStream(folder / self.FILE), head, 0

    def write(self, image: PredictedImage, found: Sequence[Detection], num_conditional: int) -> None:
        """See `PredictionWriter`."""
        self._stream.images.add(_encode(_image_record(image)))
        records = []
        for one in found:
            self._count += 1
            record = _detection_record(image, one, self._head.categories, num_conditional)
            width, height = record["bbox"][2:]
            area = width * height if one.mask is None else rle_area(one.mask)
            records.append({"id": self._count, **record, "area": area, "iscrowd": 0})
        if records:
            self._stream.annotations.add(_encode_several(records))

    def finish(self) -> None:
        """See `PredictionWriter`."""
        categories = [{"id": one.id, "name": one.name} for one in self._head.categories]
        self._stream.finish({"categories": _encode(categories), "info": _encode(self._head.info(self._count))})

    def close(self) -> None:
        """See `PredictionWriter`."""
        self._stream.close()


class ResultsWriter:
    """A list of COCO results, with the ids of an annotation file: `results.json`.

    Args:
        folder: where it is written, empty.
        head: of the run.
    """

    FILE = "results.json"

    def __init__(self, folder: Path, head: ResultHead) -> None:
        self._file, self._head = (folder / self.FILE).open("xb", buffering=2**20), head
        self._file.write(b"[")
        self._list = JsonListWriter(self._file)

    def write(self, image: PredictedImage, found: Sequence[Detection], num_conditional: int) -> None:
        """See `PredictionWriter`."""
        categories = self._head.categories
        if found:
            self._list.add(
                _encode_several([_detection_record(image, one, categories, num_conditional) for one in found])
            )

    def finish(self) -> None:
        """See `PredictionWriter`."""
        self._file.write(b"\n]\n")
        self.close()

    def close(self) -> None:
        """See `PredictionWriter`."""
        self._file.close()


class PanopticWriter:
    """COCO panoptic: `panoptic_predictions.json`, and the PNG files of segment ids in `panoptic_predictions/`.

    Args:
        folder: where they are written, empty.
        head: of the run.
    """

    FILE = "panoptic_predictions.json"

    def __init__(self, folder: Path, head: ResultHead) -> None:
        self._stream, self._head, self._count = CocoStream(folder / self.FILE), head, 0
        self._maps = ResultNames((folder / self.FILE).with_suffix(""), ".png", drop_suffix=True)

    def write(self, image: PredictedImage, found: PanopticMap, num_conditional: int) -> None:
        """See `PredictionWriter`."""
        self._stream.images.add(_encode(_image_record(image)))
        ids = (np.arange(len(found.segments) + 1, dtype=np.int64) * _ID_STEP & _MAX_SEGMENT_ID).astype(np.uint32)
        name = self._maps.choose(image.file_name)
        colors = np.stack([ids >> shift & 255 for shift in (0, 8, 16)], axis=1).astype(np.uint8)
        write_png(self._maps.folder / name, colors[found.segment_ids], self._head.png_texts())
        segments = []
        for number, one in enumerate(found.segments, 1):
            category, mask = self._head.categories[one.label], found.segment_ids == number
            segments.append(
                {
                    "id": int(ids[number]),
                    "category_id": category.id,
                    "area": int(mask.sum()),
                    "bbox": _tight_bbox(mask),
                    "iscrowd": 0,
                    "score": one.score,
                    "query": joint_kind(one.queries, num_conditional),
                }
            )
        self._count += len(segments)
        self._stream.annotations.add(_encode({"image_id": image.id, "file_name": name, "segments_info": segments}))

    def finish(self) -> None:
        """See `PredictionWriter`."""
        categories = [
            {"id": one.id, "name": one.name, "isthing": int(one.is_thing is not False)} for one in self._head.categories
        ]
        self._stream.finish({"categories": _encode(categories), "info": _encode(self._head.info(self._count))})

    def close(self) -> None:
        """See `PredictionWriter`."""
        self._stream.close()


class SemanticWriter:
    """Label maps in `semantic_predictions/`: 0 is not used, and each category has a number from 1 on.

    The maps have 8 bits, and 16 from 255 categories on. `class_names.json` beside them lists the numbers; the dataset
    format `semantic_folder` reads both. `semantic_predictions.json` has the names and the query of each region.

    Args:
        folder: where they are written, empty.
        head: of the run.

    Raises:
        SynthgenError: there are more categories than a map of 16 bits can number.
    """

    FILE = "semantic_predictions.json"

    def __init__(self, folder: Path, head: ResultHead) -> None:
        if len(head.categories) > _MAX_LABEL:
            raise SynthgenError(f"{len(head.categories):,} categories do not fit into a map of 16 bits; give fewer")
        self._head, self._depth = head, np.uint8 if len(head.categories) < _IGNORED else np.uint16
        self._maps = ResultNames((folder / self.FILE).with_suffix(""), ".png", drop_suffix=True, reserved=(CLASSES,))
        names = [{"id": 0, "name": "background"}]
        names += [
            {"id": number, "name": one.name, "category_id": one.id} for number, one in enumerate(head.categories, 1)
        ]
        text = "[\n" + ",\n".join(map(json.dumps, names)) + "\n]\n"
        (self._maps.folder / CLASSES).write_text(text, encoding="ascii")
        self._file = (folder / self.FILE).open("xb", buffering=2**18)
        # Not COCO's keys: readers would take the file for one of theirs, and find no mask.
        self._file.write(b'{"maps": [')
        self._list, self._count = JsonListWriter(self._file), 0

    def write(self, image: PredictedImage, found: SemanticMap, num_conditional: int) -> None:
        """See `PredictionWriter`."""
        name = self._maps.choose(image.file_name)
        write_png(self._maps.folder / name, (found.labels + 1).astype(self._depth), self._head.png_texts())
        pixels = np.bincount(found.labels.ravel(), minlength=len(self._head.categories))
        regions = []
        for label, query in sorted(found.query_by_label.items()):
            category, kind = self._head.categories[label], query_kind(query, num_conditional)
            regions.append({"value": label + 1, "name": category.name, "pixels": int(pixels[label]), "query": kind})
        self._count += len(regions)
        record = {"image_id": image.id, "file_name": image.file_name, "map": name, "regions": regions}
        self._list.add(_encode(record))

    def finish(self) -> None:
        """See `PredictionWriter`."""
        self._file.write(b'],\n"about": ' + _encode(self._head.info(self._count)) + b"}\n")
        self.close()

    def close(self) -> None:
        """See `PredictionWriter`."""
        self._file.close()


def _image_record(image: PredictedImage) -> dict[str, Any]:
    return {"id": image.id, "file_name": image.file_name, "height": image.height, "width": image.width}


def _detection_record(
    image: PredictedImage, one: Detection, categories: Sequence[PredictedCategory], num_conditional: int
) -> dict[str, Any]:
    """A COCO result; without a mask there is no `segmentation`."""
    record = {
        "image_id": image.id,
        "category_id": categories[one.label].id,
        "bbox": xyxy_to_xywh(one.box_xyxy).tolist(),
        "score": one.score,
        "query": query_kind(one.query, num_conditional),
    }
    if one.mask is not None:
        record["segmentation"] = {"size": list(one.mask.size), "counts": one.mask.counts.decode("ascii")}
    return record


def count_kinds(
    found: Sequence[Detection] | PanopticMap | SemanticMap,
    categories: Sequence[PredictedCategory],
    num_conditional: int,
    *,
    min_score: float,
) -> Iterator[tuple[str, str]]:
    """For each object (its kind, the kind of its query), for `query_shares.compute_shares`; a segment has several.

    Args:
        found: in one image.
        categories: of the labels.
        num_conditional: the number of conditional queries; they come first.
        min_score: detections with a lower score are left out.
    """
    if isinstance(found, PanopticMap):
        pairs = [(segment.label, query) for segment in found.segments for query in segment.queries]
    elif isinstance(found, SemanticMap):
        pairs = list(found.query_by_label.items())
    else:
        pairs = [(one.label, one.query) for one in found if one.score >= min_score]
    for label, query in pairs:
        yield categories[label].kind, query_kind(query, num_conditional)


def joint_kind(queries: Sequence[int], num_conditional: int) -> str:
    """The kind of several queries: that of all of them, or "both".

    Args:
        queries: indices of queries, at least one.
        num_conditional: the number of conditional queries; they come first.
    """
    kinds = {query_kind(query, num_conditional) for query in queries}
    return kinds.pop() if len(kinds) == 1 else "both"


def _tight_bbox(mask: NDArray[np.bool_]) -> list[int]:
    """XYWH of a mask with at least one pixel, in whole pixels."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, left = int(rows[0]), int(columns[0])
    return [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1]


def _encode(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def _encode_several(values: Sequence[object]) -> bytes:
    """The elements with commas between them."""
    return _encode(values)[1:-1]
