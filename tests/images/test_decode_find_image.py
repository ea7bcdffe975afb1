"""Image file names: relative paths, COCO's names of either year, names that leave the folder."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from fakes.image_files import random_pixels, save_image

from synthgen.images.decode import ImageError, find_image, load_rgb

# As `records.images` asks for on import; pytest has its own filters for each test.
pytestmark = pytest.mark.filterwarnings(r"ignore:::PIL\.")


@pytest.mark.parametrize(
    "name",
    [
        "../x.jpg",
        "a/../../x.jpg",
        "a/..",
        "..",
        "..\\x.jpg",
        "a\\..\\..\\x.jpg",
        "/etc/passwd",
        "//etc/passwd",
        "///etc/passwd",
        "\\etc\\passwd",
        "\\\\host\\share\\x.jpg",
        "C:\\x.jpg",
        "c:/x.jpg",
        "C:x.jpg",
        "x.jpg\0",
        "\0",
        "",
        ".",
        "./",
    ],
)
def test_names_that_climb_out(tmp_path, name):
    (tmp_path / "x.jpg").touch()
    root = tmp_path / "photos"
    root.mkdir()
    (root / "x.jpg").touch()
    with pytest.raises(ImageError, match="not a path below the image folder"):
        find_image(root, name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("x.jpg", "x.jpg"),
        ("./x.jpg", "x.jpg"),
        ("a/x.jpg", "a/x.jpg"),
        ("a\\x.jpg", "a/x.jpg"),
        ("images/v1/a/x.jpg", "a/x.jpg"),  # Objects365: its archives lack the two folders
        ("images/v2/a/x.jpg", "a/x.jpg"),
        ("photos/x.jpg", "x.jpg"),  # the root is named as one of the name's folders
        ("photos/a/x.jpg", "a/x.jpg"),
        ("data/photos/x.jpg", "x.jpg"),
        ("b/x.jpg", None),
        ("b/a/x.jpg", None),
        ("images/v3/a/x.jpg", None),
        ("images/v1", None),
        ("b/images/v1/a/x.jpg", None),
        ("data/x.jpg", None),
        ("photos/photos/x.jpg", None),
        ("photos", None),
    ],
)
@pytest.mark.parametrize("relative", [False, True])
def test_names_below_the_folder_and_what_else_they_may_stand_for(tmp_path, monkeypatch, name, expected, relative):
    root = tmp_path / "data" / "photos"
    (root / "a").mkdir(parents=True)
    (root / "a" / "x.jpg").touch()
    (root / "x.jpg").touch()
    if relative:
        monkeypatch.chdir(root)
        root = Path()
    if expected is None:
        with pytest.raises(ImageError, match="no file"):
            find_image(root, name)
    else:
        assert find_image(root, name) == root / expected


A, B = "000000000009.jpg", "000000000010.jpg"


@pytest.mark.parametrize(
    ("name", "folders", "expected"),
    [
        (f"train2014/COCO_train2014_{A}", ["train2017"], f"train2017/{A}"),
        (f"train2014/COCO_train2014_{A}", ["val2017"], None),  # no photograph went from there to there
        (f"train2014/COCO_train2014_{A}", ["train2017", "train2014"], f"train2014/COCO_train2014_{A}"),
        (f"val2014/COCO_val2014_{A}", ["train2017"], f"train2017/{A}"),
        (f"val2014/COCO_val2014_{A}", ["val2017"], f"val2017/{A}"),
        (f"val2014/COCO_val2014_{A}", ["train2014"], None),
        (f"train2017/{A}", ["train2014"], f"train2014/COCO_train2014_{A}"),
        (f"train2017/{A}", ["val2014"], f"val2014/COCO_val2014_{A}"),
        (f"val2017/{A}", ["val2014"], f"val2014/COCO_val2014_{A}"),
        (f"val2017/{A}", ["train2014"], None),
        (f"coco/train2017/{A}", ["coco/train2014"], f"coco/train2014/COCO_train2014_{A}"),
        (f"COCO_train2014_{A}", ["train2014"], f"train2014/COCO_train2014_{A}"),
        (f"COCO_val2014_{A}", ["val2017"], f"val2017/{A}"),
        (f"train2014/{A}", ["train2017"], None),
        (f"train2014/COCO_val2014_{A}", ["val2014"], None),
        (f"train2017/COCO_train2014_{A}", ["train2014"], None),
        (A, ["train2014"], None),
        (f"train2014/COCO_train2014_{B}", ["train2017"], None),  # the number is the photograph
        ("train2014/COCO_train2014_9.jpg", ["train2017"], None),
    ],
)
@pytest.mark.parametrize("inside", [False, True])
def test_a_photograph_of_cocos_is_found_by_its_name_of_either_year(tmp_path, name, folders, expected, inside):
    """`inside`: the user pointed one level too deep, where there is one folder only."""
    for folder in folders:
        year = folder.rsplit("/", 1)[-1]
        file = tmp_path / folder / (f"COCO_{year}_{A}" if year.endswith("2014") else A)
        file.parent.mkdir(parents=True)
        file.touch()
    root = tmp_path / folders[0] if inside and len(folders) == 1 else tmp_path
    if expected is None:
        with pytest.raises(ImageError, match="no file") as why:
            find_image(root, name)
        assert name in str(why.value)
    else:
        assert find_image(root, name) == tmp_path / expected


def test_the_frame_of_another_video_is_not_found(tmp_path):
    """Same name, same size, another photograph: nothing would notice."""
    for video in ("one", "two"):
        (tmp_path / video).mkdir()
        (tmp_path / video / "0000.png").touch()
    assert find_image(tmp_path / "one", "one/0000.png") == tmp_path / "one" / "0000.png"
    with pytest.raises(ImageError, match=r"no file two/0000\.png"):
        find_image(tmp_path / "one", "two/0000.png")


@pytest.mark.parametrize(
    "name", ["12:30 h.jpg", "ü/日本.jpg", "x\n.jpg", " x.jpg", "~x.jpg", "$HOME.jpg", "-rf.jpg", "x" * 240]
)
def test_strange_names_are_names(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    assert find_image(tmp_path, name) == path


@pytest.mark.parametrize(
    "name", ["x" * 300, "x" * 5000, "a/" * 3000 + "x.jpg", "\ud800.jpg", "\udcff.jpg", "x" * 10**6]
)
def test_names_that_no_file_system_takes(tmp_path, name):
    with pytest.raises(ImageError) as caught:
        find_image(tmp_path, name)
    assert len(str(caught.value).encode()) < 2000  # and it can be written as UTF-8


def test_what_is_no_file_is_not_opened(tmp_path):
    (tmp_path / "x.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    (tmp_path / "lost.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    for name in ("x.jpg", "pipe.jpg", "device.jpg", "lost.jpg", "loop.jpg", "x.jpg/y.jpg", "pipe.jpg/y.jpg"):
        with pytest.raises(ImageError):
            find_image(tmp_path, name)


def test_links_are_followed(tmp_path):
    save_image(tmp_path / "x.png", random_pixels())
    root = tmp_path / "photos"
    root.mkdir()
    (root / "x.png").symlink_to("../x.png")
    assert load_rgb(find_image(root, "x.png")).shape == (12, 20, 3)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_the_same_letters_in_the_other_unicode_form(tmp_path, form):
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    there, asked = (unicodedata.normalize(one, "Z\u00fcrich/\u00e9t\u00e9.jpg") for one in (form, other))
    (tmp_path / there).parent.mkdir()
    (tmp_path / there).touch()
    assert find_image(tmp_path, asked) == tmp_path / there
    with pytest.raises(ImageError, match="no file"):
        find_image(tmp_path, asked.replace("t", "T"))
    (tmp_path / asked).parent.mkdir()
    (tmp_path / asked).touch()
    assert find_image(tmp_path, asked) == tmp_path / asked, "the name itself goes first"


def test_other_characters_that_look_alike_are_not_found(tmp_path):
    (tmp_path / "cat.jpg").touch()
    for name in ("\uff43at.jpg", "c\u200bat.jpg", "cat\u00a0.jpg"):
        with pytest.raises(ImageError, match="no file"):
            find_image(tmp_path, name)
