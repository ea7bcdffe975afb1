"""Names of label maps and pictures: each its own, none that a file system refuses."""

from __future__ import annotations

from pathlib import Path

from synthgen.evaluation.result_names import ResultNames


def write_all(
    folder: Path, images: list[str], *, drop_suffix: bool = True, reserved: tuple[str, ...] = ()
) -> list[str]:
    """The names of some images, each written as a file that must not exist."""
    names = ResultNames(folder / "maps", ".png" if drop_suffix else ".found.png", drop_suffix=drop_suffix,
                        reserved=reserved)  # fmt: skip
    chosen = [names.choose(image) for image in images]
    for name in chosen:
        (folder / "maps" / name).open("xb").close()
    return chosen


def test_names_follow_those_of_the_images(tmp_path: Path) -> None:
    assert write_all(tmp_path, ["a/1.jpg", "a/1.png", "b"]) == ["a/1.png", "a/1.png.png", "b.png"]


def test_pictures_keep_the_suffix(tmp_path: Path) -> None:
    assert write_all(tmp_path, ["a/1.jpg", "a/1.JPG"], drop_suffix=False) == [
        "a/1.jpg.found.png",
        "a/1.JPG_2.found.png",
    ]


def test_names_that_are_taken_get_numbers(tmp_path: Path) -> None:
    assert write_all(tmp_path, ["a.png.jpg", "a.jpg", "a.png", "A.PNG"]) == [
        "a.png.png",
        "a.png",
        "a.png_2.png",
        "A.PNG_3.png",
    ]


def test_no_file_has_the_name_of_a_folder(tmp_path: Path) -> None:
    images = ["x.jpg", "x.png/1.jpg", "x.png/2.jpg", "y.png/1.jpg", "y.jpg", "x.png_2/1.jpg"]
    assert write_all(tmp_path, images) == [
        "x.png",
        "x.png_2/1.png",
        "x.png_2/2.png",
        "y.png/1.png",
        "y.jpg.png",
        "x.png_2/1.jpg.png",
    ]


def test_the_name_of_another_file_is_taken(tmp_path: Path) -> None:
    assert write_all(tmp_path, ["names.json/1.jpg"], reserved=("names.json",)) == ["names.json_2/1.png"]


def test_long_names_are_cut_and_stay_different(tmp_path: Path) -> None:
    images = [f"{'n' * 250}{end}.jpg" for end in "ab"] + [f"{'ä' * 125}{end}.jpg" for end in "ab"]
    images += ["n" * 255, f"{'d' * 255}/1.jpg"]
    for drop_suffix in (True, False):
        (tmp_path / str(drop_suffix)).mkdir()
        chosen = write_all(tmp_path / str(drop_suffix), images, drop_suffix=drop_suffix)
        assert len(set(chosen)) == len(images)
        assert max(len(part.encode()) for name in chosen for part in name.split("/")) == 255


def test_an_image_in_very_many_folders_is_in_none(tmp_path: Path) -> None:
    (name,) = write_all(tmp_path, ["/".join(["folder"] * 500) + "/1.jpg"])
    assert "/" not in name and len(name) == 255
