"""LabelMe: shapes, groups, masks, paths of images, layouts, hostile files."""

from __future__ import annotations

import base64
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.reader_rows import ingested, read_rows, rows_of_files, write_image
from PIL import Image

from synthgen.errors import SynthgenError
from synthgen.formats.readers import labelme
from synthgen.records.rle import decode_mask, rle_area


def shape(kind: Any, points: Any, label: Any = "cat", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}, **more}


def content(*shapes: Any, **more: Any) -> dict[str, Any]:
    return {
        "version": "5.2.1", "flags": {}, "shapes": list(shapes), "imagePath": "a.jpg", "imageData": None,
        "imageHeight": 30, "imageWidth": 40, **more,
    }  # fmt: skip


def put(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
    return path


def one(root: Path, *shapes: Any, layer: str = "annotations", **more: Any):
    """The rows of a folder with one JSON and its image."""
    put(root / "a.json", content(*shapes, **more))
    write_image(root / "a.jpg")
    return read_rows(labelme, root, layer=layer)


def masks(root: Path, *shapes: Any, **more: Any):
    """The annotations after an ingest of the layer of masks."""
    one(root / "d", *shapes, **more)
    return ingested(root / "store", labelme, root / "d")["a.jpg"].annotations


# --- shapes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("points", [[[3, 4], [10, 20]], [[10, 20], [3, 4]], [[10, 4], [3, 20]], [[3, 20], [10, 4]]])
def test_a_rectangle_is_given_by_any_two_corners(tmp_path, points):
    [row] = one(tmp_path, shape("rectangle", points)).rows
    assert row.bbox == (3, 4, 7, 16) and row.flags == set() and row.name == "cat"


def test_a_rectangle_of_four_corners_is_upright_or_rotated(tmp_path):
    upright = [[3, 4], [10, 4], [10, 20], [3, 20]]
    tilted = [[10, 0], [20, 10], [10, 20], [0, 10]]
    found = one(tmp_path, shape("rectangle", upright), shape("rectangle", tilted), shape("rotation", tilted),
                shape("oriented_rectangle", upright)).rows  # fmt: skip
    assert [row.bbox for row in found] == [(3, 4, 7, 16), (0, 0, 20, 20), (0, 0, 20, 20), (3, 4, 7, 16)]
    assert [row.flags for row in found] == [set(), {"rotated"}, {"rotated"}, set()]


def test_a_polygon_has_its_tight_box_and_a_mask(tmp_path):
    triangle = [[10, 5], [20, 5], [20, 15]]
    for kind in ("polygon", None, ""):
        [a] = masks(tmp_path / str(kind), shape(kind, triangle))
        assert a.bbox == (10, 5, 10, 10) and 40 <= rle_area(a.segmentation) <= 60 and a.mask_source == "human"


def test_a_circle_is_given_by_its_centre_and_a_point_on_it(tmp_path):
    [a] = masks(tmp_path, shape("circle", [[20, 15], [20 + 6, 15 + 8]]))
    assert a.bbox == pytest.approx((10, 5, 20, 20))
    assert rle_area(a.segmentation) == pytest.approx(math.pi * 100, rel=0.03)


@pytest.mark.parametrize("kind", ["line", "linestrip", "point", "points", "cuboid", 7])
def test_a_shape_without_area_is_counted(tmp_path, kind):
    found = one(tmp_path, shape(kind, [[1, 2], [3, 4]]), shape("rectangle", [[1, 2], [3, 4]]))
    assert len(found.rows) == 1 and found.findings["not_an_object"].count == 1
    [(where, what)] = found.findings["not_an_object"].examples
    assert where == "a.jpg" and what.startswith("shape 1, ") and what.endswith("'cat'")


def test_regions_to_ignore_are_counted(tmp_path):
    found = one(tmp_path, shape("polygon", [[1, 2], [3, 4], [5, 9]], "__ignore__"))
    assert not found.rows and found.findings["ignored_region"].count == 1


@pytest.mark.parametrize(
    "bad",
    [
        shape("rectangle", [[1, 2]]), shape("rectangle", None), shape("polygon", [[1, 2], [3, 4]]),
        shape("polygon", [[1, 2], [3, "x"], [5, 6]]), shape("circle", [[1, 2], [1, 2]]),
        shape("rectangle", [1, 2, 3, 4]),
        shape("rotation", [[1, 2], [3, 4]]), shape("mask", [[1, 2], ["a", 4]]),
        shape("polygon", [[1e300, 1], [2, 2], [3, 9]]),
        "text", None, [], {},
    ],
)  # fmt: skip
def test_a_shape_that_cannot_be_read_stays_with_a_flag(tmp_path, bad):
    found = one(tmp_path, bad, shape("rectangle", [[1, 2], [3, 4]])).rows
    assert len(found) == 2 and "no_box" in found[0].flags and found[1].flags == set()


@pytest.mark.parametrize(
    ("label", "name"), [(7, "7"), (7.0, "7"), (2.5, "2.5"), (" cat ", "cat"), (None, ""), (True, "")]
)
def test_labels_become_texts(tmp_path, label, name):
    assert [row.name for row in one(tmp_path, shape("rectangle", [[1, 2], [3, 4]], label)).rows] == [name]


def test_difficult_is_kept(tmp_path):
    assert one(tmp_path, shape("rectangle", [[1, 2], [3, 4]], difficult=True)).rows[0].flags == {"difficult"}


# --- groups -----------------------------------------------------------------------------------------------------------


def square(x: int, y: int, **more: Any) -> dict[str, Any]:
    return shape("polygon", [[x, y], [x + 5, y], [x + 5, y + 5], [x, y + 5]], **more)


def test_polygons_of_one_group_and_label_are_one_object(tmp_path):
    found = masks(
        tmp_path,
        square(1, 1, group_id=3),
        square(20, 20),
        square(30, 2, group_id=3),
        square(10, 1, group_id=3, label="dog"),
    )
    assert [(a.category, a.bbox) for a in found] == [
        ("cat", (1, 1, 34, 6)), ("cat", (20, 20, 5, 5)), ("dog", (10, 1, 5, 5)),
    ]  # fmt: skip
    assert [rle_area(a.segmentation) for a in found] == [50, 25, 25]


def test_rectangles_and_unreadable_parts_of_a_group_stay_apart(tmp_path):
    corners = [[1, 2], [3, 4]]
    found = one(tmp_path, shape("rectangle", corners, group_id=1), shape("rectangle", corners, group_id=1),
                square(1, 1, group_id=1), shape("polygon", corners, group_id=1),
                square(30, 2, group_id=1)).rows  # fmt: skip
    assert [row.bbox for row in found if not row.flags] == [(1, 2, 2, 2), (1, 2, 2, 2), (1, 1, 34, 6)]
    assert [row.flags for row in found if row.flags] == [{"no_box"}]


# --- masks ------------------------------------------------------------------------------------------------------------


def png(window: Any) -> str:
    out = io.BytesIO()
    Image.fromarray(np.asarray(window, bool)).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def test_a_mask_lies_at_its_first_point(tmp_path):
    window = np.zeros((4, 6), bool)
    window[1:, 2:] = True
    [a] = masks(tmp_path, shape("mask", [[10, 5], [15, 8]], mask=png(window)))
    there = np.zeros((30, 40), bool)
    there[6:9, 12:16] = True
    assert (decode_mask(a.segmentation) == there).all() and a.bbox == (12, 6, 4, 3)


def test_a_mask_that_reaches_beyond_the_image_is_cut(tmp_path):
    window = np.ones((4, 6), bool)
    found = masks(tmp_path, shape("mask", [[37, 28], [42, 31]], mask=png(window)),
                  shape("mask", [[-2, -1], [3, 2]], mask=png(window)))  # fmt: skip
    assert [a.bbox for a in found] == [(37, 28, 3, 2), (0, 0, 4, 3)]


def test_a_mask_and_a_polygon_of_a_group_are_one_mask(tmp_path):
    [a] = masks(
        tmp_path, square(1, 1, group_id=0), shape("mask", [[20, 20], [21, 21]], group_id=0, mask=png([[1, 1], [1, 1]]))
    )
    assert a.bbox == (1, 1, 21, 21) and rle_area(a.segmentation) == 29


@pytest.mark.parametrize(
    "mask", [None, "", "!!!", "aGVsbG8=", 7, base64.b64encode(b"\x89PNG\r\n\x1a\n").decode(), png([[0]])]
)
def test_a_mask_that_cannot_be_read_leaves_its_box(tmp_path, mask):
    [a] = masks(tmp_path, shape("mask", [[10, 5], [15, 8]], mask=mask))
    assert a.bbox == (10, 5, 6, 4) and a.flags == ("bad_segmentation",) and a.segmentation is None


# --- images -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(None, None), (0, 0), ("x", 40)])
def test_a_missing_size_is_read_from_the_image(tmp_path, height, width):
    assert one(tmp_path, imageHeight=height, imageWidth=width).images == {"a.jpg": (30, 40, None)}


@pytest.mark.parametrize(
    ("labels", "image", "image_path"),
    [
        ("", "a.jpg", "a.jpg"),
        ("", "other.jpg", "other.jpg"),
        ("", "images/other.jpg", "images/other.jpg"),
        ("labels", "images/other.jpg", "../images/other.jpg"),
        ("labels", "images/other.jpg", "..\\images\\other.jpg"),
        ("labels", "pictures/other.jpg", "..\\pictures\\other.jpg"),
        ("labels", "images/other.jpg", "C:\\Users\\me\\other.jpg"),
        ("labels", "images/other.jpg", "/srv/me/other.jpg"),
        ("labels", "images/other.jpg", "../../../../other.jpg"),
        ("labels", "images/a.png", "gone.jpg"),
        ("labels", "images/a.png", ""),
        ("labels", "images/a.png", None),
        ("labels", "images/a.png", 7),
        ("labels", "JPEGImages/other.jpg", "other.png"),
    ],
)
def test_image_path_decides_then_its_last_part_then_the_name_of_the_json(tmp_path, labels, image, image_path):
    put(tmp_path / labels / "a.json", content(imagePath=image_path))
    write_image(tmp_path / image)
    rows = read_rows(labelme, tmp_path)
    assert list(rows.images) == [image] and not rows.findings


@pytest.mark.parametrize(
    "hostile", ["../../../etc/passwd.jpg", "/etc/passwd.jpg", "a\0.jpg", "x" * 70_000, "\ud800.jpg"]
)
def test_a_hostile_path_stays_in_the_folder_or_is_missing(tmp_path, hostile):
    put(tmp_path / "d" / "a.json", content(imagePath=hostile))
    write_image(tmp_path / "etc" / "passwd.jpg")
    [name] = read_rows(labelme, tmp_path / "d").images
    assert not name.startswith(("/", ".."))
    ingested(tmp_path / "store", labelme, tmp_path / "d")


def test_a_missing_image_that_the_json_holds_a_copy_of_is_an_error_with_that_remedy(tmp_path):
    put(tmp_path / "a.json", content(square(1, 1), imageData="aGVsbG8="))
    put(tmp_path / "b.json", content(square(1, 1), imagePath="b.jpg"))
    images = read_rows(labelme, tmp_path).images
    assert "imageData" in str(images["a.jpg"][2]) and images["b.jpg"] == (30, 40, None)


def test_images_without_a_json_are_counted(tmp_path):
    write_image(tmp_path / "b.jpg")
    found = one(tmp_path, square(1, 1)).findings["unlabeled_image"]
    assert found.examples == (("b.jpg", "no annotation file has its name"),)


def test_the_size_of_the_copy_of_the_image_costs_no_memory(tmp_path):
    import tracemalloc

    put(tmp_path / "a.json", content(square(1, 1), imageData="A" * 2**24))
    write_image(tmp_path / "a.jpg")
    tracemalloc.start()
    rows = read_rows(labelme, tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(rows.rows) == 1 and peak < 4 * 2**24


# --- layouts ----------------------------------------------------------------------------------------------------------


def test_folders_are_splits(tmp_path):
    for split in ("val", "train"):
        put(tmp_path / split / "a.json", content(square(1, 1)))
        write_image(tmp_path / split / "a.jpg")
    assert labelme.recognize(tmp_path) == ("train", "val")
    assert list(read_rows(labelme, tmp_path, "val").images) == ["val/a.jpg"]


def test_other_folders_are_one_split(tmp_path):
    for folder in ("street", "park"):
        put(tmp_path / folder / "a.json", content(square(1, 1)))
        write_image(tmp_path / folder / "a.jpg")
    assert list(read_rows(labelme, tmp_path, "train").images) == ["park/a.jpg", "street/a.jpg"]


def test_one_json_is_a_dataset(tmp_path):
    one(tmp_path, square(1, 1))
    put(tmp_path / "b.json", content(imagePath="b.jpg"))
    assert list(read_rows(labelme, tmp_path / "a.json").images) == ["a.jpg"]


def test_keys_after_a_long_list_of_shapes_and_before_a_long_copy_are_recognised(tmp_path):
    long = content(*[square(1, 1)] * 2_000, imageData="A" * 100_000)
    assert labelme.recognize(put(tmp_path / "a.json", long)) == ("train",)
    turned = {key: long[key] for key in sorted(long)}
    put(tmp_path / "b.json", turned)
    assert labelme.recognize(tmp_path) == ("train",)


def test_other_formats_are_not_recognised(tmp_path):
    put(tmp_path / "coco" / "a.json", {"images": [], "annotations": [], "categories": []})
    put(tmp_path / "via" / "a.json", {"a.jpg1": {"filename": "a.jpg", "regions": []}})
    put(tmp_path / "text" / "a.json", b"shapes")
    put(tmp_path / "voc" / "a.xml", b"<annotation/>")
    for folder in tmp_path.iterdir():
        assert labelme.recognize(folder) is None
    assert labelme.recognize(tmp_path / "nowhere") is None


def test_a_missing_split_says_which_there_are(tmp_path):
    one(tmp_path)
    with pytest.raises(SynthgenError, match=r"no LabelMe split 'val' in .*; it has train"):
        labelme.files(tmp_path, "val", None)
    with pytest.raises(SynthgenError, match="no file or folder"):
        labelme.files(tmp_path, "train", tmp_path / "nowhere")


def test_the_user_may_name_another_folder_of_images(tmp_path):
    put(tmp_path / "d" / "a.json", content(square(1, 1)))
    write_image(tmp_path / "pics" / "a.jpg")
    files = labelme.files(tmp_path / "d", "train", None).with_image_folder(tmp_path / "pics")
    assert list(rows_of_files(labelme, files).images) == ["a.jpg"]


# --- broken files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", [b"", b'{"shapes": [', b"[" * 100_000, b"\xff\xfe", b'{"shapes": ' + b'{"a":' * 50_000],
    ids=["empty", "cut", "deep", "bytes", "deep object"],
)  # fmt: skip
def test_a_broken_json_is_an_image_with_an_error_and_the_others_go_on(tmp_path, text):
    put(tmp_path / "b.json", text)
    write_image(tmp_path / "b.jpg")
    images = one(tmp_path, square(1, 1)).images
    assert images == {"a.jpg": (30, 40, None), "b.jpg": (0, 0, "its JSON is not valid JSON in UTF-8")}


def test_a_json_of_another_kind_is_counted(tmp_path):
    put(tmp_path / "classes.json", {"names": ["cat"]})
    put(tmp_path / "list.json", [1, 2])
    found = one(tmp_path, square(1, 1))
    assert list(found.images) == ["a.jpg"] and found.findings["foreign_file"].count == 2


def test_nan_and_a_byte_order_mark_are_read(tmp_path):
    text = json.dumps(content(shape("rectangle", [[1, 2], [math.nan, 4]]), square(1, 1)))
    put(tmp_path / "a.json", b"\xef\xbb\xbf" + text.encode())
    write_image(tmp_path / "a.jpg")
    assert [row.flags for row in read_rows(labelme, tmp_path).rows] == [{"no_box"}, set()]


# --- real files -------------------------------------------------------------------------------------------------------


def test_the_sample_of_2label(shared):
    rows = read_rows(labelme, shared("data/formats/labelme__2label"))
    assert {name: len(own) for name, own in rows.objects.items()} == {
        "birds.jpg": 2, "crack.jpeg": 0, "shapes.jpg": 4, "strawberry.jpg": 17,
    }  # fmt: skip
    assert rows.findings["not_an_object"].count == 2 and rows.images["crack.jpeg"] == (720, 1280, None)
    names = [row.name for row in rows.rows]
    assert {name: names.count(name) for name in set(names)} == {
        "bird": 2, "rectangle": 1, "triangle": 1, "circle": 1, "ellipse": 1, "strawberry": 17,
    }  # fmt: skip


def test_the_sample_of_labelme_agrees_with_what_labelme_made_of_it(shared, tmp_path):
    """labelme2coco's masks of the same files: the same objects, and nearly the same pixels."""
    sample = shared("data/voc_labelme_sample")
    theirs = json.loads((sample / "coco_annotations.json").read_text())
    names = {one["id"]: one["name"] for one in theirs["categories"]}
    areas: dict[tuple[str, str], list[float]] = {}
    for own in theirs["annotations"]:
        image = next(one for one in theirs["images"] if one["id"] == own["image_id"])
        areas.setdefault((image["file_name"], names[own["category_id"]]), []).append(own["area"])
    ours: dict[tuple[str, str], list[float]] = {}
    for file_name, found in ingested(tmp_path, labelme, sample).items():
        for a in found.annotations:
            ours.setdefault((file_name, a.category), []).append(rle_area(a.segmentation))
    assert ours.keys() == areas.keys()
    for key, found in ours.items():
        assert sorted(found) == pytest.approx(sorted(areas[key]), rel=0.1)
