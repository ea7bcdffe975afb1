"""Fuzz targets: the formats of annotation tools, each through a whole ingest."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fakes.brush_rle import encode_brush_rle
from fakes.fuzz_datasets import _label_map, _photograph, _target
from fakes.fuzz_runner import FuzzTarget

_TRIANGLE = [[1, 1], [6.5, 1], [6, 4.25]]


def tool_targets() -> list[FuzzTarget]:
    """One target for each file format of a tool."""
    return [
        _target("voc", _voc_seeds, "voc"),
        _target("labelme", _labelme_seeds, "labelme"),
        _target("cvat", _cvat_seeds, "cvat"),
        _target("via", _via_seeds, "via"),
        _target("via_csv", _via_csv_seeds, "via"),
        _target("label_studio", _label_studio_seeds, "label-studio"),
    ]


def _dump(content: Any) -> bytes:
    return json.dumps(content).encode()


def _voc_seeds(folder: Path) -> list[dict[str, bytes]]:
    """Photographs of 8 by 6 pixels: lists with masks of objects, and XML beside the images."""
    box = "<bndbox>\n<xmin>2</xmin>\n<ymin>2</ymin>\n<xmax>7</xmax>\n<ymax>5</ymax>\n</bndbox>"
    polygon = "<polygon>" + "".join(f"<x{i}>{x}</x{i}><y{i}>{y}</y{i}>\n" for i, (x, y) in enumerate(_TRIANGLE, 1))
    turned = "<robndbox><cx>4</cx><cy>3</cy><w>3</w><h>2</h><angle>0.7</angle></robndbox>"
    objects = "\n".join(
        f"<object>\n<name>{name}</name>\n<difficult>{number}</difficult>\n{inside}</object>"
        for number, (name, inside) in enumerate(
            (("cat", box), ("dog", box + polygon + "</polygon>"), ("cow", turned), ("7", polygon + "</polygon>"))
        )
    )
    head = "<filename>a.jpg</filename>\n<source><database>The VOC2007 Database</database></source>"
    size = "<size>\n<width>8</width>\n<height>6</height>\n<depth>3</depth></size>"
    first = f"<?xml version='1.0'?>\n<annotation>\n{head}\n{size}\n{objects}\n</annotation>".encode()
    second = f"<annotation><filename>x\\b.jpg</filename>{objects}</annotation>".encode()
    photo, masks = _photograph(folder), _label_map(folder, {(1, 1): 1, (3, 3): 2})
    lists = {"ImageSets/Main/train.txt": b"a\nb\n", "SegmentationObject/a.png": masks}
    return [
        {"Annotations/a.xml": first, "Annotations/b.xml": second, "JPEGImages/a.jpg": photo, **lists},
        {"train/a.xml": first, "train/b.xml": second, "train/a.jpg": photo, "train/b.jpg": photo},
    ]


def _labelme_seeds(folder: Path) -> list[dict[str, bytes]]:
    Image.fromarray(np.array([[1, 0], [1, 1]], bool)).save(folder / "mask.png")
    mask = base64.b64encode((folder / "mask.png").read_bytes()).decode()
    shapes = [
        {"label": "cat", "points": [[1, 1], [6, 4.5]], "shape_type": "rectangle", "group_id": None, "flags": {}},
        {"label": "cat", "points": _TRIANGLE, "shape_type": "polygon", "group_id": 1},
        {"label": "cat", "points": [[3, 3], [4, 4]], "shape_type": "mask", "mask": mask, "group_id": 1},
        {"label": 7, "points": [[4, 3], [4, 5]], "shape_type": "circle"},
        {"label": "dog", "points": [[4, 0], [8, 3], [4, 6], [0, 3]], "shape_type": "oriented_rectangle"},
        {"label": "line", "points": [[4, 0], [8, 3]], "shape_type": "linestrip"},
    ]
    content = {"version": "5.2.1", "shapes": shapes, "imagePath": "a.jpg", "imageHeight": 6, "imageWidth": 8}
    other = {**content, "imagePath": "..\\x\\b.jpg", "imageData": "aGVsbG8=", "imageHeight": None}
    return [{"a.json": _dump(content), "b.json": _dump(other), "a.jpg": _photograph(folder)}]


def _cvat_seeds(folder: Path) -> list[dict[str, bytes]]:
    labels = "<labels><label>\n<name>cat</name>\n</label><label><name>dog</name></label></labels>"
    meta = f"<version>1.1</version>\n<meta><task><id>1</id>\n<subset></subset>{labels}\n{{}}</task></meta>"
    points = ";".join(f"{x},{y}" for x, y in _TRIANGLE)
    shapes = [
        '<box label="cat" xtl="1" ytl="1" xbr="6.5" ybr="4" rotation="30"/>',
        f'<polygon label="dog" points="{points}" group_id="2"/>',
        '<mask label="dog" rle="1, 2, 1" left="2" top="2" width="2" height="2" group_id="2"/>',
        '<ellipse label="cat" cx="4" cy="3" rx="3" ry="2" rotation="10.5"/>',
        f'<polyline label="cat" points="{points}"><attribute name="a">b</attribute></polyline>',
        '<skeleton label="cat"><points label="n" points="1,2"/></skeleton>',
    ]
    inside = "\n".join(shapes)
    image = f'<image id="0" name="a.jpg" width="8" height="6">\n{inside}\n</image>\n<image id="1" name="b.jpg"/>'
    boxes = "\n".join(
        f'<box frame="{n}" outside="{int(n == 2)}" keyframe="1" xtl="{n}" ytl="1" xbr="7" ybr="5"/>' for n in range(3)
    )
    size = "<original_size><width>8</width><height>6</height></original_size>"
    track = f'<track id="0" label="cat">\n{boxes}</track>'
    photo = _photograph(folder)
    return [
        {"annotations.xml": f"<annotations>{meta.format('')}\n{image}</annotations>".encode(), "images/a.jpg": photo},
        {
            "annotations.xml": f"<annotations>{meta.format(size)}{track}</annotations>".encode(),
            "images/frame_000001.jpg": photo,
        },
    ]


def _via_regions() -> list[dict[str, Any]]:
    shapes: list[dict[str, Any]] = [
        {"name": "rect", "x": 1, "y": 1, "width": 4, "height": 3.5},
        {"name": "polygon", "all_points_x": [x for x, _ in _TRIANGLE], "all_points_y": [y for _, y in _TRIANGLE]},
        {"name": "circle", "cx": 4, "cy": 3, "r": 2.5},
        {"name": "ellipse", "cx": 4, "cy": 3, "rx": 3, "ry": 2, "theta": 0.4},
        {"name": "point", "cx": 4, "cy": 3},
    ]
    classes: list[Any] = ["cat", 7, {"dog": True, "cow": True}, "", "cat"]
    return [
        {"shape_attributes": shape, "region_attributes": {"class": name, "note": "x"}}
        for shape, name in zip(shapes, classes, strict=True)
    ]


def _via_seeds(folder: Path) -> list[dict[str, bytes]]:
    images = {
        f"{name}-1": {"filename": name, "size": -1, "regions": _via_regions(), "file_attributes": {}}
        for name in ("a.jpg", "http://x/b.jpg")
    }
    photo = _photograph(folder)
    project = {"_via_settings": {"core": {}}, "_via_img_metadata": images, "_via_attributes": {"region": {}}}
    return [{"a.json": _dump(images), "a.jpg": photo}, {"p.json": _dump(project), "images/a.jpg": photo}]


def _via_csv_seeds(folder: Path) -> list[dict[str, bytes]]:
    quote = '"'
    lines = ["filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"]
    for number, region in enumerate(_via_regions()):
        shape, attributes = (
            quote + json.dumps(region[key]).replace(quote, 2 * quote) + quote
            for key in ("shape_attributes", "region_attributes")
        )
        lines.append(f'a.jpg,-1,"{{}}",5,{number},{shape},{attributes}')
    return [{"a.csv": "\n".join(lines).encode(), "a.jpg": _photograph(folder)}]


def _label_studio_seeds(folder: Path) -> list[dict[str, bytes]]:
    mask = np.zeros((6, 8), np.uint8)
    mask[1:4, 2:7] = 255
    values: dict[str, dict[str, Any]] = {
        "rectanglelabels": {"x": 10, "y": 20, "width": 50, "height": 40.5, "rotation": 15},
        "polygonlabels": {"points": [[10, 10], [80, 10], [80, 70.5]]},
        "brushlabels": {"rle": encode_brush_rle(mask), "format": "rle"},
        "ellipselabels": {"x": 50, "y": 50, "radiusX": 30, "radiusY": 20, "rotation": 0},
        "keypointlabels": {"x": 5, "y": 5, "width": 0.2},
    }
    size = {"original_width": 8, "original_height": 6}
    results = [
        {"id": f"r{number}", "type": kind, "value": {**value, kind: ["cat"]}, **size}
        for number, (kind, value) in enumerate(values.items())
    ]
    annotations = [
        {"id": 1, "result": results, "was_cancelled": False, "updated_at": "2025"},
        {"id": 2, "result": results[:1], "ground_truth": False, "updated_at": "2024"},
    ]
    tasks = [
        {"id": number, "annotations": annotations, "predictions": [{"result": results}], "data": {"image": image}}
        for number, image in enumerate(("/data/upload/1/1a2b3c4d-a.jpg", "s3://x/b.jpg"), start=1)
    ]
    regions = [{**value, kind: ["dog"], **size} for kind, value in values.items()]
    minimal = [{"image": "a.jpg", "id": 1, "label": regions, "annotator": 1, "updated_at": f"202{n}"} for n in (4, 5)]
    photo = _photograph(folder)
    return [{"result.json": _dump(tasks), "a.jpg": photo}, {"result.json": _dump(minimal), "images/a.jpg": photo}]
