"""VIA: regions, the attribute that is the class, JSON and CSV, layouts, hostile files."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
from fakes.reader_rows import first_batch_share, ingested, read_rows, rows_of_files, write_image

from synthgen.errors import SynthgenError
from synthgen.formats.readers import via
from synthgen.records.rle import decode_mask, rle_area


def region(name: str = "rect", attributes: Any = None, **shape: Any) -> dict[str, Any]:
    return {
        "shape_attributes": {"name": name, **shape},
        "region_attributes": {"class": "cat"} if attributes is None else attributes,
    }


def rect(x: Any = 1, y: Any = 2, width: Any = 3, height: Any = 4, attributes: Any = None) -> dict[str, Any]:
    return region("rect", attributes, x=x, y=y, width=width, height=height)


def entry(*regions: Any, name: Any = "a.jpg", size: int = -1) -> dict[str, Any]:
    return {"filename": name, "size": size, "regions": list(regions), "file_attributes": {}}


def put(path: Path, *entries: Any, project: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    images = {f"{one['filename']}{one['size']}": one for one in entries}
    whole: Any = images
    if project:
        whole = {
            "_via_settings": {"core": {"filepath": {}}},
            "_via_img_metadata": images,
            "_via_attributes": {"region": {}},
        }
    path.write_text(json.dumps(whole))
    return path


def one(root: Path, *regions: Any, layer: str = "annotations"):
    """The rows of a folder with one image."""
    put(root / "via_region_data.json", entry(*regions))
    write_image(root / "a.jpg")
    return read_rows(via, root, layer=layer)


def masks(root: Path, *regions: Any):
    """The annotations after an ingest of the layer of masks."""
    one(root / "d", *regions)
    return ingested(root / "store", via, root / "d")["a.jpg"].annotations


# --- shapes -----------------------------------------------------------------------------------------------------------


def test_a_rect_is_x_y_width_height_and_the_size_comes_from_the_image(tmp_path):
    found = one(tmp_path, rect(), rect("1.5", 2.25, 3, 4))
    assert found.boxes("a.jpg") == [(1, 2, 3, 4), (1.5, 2.25, 3, 4)] and found.images == {"a.jpg": (30, 40, None)}
    assert [row.name for row in found.rows] == ["cat", "cat"]


def test_the_size_is_that_of_the_picture_as_browsers_show_it(tmp_path):
    from PIL import Image

    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg", exif=turned)
    put(tmp_path / "via_region_data.json", entry(rect()))
    assert read_rows(via, tmp_path).images == {"a.jpg": (40, 30, None)}


def test_polygons_circles_and_ellipses_have_masks(tmp_path):
    polygon, circle, ellipse, tilted = masks(
        tmp_path,
        region("polygon", all_points_x=[10, 20, 20], all_points_y=[5, 5, 15]),
        region("circle", cx=20, cy=15, r=10),
        region("ellipse", cx=20, cy=15, rx=12, ry=2),
        region("ellipse", cx=20, cy=15, rx=12, ry=2, theta=math.pi / 6),
    )
    assert polygon.bbox == (10, 5, 10, 10) and 40 <= rle_area(polygon.segmentation) <= 60
    assert circle.bbox == pytest.approx((10, 5, 20, 20)) and rle_area(circle.segmentation) == pytest.approx(
        314, rel=0.03
    )
    assert ellipse.bbox == pytest.approx((8, 13, 24, 4)) and not ellipse.flags
    assert tilted.flags == ("rotated",) and decode_mask(tilted.segmentation)[19, 28]


def test_lines_and_points_are_counted(tmp_path):
    line = region("polyline", all_points_x=[1, 2, 3], all_points_y=[1, 2, 3])
    found = one(tmp_path, line, region("point", cx=1, cy=2), region("star", cx=1), rect())
    assert len(found.rows) == 1 and found.findings["not_an_object"].count == 3
    assert found.findings["not_an_object"].examples[0] == ("a.jpg", "polyline 'cat'")


@pytest.mark.parametrize(
    "bad",
    [
        rect("x"), rect(None), rect(math.nan), region("rect"), region("circle", cx=1, cy=2, r=0), region("circle"),
        region("polygon", all_points_x=[1, 2, 3], all_points_y=[1, 2]),
        region("polygon", all_points_x=[1, 2], all_points_y=[1, 2]),
        region("polygon", all_points_x="123", all_points_y="123"), region("ellipse", cx=1, cy=2, rx=3), {}, None, 7,
        {"shape_attributes": None, "region_attributes": {"class": "cat"}},
    ],
)  # fmt: skip
def test_a_region_that_cannot_be_read_stays_with_a_flag(tmp_path, bad):
    assert [row.flags for row in one(tmp_path, bad, rect()).rows] == [{"no_box"}, set()]


def test_regions_stored_twice_are_flagged(tmp_path):
    found = masks(tmp_path, rect(), rect(5, 5), rect(), rect())
    assert [a.flags for a in found] == [(), (), ("duplicate",), ("duplicate",)]


def test_regions_of_via_1_are_an_object(tmp_path):
    path = put(tmp_path / "via_region_data.json", entry())
    content = json.loads(path.read_text())
    next(iter(content.values()))["regions"] = {"0": rect(), "1": rect(5)}
    path.write_text(json.dumps(content))
    assert len(read_rows(via, tmp_path).rows) == 2


# --- the class --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attributes", "names"),
    [
        ([{"animal": "cat"}, {"animal": "dog"}], ["cat", "dog"]),
        ([{"colour": "red", "Label": "cat"}, {"colour": "blue", "Label": "dog"}], ["cat", "dog"]),
        ([{"name": "Tom", "class": "cat"}, {"name": "Rex", "class": "dog"}], ["cat", "dog"]),
        ([{"a": "cat", "type": ""}, {"a": "dog", "type": ""}], ["cat", "dog"]),
        ([{"b": "x", "a": "cat"}, {"b": "y", "a": "dog"}], ["cat", "dog"]),
        ([{"b": "cat", "a": "x"}, {"b": "dog"}], ["cat", "dog"]),
        ([{"class": "cat"}, {}], ["cat", ""]),
        ([{}, {}], ["", ""]),
        ([{"class": 7}, {"class": 7.0}], ["7", "7"]),
        ([{"class": {"cat": True, "dog": False}}, {"class": {"cat": False}}], ["cat", ""]),
        ([{"class": "undefined"}, {"class": None}], ["undefined", ""]),
    ],
)
def test_the_class_is_an_attribute_with_a_usual_name_or_the_one_that_most_have(tmp_path, attributes, names):
    found = one(tmp_path, *(rect(attributes=own) for own in attributes))
    assert [row.name for row in found.rows] == names


def test_a_usual_name_that_few_regions_have_is_not_the_class(tmp_path):
    rare = {"animal": "cat", "type": "indoor"}
    found = one(tmp_path, rect(attributes=rare), *[rect(attributes={"animal": "dog"})] * 4)
    assert [row.name for row in found.rows] == ["cat", *["dog"] * 4]
    examples = found.findings["class_attribute"].examples
    assert examples == (("animal", "5 of 5 regions have it; it is the class"), ("type", "1 of 5 regions have it"))


def test_a_checkbox_with_several_values_gives_the_first_and_is_counted(tmp_path):
    found = one(tmp_path, rect(attributes={"class": {"cat": True, "dog": True}}))
    assert found.rows[0].name == "cat" and found.findings["several_labels"].examples == (("a.jpg", "cat, dog"),)


# --- images and layouts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "name", "found"),
    [
        ("a.jpg", "a.jpg", "a.jpg"),
        ("images/a.jpg", "a.jpg", "images/a.jpg"),
        ("b/a.jpg", "b/a.jpg", "b/a.jpg"),
        ("a.jpg", "C:\\pics\\a.jpg", "a.jpg"),
        ("a.jpg", "../../a.jpg", "a.jpg"),
        ("a.jpg", "/srv/me/a.jpg", "a.jpg"),
        ("a b.jpg", "https://example.org/pics/a%20b.jpg?x=1", "a b.jpg"),
        ("b.jpg", "gone.jpg", "gone.jpg"),
        ("b.jpg", "http://[bad/gone.jpg", "gone.jpg"),
    ],
)
def test_images_are_found_by_their_path_or_its_last_part(tmp_path, there, name, found):
    put(tmp_path / "via_region_data.json", entry(rect(), name=name))
    write_image(tmp_path / there)
    assert list(read_rows(via, tmp_path).images) == [found]


@pytest.mark.parametrize("name", ["", None, 7, "x" * 9_000, "a\0.jpg", "..", "/"])
def test_a_hostile_name_is_a_row_with_an_error_or_a_missing_image(tmp_path, name):
    put(tmp_path / "d" / "via_region_data.json", entry(rect(), name=name))
    assert len(read_rows(via, tmp_path / "d").images) == 1
    [sample] = ingested(tmp_path / "store", via, tmp_path / "d").values()
    assert len(sample.annotations) == 1 and (sample.height, sample.width) == (0, 0)


@pytest.mark.parametrize("project", [False, True])
def test_projects_and_exports_are_read_the_same(tmp_path, project):
    path = put(tmp_path / "x.json", entry(rect()), entry(name="b.jpg"), project=project)
    assert via.recognize(tmp_path) == via.recognize(path) == ("train",)
    assert {name: len(own) for name, own in read_rows(via, path).objects.items()} == {"a.jpg": 1, "b.jpg": 0}


def test_folders_are_splits(tmp_path):
    for split in ("val", "train"):
        put(tmp_path / split / "via_region_data.json", entry(rect()))
        write_image(tmp_path / split / "a.jpg")
    assert via.recognize(tmp_path) == ("train", "val")
    assert read_rows(via, tmp_path, "val").images == {"val/a.jpg": (30, 40, None)}


def test_an_export_is_read_and_other_files_beside_it_are_not(tmp_path):
    put(tmp_path / "via_region_data.json", entry(rect()))
    put(tmp_path / "via_project_1.json", entry(rect(), rect()), project=True)
    assert via.recognize(tmp_path) == ("train",) and len(read_rows(via, tmp_path).rows) == 1


def test_several_files_are_splits(tmp_path):
    for name in ("b", "a"):
        put(tmp_path / f"{name}.json", entry(rect(), name=f"{name}.jpg"))
    assert via.recognize(tmp_path) == ("a", "b") and list(read_rows(via, tmp_path, "b").images) == ["b.jpg"]


def test_other_formats_are_not_recognised(tmp_path):
    for name, text in (
        ("coco", '{"images": [{"file_name": "a"}], "annotations": []}'),
        ("labelme", '{"shapes": [], "imagePath": "a.jpg"}'),
        ("list", '[{"filename": "a", "regions": []}]'),
        ("other", '{"filename": "a"}'),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.json").write_text(text)
        assert via.recognize(tmp_path / name) is None
    assert via.recognize(tmp_path / "nowhere") is None


def test_via_3_is_recognised_and_refused_with_the_remedy(tmp_path):
    path = tmp_path / "p.json"
    path.write_text('{"project": {"pid": "__VIA_PROJECT_ID__", "data_format_version": "3.1.1"}, "metadata": {}}')
    assert via.recognize(tmp_path) == ("p",) or via.recognize(tmp_path) == ("train",)
    with pytest.raises(SynthgenError, match=r"a project of VIA 3, which is not supported; export it from VIA as COCO"):
        via.files(tmp_path, "train", None)


def test_a_missing_split_says_which_there_are(tmp_path):
    one(tmp_path)
    with pytest.raises(SynthgenError, match=r"no VIA split 'val' in .*; it has train"):
        via.files(tmp_path, "val", None)
    with pytest.raises(SynthgenError, match="no file"):
        via.files(tmp_path, "train", tmp_path / "nowhere.json")


def test_the_user_may_name_another_folder_of_images(tmp_path):
    path = put(tmp_path / "d" / "x.json", entry(rect()))
    write_image(tmp_path / "pics" / "a.jpg")
    files = via.files(tmp_path / "d", "train", path).with_image_folder(tmp_path / "pics")
    assert rows_of_files(via, files).images == {"a.jpg": (30, 40, None)}


# --- CSV --------------------------------------------------------------------------------------------------------------

HEADER = [
    "filename",
    "file_size",
    "file_attributes",
    "region_count",
    "region_id",
    "region_shape_attributes",
    "region_attributes",
]


def put_csv(path: Path, *lines: list[Any], header: list[str] = HEADER) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *lines])
    return path


def line(name: str, shape: Any, attributes: Any) -> list[Any]:
    return [name, -1, "{}", 1, 0, shape if isinstance(shape, str) else json.dumps(shape), json.dumps(attributes)]


def test_a_csv_has_a_line_for_each_region(tmp_path):
    shape = {"name": "rect", "x": 1, "y": 2, "width": 3, "height": 4}
    put_csv(tmp_path / "via_export_csv.csv", line("a.jpg", shape, {"class": "cat"}), line("b.jpg", "{}", {}),
            line("a.jpg", {**shape, "x": 9}, {"class": "dog"}), header=["#filename", *HEADER[1:]])  # fmt: skip
    rows = read_rows(via, tmp_path)
    assert {name: [(row.name, row.bbox) for row in own] for name, own in rows.objects.items()} == {
        "a.jpg": [("cat", (1, 2, 3, 4)), ("dog", (9, 2, 3, 4))], "b.jpg": [],
    }  # fmt: skip


@pytest.mark.parametrize("shape", ["x", "[1]", "{", '{"name": "rect"}', "[" * 10_000])
def test_a_broken_region_of_a_csv_stays_with_a_flag(tmp_path, shape):
    put_csv(tmp_path / "a.csv", line("a.jpg", shape, {"class": "cat"}))
    assert [row.flags for row in read_rows(via, tmp_path / "a.csv").rows] == [{"no_box"}]


def test_lines_of_a_csv_that_cannot_be_read_are_counted(tmp_path):
    shape = {"name": "rect", "x": 1, "y": 2, "width": 3, "height": 4}
    path = put_csv(
        tmp_path / "a.csv",
        line("a.jpg", shape, {}),
        ["short"],
        line("b.jpg", "x" * 200_000, {}),
        line("c.jpg", shape, {}),
    )
    rows = read_rows(via, path)
    assert list(rows.images) == ["a.jpg", "c.jpg"] and rows.findings["unreadable_line"].count == 2


def test_a_csv_of_another_kind_and_an_endless_line_are_refused(tmp_path):
    for text, why in (
        ("a,b\n1,2\n", "has no column filename"),
        (",".join(HEADER) + "\n" + "x" * 2**21, "a line of more than 1 MiB"),
    ):
        (tmp_path / "a.csv").write_text(text)
        with pytest.raises(SynthgenError, match=why):
            list(via.read(via.files(tmp_path, "train", tmp_path / "a.csv"), "annotations"))


# --- broken and large files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        '{"a": {"filename": "a.jpg", "regions": [',
        '{"a": {"regions": [}}',
        "[]",
        '{"a": {"filename": "a"}} x',
        '{"a": {"regions": [' + "[" * 20_000,
    ],
    ids=["cut", "brackets", "list", "more", "deep"],
)
def test_a_broken_json_is_refused_in_one_sentence(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(SynthgenError) as why:
        list(via.read(via.files(tmp_path, "train", tmp_path / "a.json"), "annotations"))
    assert "\n" not in str(why.value) and "a.json" in str(why.value)


def test_a_large_file_is_streamed(tmp_path, monkeypatch):
    put(tmp_path / "a.json", *[entry(*[rect()] * 50, name=f"{n}.jpg") for n in range(400)])
    assert first_batch_share(via, via.files(tmp_path, "train", None), monkeypatch) < 0.5


# --- real files -------------------------------------------------------------------------------------------------------


def test_the_sample_of_2label(shared, tmp_path):
    sample = shared("data/formats/via__2label")
    rows = read_rows(via, sample)
    assert {name: len(own) for name, own in rows.objects.items()} == {
        "birds.jpg": 2, "crack.jpeg": 0, "shapes.jpg": 4, "strawberry.jpg": 34,
    }  # fmt: skip
    assert rows.findings["not_an_object"].count == 2 and rows.images["crack.jpeg"] == (720, 1280, None)
    names = [row.name for row in rows.rows]
    assert names.count("strawberry") == 34 and names.count("bird") == 2 and len(set(names)) == 6
    found = ingested(tmp_path, via, sample)["strawberry.jpg"].annotations
    assert sum("duplicate" in a.flags for a in found) == 17


def test_the_csv_beside_it_has_the_same_regions_once(shared):
    sample = shared("data/formats/via__2label")
    once, twice = read_rows(via, sample / "via_region_data.csv"), read_rows(via, sample)
    assert len(once.rows) == 23 and once.findings["not_an_object"].count == 2
    for name, own in once.objects.items():
        assert {(row.name, row.bbox) for row in own} == {(row.name, row.bbox) for row in twice.objects[name]}
