"""The image files below files and folders: order, other files, links, and the folder of the results."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from synthgen.errors import SynthgenError
from synthgen.images.image_listing import is_image_name, list_images


def write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def test_all_folders_below_are_listed_and_other_files_are_named(tmp_path: Path) -> None:
    write(tmp_path, "b.JPG", "a/2.png", "a/1.webp", "notes.txt", ".hidden.png", ".git/x.png", "a/noext")
    found = list_images([tmp_path])
    assert found.root == tmp_path
    assert found.file_names == ("a/1.webp", "a/2.png", "b.JPG")
    assert (found.num_others, found.others) == (4, (".git", ".hidden.png", "notes.txt", "a/noext"))


def test_several_places_have_names_below_the_folder_of_all(tmp_path: Path) -> None:
    write(tmp_path, "x/1.png", "y/1.png", "y/z/raw.dat")
    found = list_images([tmp_path / "x", tmp_path / "y" / "z" / "raw.dat", tmp_path / "y", tmp_path / "y" / "1.png"])
    assert found.root == tmp_path
    assert found.file_names == ("x/1.png", "y/1.png", "y/z/raw.dat"), "a named file counts whatever its suffix"


def test_one_image_is_below_its_own_folder(tmp_path: Path) -> None:
    write(tmp_path, "x/1.png")
    assert list_images([tmp_path / "x" / "1.png"]).file_names == ("1.png",)


def test_the_folder_of_the_results_is_not_entered(tmp_path: Path) -> None:
    write(tmp_path, "1.png", "out/pictures/1.png")
    assert list_images([tmp_path], excluded=tmp_path / "out").file_names == ("1.png",)


def test_links_are_followed_and_circles_end(tmp_path: Path) -> None:
    write(tmp_path, "in/1.png", "elsewhere/2.png")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    assert list_images([tmp_path / "in"]).file_names == ("1.png", "link/2.png")


def test_a_link_to_itself_is_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    write(tmp_path, "1.png")
    for name in ("loop", "loop.jpg"):
        (tmp_path / name).symlink_to(name)
    found = list_images([tmp_path])
    assert found.file_names == ("1.png", "loop.jpg") and found.others == ("loop",)


def test_places_may_lie_beside_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "here/a/1.png", "b/2.png")
    monkeypatch.chdir(tmp_path / "here")
    found = list_images([Path("a"), Path("../b"), Path("../b/2.png")])
    assert (found.root, found.file_names) == (tmp_path, ("b/2.png", "here/a/1.png"))


def test_dots_behind_a_link_lead_to_the_folder_above_its_target(tmp_path: Path) -> None:
    write(tmp_path, "in/1.png", "elsewhere/deep/2.png", "elsewhere/3.png")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "elsewhere" / "deep")
    found = list_images([tmp_path / "in" / "link" / ".."])
    assert (found.root, found.file_names) == (tmp_path / "elsewhere", ("3.png", "deep/2.png"))


def test_a_folder_that_is_named_twice_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "x/1.png", "x/y/2.png", "x/notes.txt", "x/raw.dat")
    (tmp_path / "z").symlink_to("x")
    monkeypatch.chdir(tmp_path / "x")
    places = [Path(place) for place in (".", "../x", tmp_path / "x", "y", "../x/y", "y/../raw.dat", "../z")]
    found = list_images(places)
    assert found.file_names == ("x/1.png", "x/raw.dat", "x/y/2.png")
    assert (found.num_others, found.others) == (1, ("x/notes.txt",))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_without_permission_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "shut").mkdir(mode=0o000)
    with pytest.raises(SynthgenError, match=r"cannot read .*shut"):
        list_images([tmp_path])


def test_more_images_than_the_limit_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synthgen.images.image_listing.MAX_LISTED_IMAGES", 2)
    write(tmp_path, "1.png", "2.png", "3.png")
    with pytest.raises(SynthgenError, match="more than 2 images; name a smaller folder"):
        list_images([tmp_path])


def test_names_of_images() -> None:
    assert is_image_name("a/b.JPEG") and not is_image_name("a/b") and not is_image_name(".a.png")
    assert not is_image_name("a.png/b.txt") and not is_image_name("a red ball")
