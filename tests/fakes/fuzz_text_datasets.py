"""Valid files of datasets in text formats, from which the fuzzer makes its inputs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from fakes.fuzz_runner import WrongAnswerError
from fakes.label_map_folders import write_label_map, write_photograph
from synthgen.records.sample import Sample

_NUMBER = rb"(-?\d{1,6}(?:\.\d{1,9})?)"
_YOLO_BOX = re.compile(rb"[ \t]*\d{1,3}" + (rb"[ \t]+" + _NUMBER) * 4 + rb"[ \t\r]*")
_DOTA_BOX = re.compile(_NUMBER + (rb" " + _NUMBER) * 7 + rb" [a-z-]{1,99} [01]\r?")


def yolo_seeds(folder: Path) -> list[dict[str, bytes]]:
    """Boxes, polygons and keypoints; folders, lists and darknet's files."""
    photo = _photograph(folder)
    rows = b"0 0.5 0.5 0.25 0.5\n1 0.1 0.1 0.6 0.1 0.6 0.9\r\n\n0\t0.2 0.3 1e-05 0.1 0.9\n"
    pose = b"0 0.5 0.5 0.25 0.5 0.1 0.2 2 0.3 0.4 1\n"
    yaml = b"path: .\ntrain: images/train\nval: ../val\nnc: 2\nnames:\n  0: cat\n  1: dog\nkpt_shape: [2, 3]\n"
    whole = {
        "data.yaml": yaml,
        **{f"images/train/{name}.jpg": photo for name in "ab"},
        "labels/train/a.txt": rows,
        "labels/train/b.txt": pose,
    }
    listed = {
        "data.yaml": b"train: [train.txt]\nnames: [cat, dog]\n",
        "train.txt": b"./images/train/a.jpg\ndata/images/train/b.jpg\n",
        **{name: content for name, content in whole.items() if "/" in name},
    }
    darknet = {
        "obj.data": b"classes = 2\ntrain = data/train.txt\nnames = data/obj.names\n",
        "obj.names": b"cat\ndog\n",
        "train.txt": b"data/obj_train_data/a.jpg\n",
        "obj_train_data/a.jpg": photo,
        "obj_train_data/a.txt": rows,
    }
    beside = {"classes.txt": b"cat\ndog\n", "a.jpg": photo, "a.txt": rows, "b.jpg": photo}
    return [whole, listed, darknet, beside]


def dota_seeds(folder: Path) -> list[dict[str, bytes]]:
    """With and without the lines of the header."""
    photo = _photograph(folder)
    rows = b"1 1 5 1 5 4 1 4 plane 0\n2.0 1.0 5.5 2.0 4.0 4.0 1.0 3.0 small-vehicle 1\n"
    header = b"imagesource:GoogleEarth\ngsd:0.146343590398\n"
    return [
        {"train/images/a.jpg": photo, "train/labelTxt/a.txt": header + rows, "train/images/b.jpg": photo},
        {"train/images/a.jpg": photo, "train/annfiles/a.txt": rows, "train/annfiles/b.txt": b""},
    ]


def open_images_seeds(folder: Path) -> list[dict[str, bytes]]:
    """Boxes, masks, image labels, class names and the list of images."""
    photo = _photograph(folder)
    pixels = np.zeros((6, 8), np.uint8)
    pixels[2:, 3:] = 255
    write_label_map(folder / "mask.png", pixels)
    corners = b"0.125,0.625,0.250000,0.75"
    boxes = b"ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction\n"
    boxes += b"".join(b"%s,xclick,%s,1,%s,0,1,%d,%d\n" % (image, label, corners, group, group == 0)
        for image, label, group in ((b"a", b"/m/cat", 0), (b"a", b"/m/dog", 1), (b"x", b"/m/cat", -1))
    )  # fmt: skip
    masks = b"MaskPath,ImageID,LabelName,BoxID,BoxXMin,BoxXMax,BoxYMin,BoxYMax,PredictedIoU,Clicks\n"
    masks += b"m.png,a,/m/cat,1,%s,0.9,\nm.png,b,/m/dog,2,%s,,0.1 0.2 1;0.3 0.4 0\n" % (corners, corners)
    labels = b"ImageID,Source,LabelName,Confidence\na,verification,/m/dog,0\nb,verification,/m/cat,1\n"
    whole = {
        "train-annotations-bbox.csv": boxes,
        "train-annotations-object-segmentation.csv": masks,
        "train-annotations-human-imagelabels-boxable.csv": labels,
        "train-images-boxable-with-rotation.csv": b'ImageID,Subset,Title,Rotation\na,train,"x, y",90.0\nb,train,,0.0\n',
        "class-descriptions-boxable.csv": b'/m/cat,Cat\n/m/dog,"Dog, large"\n',
        "train/a.jpg": photo,
        "train/b.jpg": photo,
        "masks/train/m.png": (folder / "mask.png").read_bytes(),
    }
    names = ("train-annotations-bbox.csv", "train/a.jpg", "train/b.jpg")
    return [whole, {name: whole[name] for name in names}]


def check_yolo_boxes(folder: Path, samples: list[Sample]) -> None:
    """The plain rows of boxes, by a regular expression."""
    for sample in samples:
        path = folder / sample.file_name.replace("images/", "labels/", 1)
        for match in _rows(path.with_suffix(".txt"), _YOLO_BOX, sample):
            cx, cy, w, h = map(float, match.groups())
            box = (cx - w / 2) * sample.width, (cy - h / 2) * sample.height, w * sample.width, h * sample.height
            _find_box(sample, box)


def check_dota_boxes(folder: Path, samples: list[Sample]) -> None:
    """The plain rows of corners, by a regular expression."""
    for sample in samples:
        for labels in ("labelTxt", "annfiles"):
            path = folder / sample.file_name.replace("images", labels, 1)
            for match in _rows(path.with_suffix(".txt"), _DOTA_BOX, sample):
                numbers = [float(number) for number in match.groups()]
                xs, ys = numbers[::2], numbers[1::2]
                _find_box(sample, (min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)))


def _rows(path: Path, pattern: re.Pattern[bytes], sample: Sample) -> list[re.Match[bytes]]:
    """The lines of a label file that have a plain form; none of an image with an error."""
    if sample.error is not None or not sample.height or not path.is_file():
        return []
    lines = path.read_bytes().split(b"\n")
    return [match for line in lines if (match := pattern.fullmatch(line))]


def _find_box(sample: Sample, box: tuple[float, ...]) -> None:
    if not any(np.allclose(box, one.bbox, rtol=1e-9, atol=1e-9) for one in sample.annotations):
        raise WrongAnswerError(f"{sample.file_name} has no box {box}")


def _photograph(folder: Path) -> bytes:
    write_photograph(folder / "photo.jpg")
    return (folder / "photo.jpg").read_bytes()
