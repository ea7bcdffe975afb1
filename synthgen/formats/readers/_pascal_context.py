"""Shared by PASCAL Context's benchmarks of 459 and of 59 classes: names, layouts of files, label maps.

The original release (https://cs.stanford.edu/~roozbeh/pascal-context/) has a MATLAB file for each photograph of
VOC2010's trainval, with the number of one of 459 classes in each pixel of `LabelMap`, and `labels.txt` with the names.
The 59 classes are the most frequent ones; all other pixels are unlabelled.

Label maps that others have prepared are read as well. Those of mmsegmentation count from 1, with 0 for unlabelled
(https://github.com/open-mmlab/mmsegmentation/blob/main/tools/dataset_converters/pascal_context.py). Those of ODISE
(https://github.com/NVlabs/ODISE/tree/main/datasets), SAN (https://github.com/MendelXu/SAN/tree/main/datasets) and
CAT-Seg (https://github.com/cvlab-kaist/CAT-Seg/tree/main/datasets) count from 0, with the largest number for
unlabelled. All of them have the 59 classes in the order of the 459. OVSeg has them in the order of the release's
`59_labels.txt`, in the folder that CAT-Seg uses. Its maps of 59 classes are not read; its MATLAB files are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthgen.errors import SynthgenError
from synthgen.formats.readers import AnnotationBatch, Categories, DatasetFiles, ImageBatch
from synthgen.formats.readers._folder_listing import file_suffix, first_names
from synthgen.formats.readers._image_mask_pairs import ImageMaskPair, pair_files, read_pairs
from synthgen.formats.readers._label_files import LabelFileError, read_label_file
from synthgen.formats.readers._mat_file import read_mat_array
from synthgen.images.decode import ImageError, load_label_map

SPLITS = ("train", "val")

#: Readers of general formats whose files may be in the same folder: VOC2010's own boxes.
ALSO_HOLDS = ("voc",)

_NAME_LIST = """
accordion, aeroplane, air conditioner, antenna, artillery, ashtray, atrium, baby carriage, bag, ball, balloon, bamboo
weaving, barrel, baseball bat, basket, basketball backboard, bathtub, bed, bedclothes, beer, bell, bench, bicycle,
binoculars, bird, bird cage, bird feeder, bird nest, blackboard, board, boat, bone, book, bottle, bottle opener, bowl,
box, bracelet, brick, bridge, broom, brush, bucket, building, bus, cabinet, cabinet door, cage, cake, calculator,
calendar, camel, camera, camera lens, can, candle, candle holder, cap, car, card, cart, case, casette recorder, cash
register, cat, cd, cd player, ceiling, cell phone, cello, chain, chair, chessboard, chicken, chopstick, clip,
clippers, clock, closet, cloth, clothes tree, coffee, coffee machine, comb, computer, concrete, cone, container,
control booth, controller, cooker, copying machine, coral, cork, corkscrew, counter, court, cow, crabstick, crane,
crate, cross, crutch, cup, curtain, cushion, cutting board, dais, disc, disc case, dishwasher, dock, dog, dolphin,
door, drainer, dray, drink dispenser, drinking machine, drop, drug, drum, drum kit, duck, dumbbell, earphone,
earrings, egg, electric fan, electric iron, electric pot, electric saw, electronic keyboard, engine, envelope,
equipment, escalator, exhibition booth, extinguisher, eyeglass, fan, faucet, fax machine, fence, ferris wheel, fire
extinguisher, fire hydrant, fire place, fish, fish tank, fishbowl, fishing net, fishing pole, flag, flagstaff, flame,
flashlight, floor, flower, fly, foam, food, footbridge, forceps, fork, forklift, fountain, fox, frame, fridge, frog,
fruit, funnel, furnace, game controller, game machine, gas cylinder, gas hood, gas stove, gift box, glass, glass
marble, globe, glove, goal, grandstand, grass, gravestone, ground, guardrail, guitar, gun, hammer, hand cart, handle,
handrail, hanger, hard disk drive, hat, hay, headphone, heater, helicopter, helmet, holder, hook, horse, horse-drawn
carriage, hot-air balloon, hydrovalve, ice, inflator pump, ipod, iron, ironing board, jar, kart, kettle, key,
keyboard, kitchen range, kite, knife, knife block, ladder, ladder truck, ladle, laptop, leaves, lid, life buoy, light,
light bulb, lighter, line, lion, lobster, lock, machine, mailbox, mannequin, map, mask, mat, match book, mattress,
menu, metal, meter box, microphone, microwave, mirror, missile, model, money, monkey, mop, motorbike, mountain, mouse,
mouse pad, musical instrument, napkin, net, newspaper, oar, ornament, outlet, oven, oxygen bottle, pack, pan, paper,
paper box, paper cutter, parachute, parasol, parterre, patio, pelage, pen, pen container, pencil, person, photo,
piano, picture, pig, pillar, pillow, pipe, pitcher, plant, plastic, plate, platform, player, playground, pliers,
plume, poker, poker chip, pole, pool table, postcard, poster, pot, pottedplant, printer, projector, pumpkin, rabbit,
racket, radiator, radio, rail, rake, ramp, range hood, receiver, recorder, recreational machines, remote control,
road, robot, rock, rocket, rocking horse, rope, rug, ruler, runway, saddle, sand, saw, scale, scanner, scissors,
scoop, screen, screwdriver, sculpture, scythe, sewer, sewing machine, shed, sheep, shell, shelves, shoe, shopping
cart, shovel, sidecar, sidewalk, sign, signal light, sink, skateboard, ski, sky, sled, slippers, smoke, snail, snake,
snow, snowmobiles, sofa, spanner, spatula, speaker, speed bump, spice container, spoon, sprayer, squirrel, stage,
stair, stapler, stick, sticky note, stone, stool, stove, straw, stretcher, sun, sunglass, sunshade, surveillance
camera, swan, sweeper, swim ring, swimming pool, swing, switch, table, tableware, tank, tap, tape, tarp, telephone,
telephone booth, tent, tire, toaster, toilet, tong, tool, toothbrush, towel, toy, toy car, track, train, trampoline,
trash bin, tray, tree, tricycle, tripod, trophy, truck, tube, turtle, tvmonitor, tweezers, typewriter, umbrella,
unknown, vacuum cleaner, vending machine, video camera, video game console, video player, video tape, violin,
wakeboard, wall, wallet, wardrobe, washing machine, watch, water, water dispenser, water pipe, water skate board,
watermelon, whale, wharf, wheel, wheelchair, window, window blinds, wineglass, wire, wood, wool
"""

#: Names of the 459 classes by number, from 1 on, as in the release's labels.txt.
CONTEXT_459_NAMES = tuple(name.strip() for name in _NAME_LIST.replace("\n", " ").split(","))

#: The 59 classes as numbers of the 459; class 1 of the 59 is the first one.
_LABELS_OF_59 = (
    2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85, 98, 104, 105, 113, 115, 144, 158, 159,
    162, 187, 189, 207, 220, 232, 258, 259, 260, 284, 295, 296, 308, 324, 326, 347, 349, 354, 355, 360, 366, 368, 397,
    415, 416, 420, 424, 427, 440, 445, 454, 458,
)  # fmt: skip

CONTEXT_59_NAMES = tuple(CONTEXT_459_NAMES[label - 1] for label in _LABELS_OF_59)

_59_OF_459 = np.zeros(len(CONTEXT_459_NAMES) + 1, np.uint8)
_59_OF_459[np.array(_LABELS_OF_59)] = np.arange(1, len(_LABELS_OF_59) + 1)

_MAT_SUFFIX = ".mat"
_MAT_VARIABLE = "LabelMap"
_MAT_FOLDER = "trainval"

#: Folders of the release, below the dataset's folder.
_RELEASES = (".", "VOC2010", "VOCdevkit/VOC2010", "pascal_ctx_d2")

_LISTS = ("ImageSets/SegmentationContext/{split}.txt", "pascalcontext_{split}.txt", "ImageSets/Main/{split}.txt")
_MAX_LIST_BYTES = 2**26
_LONG_SPLITS = {"train": "training", "val": "validation"}
_VOC_NAME = re.compile(r"(\d{4})_(\d{6})")


@dataclass(frozen=True, slots=True)
class ContextTask:
    """One of the two benchmarks.

    Attributes:
        names: of the classes, from 1 on.
        folders: (photographs, label maps) below the release's folder, in the order in which they are looked for;
            "{split}" is train or val, "{long_split}" training or validation. Folders of label maps without a split in
            their name hold all splits, and a list says which images belong to one.
        suffixes: of the label maps but for MATLAB files, in lower case, with their dots.
    """

    names: tuple[str, ...]
    folders: tuple[tuple[str, str], ...]
    suffixes: frozenset[str]


_FROM_ONE = "SegmentationClassContext"  # of mmsegmentation, for 59 classes
_PREPARED_59 = "annotations_detectron2/pc59_{split}"  # of CAT-Seg, and of OVSeg with another order
_ORDER_OF_OVSEG = "59_labels.txt"

CONTEXT_59 = ContextTask(
    CONTEXT_59_NAMES,
    (
        ("JPEGImages", _FROM_ONE),
        ("images/{long_split}", "annotations_ctx59/{long_split}"),
        ("pcontext/{split}/image", "pcontext/{split}/label"),
        ("JPEGImages", _MAT_FOLDER),
        ("JPEGImages", _PREPARED_59),
    ),
    frozenset((".png",)),
)
CONTEXT_459 = ContextTask(
    CONTEXT_459_NAMES,
    (
        ("images/{long_split}", "annotations_ctx459/{long_split}"),
        ("pcontext_full/{split}/image", "pcontext_full/{split}/label"),
        ("JPEGImages", _MAT_FOLDER),
        ("JPEGImages", "annotations_detectron2/pc459_{split}"),
    ),
    frozenset((".tif", ".tiff", ".png")),
)


def find_context_files(task: ContextTask, root: Path, split: str, annotations: Path | None) -> DatasetFiles:
    """The label maps and photographs of a split, below root, root/VOC2010, root/VOCdevkit/VOC2010 or
    root/pascal_ctx_d2.

    Args:
        task: the benchmark.
        root: folder of the dataset.
        split: one of `SPLITS`.
        annotations: the folder of the label maps, if it is elsewhere; the photographs are beside it or below `root`.

    Raises:
        SynthgenError: there are no label maps, no photographs, or no list of the split; or the numbers of the classes
            in the label maps are not clear.
    """
    if annotations is not None:
        if not annotations.is_dir():
            raise SynthgenError(f"{annotations} is no folder; --annotations should name the folder of the label maps")
        above = list(annotations.absolute().parents)[:3]
        found = next(filter(None, (_find_in_release(task, place, split, annotations) for place in above)), None)
        return found or _files_elsewhere(task, root, split, annotations, above)
    for release in (root / name for name in _RELEASES):
        if (found := _find_in_release(task, release, split, None)) is not None:
            return found
    words = _split_words(split)
    wanted = ", ".join(labels.format(**words) for _, labels in task.folders)
    lists = ", ".join(name.format(**words) for name in _LISTS)
    raise SynthgenError(
        f"no label maps of '{split}' with photographs in {root} (one of the folders {wanted}, with JPEGImages or the "
        f"like beside it, and for folders of all splits one of the lists {lists}); unpack VOC2010 and PASCAL Context "
        "there, or name the two folders with --images and --annotations"
    )


def read_context(
    task: ContextTask, files: DatasetFiles, layer: str
) -> Iterator[ImageBatch | AnnotationBatch | Categories]:
    """The content of the label maps; see `synthgen.formats.readers`. The boxes are the regions' own.

    Args:
        task: the benchmark.
        files: as `find_context_files` returns them.
        layer: "annotations" or "human".

    Raises:
        SynthgenError: no photograph has a label map, or the list of the split cannot be read.
    """
    images, labels = files.sources["images"], files.sources["labels"]
    load, suffixes = _loader(task, labels)
    pairs = _select(pair_files(images, labels, labels_suffixes=suffixes), files.sources.get("list"))
    yield from read_pairs(_with_ids(pairs), files, load, ignore_labels={0}, with_masks=layer == "human")
    names = dict(enumerate(task.names, start=1))
    yield Categories(names, frozenset(names))


def _split_words(split: str) -> dict[str, str]:
    return {"split": split, "long_split": _LONG_SPLITS.get(split, split)}


def _find_list(release: Path, split: str) -> Path | None:
    return next((path for name in _LISTS if (path := release / name.format(split=split)).is_file()), None)


def _files_elsewhere(task: ContextTask, root: Path, split: str, labels: Path, above: list[Path]) -> DatasetFiles:
    """The files for a folder of label maps without photographs beside it; the lists are above it or below `root`."""
    sources = {"images": root, "labels": labels}
    if _holds_files(labels, {_MAT_SUFFIX}) or labels.absolute().name in (_FROM_ONE, _MAT_FOLDER):
        places = [*above, *(root / name for name in _RELEASES)]
        listing = next(filter(None, (_find_list(place, split) for place in places)), None)
        if listing is None:
            lists = ", ".join(name.format(split=split) for name in _LISTS)
            raise SynthgenError(
                f"{labels} holds the label maps of all splits, and there is no list of '{split}'; put one of {lists} "
                f"into the folder above it, or into {root}"
            )
        sources["list"] = listing
    elif not _counts_from_zero(task, labels, split):
        raise SynthgenError(_describe_conventions(task, labels, split))
    _loader(task, labels)
    return DatasetFiles(sources, root)


def _counts_from_zero(task: ContextTask, labels: Path, *splits: str) -> bool:
    """Whether a folder has the name of prepared maps, of one of the splits, that count from 0."""
    return any(
        labels.absolute().parts[-len(parts) :] == parts
        for split in splits
        for _, maps in task.folders
        if "split}" in maps and (parts := PurePosixPath(maps.format(**_split_words(split))).parts)
    )


def _describe_conventions(task: ContextTask, labels: Path, split: str) -> str:
    """The sentence about label maps of which only the folder's name would tell from what number they count."""
    words = _split_words(split)
    zero = " or ".join(maps.format(**words) for _, maps in task.folders if "split}" in maps)
    one = f"; if they count from 1, with 0 for unlabelled, name it {_FROM_ONE}" if _has_from_one(task) else ""
    return (
        f"the name of {labels} does not tell how its maps of '{split}' count the classes; if they count from 0, with "
        f"the largest number for unlabelled, name the folder {zero}{one}"
    )


def _has_from_one(task: ContextTask) -> bool:
    return any(maps == _FROM_ONE for _, maps in task.folders)


def _find_in_release(task: ContextTask, release: Path, split: str, own: Path | None) -> DatasetFiles | None:
    """The files in one folder; only those of the folder of label maps `own`, if it is not None."""
    words = _split_words(split)
    listing = _find_list(release, split)
    for photographs, maps in task.folders:
        images, labels = release / photographs.format(**words), release / maps.format(**words)
        if not (images.is_dir() and labels.is_dir()) or (own is not None and labels.absolute() != own.absolute()):
            continue
        if not _holds_files(labels, {_MAT_SUFFIX} if maps == _MAT_FOLDER else {_MAT_SUFFIX, *task.suffixes}):
            continue
        if maps == _PREPARED_59 and (release / _ORDER_OF_OVSEG).is_file():
            raise SynthgenError(
                f"{labels} may be of OVSeg, which counts the classes as {release / _ORDER_OF_OVSEG} lists them; put "
                f"the MATLAB files into {release / _MAT_FOLDER} and name that folder with --annotations, or move "
                f"{_ORDER_OF_OVSEG} away if the maps are of CAT-Seg"
            )
        if "split}" in maps:
            return DatasetFiles({"images": images, "labels": labels}, images)
        if listing is not None:
            return DatasetFiles({"images": images, "labels": labels, "list": listing}, images)
    return None


def _holds_files(folder: Path, suffixes: set[str]) -> bool:
    return any(file_suffix(name) in suffixes for name in first_names(folder))


def _loader(task: ContextTask, labels: Path) -> tuple[Callable[[Path], NDArray[Any]], frozenset[str]]:
    """How a folder's label maps are read, as maps that count from 1; and their suffixes."""
    if _holds_files(labels, {_MAT_SUFFIX}):
        return (_load_mat_59 if task is CONTEXT_59 else _load_mat), frozenset((_MAT_SUFFIX,))
    if labels.absolute().name == _FROM_ONE and _has_from_one(task):
        return _load_from_one, task.suffixes
    if _counts_from_zero(task, labels, *SPLITS):
        return partial(_load_from_zero, len(task.names)), task.suffixes
    raise SynthgenError(_describe_conventions(task, labels, SPLITS[-1]))


def _load_mat(path: Path) -> NDArray[Any]:
    labels = read_mat_array(path, _MAT_VARIABLE)
    if labels.min() < 0 or labels.max() >= 2**16:
        raise ImageError("has numbers that are no labels")
    return labels


def _load_mat_59(path: Path) -> NDArray[Any]:
    labels = _load_mat(path)
    return _59_OF_459[np.where(labels < len(_59_OF_459), labels, 0)]


def _load_from_one(path: Path) -> NDArray[Any]:
    labels = load_label_map(path)
    return np.where(labels == 255, 0, labels)


def _load_from_zero(count: int, path: Path) -> NDArray[Any]:
    """The labels of a map of `count` classes plus 1, and 0 for unlabelled."""
    labels = load_label_map(path)
    if count < np.iinfo(labels.dtype).max and (labels == count).any():
        raise ImageError(
            f"has the number {count}, but maps of its folder count {count} classes from 0; if these count from 1, "
            f"with 0 for unlabelled, they belong into {_FROM_ONE}/"
        )
    if labels.dtype in (np.uint8, np.uint16):
        return labels + labels.dtype.type(1)  # the largest number becomes 0
    return np.where(labels == 65_535, 0, labels + 1)


def _select(pairs: list[ImageMaskPair], listing: Path | None) -> list[ImageMaskPair]:
    """The pairs of a split: those of its list, else those with a label map; most photographs of VOC have none."""
    if listing is None:
        return [pair for pair in pairs if pair.labels_path is not None]
    try:
        names = read_label_file(listing, _MAX_LIST_BYTES).decode("utf-8", "replace").split()
    except LabelFileError as why:
        raise SynthgenError(f"{listing} {why}; it should name one image a line") from None
    by_stem = {PurePosixPath(pair.file_name).stem: pair for pair in pairs}
    return [by_stem.get(name, ImageMaskPair(f"{name}.jpg", None, None)) for name in dict.fromkeys(names)]


def _with_ids(pairs: list[ImageMaskPair]) -> list[ImageMaskPair]:
    """The pairs with VOC's numbers and keys, which both benchmarks share: 2008_000002 is the id 2008000002.

    All ids are positions in the list if a name is not VOC's, or appears twice.
    """
    found = [_VOC_NAME.fullmatch(PurePosixPath(pair.file_name).stem) for pair in pairs]
    numbers = [int(match[1] + match[2]) if match else 0 for match in found]
    if 0 in numbers or len(set(numbers)) < len(numbers):
        return pairs
    keys = [f"pascal_voc/{match[0]}" for match in found if match]
    return [replace(pair, image_id=i, image_key=key) for pair, i, key in zip(pairs, numbers, keys, strict=True)]
