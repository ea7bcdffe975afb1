"""CVAT: shapes, rotation, groups, masks, subsets, tracks of videos, hostile files."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from fakes.reader_rows import first_batch_share, ingested, read_rows, rows_of_files, write_image

from synthgen.errors import SynthgenError
from synthgen.formats.readers import cvat
from synthgen.ingest.validation.validate import validate_dataset
from synthgen.records.rle import decode_mask, rle_area

META = "<version>1.1</version><meta><task><id>7</id><labels>{}</labels>{}</task></meta>"


def meta(*labels: str, more: str = "") -> str:
    return META.format("".join(f"<label><name>{label}</name></label>" for label in labels), more)


def image(*shapes: str, name: str = "a.jpg", more: str = 'width="40" height="30"') -> str:
    return f'<image id="0" name="{name}" {more}>{"".join(shapes)}</image>'


def box(x1: object, y1: object, x2: object, y2: object, more: str = "", label: str = "cat") -> str:
    return f'<box label="{label}" occluded="0" xtl="{x1}" ytl="{y1}" xbr="{x2}" ybr="{y2}" z_order="0" {more}></box>'


def put(root: Path, *inside: str, name: str = "annotations.xml") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    path = root / name
    path.write_text(f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>{"".join(inside)}</annotations>')
    return path


def one(root: Path, *shapes: str, layer: str = "annotations"):
    """The rows of a task with one image."""
    put(root, meta("cat", "dog"), image(*shapes))
    write_image(root / "images" / "a.jpg")
    return read_rows(cvat, root, layer=layer)


def masks(root: Path, *shapes: str):
    """The annotations after an ingest of the layer of masks."""
    one(root / "d", *shapes)
    return ingested(root / "store", cvat, root / "d")["images/a.jpg"].annotations


# --- shapes -----------------------------------------------------------------------------------------------------------


def test_a_box_is_read_as_its_corners_say(tmp_path):
    found = one(tmp_path, box("1.5", 2, 4, "8.25"), box(20, 15, 10, 5, label="dog"))
    assert found.boxes("images/a.jpg") == [(1.5, 2, 2.5, 6.25), (20, 15, -10, -10)]
    assert [(row.name, row.id) for row in found.rows] == [("cat", 1), ("dog", 2)] and found.names == {
        1: "cat",
        2: "dog",
    }


@pytest.mark.parametrize(
    ("rotation", "bbox", "flags"),
    [
        ("0", (10, 12, 20, 6), set()),
        ("90.00", (17, 5, 6, 20), set()),
        ("180", (10, 12, 20, 6), set()),
        ("45", (20 - 13 / math.sqrt(2), 15 - 13 / math.sqrt(2), 26 / math.sqrt(2), 26 / math.sqrt(2)), {"rotated"}),
        ("315", (20 - 13 / math.sqrt(2), 15 - 13 / math.sqrt(2), 26 / math.sqrt(2), 26 / math.sqrt(2)), {"rotated"}),
    ],
)
def test_a_rotated_box_becomes_the_upright_box_around_it(tmp_path, rotation, bbox, flags):
    [row] = one(tmp_path, box(10, 12, 30, 18, f'rotation="{rotation}"')).rows
    assert row.bbox == pytest.approx(bbox) and row.flags == flags and row.payload is None


def test_a_polygon_has_its_tight_box_and_a_mask(tmp_path):
    [a] = masks(tmp_path, '<polygon label="cat" points="10.00,5.00;20.00,5.00;20.00,15.00"/>')
    assert a.bbox == (10, 5, 10, 10) and 40 <= rle_area(a.segmentation) <= 60 and a.mask_source == "human"


def test_an_ellipse_has_its_tight_box_and_a_mask(tmp_path):
    upright, tilted, circle = masks(
        tmp_path,
        '<ellipse label="cat" cx="20" cy="15" rx="10" ry="5"/>',
        '<ellipse label="cat" cx="20" cy="15" rx="10" ry="5" rotation="30"/>',
        '<ellipse label="dog" cx="20" cy="15" rx="10" ry="10" rotation="30"/>',
    )
    assert upright.bbox == pytest.approx((10, 10, 20, 10)) and circle.bbox == pytest.approx((10, 5, 20, 20))
    half = math.hypot(10 * math.cos(math.pi / 6), 5 * math.sin(math.pi / 6))
    assert tilted.bbox[2] == pytest.approx(2 * half) and tilted.flags == ("rotated",) and not circle.flags
    for a, area in ((upright, 50 * math.pi), (tilted, 50 * math.pi), (circle, 100 * math.pi)):
        assert rle_area(a.segmentation) == pytest.approx(area, rel=0.04)


def test_the_mask_of_a_tilted_ellipse_turns_clockwise(tmp_path):
    """In CVAT a positive rotation turns to the right, with y downwards: the right end goes down."""
    [a] = masks(tmp_path, '<ellipse label="cat" cx="20" cy="15" rx="12" ry="2" rotation="30"/>')
    mask = decode_mask(a.segmentation)
    assert mask[19, 28] and not mask[11, 28] and mask[10, 11]


def test_a_cuboid_is_the_box_around_its_corners(tmp_path):
    corners = {"tl1": (5, 6), "bl1": (5, 20), "tr1": (15, 6), "br1": (15, 20)}
    corners |= {"tl2": (9, 3), "bl2": (9, 16), "tr2": (19, 3), "br2": (19, 16)}
    given = " ".join(f'x{key}="{x}" y{key}="{y}"' for key, (x, y) in corners.items())
    [row] = one(tmp_path, f'<cuboid label="cat" {given}/>').rows
    assert row.bbox == (5, 3, 14, 17) and not row.flags


def test_a_mask_goes_row_by_row_through_its_window(tmp_path):
    [a] = masks(tmp_path, '<mask label="cat" rle="1, 2, 3" left="10" top="5" width="3" height="2"/>')
    there = np.zeros((30, 40), bool)
    there[5, 11:13] = True
    assert (decode_mask(a.segmentation) == there).all() and a.bbox == (11, 5, 2, 1)


@pytest.mark.parametrize("rle", ["", "1,2", "-1,4,3", "1,2,3,99999999999999999999999", "x", "1,2,4", "6"])
def test_a_mask_that_cannot_be_read_leaves_its_box(tmp_path, rle):
    [a] = masks(tmp_path, f'<mask label="cat" rle="{rle}" left="10" top="5" width="3" height="2"/>')
    assert a.bbox == (10, 5, 3, 2) and a.flags == ("bad_segmentation",)


@pytest.mark.parametrize(
    "shape",
    [
        '<polyline label="cat" points="1,2;3,4"/>', '<points label="cat" points="1,2"/>', '<tag label="cat"/>',
        '<skeleton label="cat"><points label="nose" points="1,2"/><points label="ear" points="1,2"/></skeleton>',
        '<new_shape label="cat"/>',
    ],
)  # fmt: skip
def test_shapes_without_an_area_are_counted(tmp_path, shape):
    found = one(tmp_path, shape, box(1, 2, 3, 4))
    assert len(found.rows) == 1 and found.findings["not_an_object"].count == 1
    assert found.findings["not_an_object"].examples[0][1].endswith("'cat'")


@pytest.mark.parametrize(
    "shape",
    [
        box("", 1, 2, 3), box("x", 1, 2, 3), box("nan", 1, 2, 3), '<box label="cat"/>', '<polygon label="cat"/>',
        '<polygon label="cat" points="1,2;3,4"/>', '<polygon label="cat" points="1;2;3;4"/>', '<cuboid label="cat"/>',
        '<ellipse label="cat" cx="1" cy="2" rx="0" ry="2"/>', box(1, 2, 3, 4, 'rotation="x"'),
        '<mask label="cat" rle="1"/>',
    ],
)  # fmt: skip
def test_a_shape_that_cannot_be_read_stays_with_a_flag(tmp_path, shape):
    found = one(tmp_path, shape, box(1, 2, 3, 4)).rows
    assert [("no_box" in row.flags) for row in found] == [True, False]


def test_parts_of_a_group_with_one_label_are_one_object(tmp_path):
    def square(x: int, more: str, label: str = "cat") -> str:
        points = ";".join(f"{u},{v}" for u, v in ((x, 1), (x + 5, 1), (x + 5, 6), (x, 6)))
        return f'<polygon label="{label}" points="{points}" {more}/>'

    mask = '<mask label="dog" rle="0,4" left="30" top="20" width="2" height="2" group_id="2"/>'
    found = masks(tmp_path, square(1, 'group_id="1"'), square(10, 'group_id="0"'), square(20, 'group_id="1"'),
                  square(30, 'group_id="2"', "dog"), mask, box(1, 2, 3, 4, 'group_id="1"'))  # fmt: skip
    assert [(a.category, a.bbox) for a in found] == [
        ("cat", (1, 1, 24, 5)), ("cat", (10, 1, 5, 5)), ("dog", (30, 1, 5, 21)), ("cat", (1, 2, 2, 2)),
    ]  # fmt: skip
    assert [rle_area(a.segmentation) if a.segmentation else None for a in found] == [50, 25, 29, None]


# --- images and subsets -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "name", "found"),
    [
        ("images/a.jpg", "a.jpg", "images/a.jpg"),
        ("a.jpg", "a.jpg", "a.jpg"),
        ("images/b/a.jpg", "b/a.jpg", "images/b/a.jpg"),
        ("images/b/a.jpg", "b\\a.jpg", "images/b/a.jpg"),
        ("images/frame_000001.PNG", "frame_000001", "images/frame_000001.PNG"),
        ("images/b.jpg", "gone.jpg", "images/gone.jpg"),
        ("b.jpg", "gone", "gone.PNG"),
        ("images/frame_000000.png", "", "images/frame_000000.png"),
    ],
)
def test_images_lie_in_images_or_beside_the_file(tmp_path, there, name, found):
    put(tmp_path, meta("cat"), image(name=name))
    write_image(tmp_path / there)
    assert list(read_rows(cvat, tmp_path).images) == [found]


@pytest.mark.parametrize("name", ["../../etc/passwd.jpg", "/etc/passwd.jpg", "x" * 9_000, "..", "."])
def test_a_hostile_name_is_a_missing_image(tmp_path, name):
    put(tmp_path / "d", meta("cat"), image(box(1, 2, 3, 4), name=name, more=""))
    [(_, (height, width, error))] = read_rows(cvat, tmp_path / "d").images.items()
    assert (height, width, error) == (0, 0, None)
    ingested(tmp_path / "store", cvat, tmp_path / "d")


def test_a_missing_size_is_read_from_the_image(tmp_path):
    put(tmp_path, meta("cat"), image(more=""), image(name="gone.jpg", more='width="x" height="0"'))
    write_image(tmp_path / "a.jpg")
    assert read_rows(cvat, tmp_path).images == {"a.jpg": (30, 40, None), "gone.jpg": (0, 0, None)}


def project(*subsets: str) -> str:
    labels = "<labels><label><name>cat</name></label><label><name>nose</name><parent>cat</parent></label></labels>"
    return f"<meta><project>{labels}<subsets>{chr(10).join(subsets)}</subsets></project></meta>"


def test_subsets_of_a_project_are_splits(tmp_path):
    images = [image(box(1, 2, 3, 4), name=f"{s}.jpg", more=f'subset="{s}" task_id="1" width="40" height="30"')
              for s in ("Train", "Validation", "Train2", "other")]  # fmt: skip
    put(tmp_path, project("Train", "Validation", "Train2"), *images, image(name="none.jpg"))
    write_image(tmp_path / "images" / "Train" / "Train.jpg")
    assert cvat.recognize(tmp_path) == ("Train", "Validation", "Train2")
    rows = read_rows(cvat, tmp_path, "Train")
    assert list(rows.images) == ["images/Train/Train.jpg"] and set(rows.names.values()) == {"cat"}
    found = rows.findings["unlisted_subset"]
    assert found.count == 2 and found.examples[0][0] == "other.jpg"


def test_subsets_without_meta_are_found_at_the_images(tmp_path):
    put(tmp_path, *[image(name=f"{s}.jpg", more=f'subset="{s}"') for s in ("b", "a", "b2")])
    assert cvat.recognize(tmp_path) == ("b", "a", "b2")


@pytest.mark.parametrize(
    ("subset", "name", "splits"),
    [("Test", "annotations", ("Test",)), ("", "annotations", ("train",)), ("", "part_1", ("part_1",))],
)
def test_a_task_is_one_split(tmp_path, subset, name, splits):
    path = put(tmp_path, meta("cat", more=f"<subset>{subset}</subset>"), image(), name=f"{name}.xml")
    assert cvat.recognize(tmp_path) == cvat.recognize(path) == splits
    assert len(read_rows(cvat, tmp_path).images) == 1


def test_files_and_folders_are_splits(tmp_path):
    for name in ("b", "a"):
        put(tmp_path / "files", meta("cat"), image(name=f"{name}.jpg"), name=f"{name}.xml")
    for name in ("val", "train"):
        put(tmp_path / "folders" / name, meta("cat", more="<subset>x</subset>"), image(name=f"{name}.jpg"))
        write_image(tmp_path / "folders" / name / "images" / f"{name}.jpg")
    assert cvat.recognize(tmp_path / "files") == ("a", "b")
    assert list(read_rows(cvat, tmp_path / "files", "b").images) == ["b.jpg"]
    assert cvat.recognize(tmp_path / "folders") == ("train", "val")
    assert list(read_rows(cvat, tmp_path / "folders", "val").images) == ["val/images/val.jpg"]


def test_other_formats_are_not_recognised(tmp_path):
    (tmp_path / "voc").mkdir()
    (tmp_path / "voc" / "a.xml").write_text("<annotation><filename>a</filename></annotation>")
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "annotations.xml").write_text("<annotations><note/></annotations>")
    assert cvat.recognize(tmp_path / "voc") is None and cvat.recognize(tmp_path / "else") is None
    assert cvat.recognize(tmp_path / "nowhere") is None


def test_a_missing_split_says_which_there_are(tmp_path):
    put(tmp_path, meta("cat"), image())
    with pytest.raises(SynthgenError, match=r"no CVAT split 'val' in .*; it has train"):
        cvat.files(tmp_path, "val", None)
    with pytest.raises(SynthgenError, match=r"no file .*nowhere.xml"):
        cvat.files(tmp_path, "train", tmp_path / "nowhere.xml")


def test_the_user_may_name_another_folder_of_images(tmp_path):
    path = put(tmp_path / "d", meta("cat"), image())
    write_image(tmp_path / "pics" / "a.jpg")
    files = cvat.files(tmp_path / "d", "train", path).with_image_folder(tmp_path / "pics")
    assert list(rows_of_files(cvat, files).images) == ["a.jpg"]


# --- video ------------------------------------------------------------------------------------------------------------

SIZE = "<original_size><width>40</width><height>30</height></original_size>"


def track(*frames: str, more: str = "", label: str = "cat") -> str:
    return f'<track id="0" label="{label}" {more}>{"".join(frames)}</track>'


def frame(number: object, x: int, outside: int = 0) -> str:
    return f'<box frame="{number}" outside="{outside}" keyframe="1" xtl="{x}" ytl="2" xbr="{x + 5}" ybr="9"/>'


def test_tracks_give_boxes_in_the_frames_where_they_are_not_outside(tmp_path):
    put(tmp_path, meta("cat", "dog", more=SIZE), track(frame(0, 1), frame(1, 2), frame(2, 3, 1)),
        track(frame(1, 20), frame(7, 21), label="dog"))  # fmt: skip
    write_image(tmp_path / "images" / "frame_000001.jpg")
    rows = read_rows(cvat, tmp_path)
    assert {name: [(row.name, row.bbox) for row in own] for name, own in rows.objects.items()} == {
        "images/frame_000000.PNG": [("cat", (1, 2, 5, 7))],
        "images/frame_000001.jpg": [("cat", (2, 2, 5, 7)), ("dog", (20, 2, 5, 7))],
        "images/frame_000002.PNG": [],
        "images/frame_000007.PNG": [("dog", (21, 2, 5, 7))],
    }
    assert set(rows.images.values()) == {(30, 40, None)}


def test_tracks_of_a_project_belong_to_their_subset(tmp_path):
    put(
        tmp_path,
        project("Train", "Test"),
        track(frame(0, 1), more='subset="Train"'),
        track(frame(0, 2), more='subset="Test"'),
    )
    write_image(tmp_path / "images" / "Test" / "frame_000000.PNG")
    rows = read_rows(cvat, tmp_path, "Test")
    assert rows.boxes("images/Test/frame_000000.PNG") == [(2, 2, 5, 7)] and len(rows.images) == 1


@pytest.mark.parametrize("number", ["", "x", "-1", "99999999999999999999", "1.5"])
def test_a_shape_without_a_frame_is_counted(tmp_path, number):
    put(tmp_path, meta("cat"), track(frame(number, 1), frame(3, 1)))
    rows = read_rows(cvat, tmp_path)
    assert len(rows.rows) == 1 and rows.findings["not_an_object"].count == 1


# --- hostile and large files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            '<!DOCTYPE a [<!ENTITY b "c">]><annotations><version>&b;</version></annotations>',
            "document type or an entity",
        ),
        ("<annotations><version>1.1</version>" + "<a>" * 5_000, "more than 64 nested elements"),
        ("<annotations><version>1.1</version><image ", "not valid XML"),
        ("<annotations><version>1.1</version></annotations><a/>", "not valid XML"),
    ],
    ids=["entity", "deep", "cut", "two roots"],
)
def test_a_broken_file_is_refused_in_one_sentence(tmp_path, text, why):
    (tmp_path / "annotations.xml").write_text(text)
    with pytest.raises(SynthgenError, match=why) as told:
        list(cvat.read(cvat.files(tmp_path, "train", tmp_path / "annotations.xml"), "annotations"))
    assert "\n" not in str(told.value)


def test_a_large_file_is_streamed(tmp_path, monkeypatch):
    put(tmp_path, meta("cat"), *[image(*[box(1, 2, 3, 4)] * 50, name=f"{n}.jpg") for n in range(60)])
    assert first_batch_share(cvat, cvat.files(tmp_path, "train", None), monkeypatch) < 0.5


def test_an_image_without_shapes_stays_and_the_doctor_reads_all(tmp_path):
    one(tmp_path, box(1, 2, 3, 4))
    put(tmp_path, meta("cat"), image(box(1, 2, 3, 4)), image(name="b.jpg"))
    write_image(tmp_path / "images" / "b.jpg")
    [split] = validate_dataset("cvat", tmp_path, ["train"]).splits
    assert (split.images, split.boxes, {f.code for f in split.findings}) == (2, 1, {"no_boxes"})


# --- real files -------------------------------------------------------------------------------------------------------


def test_the_sample_of_2label(shared):
    rows = read_rows(cvat, shared("data/formats/cvat-images__2label"))
    assert {name: len(own) for name, own in rows.objects.items()} == {
        "images/birds.jpg": 2, "images/crack.jpeg": 0, "images/shapes.jpg": 4, "images/strawberry.jpg": 17,
    }  # fmt: skip
    assert rows.findings["not_an_object"].count == 2 and len(rows.names) == 8
    assert rows.boxes("images/shapes.jpg")[1] == pytest.approx((45.8, 45.8, 184.81, 140.52))


def test_the_same_pictures_in_labelme_have_nearly_the_same_boxes(shared):
    from synthgen.formats.readers import labelme

    ours = read_rows(cvat, shared("data/formats/cvat-images__2label"))
    theirs = read_rows(labelme, shared("data/formats/labelme__2label"))
    for name in ("birds.jpg", "strawberry.jpg"):
        left, right = sorted(ours.boxes(f"images/{name}")), sorted(theirs.boxes(name))
        assert len(left) == len(right)
        for bbox in left:
            assert min(max(abs(a - b) for a, b in zip(bbox, other, strict=True)) for other in right) < 25


def test_what_labelformat_writes_from_coco_is_read_back(shared, tmp_path):
    import json

    from labelformat.formats.coco import COCOObjectDetectionInput
    from labelformat.formats.cvat import CVATObjectDetectionOutput

    source = shared("data/coco_tiny/annotations/instances_val2017.json")
    CVATObjectDetectionOutput(tmp_path).save(COCOObjectDetectionInput(source))
    content = json.loads(source.read_text())
    names = {one["id"]: one["name"] for one in content["categories"]}
    files = {one["id"]: one["file_name"] for one in content["images"]}
    wanted = sorted((files[a["image_id"]], names[a["category_id"]], a["bbox"]) for a in content["annotations"])
    rows = read_rows(cvat, tmp_path)
    found = sorted((name, row.name, list(row.bbox)) for name, own in rows.objects.items() for row in own)
    assert [one[:2] for one in found] == [one[:2] for one in wanted]
    assert all(a[2] == pytest.approx(b[2], abs=1e-6) for a, b in zip(found, wanted, strict=True))
