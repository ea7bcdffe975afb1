"""Label Studio: exports of images in JSON and JSON-MIN.

A folder with one such file is one split; several files are splits called as the files; so are folders train, val, test
and the like. Tasks are images. Of several annotations of a task, the ground truth counts, else the newest that was not
cancelled; the others are counted. A task that was skipped, or that has no annotation, is counted as an unlabeled image.
Predictions of models are counted, and not read.

Objects: rectanglelabels, polygonlabels, brushlabels and ellipselabels, or a `Labels` tag with such a shape. Coordinates
are percent of `original_width` and `original_height`, which the browser gave (EXIF orientation applied), or of the size
in the image's header. A rectangle turns around its top left corner, an ellipse around its centre; the upright box
around them has the flag `rotated`. Of several labels, the first is the category. Keypoints and other regions are
counted, and are no objects. Choices, texts and relations are not used.

Images: `data` names them as paths of the server, addresses (http, s3, gs) or local storage. They are looked for beside
the file and in images/, by their path, then without its first folders, then by the last part alone, and at last without
the prefix of an upload (`1a2b3c4d-`). A task with a list of images is an image with an error.

Layer "human": polygons, ellipses (as polygons) and brush masks.

Format: https://labelstud.io/guide/task_format and https://labelstud.io/guide/export
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from synthgen.errors import SynthgenError
from synthgen.formats.readers import DatasetFiles, DatasetPart
from synthgen.formats.readers._ids import parse_id
from synthgen.formats.readers._instances import complete
from synthgen.formats.readers._json_members import stream_items
from synthgen.formats.readers._label_files import read_start
from synthgen.formats.readers._label_folders import (
    LabelFormat,
    find_named_image,
    find_split_files,
    image_prefixes,
    read_shown_size,
)
from synthgen.formats.readers._label_studio_tasks import (
    LabelStudioTask,
    annotation_rank,
    image_names,
    is_minimal,
    read_regions,
    read_task,
    region_shape,
    was_turned,
)
from synthgen.formats.readers._object_rows import ObjectRows

TITLE = "Label Studio"
LOOKS_FOR = "a JSON array of tasks with 'annotations' and 'data', or of Label Studio's JSON-MIN"
SPLITS = ("train", "val", "test")
LAYERS = ("annotations", "human")
LAYOUT_SPLITS = True

__all__ = ["LAYERS", "LAYOUT_SPLITS", "LOOKS_FOR", "SPLITS", "TITLE", "complete", "files", "read", "recognize"]

_START_BYTES = 2**16
_FOLDER_NAMES = ("annotations", "labels", "label_studio")
_ANNOTATIONS = re.compile(rb'"(?:annotations|completions)"\s*:\s*\[')
_RESULTS = re.compile(rb'"(?:result"\s*:\s*\[|data"\s*:\s*\{|was_cancelled"|from_name")')
# JSON-MIN: what it adds to each record, and its regions, which may push that far behind the start of a file.
_ANNOTATOR = re.compile(rb'"annotator"\s*:')
_RECORD = re.compile(rb'"(?:annotation_id|lead_time|created_at)"\s*:')
_SIZE = re.compile(rb'"original_width"\s*:')
_LABELS = re.compile(rb'"[a-z]*labels"\s*:\s*\[')


def recognize(path: Path) -> tuple[str, ...] | None:
    """The splits of the folder `path`, or of one file; None if it is not Label Studio's."""
    if path.is_file():
        return ("train",) if path.suffix.lower() == ".json" and _is_label_studio_file(path) else None
    return tuple(_find_splits(path)) or None


def files(root: Path, split: str, annotations: Path | None) -> DatasetFiles:
    """The file of a split.

    Args:
        root: folder of the dataset.
        split: one of those that `recognize` returns.
        annotations: the file, if it is not in the folder.

    Raises:
        SynthgenError: it is not there.
    """
    if annotations is not None:
        if not annotations.is_file():
            raise SynthgenError(f"no file {annotations}; --annotations should name an export of Label Studio in JSON")
        found = {split: annotations}
    else:
        found = _find_splits(root)
    if split not in found:
        have = f"it has {', '.join(found)}" if found else "it should hold Label Studio's JSON beside the images"
        raise SynthgenError(f"no Label Studio split '{split}' in {root}; {have}")
    return DatasetFiles({"annotations": found[split]}, root, split=split)


def read(files: DatasetFiles, layer: str) -> Iterator[DatasetPart]:
    """The content of the file; see `synthgen.formats.readers`. Memory is that of one task, and the ids of JSON-MIN.

    Args:
        files: as `files` returns them.
        layer: one of `LAYERS`.

    Raises:
        SynthgenError: the file is not such JSON.
    """
    path = files.sources["annotations"]
    prefixes = image_prefixes(path.parent, files.image_folder)
    rows = ObjectRows(masks=layer == "human")
    chosen = _choose_minimal(path)
    for number, task in enumerate(stream_items(path, files.on_bytes)):
        task_id = parse_id(task.get("id"))
        if not task:
            rows.add_finding("unreadable_line", "files", path.name, f"task {number + 1} is not an object")
        elif is_minimal(task) and task_id is not None and chosen.get(task_id, number) != number:
            where = read_task(task).image
            rows.add_finding("several_annotations", "images", where, f"task {task_id}: a newer annotation is read")
        else:
            _add_task(files, rows, prefixes, read_task(task), task_id if task_id is not None else -1 - number)
        yield from rows.full_batches()
    yield from rows.finish()


def _add_task(files: DatasetFiles, rows: ObjectRows, prefixes: list[str], task: LabelStudioTask, task_id: int) -> None:
    if task.predictions:
        rows.add_finding("ignored_prediction", "shapes", task.image, f"task {task_id}", task.predictions)
    if task.others:
        what = f"task {task_id}: the ground truth or the newest is read"
        rows.add_finding("several_annotations", "images", task.image, what, task.others)
    if task.results is None:
        what = "its task was skipped" if task.is_skipped else "its task has no annotation"
        rows.add_finding("unlabeled_image", "images", task.image, what)
        return
    names = [name for reference in (task.image, task.upload) for name in image_names(reference)]
    own = image_names(task.image) or image_names(task.upload)
    file_name = find_named_image(files.image_folder, prefixes, names) or (prefixes[0] + _last(own) if own else "")
    regions = list(read_regions(task.results))
    if was_turned(task.results):
        rows.add_finding("annotated_turned", "images", file_name, f"task {task_id} has an image_rotation")
    height, width = next((region.size for region in regions if min(region.size)), (0, 0))
    if not height or not width:
        height, width = read_shown_size(files.image_folder, file_name)
    error = None
    if task.is_ambiguous:
        error = "its task has a list of images, which is not supported"
    elif regions and not height:
        error = "its size is not known: the task has no original_width and original_height, and its file is missing"
    image_id = rows.add_image(file_name, height, width, error, image_id=task_id)
    for region in regions:
        label = region.labels[0] if region.labels else ""
        shape, is_object = region_shape(region, height, width)
        if not is_object:
            rows.add_finding("not_an_object", "shapes", file_name, f"{region.kind} '{label}'")
            continue
        if len(region.labels) > 1:
            rows.add_finding("several_labels", "boxes", file_name, ", ".join(region.labels[:10]))
        flags = ["bad_segmentation"] if region.kind == "brush" and shape is None else []
        rows.add_object(image_id, label, shape, flags=flags)


def _last(names: list[str]) -> str:
    """The last part of a reference, with the prefix of an upload."""
    return names[0].rpartition("/")[2]


def _choose_minimal(path: Path) -> dict[int, int]:
    """In JSON-MIN, the number of the record that counts by task, of tasks with several; empty for other exports."""
    best: dict[int, tuple[Any, int]] = {}
    for number, task in enumerate(stream_items(path)):
        if task and not is_minimal(task):
            return {}
        task_id = parse_id(task.get("id"))
        if task_id is not None:
            rank = annotation_rank(task)
            if task_id not in best or rank >= best[task_id][0]:
                best[task_id] = rank, number
    return {task_id: number for task_id, (_, number) in best.items()}


def _find_splits(root: Path) -> dict[str, Path]:
    return find_split_files(root, LabelFormat(".json", _FOLDER_NAMES, _is_label_studio_file))


def _is_label_studio_file(path: Path) -> bool:
    start = read_start(path, _START_BYTES)
    if start.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] != b"[":
        return False
    kinds = ((_ANNOTATIONS, _RESULTS), (_ANNOTATOR, _RECORD), (_SIZE, _LABELS))
    return any(one.search(start) and other.search(start) for one, other in kinds)
