"""Pascal VOC: layouts, coordinates, odd XML, polygons, masks of objects, hostile files."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from fakes.reader_rows import ingested, read_rows, rows_of_files, write_image
from PIL import Image

from synthgen.errors import SynthgenError
from synthgen.formats.readers import voc
from synthgen.ingest.validation.validate import validate_dataset
from synthgen.records.rle import decode_mask, rle_area


def box(xmin: object, ymin: object, xmax: object, ymax: object) -> str:
    return f"<bndbox><xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox>"


def thing(inside: str, name: str = "cat") -> str:
    return f"<object><name>{name}</name>{inside}</object>"


def xml(*objects: str, size: tuple[object, object] | None = (40, 30), head: str = "<filename>a.jpg</filename>") -> str:
    shown = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>" if size else ""
    return f"<annotation>{head}{shown}{''.join(objects)}</annotation>"


def put(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def one(root: Path, text: str | bytes, layer: str = "annotations"):
    """The rows of a folder with one XML and its image."""
    put(root / "Annotations" / "a.xml", text)
    write_image(root / "JPEGImages" / "a.jpg")
    return read_rows(voc, root, layer=layer)


OWN = "<source><database>The VOC2007 Database</database></source><filename>a.jpg</filename>"


# --- coordinates ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "bbox"),
    [
        (OWN, (0, 4, 20, 11)),
        ("<source><annotation>PASCAL VOC2012</annotation></source>", (0, 4, 20, 11)),
        ("<source><database>Unknown</database></source>", (1, 5, 19, 10)),
        ("", (1, 5, 19, 10)),
    ],
)
def test_only_files_of_voc_itself_count_pixels_from_one(tmp_path, head, bbox):
    rows = one(tmp_path, xml(thing(box(1, 5, 20, 15)), head=head))
    assert rows.boxes("JPEGImages/a.jpg") == [bbox]


def test_a_box_of_voc_over_the_whole_image_is_the_whole_image(tmp_path):
    rows = one(tmp_path, xml(thing(box(1, 1, 40, 30)), head=OWN))
    assert rows.boxes("JPEGImages/a.jpg") == [(0, 0, 40, 30)]


def test_numbers_may_be_floats_and_exchanged_corners_stay(tmp_path):
    found = one(tmp_path, xml(thing(box("1.5", " 2.25 ", "3.75", "9")), thing(box(20, 15, 10, 5))))
    assert found.boxes("JPEGImages/a.jpg") == [(1.5, 2.25, 2.25, 6.75), (20, 15, -10, -10)]
    sample = ingested(tmp_path / "store", voc, tmp_path)["JPEGImages/a.jpg"]
    assert [a.flags for a in sample.annotations] == [(), ("degenerate",)]


@pytest.mark.parametrize("inside", ["", box("", 1, 2, 3), box("x", 1, 2, 3), box("nan", 1, 2, 3), "<bndbox/>"])
def test_an_object_without_a_readable_box_stays_with_a_flag(tmp_path, inside):
    [row] = one(tmp_path, xml(thing(inside))).rows
    assert row.flags == {"no_box"} and row.name == "cat" and all(map(math.isnan, row.bbox))


def test_difficult_is_kept_and_parts_are_counted(tmp_path):
    part = f"<part><name>head</name>{box(1, 1, 2, 2)}</part>"
    found = one(
        tmp_path,
        xml(
            thing(f"<difficult>1</difficult>{box(1, 2, 3, 4)}{part}"),
            thing(f"<difficult>0</difficult>{box(1, 2, 3, 5)}"),
        ),
    )
    assert [row.flags for row in found.rows] == [{"difficult"}, set()]
    assert found.findings["not_an_object"].count == 1
    assert found.findings["not_an_object"].examples == (("JPEGImages/a.jpg", "part 'head' of 'cat'"),)


def test_an_object_with_two_boxes_is_two_objects(tmp_path):
    found = one(tmp_path, xml(thing(box(1, 2, 3, 4) + box(5, 6, 9, 9))))
    assert found.boxes("JPEGImages/a.jpg") == [(1, 2, 2, 2), (5, 6, 4, 3)] and [row.id for row in found.rows] == [1, 2]


@pytest.mark.parametrize(
    ("angle", "bbox", "flags"),
    [
        (0, (10, 12, 20, 6), set()),
        (math.pi / 2, (17, 5, 6, 20), set()),
        (3.141592653589793, (10, 12, 20, 6), set()),
        (
            math.pi / 4,
            (20 - 13 / math.sqrt(2), 15 - 13 / math.sqrt(2), 26 / math.sqrt(2), 26 / math.sqrt(2)),
            {"rotated"},
        ),
    ],
)
def test_a_rotated_box_becomes_the_upright_box_around_it(tmp_path, angle, bbox, flags):
    inside = f"<robndbox><cx>20</cx><cy>15</cy><w>20</w><h>6</h><angle>{angle}</angle></robndbox>"
    [row] = one(tmp_path, xml(thing(inside))).rows
    assert row.bbox == pytest.approx(bbox) and row.flags == flags


def test_categories_have_the_same_numbers_and_order_in_all_splits(tmp_path):
    for split, names in (("train", ("dog", "cat")), ("val", ("cat", "dog"))):
        put(tmp_path / split / "a.xml", xml(*(thing(box(1, 2, 3, 4), name) for name in names)))
    train, val = (list(read_rows(voc, tmp_path, split).names.items()) for split in ("train", "val"))
    assert train == val and [name for _, name in train] == ["cat", "dog"]


def test_names_are_stripped_and_may_be_missing(tmp_path):
    found = one(tmp_path, xml(thing(box(1, 2, 3, 4), " cat "), thing(box(1, 2, 3, 4), ""), thing(box(1, 2, 3, 4), "7")))
    assert [row.name for row in found.rows] == ["cat", "", "7"]


# --- sizes and file names ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [None, (0, 0), ("", ""), ("x", 30)])
def test_a_missing_size_is_read_from_the_image(tmp_path, size):
    assert one(tmp_path, xml(thing(box(1, 2, 3, 4)), size=size)).images == {"JPEGImages/a.jpg": (30, 40, None)}


def test_a_size_with_a_decimal_point_is_a_size(tmp_path):
    assert one(tmp_path, xml(size=("41.0", "31.0"))).images == {"JPEGImages/a.jpg": (31, 41, None)}


@pytest.mark.parametrize("name", ["a", "b.jpg", "../../b.jpg", "C:\\data\\b.jpg", "", "/etc/passwd", "x" * 5_000])
def test_the_name_of_the_xml_decides(tmp_path, name):
    head = f"<filename>{name}</filename><path>D:\\other\\c.jpg</path>"
    assert list(one(tmp_path, xml(head=head)).images) == ["JPEGImages/a.jpg"]


def test_the_file_name_inside_decides_only_if_no_image_has_the_name_of_the_xml(tmp_path):
    put(tmp_path / "Annotations" / "1.xml", xml(head="<filename>D:\\pics\\b.jpg</filename>"))
    put(tmp_path / "Annotations" / "2.xml", xml(head="<filename>../../c.png</filename>"))
    put(tmp_path / "Annotations" / "3.xml", xml(head="<filename>nothing</filename>"))
    write_image(tmp_path / "JPEGImages" / "b.jpg")
    rows = read_rows(voc, tmp_path)
    assert list(rows.images) == ["JPEGImages/b.jpg", "JPEGImages/c.png", "JPEGImages/3.jpg"]
    assert "unlabeled_image" not in rows.findings


def test_an_image_that_is_not_there_is_a_row_that_the_doctor_reports(tmp_path):
    one(tmp_path, xml(thing(box(1, 2, 3, 4))))
    put(tmp_path / "Annotations" / "b.xml", xml(thing(box(1, 2, 3, 4)), head="<filename>b.jpg</filename>"))
    [split] = validate_dataset("voc", tmp_path, ["train"]).splits
    assert (split.images, split.boxes) == (2, 2)
    assert {f.code: f.count for f in split.findings} == {"missing": 1, "too_many_lost": 1}


def test_images_without_xml_and_with_the_same_stem_are_counted(tmp_path):
    for name in ("b.jpg", "c.png", "a.png"):
        write_image(tmp_path / "JPEGImages" / name)
    found = one(tmp_path, xml(thing(box(1, 2, 3, 4)))).findings
    assert found["unlabeled_image"].count == 2 and found["unlabeled_image"].examples[0][0] == "JPEGImages/b.jpg"
    assert found["same_stem"].examples == (("JPEGImages/a.png", "its annotations belong to JPEGImages/a.jpg"),)


# --- layouts ----------------------------------------------------------------------------------------------------------


def fill(labels: Path, images: Path, *stems: str) -> None:
    for stem in stems:
        put(labels / f"{stem}.xml", xml(thing(box(1, 2, 3, 4))))
        write_image(images / f"{stem}.jpg")


def test_lists_of_imagesets_are_the_splits(tmp_path):
    fill(tmp_path / "Annotations", tmp_path / "JPEGImages", "a", "b", "c", "d")
    lists = tmp_path / "ImageSets" / "Main"
    put(lists / "train.txt", "a\r\nb\n\n")
    put(lists / "val.txt", "c\nmissing\n../../../etc/passwd\nc\n")
    put(lists / "trainval.txt", "a\nb\nc\n")
    put(lists / "cat_train.txt", "a  1\nb -1\n")
    assert voc.recognize(tmp_path) == ("train", "val")
    assert list(read_rows(voc, tmp_path, "train").images) == ["JPEGImages/a.jpg", "JPEGImages/b.jpg"]
    rows = read_rows(voc, tmp_path, "val")
    assert list(rows.images) == ["JPEGImages/c.jpg", "JPEGImages/missing.jpg", "JPEGImages/../../../etc/passwd.jpg"]
    assert "there is no XML file missing.xml" in str(rows.images["JPEGImages/missing.jpg"][2])
    assert "unlabeled_image" not in rows.findings  # d.xml is there, and in no list


@pytest.mark.parametrize("text", ["a.jpg\nb.v2.png\n", "a.XML\nb.v2\n", "\ufeffa\r\nb.v2\r\n"])
def test_lists_may_have_suffixes_and_a_byte_order_mark(tmp_path, text):
    fill(tmp_path / "Annotations", tmp_path / "JPEGImages", "a", "b.v2")
    put(tmp_path / "ImageSets" / "Main" / "train.txt", text)
    assert read_rows(voc, tmp_path).images == {
        "JPEGImages/a.jpg": (30, 40, None), "JPEGImages/b.v2.jpg": (30, 40, None)
    }  # fmt: skip


def test_only_trainval_is_a_split(tmp_path):
    fill(tmp_path / "Annotations", tmp_path / "JPEGImages", "a", "b")
    put(tmp_path / "ImageSets" / "Main" / "trainval.txt", "a\n")
    assert voc.recognize(tmp_path) == ("trainval",)
    assert list(read_rows(voc, tmp_path).images) == ["JPEGImages/a.jpg"]


def test_folders_of_roboflow_are_splits_with_xml_beside_the_images(tmp_path):
    for split, stem in (("train", "a"), ("valid", "b"), ("test", "c")):
        fill(tmp_path / split, tmp_path / split, stem)
    assert voc.recognize(tmp_path) == ("train", "valid", "test")
    assert list(read_rows(voc, tmp_path, "valid").images) == ["valid/b.jpg"]


@pytest.mark.parametrize(
    ("labels", "images", "file_name"),
    [
        ("", "", "a.jpg"),
        ("annotations", "images", "images/a.jpg"),
        ("annotations/xmls", "images", "images/a.jpg"),
        ("Annotations", "JPEGImages", "JPEGImages/a.jpg"),
        ("VOC2012/Annotations", "VOC2012/JPEGImages", "VOC2012/JPEGImages/a.jpg"),
        ("VOCdevkit/VOC2007/Annotations", "VOCdevkit/VOC2007/JPEGImages", "VOCdevkit/VOC2007/JPEGImages/a.jpg"),
        ("Annotations/street", "JPEGImages/street", "JPEGImages/street/a.jpg"),
        ("Annotations", "JPEGImages/street", "JPEGImages/street/a.jpg"),
        ("", "images", "images/a.jpg"),
    ],
)
def test_layouts_of_one_split(tmp_path, labels, images, file_name):
    fill(tmp_path / labels, tmp_path / images, "a")
    assert voc.recognize(tmp_path) == ("train",)
    assert list(read_rows(voc, tmp_path).images) == [file_name]


def test_splits_inside_both_folders(tmp_path):
    for split in ("val", "train"):
        fill(tmp_path / "annotations" / split, tmp_path / "images" / split, "a")
    assert voc.recognize(tmp_path) == ("train", "val")
    assert list(read_rows(voc, tmp_path, "val").images) == ["images/val/a.jpg"]


def test_years_of_a_devkit_are_splits_of_their_own(tmp_path):
    for year in ("VOC2007", "VOC2012"):
        fill(tmp_path / year / "Annotations", tmp_path / year / "JPEGImages", "a")
        put(tmp_path / year / "ImageSets" / "Main" / "val.txt", "a\n")
    assert voc.recognize(tmp_path) == ("VOC2007-val", "VOC2012-val")
    assert list(read_rows(voc, tmp_path, "VOC2012-val").images) == ["VOC2012/JPEGImages/a.jpg"]


def test_one_xml_is_a_dataset(tmp_path):
    fill(tmp_path, tmp_path, "a", "b")
    assert list(read_rows(voc, tmp_path / "b.xml").images) == ["b.jpg"]


def test_other_formats_are_not_recognised(tmp_path):
    put(tmp_path / "cvat" / "annotations.xml", "<annotations><version>1.1</version></annotations>")
    put(tmp_path / "mit" / "a.xml", "<annotation><source><sourceImage/></source><imagesize/></annotation>")
    put(tmp_path / "coco" / "a.json", '{"images": []}')
    put(tmp_path / "note" / "a.xml", b"\x00\xff")
    (tmp_path / "empty").mkdir()
    for folder in tmp_path.iterdir():
        assert voc.recognize(folder) is None
    assert voc.recognize(tmp_path / "nowhere") is None


def test_a_missing_split_says_which_there_are(tmp_path):
    fill(tmp_path, tmp_path, "a")
    with pytest.raises(SynthgenError, match=r"no Pascal VOC split 'val' in .*; it has train"):
        voc.files(tmp_path, "val", None)
    with pytest.raises(SynthgenError, match="no file or folder"):
        voc.files(tmp_path, "train", tmp_path / "nowhere")


def test_the_user_may_name_another_folder_of_images(tmp_path):
    put(tmp_path / "d" / "Annotations" / "a.xml", xml(thing(box(1, 2, 3, 4))))
    write_image(tmp_path / "pics" / "a.jpg")
    files = voc.files(tmp_path / "d", "train", None).with_image_folder(tmp_path / "pics")
    assert list(rows_of_files(voc, files).images) == ["a.jpg"]


# --- masks ------------------------------------------------------------------------------------------------------------

TRIANGLE = "<polygon><x1>10</x1><y1>5</y1><x2>20</x2><y2>5</y2><x3>20</x3><y3>15</y3></polygon>"


def test_a_polygon_is_a_mask_and_gives_a_missing_box(tmp_path):
    points = "<polygon>" + "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in ((1, 1), (9, 1), (9, 9))) + "</polygon>"
    rows = one(tmp_path, xml(thing(TRIANGLE), thing(box(8, 4, 22, 16) + TRIANGLE), thing(points)))
    assert rows.boxes("JPEGImages/a.jpg") == [(10, 5, 10, 10), (8, 4, 14, 12), (1, 1, 8, 8)]
    assert not any(row.payload for row in rows.rows)  # the layer of boxes has no masks
    sample = ingested(tmp_path / "store", voc, tmp_path)["JPEGImages/a.jpg"]
    assert [a.mask_source for a in sample.annotations] == ["human"] * 3
    assert all(40 <= rle_area(a.segmentation) <= 64 for a in sample.annotations[:2])


def test_a_polygon_that_cannot_be_read_leaves_the_box(tmp_path):
    bad = "<polygon><x1>10</x1><y1>5</y1><x2>20</x2></polygon>"
    one(tmp_path, xml(thing(box(8, 4, 22, 16) + bad), thing(bad), thing(box(8, 4, 22, 16) + bad + TRIANGLE)))
    found = ingested(tmp_path / "store", voc, tmp_path)["JPEGImages/a.jpg"].annotations
    assert [set(a.flags) for a in found[:2]] == [{"bad_segmentation"}, {"bad_segmentation", "no_box", "degenerate"}]
    assert found[0].bbox == (8, 4, 14, 12) and found[0].segmentation is None
    assert found[2].segmentation is not None


#: The first colours of VOC's palette, as the development kit lists them; and that of void.
PALETTE = {
    0: (0, 0, 0),
    1: (128, 0, 0),
    2: (0, 128, 0),
    3: (128, 128, 0),
    4: (0, 0, 128),
    8: (64, 0, 0),
    255: (224, 224, 192),
}


def write_object_masks(path: Path, *windows: tuple[int, int, int, int], in_color: bool = False) -> None:
    """A palette PNG of VOC: object 1, 2, ... at (x, y, w, h), with a void border of one pixel."""
    labels = np.zeros((30, 40), np.uint8)
    for number, (x, y, w, h) in enumerate(windows, start=1):
        labels[y : y + h, x : x + w] = 255
        labels[y + 1 : y + h - 1, x + 1 : x + w - 1] = number
    picture = Image.fromarray(labels, "P")
    picture.putpalette([v for i in range(256) for v in PALETTE.get(i, (i, 255 - i, i // 2))])
    picture = picture.convert("RGB") if in_color else picture
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


@pytest.mark.parametrize("in_color", [False, True])
def test_masks_belong_to_objects_by_their_order(tmp_path, in_color):
    windows = ((5, 5, 10, 10), (20, 8, 12, 14), (0, 20, 6, 6))
    write_object_masks(tmp_path / "SegmentationObject" / "a.png", *windows, in_color=in_color)
    one(tmp_path, xml(thing(box(6, 6, 15, 15)), thing(box(21, 9, 32, 22), "dog"), head=OWN))
    sample = ingested(tmp_path / "store", voc, tmp_path)["JPEGImages/a.jpg"]
    cat, dog = sample.annotations
    assert (cat.bbox, dog.bbox) == ((5, 5, 10, 10), (20, 8, 12, 14))
    assert decode_mask(cat.segmentation).nonzero()[0].tolist() == [r for r in range(6, 14) for _ in range(8)]
    assert rle_area(dog.segmentation) == 10 * 12 and not cat.flags
    found = read_rows(voc, tmp_path, layer="human").findings["mask_without_object"]
    assert found.count == 1 and "objects 3" in found.examples[0][1]


def test_a_mask_at_another_place_than_its_box_is_not_used(tmp_path):
    write_object_masks(tmp_path / "SegmentationObject" / "a.png", (20, 8, 12, 14), (5, 5, 10, 10))
    one(tmp_path, xml(thing(box(5, 5, 15, 15)), thing(box(5, 5, 15, 15))))
    first, second = ingested(tmp_path / "store", voc, tmp_path)["JPEGImages/a.jpg"].annotations
    assert first.flags == ("bad_segmentation",) and first.segmentation is None
    assert second.segmentation is not None


def test_colours_are_those_of_the_development_kit():
    from synthgen.formats.readers._voc_xml import _voc_color

    for number, (red, green, blue) in PALETTE.items():
        assert _voc_color(number) == 65536 * red + 256 * green + blue
    assert len({_voc_color(number) for number in range(256)}) == 256


def test_a_png_of_other_colours_flags_its_objects(tmp_path):
    (tmp_path / "SegmentationObject").mkdir()
    Image.new("RGB", (40, 30), (1, 2, 3)).save(tmp_path / "SegmentationObject" / "a.png")
    one(tmp_path, xml(thing(box(5, 5, 15, 15))))
    [a] = ingested(tmp_path / "store", voc, tmp_path)["JPEGImages/a.jpg"].annotations
    assert a.flags == ("bad_segmentation",)


def test_a_broken_png_of_masks_flags_its_objects(tmp_path):
    put(tmp_path / "SegmentationObject" / "a.png", b"\x89PNG no")
    one(tmp_path, xml(thing(box(5, 5, 15, 15))))
    [a] = ingested(tmp_path / "store", voc, tmp_path)["JPEGImages/a.jpg"].annotations
    assert a.flags == ("bad_segmentation",)
    assert "masks" not in voc.files(tmp_path, "train", None).for_layer("annotations").sources


# --- hostile and broken files -----------------------------------------------------------------------------------------

BOMB = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>' + xml(thing(box(1, 2, 3, 4), "&b;"))
REMOTE = '<!DOCTYPE x SYSTEM "http://example.org/x.dtd">' + xml()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "its XML is not valid XML"),
        (xml()[:-3], "its XML is not valid XML"),
        (BOMB, "its XML has a document type or an entity"),
        (REMOTE, "its XML has a document type or an entity"),
        ("<annotation>" + "<a>" * 100_000, "its XML has more than 64 nested elements"),
        (b"<?xml version='1.0' encoding='nonsense'?><annotation/>", "its XML is not valid XML"),
        (b"<annotation>\xff\xfe\x00</annotation>", "its XML is not valid XML"),
    ],
    ids=["empty", "cut", "bomb", "dtd", "deep", "encoding", "bytes"],
)
def test_a_broken_xml_is_an_image_with_an_error_and_the_others_go_on(tmp_path, text, why):
    fill(tmp_path / "Annotations", tmp_path / "JPEGImages", "b")
    rows = one(tmp_path, text)
    assert str(rows.images["JPEGImages/a.jpg"][2]).startswith(why) and rows.images["JPEGImages/b.jpg"][2] is None
    assert str(tmp_path) not in str(rows.images["JPEGImages/a.jpg"][2])


def test_an_xml_of_another_kind_is_counted(tmp_path):
    put(tmp_path / "Annotations" / "pom.xml", "<project><a/></project>")
    found = one(tmp_path, xml(thing(box(1, 2, 3, 4))))
    assert list(found.images) == ["JPEGImages/a.jpg"]
    assert found.findings["foreign_file"].examples == (
        ("pom.xml", "its XML starts with <project>, not with <annotation>"),
    )


def test_an_xml_in_utf_16_is_read(tmp_path):
    text = '<?xml version="1.0" encoding="UTF-16"?>' + xml(thing(box(1, 2, 3, 4), "é"))
    assert [row.name for row in one(tmp_path, text.encode("utf-16")).rows] == ["é"]


def test_a_link_that_is_a_pipe_or_leads_nowhere_blocks_nothing(tmp_path):
    fill(tmp_path / "Annotations", tmp_path / "JPEGImages", "a")
    (tmp_path / "Annotations" / "b.xml").symlink_to(tmp_path / "nowhere")
    rows = read_rows(voc, tmp_path)
    assert rows.images["JPEGImages/b.jpg"][2] == "its XML is not a file, or a link to none"


def test_a_changed_xml_is_noticed_and_a_changed_image_of_the_same_size_is_not(tmp_path):
    from synthgen.ingest.source_digests import digest_sources

    fill(tmp_path, tmp_path, "a")
    files = voc.files(tmp_path, "train", None)
    before = digest_sources(files, tmp_path / "log").by_role
    picture = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(picture[:-1] + bytes([picture[-1] ^ 1]))
    assert digest_sources(files, tmp_path / "log").by_role == before
    text = (tmp_path / "a.xml").read_text()
    (tmp_path / "a.xml").write_text(text.replace("<xmin>1<", "<xmin>2<"))
    assert digest_sources(files, tmp_path / "log").by_role != before


def test_progress_counts_the_bytes_of_the_xml(tmp_path):
    from dataclasses import replace

    fill(tmp_path, tmp_path, "a", "b")
    done: list[int] = []
    files = replace(voc.files(tmp_path, "train", None), on_bytes=done.append)
    rows_of_files(voc, files)
    assert sum(done) == files.total_bytes() > 0


# --- real files -------------------------------------------------------------------------------------------------------


def test_the_sample_of_bccd(shared, tmp_path):
    rows = read_rows(voc, shared("data/formats/pascal-voc__bccd"))
    names = [row.name for row in rows.rows]
    assert len(rows.images) == 10 and {name: names.count(name) for name in set(names)} == {
        "RBC": 162,
        "WBC": 10,
        "Platelets": 9,
    }
    assert all(size == (480, 640, None) for size in rows.images.values()) and not rows.findings
    assert rows.boxes("JPEGImages/BloodImage_00000.jpg")[0] == (260, 177, 231, 199)


def test_masks_of_voc_photographs_agree_with_their_coco_masks(shared, tmp_path):
    """The masks of three photographs of VOC 2011, with XML made of the boxes of the same objects in COCO's form."""
    import json
    import shutil

    sample = shared("data/voc_labelme_sample")
    content = json.loads((sample / "coco_annotations.json").read_text())
    for name in ("JPEGImages", "SegmentationObject"):
        shutil.copytree(sample / name, tmp_path / "d" / name)
    labels = {}
    for image in content["images"]:
        stem = Path(image["file_name"]).stem
        pixels = np.asarray(Image.open(sample / "SegmentationObject" / f"{stem}.png"))
        labels[stem] = pixels
        boxes = []
        for number in range(1, int(pixels[pixels < 255].max()) + 1):
            ys, xs = (pixels == number).nonzero() if (pixels == number).any() else ([0], [0])  # a region to ignore
            boxes.append(thing(box(min(xs) + 1, min(ys) + 1, max(xs) + 1, max(ys) + 1)))
        put(
            tmp_path / "d" / "Annotations" / f"{stem}.xml",
            xml(*boxes, size=(image["width"], image["height"]), head=OWN),
        )
    samples = ingested(tmp_path / "store", voc, tmp_path / "d")
    for stem, pixels in labels.items():
        found = samples[f"JPEGImages/{stem}.jpg"].annotations
        assert found
        for number, annotation in enumerate(found, start=1):
            there = pixels == number
            assert not annotation.flags and (annotation.segmentation is not None) == there.any()
            assert annotation.segmentation is None or (decode_mask(annotation.segmentation) == there).all()


def test_what_labelformat_writes_from_coco_is_read_back(shared, tmp_path):
    import json

    from labelformat.formats.coco import COCOObjectDetectionInput
    from labelformat.formats.pascalvoc import PascalVOCObjectDetectionOutput

    source = shared("data/coco_tiny/annotations/instances_val2017.json")
    PascalVOCObjectDetectionOutput(tmp_path / "xml").save(COCOObjectDetectionInput(source))
    content = json.loads(source.read_text())
    names = {one["id"]: one["name"] for one in content["categories"]}
    files = {one["id"]: one["file_name"] for one in content["images"]}
    wanted = sorted((files[a["image_id"]], names[a["category_id"]], a["bbox"]) for a in content["annotations"])
    rows = read_rows(voc, tmp_path)
    found = sorted((name, row.name, list(row.bbox)) for name, own in rows.objects.items() for row in own)
    assert [one[:2] for one in found] == [(f"xml/{name}", label) for name, label, _ in wanted]
    assert all(a[2] == pytest.approx(b[2], abs=1e-6) for a, b in zip(found, wanted, strict=True))
