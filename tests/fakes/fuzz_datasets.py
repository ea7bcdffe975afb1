"""Fuzz targets: the readers of datasets, each through a whole ingest, with oracles where there are any."""

from __future__ import annotations

import gzip
import io
import json
import math
import pickle
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from fakes import fuzz_text_datasets as text_datasets
from fakes.fuzz_mutators import mutate_json
from fakes.fuzz_runner import FuzzTarget, WrongAnswerError
from fakes.label_map_folders import write_instance_map, write_label_map, write_photograph
from fakes.mat_files import mat_file, matrix, packed
from synthgen import plugins
from synthgen.errors import SynthgenError
from synthgen.formats.readers import DatasetFiles
from synthgen.formats.readers._ids import parse_id
from synthgen.ingest.ingest import ingest
from synthgen.ingest.layer_source import _complete_samples
from synthgen.ingest.sharding import split_into_shards
from synthgen.ingest.validation.validate import validate_dataset
from synthgen.records.rle import decode_mask, decode_runs, rle_from_coco
from synthgen.records.rle_ops import rle_difference, rle_union
from synthgen.records.sample import ANNOTATION_FLAGS, Sample
from synthgen.storage.shard_store import ShardStore

_SMALL = 2**22  # pixels up to which masks are compared one by one


def dataset_targets() -> list[FuzzTarget]:
    """One target for each file format of a dataset."""
    return [
        _target("coco", _coco_seeds, "coco-json", annotations="boxes.json", check=_check_boxes),
        _target("lvis", _lvis_seeds, "lvis", split="val"),
        _target("objects365", _objects365_seeds, "objects365", split="val"),
        _target("dataseg_objects365", _dataseg_seeds, "dataseg-objects365", split="val"),
        _target("visual_genome", _visual_genome_seeds, "visual-genome", split="train"),
        _target("refcoco", _refcoco_seeds, "refcoco", split="val"),
        _target("refcoco_pickle", _refcoco_seeds, "refcoco", split="val", mutable=("refs(unc).p",)),
        _target("coco_panoptic", _panoptic_seeds, "coco-panoptic", split="val2017"),
        _target("ade20k", _ade20k_seeds, "ade20k", split="validation"),
        _target("ade20k_full", _ade20k_full_seeds, "ade20k-full", split="training"),
        _target("ade20k_instance", _ade20k_instance_seeds, "ade20k-instance", split="validation"),
        _target("ade20k_panoptic", _ade20k_panoptic_seeds, "ade20k-panoptic", split="validation"),
        _target("bdd100k_panoptic", _bdd100k_seeds, "bdd100k-panoptic", split="val"),
        _target("pascal_context_59", _context_59_seeds, "pascal-context-59", split="val"),
        _target("pascal_context_459", _context_459_seeds, "pascal-context-459", split="val"),
        _target("foreground", _foreground_seeds, "foreground", split="train"),
        _target("semantic_folder", _semantic_seeds, "semantic-folder", split="train"),
        _target("yolo", text_datasets.yolo_seeds, "yolo", check=text_datasets.check_yolo_boxes),
        _target("openimages", text_datasets.open_images_seeds, "openimages"),
        _target("dota", text_datasets.dota_seeds, "dota", check=text_datasets.check_dota_boxes),
        FuzzTarget("doctor", _coco_seeds, _read_doctor),
        FuzzTarget(
            "rle", _rle_seeds, _read_rle, mutable=("segmentation.json",), mutators={"segmentation.json": _mutate_rle}
        ),
    ]


def _target(
    name: str,
    seeds: Callable[[Path], list[dict[str, bytes]]],
    dataset: str,
    *,
    split: str = "train",
    annotations: str | None = None,
    mutable: tuple[str, ...] = (),
    check: Callable[[Path, list[Sample]], None] | None = None,
) -> FuzzTarget:
    """A target that ingests the last layer of a dataset, or both of Visual Genome's, which have files of their own."""
    module = plugins.load_plugin("formats.readers", dataset)
    layers = module.LAYERS if dataset == "visual-genome" else module.LAYERS[-1:]

    def read(folder: Path) -> list[str]:
        files = module.files(folder, split, folder / annotations if annotations else None)
        work = folder.parent / "work" / "ingest"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        # One input in 32 goes through shards on disk, which cost ten times as much as the reader.
        content = b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())
        make = _ingest if crc32(content) % 32 == 0 else _read_samples
        found = [one for layer in layers for one in make(work / layer, module, files, layer)]
        _check_samples(found)
        if check is not None:
            check(folder / (annotations or ""), found)
        return [repr(one) for one in found]

    return FuzzTarget(name, seeds, read, mutable=mutable)


def _ingest(folder: Path, module: Any, files: DatasetFiles, layer: str) -> list[Sample]:
    """The samples of a layer, written to shards and read again."""
    store = ShardStore(folder)
    report = ingest(store, module, files, name="d", split="s", layer=layer)
    found = [one for shard in store.list_shards("d", "s", layer) for one in store.read_samples(shard)]
    if (report.images, report.annotations) != (len(found), sum(len(one.annotations) for one in found)):
        raise WrongAnswerError("the report does not count what was written")
    return found


def _read_samples(folder: Path, module: Any, files: DatasetFiles, layer: str) -> list[Sample]:
    """The same without shards: the reader, the sorter, the checks of boxes, the payloads."""
    folder.mkdir()
    files = files.for_layer(layer)
    complete = module.complete(files, layer) if layer != module.LAYERS[0] else lambda sample, _: sample
    batches = module.read(files, layer)
    slices = split_into_shards(batches, "d", folder, expected_bytes=files.total_bytes(), shard_size=1_000)
    return [sample for one in slices for sample in _complete_samples(one, complete)]


def _check_samples(samples: list[Sample]) -> None:
    """The contract of samples: known flags, boxes that are usable or flagged, masks of the image's size."""
    for sample in samples:
        for one in sample.annotations:
            if unknown := set(one.flags) - set(ANNOTATION_FLAGS):
                raise WrongAnswerError(f"unknown flags {unknown}")
            usable = all(math.isfinite(v) for v in one.bbox) and one.bbox[2] > 0 and one.bbox[3] > 0
            if not usable and not {"degenerate", "no_box", "outside", "crowd"} & set(one.flags):
                raise WrongAnswerError(f"a box {one.bbox} without a flag ({one.flags})")
            if one.segmentation is not None:
                if one.segmentation.size != (sample.height, sample.width):
                    raise WrongAnswerError("a mask of another size than its image")
                decode_runs(one.segmentation)


def _check_boxes(path: Path, samples: list[Sample]) -> None:
    """Boxes and categories of a COCO-style file, as Python's own JSON reads them."""
    pairs: list[bool] = []

    def unique(items: list[tuple[str, Any]]) -> dict[str, Any]:
        pairs.append(len(dict(items)) < len(items))
        return dict(items)

    try:
        content = json.loads(path.read_bytes(), object_pairs_hook=unique)
    except (ValueError, RecursionError):
        return  # the reader accepts some texts that Python does not, such as a value that is skipped
    if any(pairs):
        return  # a duplicated key has no single meaning
    images = {parse_id(image["id"]) for image in content["images"]} - {None}
    found: dict[tuple[int, int], list[Any]] = {}
    for sample in samples:
        for one in sample.annotations:
            found.setdefault((sample.image_id, one.id), []).append(one)
    for given in content["annotations"]:
        image, own, box = parse_id(given.get("image_id")), _whole(given.get("id")), given.get("bbox")
        plain = isinstance(box, list) and len(box) == 4 and all(type(v) in (int, float) and abs(v) < 1e300 for v in box)
        if image not in images or own is None or not plain:
            continue
        if not any(list(one.bbox) == [float(v) for v in box] for one in found.get((image, own), [])):
            raise WrongAnswerError(f"the box of annotation {own} of image {image} is not {box}")


def _read_doctor(folder: Path) -> tuple[Any, ...]:
    """What `synthgen doctor` finds in a COCO-style file."""
    report = validate_dataset("coco-json", folder, annotations=folder / "boxes.json", check_images="none")
    return report.is_ready, report.next, [str(split) for split in report.splits]


def _whole(value: Any) -> int | None:
    """A whole number that fits 64 bits; the least of them stands for a missing id (`_instances.NO_ID`)."""
    return value if type(value) is int and -(2**63) < value < 2**63 else None


# --- RLE -------------------------------------------------------------------------------------------------------------


def _read_rle(folder: Path) -> tuple[str, int]:
    """One segmentation by `rle_from_coco`; pycocotools decodes it as well."""
    if not (folder / "segmentation.json").exists():
        raise SynthgenError("no segmentation")
    height, width = json.loads((folder / "size.json").read_bytes())
    segmentation = json.loads((folder / "segmentation.json").read_bytes())
    try:
        rle = rle_from_coco(segmentation, height, width)
    except Exception:
        if (runs := _reference_runs(segmentation, height, width)) is not None:
            raise WrongAnswerError(f"{len(runs)} valid runs of {height} x {width} are refused") from None
        raise
    runs = decode_runs(rle)
    if runs.sum() != height * width or runs.min(initial=0) < 0:
        raise WrongAnswerError("the runs do not fill the image")
    if height * width <= _SMALL:
        mask = decode_mask(rle)
        theirs = coco_mask.decode(_cocoapi_form(segmentation, height, width)).astype(bool)
        if not np.array_equal(mask, theirs):
            raise WrongAnswerError(f"pycocotools decodes {int(theirs.sum())} pixels, not {int(mask.sum())}")
        if rle_union([rle, rle]).counts != rle_union([rle]).counts or decode_mask(rle_difference(rle, [rle])).any():
            raise WrongAnswerError("set operations on one mask do not agree")
    return rle.counts.decode(), int(runs[1::2].sum())


def _cocoapi_form(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """A checked segmentation as pycocotools takes it."""
    if isinstance(segmentation, list):
        merged: dict[str, Any] = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
        return merged
    if isinstance(segmentation["counts"], list):
        made: dict[str, Any] = coco_mask.frPyObjects(segmentation, height, width)
        return made
    return {"size": [height, width], "counts": segmentation["counts"].encode()}


def _reference_runs(segmentation: Any, height: Any, width: Any) -> list[int] | None:
    """The runs of a valid RLE, decoded as `rleFrString` does, number by number; None = it is not valid."""
    if not (type(height) is int and type(width) is int and 0 < height * width <= 2**29 and height > 0):
        return None
    if not isinstance(segmentation, dict) or segmentation.get("size") != [height, width]:
        return None
    counts = segmentation.get("counts")
    runs: list[int] = []
    if isinstance(counts, list):
        runs = counts if all(type(run) is int for run in counts) else [-1]
    elif isinstance(counts, str) and counts and all("0" <= letter <= "o" for letter in counts):
        value = place = 0
        for letter in counts:
            code = ord(letter) - 48
            value |= (code & 0x1F) << 5 * place
            place += 1
            if not code & 0x20:
                if code & 0x10:
                    value -= 1 << 5 * place
                runs.append(value + (runs[-2] if len(runs) > 2 else 0))
                if place > 6:  # more characters than a run of an image needs
                    return None
                value = place = 0
        if place:
            return None
    return runs if runs and min(runs) >= 0 and sum(runs) == height * width else None


def _rle_seeds(folder: Path) -> list[dict[str, bytes]]:
    """Compressed and uncompressed RLE of drawn masks, and polygons."""
    rng = random.Random(0)
    seeds: list[tuple[int, int, Any]] = []
    for number in range(120):
        height, width = rng.choice(((1, 1), (1, 9), (9, 1), (7, 5), (24, 16), (40, 30)))
        noise = np.random.default_rng(number).random((height, width)) < rng.choice((0.02, 0.5, 0.97, 0.0, 1.0))
        made = coco_mask.encode(np.asfortranarray(noise, np.uint8))
        flat = np.concatenate([[0], noise.T.ravel().astype(np.int8), [0]])
        edges = np.flatnonzero(np.diff(flat))
        runs = np.diff(np.concatenate([[0], edges, [height * width]])).tolist()
        counts: Any = (
            made["counts"].decode() if number % 2 else (runs[:-1] if runs[-1] == 0 and len(runs) > 1 else runs)
        )
        segmentation = {"size": [height, width], "counts": counts}
        seeds.append((height, width, segmentation))
    for _ in range(60):
        height, width = rng.choice(((7, 5), (40, 30), (300, 200)))
        parts = [
            [round(rng.uniform(-0.5, 1.2) * (width, height)[i % 2], 2) for i in range(2 * rng.choice((3, 4, 20)))]
            for _ in range(rng.choice((1, 1, 3)))
        ]
        seeds.append((height, width, parts))
    return [{"size.json": _dump([height, width]), "segmentation.json": _dump(own)} for height, width, own in seeds]


def _mutate_rle(data: bytes, rng: random.Random) -> bytes:
    """Another JSON value; every third time an RLE with the same sum of runs, of which most are valid."""
    segmentation = json.loads(data)
    size = segmentation.get("size") if isinstance(segmentation, dict) else None
    if isinstance(size, list) and len(size) == 2 and rng.random() < 1 / 3:
        runs = list(_reference_runs(segmentation, *size) or ())
        if len(runs) > 1:
            i, k = rng.randrange(len(runs)), rng.randrange(len(runs))
            moved = rng.choice((1, -1, runs[k], runs[k] // 2, 2**31, 2**33))
            runs[i], runs[k] = runs[i] + moved, runs[k] - moved
            valid = min(runs) >= 0 and isinstance(segmentation["counts"], str)
            made = coco_mask.frPyObjects({"size": size, "counts": runs}, *size) if valid else {}
            return _dump({"size": size, "counts": made["counts"].decode() if valid else runs})
    for _ in range(20):
        changed = mutate_json(data, rng)
        try:
            json.loads(changed)
        except (ValueError, RecursionError):
            continue
        return changed
    return data


# --- valid files -----------------------------------------------------------------------------------------------------


def _instances(**more: Any) -> dict[str, Any]:
    """Three images with a polygon, both forms of RLE, and boxes of many kinds."""
    mask = np.zeros((24, 32), np.uint8)
    mask[3:9, 4:20] = 1
    made = coco_mask.encode(np.asfortranarray(mask))
    segmentations: list[Any] = [
        [[4, 3, 20, 3, 20, 9, 4, 9]],
        {"size": [24, 32], "counts": made["counts"].decode()},
        {"size": [24, 32], "counts": [100, 6, 662]},
        [],
        None,
        [[1.5, 2.5, 9.25, 2.5, 9.25, 8.75], [11, 12, 14, 12, 14, 15]],
    ]
    boxes: list[Any] = [[4, 3, 16, 6], [4, 3, 16, 6], [4, 4, 1, 6], [0.5, 1.25, 7.75, 3], [-3, -2, 9, 9], [1, 2, 8, 7]]
    annotations = [
        {
            "id": 10 + i,
            "image_id": (391895, 5, 5, 391895, 7, 7)[i],
            "category_id": (1, 18, 18, 1, 3, 90)[i],
            "bbox": boxes[i],
            "area": 42.5,
            "iscrowd": int(i == 2),
            "segmentation": segmentations[i],
        }
        for i in range(6)
    ]
    images = [
        {"id": number, "file_name": f"{number:012d}.jpg", "height": 24, "width": 32, "license": 1}
        for number in (391895, 5)
    ]
    images.append({"id": 7, "file_name": "a/b.png", "height": 24, "width": 32, "coco_url": "http://x/val2017/7.jpg"})  # type: ignore[dict-item]
    names = {1: "person", 18: "dog", 3: " car "}
    categories = [{"id": i, "name": name, "supercategory": "s"} for i, name in names.items()]
    return {"info": {"year": 2017}, "images": images, "annotations": annotations, "categories": categories, **more}


def _dump(content: Any) -> bytes:
    return json.dumps(content).encode()


def _coco_seeds(folder: Path) -> list[dict[str, bytes]]:
    content = _instances()
    turned = {key: content[key] for key in ("categories", "annotations", "images")}
    exported = _dump(_as_exporters_write(_instances()))
    return [
        {"boxes.json": _dump(content)},
        {"boxes.json": json.dumps(turned, indent=2).encode()},
        {"boxes.json": exported},
        {"boxes.json": gzip.compress(exported, mtime=0)},
    ]


def _as_exporters_write(content: dict[str, Any]) -> dict[str, Any]:
    """The same objects with text ids, numbers as names, polygons in other spellings, rotations, boxes left out."""
    for image in content["images"]:
        image["id"] = f"{image['id']}_1"
    del content["images"][2]["height"], content["images"][2]["width"]
    content["images"].append(dict(content["images"][0]))
    square = [2, 2, 10, 2, 10, 12, 2, 12]
    spellings: list[Any] = [
        square,
        [[2, 2], [10, 2], [10, 12]],
        [square, []],
        {"size": [24, 32], "counts": [0, 9, 759]},
    ]
    for i, one in enumerate(content["annotations"]):
        one |= {"image_id": f"{one['image_id']}_1", "attributes": {"rotation": 15.0 * i}, "ignore": i % 2}
        one |= {"segmentation": spellings[i % 4], "iscrowd": ("false", 1.0, True)[i % 3]}
        one["bbox"] = ([], None, [1, 2, 3, 4, 5], one["bbox"])[i % 4]
    for category in content["categories"]:
        category |= {"id": str(category["id"]), "supercategory": "7"}
    content["categories"].append({"id": 0, "name": 7, "supercategory": None})
    return content


def _lvis_seeds(folder: Path) -> list[dict[str, bytes]]:
    content = _instances()
    for image in content["images"]:
        image |= {"neg_category_ids": [3], "not_exhaustive_category_ids": [1, 18], "coco_url": "http://c/val2017/5.jpg"}
    return [{"lvis_v1_val.json": _dump(content)}]


def _objects365_seeds(folder: Path) -> list[dict[str, bytes]]:
    content = _instances()
    for i, one in enumerate(content["annotations"]):
        one |= {"isfake": i % 2, "isreflected": int(i == 3)}
    for image in content["images"]:
        image["file_name"] = f"images/v1/patch8/objects365_v1_{image['id']:08d}.jpg"
    return [{"zhiyuan_objv2_val.json": _dump(content)}]


def _dataseg_seeds(folder: Path) -> list[dict[str, bytes]]:
    (files,) = _objects365_seeds(folder)
    return [{"o365_instance_seg_val.json": files["zhiyuan_objv2_val.json"]}]


def _visual_genome_seeds(folder: Path) -> list[dict[str, bytes]]:
    url = "https://cs.stanford.edu/people/rak248/VG_100K_2/{}.jpg"
    images = [
        {"image_id": i, "url": url.format(i), "width": 32, "height": 24, "coco_id": (None, 391895)[i % 2]}
        for i in (1, 2)
    ]
    box = {"x": 3, "y": 4, "w": 9, "h": 8}
    objects = [
        {"image_id": i, "image_url": url.format(i), "objects": [{**box, "object_id": 10 * i + k, "names": ["dog", "x"]}
        for k in (1, 2)]} for i in (1, 2)
    ]  # fmt: skip
    regions = [{"id": i, "regions": [{"region_id": 10 * i, "image_id": i, **box, "phrase": "it"}]} for i in (1, 2)]
    whole = {"objects.json": objects, "image_data.json": images, "region_descriptions.json": regions}
    first = {name: _dump(content) for name, content in whole.items()}
    return [first, {name: content for name, content in first.items() if name != "image_data.json"}]


def _refcoco_seeds(folder: Path) -> list[dict[str, bytes]]:
    refs = [
        {
            "ref_id": number,
            "ann_id": ann,
            "image_id": image,
            "category_id": 1,
            "split": split,
            "file_name": "COCO_train2014_000000391895_0.jpg",
            "sent_ids": [1, 2],
            "sentences": [
                {"sent": "left dog", "raw": "Left dog!", "tokens": ["left", "dog"], "sent_id": 1},
                {"raw": "x"},
            ],
        }
        for number, (ann, image, split) in enumerate(((10, 391895, "val"), (11, 5, "val"), (13, 391895, "train")))
    ]
    instances = _dump(_instances())
    return [{"refs(unc).p": pickle.dumps(refs, protocol), "instances.json": instances} for protocol in (0, 2, 4)]


def _panoptic_seeds(folder: Path) -> list[dict[str, bytes]]:
    labels = np.zeros((24, 32, 3), np.uint8)
    labels[2:9, 3:12] = (7, 1, 0)
    labels[10:20, 5:30] = (200, 30, 2)
    Image.fromarray(labels).save(folder / "p.png")
    png = (folder / "p.png").read_bytes()
    segments = [
        {"id": 7 + 256, "category_id": 1, "bbox": [3, 2, 9, 7], "area": 63, "iscrowd": 0},
        {"id": 200 + 256 * 30 + 65536 * 2, "category_id": 184, "bbox": [5, 10, 25, 10], "area": 250, "iscrowd": 1},
    ]
    content = {
        "images": [{"id": i, "file_name": f"{i:012d}.jpg", "height": 24, "width": 32} for i in (5, 7)],
        "annotations": [{"image_id": i, "file_name": f"{i:012d}.png", "segments_info": segments} for i in (5, 7)],
        "categories": [{"id": 1, "name": "person", "isthing": 1}, {"id": 184, "name": "tree", "isthing": 0}],
    }
    pngs = {f"annotations/panoptic_val2017/{i:012d}.png": png for i in (5, 7)}
    return [{"annotations/panoptic_val2017.json": _dump(content), **pngs}]


def _photograph(folder: Path) -> bytes:
    write_photograph(folder / "photo.jpg")
    return (folder / "photo.jpg").read_bytes()


def _label_map(folder: Path, values: Mapping[tuple[int, int], int], dtype: Any = np.uint8) -> bytes:
    """A PNG of 8 by 6 pixels, 0 but for the (row, column) given, each of which fills to the lower right."""
    labels = np.zeros((6, 8), dtype)
    for (row, column), value in values.items():
        labels[row:, column:] = value
    write_label_map(folder / "map.png", labels, dtype)
    return (folder / "map.png").read_bytes()


def _ade20k_seeds(folder: Path) -> list[dict[str, bytes]]:
    photo, png = _photograph(folder), _label_map(folder, {(1, 1): 3, (3, 4): 13, (5, 0): 150})
    names = [f"validation/ADE_val_0000000{i}" for i in (1, 2)]
    return [
        {f"images/{n}.jpg": photo for n in names} | {f"annotations/{n}.png": png for n in names},
        {f"images/{n}.jpg": photo for n in names}
        | {f"annotations/{n}.png": _label_map(folder, {(2, 2): 130}, np.uint16) for n in names},
    ]


def _ade20k_full_seeds(folder: Path) -> list[dict[str, bytes]]:
    at = "images/ADE/training/street/ADE_train_00000005"
    objects = [
        {
            "id": i,
            "name": name,
            "parts": {"hasparts": [], "part_level": level},
            "instance_mask": f"ADE_train_00000005/instance_{i:03d}_ADE_train_00000005.png",
            "polygon": {"x": [1, 5, 5], "y": [1, 1, 4]},
        }
        for i, name, level in ((0, "wall", 0), (1, "door, double door", 0), (2, "knob", 1))
    ]
    content = {"annotation": {"filename": "ADE_train_00000005.jpg", "folder": "x", "object": objects}}
    files = {f"{at}.jpg": _photograph(folder), f"{at}.json": _dump(content)}
    png = _label_map(folder, {(1, 1): 255, (4, 4): 128})
    return [files | {f"{at}/instance_{i:03d}_ADE_train_00000005.png": png for i in range(3)}]


def _ade20k_instance_seeds(folder: Path) -> list[dict[str, bytes]]:
    names = [f"validation/ADE_val_0000000{i}" for i in (1, 2)]
    write_instance_map(folder / "map.png", [(np.s_[1:4, :5], (8, 1)), (np.s_[4:], (100, 2))])
    photo, png = _photograph(folder), (folder / "map.png").read_bytes()
    return [{f"images/{n}.jpg": photo for n in names} | {f"annotations_instance/{n}.png": png for n in names}]


def _ade20k_panoptic_seeds(folder: Path) -> list[dict[str, bytes]]:
    labels = _ade20k_seeds(folder)
    [instances] = _ade20k_instance_seeds(folder)
    return [instances | one for one in labels]


def _bdd100k_seeds(folder: Path) -> list[dict[str, bytes]]:
    values = np.zeros((6, 8, 4), np.uint8)
    values[:2], values[3:5, :4], values[3:5, 4:] = (30, 0, 0, 30), (35, 3, 1, 7), (35, 12, 1, 8)
    write_label_map(folder / "map.png", values)
    photo, png = _photograph(folder), (folder / "map.png").read_bytes()
    files = {f"images/10k/val/{n}.jpg": photo for n in "ab"}
    return [files | {f"labels/pan_seg/bitmasks/val/{n}.png": png for n in "ab"}]


def _context_59_seeds(folder: Path) -> list[dict[str, bytes]]:
    photo, png = _photograph(folder), _label_map(folder, {(1, 1): 3, (3, 4): 59, (5, 0): 255})
    names = ("2008_000002", "2008_000003")
    photos = {f"JPEGImages/{n}.jpg": photo for n in names}
    listing = {"ImageSets/SegmentationContext/val.txt": "\n".join(names).encode()}
    return [
        photos | listing | {f"SegmentationClassContext/{n}.png": png for n in names},
        photos | {f"annotations_detectron2/pc59_val/{n}.png": png for n in names},
    ]


def _context_459_seeds(folder: Path) -> list[dict[str, bytes]]:
    photo, tif = _photograph(folder), io.BytesIO()
    labels = np.zeros((6, 8), "<u2")
    labels[1:, 1:], labels[3:, 4:] = 2, 459
    Image.fromarray(labels - 1).save(tif, "TIFF")
    element = matrix(b"LabelMap", labels.shape, labels.tobytes("F"))
    names = ("2008_000002", "2008_000003")
    photos = {f"JPEGImages/{n}.jpg": photo for n in names}
    listing = {"pascalcontext_val.txt": "\n".join(names).encode()}
    return [
        *(
            photos | listing | {f"trainval/{n}.mat": content for n in names}
            for content in (mat_file(element), mat_file(matrix(b"other", (1, 1), b"\1\0"), packed(element)))
        ),
        photos | {f"annotations_detectron2/pc459_val/{n}.tif": tif.getvalue() for n in names},
    ]


def _foreground_seeds(folder: Path) -> list[dict[str, bytes]]:
    photo, png = _photograph(folder), _label_map(folder, {(2, 3): 255})
    files = {f"DIS5K/DIS-TR/{kind}/{n}.{suffix}": content for n in "ab" for kind, suffix, content in
             (("im", "jpg", photo), ("gt", "png", png))}  # fmt: skip
    return [files]


def _semantic_seeds(folder: Path) -> list[dict[str, bytes]]:
    photo = _photograph(folder)
    png, colors = _label_map(folder, {(1, 1): 1, (3, 3): 2, (5, 5): 255}), np.zeros((6, 8, 3), np.uint8)
    colors[2:, 2:] = (128, 64, 0)
    write_label_map(folder / "colors.png", colors)
    records = [{"id": 1, "name": "road", "isthing": False}, {"id": 2, "name": "car", "isthing": True}]
    names = {
        "class_names.json": _dump(records),
        "classes.json": _dump(["_background_", "road", "car"]),
        "classes.txt": b"__ignore__\n_background_\nroad\ncar\n",
        "label_colors.txt": b"0 0 0 void\n128 64 0 road\n",
    }
    return [
        {"images/train/a.jpg": photo, "labels/train/a.png": colored, f"labels/train/{name}": content}
        for name, content in names.items()
        for colored in [(folder / "colors.png").read_bytes() if name == "label_colors.txt" else png]
    ]
