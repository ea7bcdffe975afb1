"""CVAT: `annotations.xml` of "CVAT for images 1.1" and "CVAT for video 1.1", beside the folder `images/`.

Files are streamed, as they may have some 100 MB. Subsets of a project are splits (`subset` of an image or a track). The
file of a task is one split, called as the task's subset, or "train". Several XML files in one folder, as Datumaro
writes them, are splits called as the files; so are folders train, val and test.

Objects: `box`, `polygon`, `ellipse`, `mask`, and `cuboid` (the box around its eight corners). A `rotation` of a box or
an ellipse, in degrees around its centre, gives the upright box around it and the flag `rotated`. Polygons, ellipses and
masks of an image with the same `group_id` and label are one object of several parts, as in CVAT's export to COCO.
`polyline`, `points`, `skeleton` and `tag` are counted, and are no objects. `occluded`, `source`, `z_order` and
attributes are not used.

Video: each track gives a box in each frame in which it is not `outside`. The frames are images named `frame_000000` and
so on, as CVAT exports them, with any suffix; `ffmpeg -i video.mp4 -start_number 0 images/frame_%06d.png` makes them. A
frame that no track mentions is not in the file, and so not in the dataset. CVAT writes the interpolated boxes; none are
made here.

Layer "human": polygons, ellipses (as polygons) and masks. A mask's run lengths go row by row through its own window,
and start with background.

Format: https://docs.cvat.ai/docs/manual/advanced/xml_format/
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from synthgen.errors import SynthgenError
from synthgen.formats.readers import DatasetFiles, DatasetPart
from synthgen.formats.readers._cvat_shapes import read_cvat_shape
from synthgen.formats.readers._instances import complete
from synthgen.formats.readers._label_files import LabelFileError, read_start
from synthgen.formats.readers._label_folders import (
    ImageNames,
    LabelFormat,
    find_label_folders,
    image_starts,
    is_inside_file,
    read_shown_size,
)
from synthgen.formats.readers._numbers import parse_int, parse_pixels
from synthgen.formats.readers._object_rows import ObjectRows
from synthgen.formats.readers._shape_groups import ShapeGroups
from synthgen.formats.readers._xml_nodes import XmlNode, stream_xml
from synthgen.images.paths import IMAGE_SUFFIXES

TITLE = "CVAT"
LOOKS_FOR = "an XML file with <annotations> and <image> or <track>, such as annotations.xml, beside images/"
SPLITS = ("train", "val", "test")
LAYERS = ("annotations", "human")
LAYOUT_SPLITS = True

__all__ = ["LAYERS", "LAYOUT_SPLITS", "LOOKS_FOR", "SPLITS", "TITLE", "complete", "files", "read", "recognize"]

_START_BYTES = 4096
_MAX_FILES = 1_000  # XML files of a folder
_MAX_IMAGES_AT_START = 200  # that are asked for their subset if the file says nothing else
_MAX_FRAME = 10**9
_SUFFIXES = (".PNG", ".png", ".jpg", ".jpeg", ".JPG")


def recognize(path: Path) -> tuple[str, ...] | None:
    """The splits of the folder `path`, or of one XML file; None if it is not CVAT's."""
    if path.is_file():
        return tuple(_splits_of_file(path)) if path.suffix.lower() == ".xml" and _is_cvat_file(path) else None
    return tuple(_find_splits(path)) or None


def files(root: Path, split: str, annotations: Path | None) -> DatasetFiles:
    """The XML file of a split.

    Args:
        root: folder of the dataset.
        split: one of those that `recognize` returns.
        annotations: the XML file, if it is not in the folder.

    Raises:
        SynthgenError: it is not there.
    """
    if annotations is not None:
        if not annotations.is_file():
            raise SynthgenError(f"no file {annotations}; --annotations should name CVAT's annotations.xml")
        return DatasetFiles({"annotations": annotations}, root, split=split)
    found = _find_splits(root)
    if split not in found:
        have = f"it has {', '.join(found)}" if found else "it should hold CVAT's annotations.xml and images/"
        raise SynthgenError(f"no CVAT split '{split}' in {root}; {have}")
    return DatasetFiles({"annotations": found[split]}, root, split=split)


def read(files: DatasetFiles, layer: str) -> Iterator[DatasetPart]:
    """The content of the file; see `synthgen.formats.readers`. Memory is that of the frames' numbers and names.

    Args:
        files: as `files` returns them.
        layer: one of `LAYERS`.

    Raises:
        SynthgenError: the file is not CVAT's XML.
    """
    path = files.sources["annotations"]
    rows = ObjectRows(masks=layer == "human")
    content = _Content(files, rows, _read_subsets(path))
    try:
        for kind, node in stream_xml(path, "annotations", frozenset({"image", "track"}), files.on_bytes):
            content.add(kind, node)
            yield from rows.full_batches()
    except LabelFileError as why:
        raise SynthgenError(f"{path} {why}; export it from CVAT again") from None
    yield from rows.finish()


class _Content:
    """Adds the elements of a file to the rows, one by one."""

    def __init__(self, files: DatasetFiles, rows: ObjectRows, subsets: list[str]) -> None:
        self.files, self.rows, self.subsets = files, rows, subsets
        self.starts = image_starts(files.sources["annotations"].parent, files.image_folder)
        self.sizes: dict[str, tuple[int, int]] = {}  # (height, width) of a video's frames by task id; "" = the only one
        self.frames: dict[tuple[str, int], tuple[int, str, int, int]] = {}
        self.frame_names: ImageNames | None = None
        self.is_wanted = False  # the open image or track is of the split
        self.image: tuple[int, str, int, int] = (0, "", 0, 0)  # id, file name, height, width of the open image
        self.groups = ShapeGroups()
        self.track: dict[str, str] | None = None

    def add(self, kind: str, node: XmlNode) -> None:
        if kind == "node":
            if node.tag == "meta":
                self._add_meta(node)
            elif self.is_wanted and self.track is not None:
                self._add_to_frame(node, self.track)
            elif self.is_wanted:
                self._add_shape(node, node.attributes.get("label", ""), self.image, self.groups)
        elif node.tag in ("image", "track"):
            if kind == "open":
                self.is_wanted = self._is_of_split(node)
                self.track = node.attributes if node.tag == "track" else None
                self.groups = ShapeGroups()
                if self.is_wanted and self.track is None:
                    self._open_image(node.attributes)
            else:
                if self.is_wanted and self.track is None:
                    self.groups.add_to(self.rows, self.image[0], self.image[2], self.image[3])
                self.is_wanted, self.track = False, None

    def _add_meta(self, meta: XmlNode) -> None:
        for owner in ("task", "project", "job"):
            for label in _children(meta, owner, "labels"):
                if label.find("parent") is None:  # else a point of a skeleton
                    self.rows.declare(label.text_at("name"))
        tasks = [*meta.find_all("task"), *meta.find_all("job"), *_children(meta, "project", "tasks")]
        for task in tasks:
            height, width = (parse_pixels(task.text_at("original_size", side)) for side in ("height", "width"))
            self.sizes[task.text_at("id")] = height, width
        if len(tasks) == 1:
            self.sizes[""] = next(iter(self.sizes.values()))

    def _is_of_split(self, node: XmlNode) -> bool:
        subset = node.attributes.get("subset", "")
        if not self.subsets or (not subset and len(self.subsets) == 1):
            return True
        if subset not in self.subsets:
            what = f"subset '{subset}'; the split is one of {', '.join(self.subsets)}"
            self.rows.add_finding("unlisted_subset", "images", node.attributes.get("name", node.tag), what)
        return subset == self.files.split or self.files.split not in self.subsets

    def _open_image(self, given: dict[str, str]) -> None:
        name = given.get("name", "").replace("\\", "/")
        number = parse_int(given.get("id"))
        name = name or f"frame_{number if number is not None else 0:06d}"
        file_name = _find_image(self.files.image_folder, self.starts, given.get("subset", ""), name)
        height, width = parse_pixels(given.get("height")), parse_pixels(given.get("width"))
        if not height or not width:
            height, width = read_shown_size(self.files.image_folder, file_name)
        self.image = (self.rows.add_image(file_name, height, width), file_name, height, width)

    def _add_to_frame(self, node: XmlNode, track: dict[str, str]) -> None:
        number = parse_int(node.attributes.get("frame"))
        label = track.get("label", "")
        if number is None or not 0 <= number < _MAX_FRAME:
            self.rows.add_finding("not_an_object", "shapes", f"track {track.get('id')}", f"{node.tag} without a frame")
            return
        image = self._frame(number, track)
        if node.attributes.get("outside") == "1":
            return
        groups = ShapeGroups()
        self._add_shape(node, label, image, groups)
        groups.add_to(self.rows, image[0], image[2], image[3])

    def _frame(self, number: int, track: dict[str, str]) -> tuple[int, str, int, int]:
        subset = track.get("subset", "")
        found = self.frames.get((subset, number))
        if found is not None:
            return found
        root = self.files.image_folder
        if self.frame_names is None:
            places = [root / start / "images" for start in self.starts]
            self.frame_names = ImageNames(next((place for place in places if place.is_dir()), root), root)
        stem = f"frame_{number:06d}"
        inside = f"{subset}/{stem}" if subset else stem
        name = self.frame_names.find(inside) or f"{inside}.PNG"
        file_name = self.frame_names.prefix + name
        height, width = self.sizes.get(track.get("task_id", ""), self.sizes.get("", (0, 0)))
        if not height or not width:
            height, width = read_shown_size(root, file_name)
        found = (self.rows.add_image(file_name, height, width), file_name, height, width)
        self.frames[subset, number] = found
        return found

    def _add_shape(self, node: XmlNode, label: str, image: tuple[int, str, int, int], groups: ShapeGroups) -> None:
        _, file_name, height, width = image
        shape, flags, is_object = read_cvat_shape(node, height, width)
        if is_object:
            group = node.attributes.get("group_id", "0")
            groups.add(label, shape, flags, group if group != "0" else None)
        else:
            self.rows.add_finding("not_an_object", "shapes", file_name, f"{node.tag} '{label}'")


def _children(node: XmlNode, *tags: str) -> list[XmlNode]:
    """The children of the first element on this path of tags."""
    found: XmlNode | None = node
    for tag in tags:
        found = found.find(tag) if found is not None else None
    return found.children if found is not None else []


def _find_image(image_folder: Path, starts: list[str], subset: str, name: str) -> str:
    """The path of an image below the image folder; of a missing one, where CVAT would have exported it."""
    folders = [f"images/{subset}/", "images/", f"{subset}/", ""] if subset else ["images/", ""]
    has_suffix = PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES
    for inside in (start + folder + name for start in starts for folder in folders):
        for suffix in ("",) if has_suffix else ("", *_SUFFIXES):
            if is_inside_file(image_folder, inside + suffix):
                return inside + suffix
    there = next((f"{start}images/" for start in starts if (image_folder / start / "images").is_dir()), starts[0])
    return there + (name if has_suffix else f"{name}.PNG")


def _find_splits(root: Path) -> dict[str, Path]:
    """The XML file of each split of a folder."""
    folders = find_label_folders(root, LabelFormat(".xml", ("annotations",), _is_cvat_file))
    found: dict[str, Path] = {}
    for split, folder in folders.items():
        paths = [path for path in sorted(folder.glob("*.xml"))[:_MAX_FILES] if _is_cvat_file(path)]
        for path in paths:
            own = _splits_of_file(path) if folder in (root, root / "annotations") or len(paths) > 1 else [split]
            for name in own:
                found.setdefault(name if name not in found else f"{path.stem}-{name}", path)
    return found


def _splits_of_file(path: Path) -> list[str]:
    """The subsets of a file; else its own name, which is "train" for annotations.xml."""
    return _read_subsets(path) or ["train" if path.stem.lower() == "annotations" else path.stem]


def _read_subsets(path: Path) -> list[str]:
    """The subsets that the start of a file names, each once; empty if it names none or cannot be read."""
    subsets: dict[str, None] = {}
    images = 0
    try:
        for kind, node in stream_xml(path, "annotations", frozenset({"image", "track"})):
            if kind == "node" and node.tag == "meta":
                subsets |= dict.fromkeys(node.text_at("project", "subsets").splitlines())
                subsets |= dict.fromkeys(task.text_at("subset") for task in _children(node, "project", "tasks"))
                subsets |= dict.fromkeys(node.text_at(owner, "subset") for owner in ("task", "job"))
                if any(subsets) or node.find("project") is None:  # the images of a task have no subset
                    break
            elif kind == "open" and node.tag in ("image", "track"):
                subsets[node.attributes.get("subset", "")] = None
                images += 1
                if images >= _MAX_IMAGES_AT_START:
                    break
    except LabelFileError:
        pass  # `read` reports it
    return list(dict.fromkeys(name.strip() for name in subsets if name.strip()))


def _is_cvat_file(path: Path) -> bool:
    start = read_start(path, _START_BYTES).replace(b"\0", b"")  # UTF-16 becomes ASCII
    return b"<annotations>" in start and any(tag in start for tag in (b"<version>", b"<meta>", b"<image ", b"<track "))
