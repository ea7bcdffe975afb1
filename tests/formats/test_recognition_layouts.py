"""Each tree of files in docs/formats.md is recognised as its format, and all of its splits can be read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest
from fakes import packed_datasets as packed
from PIL import Image

from synthgen import plugins
from synthgen.formats.readers import AnnotationBatch, ImageBatch, SourceFinding
from synthgen.formats.recognition import READERS_PACKAGE, find_splits, recognize_dataset
from synthgen.images.decode import find_image, read_image_header

PAGE = Path(__file__).parents[2] / "docs" / "formats.md"

IMAGES = (".jpg", ".png")

#: Some trees have no file of class names.
EXPECTED = frozenset({"no_class_names"})

#: What the files hold: a box of an image of 48 x 32 pixels.
YOLO_ROW = "0 0.5 0.5 0.25 0.25\n"
DOTA_ROW = "12 7 36 7 36 25 12 25 plane 0\n"
HF_LINE = {"objects": {"bbox": [[12, 7, 24, 18]], "category": [0]}}
VIA_SHAPE = {"name": "rect", "x": 12, "y": 7, "width": 24, "height": 18}
LABEL_STUDIO_VALUE = {"x": 25, "y": 25, "width": 50, "height": 50, "rotation": 0, "rectanglelabels": ["cat"]}


def trees() -> list[tuple[str, list[str]]]:
    """By `--dataset`, the files of each tree, without the name of its root."""
    found = []
    page = PAGE.read_text(encoding="utf-8").partition("# Published datasets")[0]
    for name, block in re.findall(r"(?s)\n`--dataset ([a-z-]+)`.*?\n```\n(.*?)```", page):
        head, *lines = block.splitlines()
        starts = [match.start() for match in re.finditer(r"\S+", head)]
        for start, stop in zip(starts, [*starts[1:], None], strict=True):
            cells = [line[start:stop].strip() for line in lines]
            found.append((name, [re.split(r"\s{2,}", cell)[0] for cell in cells if cell]))
    return found


def image_of(path: PurePosixPath, files: list[str]) -> str:
    """The name of the image that belongs to an annotation file: of its own folder, or the only one there is."""
    images = [PurePosixPath(name) for name in files if name.endswith(IMAGES) and "Segmentation" not in name]
    near = [one for one in images if path.parent.name in ("", *one.parts[:-1]) or one.stem == path.stem]
    return (near or images)[0].name


def coco(path: PurePosixPath, files: list[str]) -> str:
    content = packed.coco(1)
    content["images"][0]["file_name"] = "b.jpg" if re.search(r"val", str(path)) else "a.jpg"
    return json.dumps(content)


def voc(path: PurePosixPath, files: list[str]) -> str:
    box = "<bndbox><xmin>12</xmin><ymin>7</ymin><xmax>36</xmax><ymax>25</ymax></bndbox>"
    size = "<size><width>48</width><height>32</height></size>"
    return f"<annotation>{size}<object><name>cat</name>{box}</object></annotation>"


def labelme(path: PurePosixPath, files: list[str]) -> str:
    shape = {"label": "cat", "points": [[12, 7], [36, 25]], "shape_type": "rectangle"}
    name = image_of(path, files)
    return json.dumps({"shapes": [shape], "imagePath": name, "imageHeight": 32, "imageWidth": 48})


def cvat(path: PurePosixPath, files: list[str]) -> str:
    corners = 'xtl="12" ytl="7" xbr="36" ybr="25"'
    if any("frame" in name for name in files):
        box = f'<box frame="0" outside="0" {corners}/><box frame="1" outside="0" {corners}/>'
        return f'<annotations><track id="0" label="cat">{box}</track></annotations>'
    image = f'<image id="0" name="a.jpg" width="48" height="32"><box label="cat" {corners}/></image>'
    return f"<annotations>{image}</annotations>"


def label_studio(path: PurePosixPath, files: list[str]) -> str:
    region = {"type": "rectanglelabels", "original_width": 48, "original_height": 32, "value": LABEL_STUDIO_VALUE}
    name = image_of(path, files)
    return json.dumps([{"id": 1, "data": {"image": name}, "annotations": [{"id": 1, "result": [region]}]}])


def via(path: PurePosixPath, files: list[str]) -> str:
    region = {"shape_attributes": VIA_SHAPE, "region_attributes": {"class": "cat"}}
    name = image_of(path, files)
    return json.dumps({f"{name}-1": {"filename": name, "size": -1, "regions": [region], "file_attributes": {}}})


def openimages(path: PurePosixPath, files: list[str]) -> str:
    if "class-descriptions" in path.name:
        return "/m/cat,Cat\n"
    if "segmentation" in path.name:
        return "MaskPath,ImageID,LabelName,BoxID,BoxXMin,BoxXMax,BoxYMin,BoxYMax,PredictedIoU,Clicks\n"
    return "ImageID,LabelName,XMin,XMax,YMin,YMax\n0001eeaf4aed83f9,/m/cat,0.25,0.75,0.25,0.75\n"


TEXTS: dict[str, dict[str, Callable[[PurePosixPath, list[str]], str]]] = {
    "yolo": {
        "data.yaml": lambda *_: "train: ../train/images\nval: ../valid/images\nnames: [cat]\n",
        "obj.data": lambda *_: "classes = 1\ntrain = data/train.txt\nnames = data/obj.names\n",
        "train.txt": lambda *_: "data/obj_train_data/a.jpg\n",
        "obj.names": lambda *_: "cat\n",
        "classes.txt": lambda *_: "cat\n",
        ".txt": lambda *_: YOLO_ROW,
    },
    "coco-json": {".json": coco},
    "voc": {".txt": lambda *_: "a\n", ".xml": voc},
    "labelme": {".json": labelme},
    "cvat": {".xml": cvat},
    "label-studio": {".json": label_studio},
    "via": {".json": via},
    "dota": {".txt": lambda *_: DOTA_ROW},
    "openimages": {".csv": openimages},
    "hf": {".jsonl": lambda path, files: json.dumps({"file_name": image_of(path, files), **HF_LINE}) + "\n"},
}


def write_tree(root: Path, dataset: str, files: list[str]) -> None:
    """Write the files of a tree with some content of the format."""
    for name in files:
        path = root / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            continue
        if name.endswith(IMAGES):
            Image.new("RGB", (48, 32), "gray").save(path)
        elif name.endswith(".parquet"):
            packed.write_parquet(path, packed.table(2))
        elif name.endswith(".arrow"):
            packed.write_saved(path.parent, packed.table(2))
        elif name.endswith(".tar"):
            members = [("000.jpg", packed.jpeg(0)), ("000.json", json.dumps(packed.objects(0)).encode())]
            packed.write_tar(path, members)
        elif name == "dataset_dict.json":
            path.write_text('{"splits": ["train"]}')
        elif not name.endswith("state.json"):  # written with its table
            texts = TEXTS[dataset]
            path.write_text((texts.get(path.name) or texts[path.suffix])(PurePosixPath(name), files))


def test_each_format_that_tools_write_has_a_tree() -> None:
    layouts = {
        name.replace("_", "-")
        for name in plugins.list_plugins(READERS_PACKAGE)
        if getattr(plugins.load_plugin(READERS_PACKAGE, name), "LAYOUT_SPLITS", False)
    }
    assert {name for name, _ in trees()} == layouts


@pytest.mark.parametrize(
    ("dataset", "files"), trees(), ids=lambda value: value if isinstance(value, str) else value[0].replace("/", "-")
)
def test_a_documented_tree_is_recognised_and_read(tmp_path: Path, dataset: str, files: list[str]) -> None:
    write_tree(tmp_path, dataset, files)
    found = recognize_dataset(tmp_path)
    assert found.plugin.replace("_", "-") == dataset
    module = plugins.load_plugin(READERS_PACKAGE, found.plugin)
    assert found.splits == find_splits(found.plugin, tmp_path, None)
    validates = any(re.search(r"\bval(id|idation)?\b|_val\b", name) for name in files)
    assert len(found.splits) == (2 if validates else 1), found.splits
    for split in found.splits:
        files_of_split = module.files(tmp_path, split, None)
        parts = list(module.read(files_of_split, "annotations"))
        findings = [part for part in parts if isinstance(part, SourceFinding) and part.code not in EXPECTED]
        assert findings == []
        names = [name for part in parts if isinstance(part, ImageBatch) for name in part.file_name]
        assert names
        assert {read_image_header(find_image(files_of_split.image_folder, name))[:2] for name in names} == {(32, 48)}
        boxes = [part for part in parts if isinstance(part, AnnotationBatch)]
        assert sum(len(part.id) for part in boxes)
        assert not any(flag.any() for part in boxes for name, flag in part.flags.items() if name == "no_box")
