"""Whether images of two layers are the same file, compared with `find_image`, with few file-system calls."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthgen.dataloading.leakage import same_files
from synthgen.dataloading.leakage.same_files import ImagePaths, find_same_files
from synthgen.images.decode import ImageError, find_image

FOLDERS = [".", "a", "a/a", "a/val2017", "b", "link", "b/up", "a/./a", "b/../a"]
NAMES = ["x.jpg", "000000000001.jpg", "COCO_val2014_000000000001.jpg"]
ABOVE = [
    "",
    "./",
    "a/",
    "a/a/",
    "a//a/",
    "val2017/",
    "val2014/",
    "images/v1/",
    "link/",
    "up/",
    "a/./",
    "../",
    "/",
    "C:/",
]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree of folders in which names repeat, with a link to a folder beside and one to the folder above."""
    root = tmp_path_factory.mktemp("tree")
    for folder in ("a/a", "a/val2017", "b", "a/images/v1"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "link").symlink_to(root / "a", target_is_directory=True)
    (root / "b/up").symlink_to("..", target_is_directory=True)
    for path in ("x.jpg", "a/x.jpg", "a/a/x.jpg", "b/x.jpg", "a/val2017/000000000001.jpg", "a/000000000001.jpg"):
        (root / path).touch()
    return root


@given(
    folder=st.sampled_from(FOLDERS),
    above=st.sampled_from(ABOVE),
    name=st.sampled_from(NAMES),
    most=st.sampled_from([0, 1, 10_000]),
)
def test_an_image_is_where_it_is_found(tree: Path, folder: str, above: str, name: str, most: int) -> None:
    """Unless links are followed no more, and then it is at a path by which it could have been found."""
    files = ImagePaths(tree / folder)
    before, same_files.MAX_FOLDERS = same_files.MAX_FOLDERS, most
    try:
        place = files.resolve_path(above + name)
        assert files.resolve_path(above + name) == place  # whatever is remembered
    finally:
        same_files.MAX_FOLDERS = before
    try:
        found = find_image(tree / folder, above + name)
    except ImageError:
        assert place is None or not Path(place).is_file()
        return
    assert place is not None
    assert found.samefile(place)
    if most:
        assert place == os.path.realpath(found)


ROWS = st.lists(st.tuples(st.sampled_from("pqr"), st.sampled_from([a + n for a in ABOVE for n in NAMES])), max_size=8)


@given(one=st.sampled_from(FOLDERS), other=st.sampled_from(FOLDERS), ours=ROWS, theirs=ROWS)
def test_shared_are_the_same_files_under_other_keys(
    tree: Path, one: str, other: str, ours: list[tuple[str, str]], theirs: list[tuple[str, str]]
) -> None:
    here, there = ImagePaths(tree / one), ImagePaths(tree / other)
    known = {place: key for key, name in theirs if (place := there.resolve_path(name)) is not None}
    wanted = [(key, known[at]) for key, name in ours if (at := here.resolve_path(name)) in known and known[at] != key]
    assert list(find_same_files(here, ours, known)) == wanted


@pytest.mark.parametrize(
    "name", ["", ".", "/", "../x.jpg", "a/../x.jpg", "/x.jpg", "a\0.jpg", "C:\\x.jpg", "C:x", "a/.."]
)
def test_what_climbs_out_is_nowhere(tmp_path: Path, name: str) -> None:
    assert ImagePaths(tmp_path).resolved_candidates(name) == ()
    assert ImagePaths(tmp_path).resolve_path(name) is None


def test_folders_overlap_where_one_is_in_the_other(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos2").mkdir()
    (tmp_path / "link").symlink_to("photos")
    photos = ImagePaths(tmp_path / "photos")
    assert photos.overlaps(ImagePaths(tmp_path))
    assert ImagePaths(tmp_path).overlaps(photos)
    assert photos.overlaps(ImagePaths(tmp_path / "link"))
    assert ImagePaths(Path("/")).overlaps(photos)
    assert not photos.overlaps(ImagePaths(tmp_path / "photos2"))


def test_the_disk_is_asked_for_folders_not_for_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    real = os.path.realpath

    def counted(path: str) -> str:
        asked.append(path)
        return real(path)

    monkeypatch.setattr(os.path, "realpath", counted)
    monkeypatch.setattr(os.path, "isfile", lambda _: pytest.fail("an image was asked for"))
    files = ImagePaths(tmp_path)
    rows = [(f"a/{i}", f"patch{i % 10}/{i}.jpg") for i in range(1_000)]
    known = {f"{tmp_path}/patch{i % 10}/{i}.jpg": f"b/{i}" for i in range(0, 1_000, 2)}
    assert len(list(find_same_files(files, rows, known))) == 500
    assert len(asked) <= 11


def test_what_is_remembered_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(same_files, "MAX_FOLDERS", 5)
    files = ImagePaths(tmp_path)
    rows = [(f"a/{i}", f"{i}/x.jpg") for i in range(100)]
    known = {f"{os.path.realpath(tmp_path)}/{i}/x.jpg": f"b/{i}" for i in range(100)}
    assert len(list(find_same_files(files, rows, known))) == 100
    assert len(files._folders) <= 5
    assert len(files._real_folders) <= 5


def test_the_other_unicode_form_is_the_same_file(tmp_path: Path) -> None:
    stored, other = "e\u0301te\u0301/Zu\u0308rich.jpg", "\u00e9t\u00e9/Z\u00fcrich.jpg"
    (tmp_path / stored).parent.mkdir()
    (tmp_path / stored).touch()
    files = ImagePaths(tmp_path)
    for name in (stored, other, stored):
        assert files.resolve_path(name) == str(find_image(tmp_path, name)) == str(tmp_path / stored)
