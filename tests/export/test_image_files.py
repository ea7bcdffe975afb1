"""Names of exported images stay in their folder and differ; links and copies hold the image."""

from __future__ import annotations

import errno
import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from synthgen.errors import SynthgenError
from synthgen.export.image_files import ImageNames, join_path, place_image, safe_part
from synthgen.images.decode import find_image
from synthgen.images.paths import IMAGE_SUFFIXES


@given(st.lists(st.text(max_size=300), max_size=30), st.booleans())
def test_names_stay_in_the_folder_and_differ(names: list[str], is_flat: bool) -> None:
    chosen = ImageNames(is_flat=is_flat)
    found = [chosen.choose("", "train", name, None) for name in names]
    stems = [name.removesuffix(s) if (s := Path(name).suffix).lower() in IMAGE_SUFFIXES else name for name in found]
    assert len({stem.casefold() for stem in stems}) == len(names)
    assert len({name.casefold() for name in found}) == len(names)
    for name in found:
        parts = name.split("/")
        assert ".." not in parts and "." not in parts and "" not in parts and not name.startswith("/")
        assert "\\" not in name and "\0" not in name and "\n" not in name and not name.startswith("-")
        assert all(len(part.encode()) <= 255 for part in parts)
        assert not is_flat or len(parts) == 1


def test_usual_names_stay_as_they_are() -> None:
    names = ImageNames(is_flat=False)
    assert names.choose("", "train", "patch8/objects365_v2_00907615.jpg", None) == "patch8/objects365_v2_00907615.jpg"
    assert names.choose("", "train", "städte/Köln 1.JPEG", None) == "städte/Köln 1.JPEG"
    assert names.choose("", "train", "train/images/x/a.jpg", None) == "x/a.jpg"


def test_images_that_differ_in_suffix_or_case_only_get_numbers() -> None:
    names = ImageNames(is_flat=False)
    assert [names.choose("", "train", name, None) for name in ("a.jpg", "a.png", "A.jpg", "b/a.jpg")] == [
        "a.jpg", "a_2.png", "A_3.jpg", "b/a.jpg",
    ]  # fmt: skip
    assert names.choose("images/val", "val", "a.jpg", None) == "a.jpg"
    flat = ImageNames(is_flat=True)
    assert [flat.choose("", "train", name, None) for name in ("x/a.jpg", "y\\a.jpg")] == ["a.jpg", "a_2.jpg"]


def test_a_folder_with_the_name_of_a_file_gets_another_name(tmp_path: Path) -> None:
    names = ImageNames(is_flat=False)
    image = tmp_path / "image.jpg"
    image.write_bytes(b"pixels")
    for i, name in enumerate(("a.jpg", "a.jpg/x.jpg", "b.jpg/x.jpg", "b.jpg", "c.txt/x.jpg", "v1.2/x.jpg")):
        found = names.choose("", "train", name, None)
        assert found == ("a.jpg", "a.jpg_/x.jpg", "b.jpg_/x.jpg", "b.jpg", "c.txt_/x.jpg", "v1.2/x.jpg")[i]
        place_image(image, tmp_path / "out" / found, is_link=True)


@given(
    st.lists(
        st.tuples(st.lists(st.sampled_from(["a", "a.jpg", "b.PNG", "a.txt"]), max_size=3), st.sampled_from("ab")),
        max_size=20,
    )
)
def test_no_chosen_name_is_a_folder_of_another_one(paths: list[tuple[list[str], str]]) -> None:
    names = ImageNames(is_flat=False)
    found = {names.choose("", "train", "/".join([*parts, f"{name}.jpg"]), None).casefold() for parts, name in paths}
    assert len(found) == len(paths)
    assert not any(other.startswith(f"{name}/") for name in found for other in found)


def test_a_name_without_suffix_gets_that_of_the_content(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    (tmp_path / "17").write_bytes(buffer.getvalue())
    assert ImageNames(is_flat=False).choose("", "train", "17", tmp_path / "17") == "17.png"


def test_long_parts_are_cut_and_stay_different() -> None:
    one, two = safe_part("x" * 300 + "1.jpg"), safe_part("x" * 300 + "2.jpg")
    assert one != two and one.endswith(".jpg") and len(one.encode()) <= 210


def test_links_and_copies(tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    Image.new("RGB", (4, 4), "red").save(image)
    place_image(image, tmp_path / "out/x/link.png", is_link=True)
    place_image(image, tmp_path / "out/x/copy.png", is_link=False)
    assert (tmp_path / "out/x/link.png").samefile(image) and not (tmp_path / "out/x/copy.png").samefile(image)
    assert not (tmp_path / "out/x/link.png").is_symlink()
    assert (
        (tmp_path / "out/x/link.png").read_bytes() == (tmp_path / "out/x/copy.png").read_bytes() == image.read_bytes()
    )


def test_an_image_in_an_archive_is_copied(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(buffer, "PNG")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        member = tarfile.TarInfo("x/b.png")
        member.size = len(buffer.getvalue())
        tar.addfile(member, io.BytesIO(buffer.getvalue()))
    place_image(find_image(tmp_path, "a.tar/x/b.png"), tmp_path / "out/b.png", is_link=True)
    assert not (tmp_path / "out/b.png").is_symlink()
    assert (tmp_path / "out/b.png").read_bytes() == buffer.getvalue()


def test_where_hard_links_are_not_possible_symbolic_ones_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    image = tmp_path / "a.png"
    Image.new("RGB", (4, 4), "red").save(image)
    monkeypatch.setattr(os, "link", refuse)
    place_image(image, tmp_path / "out/a.png", is_link=True)
    assert (tmp_path / "out/a.png").is_symlink() and (tmp_path / "out/a.png").read_bytes() == image.read_bytes()
    monkeypatch.setattr(Path, "symlink_to", refuse)
    with pytest.raises(SynthgenError, match=r"cannot hold links; copy the images with --image-mode copy"):
        place_image(image, tmp_path / "out/b.png", is_link=True)


def test_a_link_to_an_image_is_linked_to_the_image(tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    Image.new("RGB", (4, 4), "red").save(image)
    (tmp_path / "link.png").symlink_to(image)
    place_image(tmp_path / "link.png", tmp_path / "out/a.png", is_link=True)
    assert not (tmp_path / "out/a.png").is_symlink() and (tmp_path / "out/a.png").samefile(image)


def test_join_path() -> None:
    assert join_path("", "a.jpg") == "a.jpg" and join_path("images/train", "b/a.jpg") == "images/train/b/a.jpg"
