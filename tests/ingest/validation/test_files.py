"""Findings about image files: missing, unreadable, turned, of another size."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes.validated_datasets import HEIGHT, WIDTH, clean, findings, photo_path, write
from PIL import Image

from synthgen.ingest.validation.diagnosis import ValidationReport
from synthgen.ingest.validation.files import SizeFactors
from synthgen.ingest.validation.validate import validate_dataset


def test_each_kind_of_bad_file_is_reported(tmp_path: Path) -> None:
    content = clean(images=100)
    path = write(tmp_path, content)
    photo_path(tmp_path, content, 1).unlink()
    cut = photo_path(tmp_path, content, 2)
    cut.write_bytes(cut.read_bytes()[: HEIGHT * WIDTH])
    photo_path(tmp_path, content, 3).write_text("<html>not found</html>")
    Image.new("RGB", (WIDTH + 9, HEIGHT)).save(photo_path(tmp_path, content, 4))
    turned = Image.new("RGB", (HEIGHT, WIDTH))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(photo_path(tmp_path, content, 5), exif=exif)
    content["images"][6]["file_name"] = f"images/{content['images'][6]['file_name']}"
    content["images"][7]["file_name"] = "../boxes.json"
    path.write_text(json.dumps(content))

    def files(check_images: str | int) -> dict[str, int]:
        found = validate_dataset(
            "coco_json", tmp_path, annotations=path, images=tmp_path / "images", check_images=check_images
        )
        return {code: finding.count for code, finding in findings(found).items()}

    header = {"missing": 2, "unreadable": 1, "wrong_size": 1, "turned": 1, "other_path": 1, "too_many_lost": 1}
    assert files("header") == header, "a header does not tell that the file is cut"
    assert files("all") == {**header, "unreadable": 2}
    assert files("none") == {}


def test_the_frames_of_another_video_are_missing(tmp_path: Path) -> None:
    """Both videos name their frames alike: pointed at one of them, half of the images are not there."""
    content = clean(images=40)
    for i, image in enumerate(content["images"]):
        image["file_name"] = f"video{i // 20}/{i % 20:04d}.png"
    path = write(tmp_path, content)
    right, wrong = (
        validate_dataset("coco_json", tmp_path, annotations=path, images=folder)
        for folder in (tmp_path / "images", tmp_path / "images" / "video0")
    )
    assert right.is_ready and not right.splits[0].findings
    assert findings(wrong)["missing"].count == 20 and not wrong.is_ready


def test_a_turned_image_annotated_as_stored_is_not_of_the_wrong_size(tmp_path: Path) -> None:
    content = clean(images=1)
    path = write(tmp_path, content)
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.new("RGB", (WIDTH, HEIGHT)).save(photo_path(tmp_path, content, 0), exif=exif)
    found = validate_dataset("coco_json", tmp_path, annotations=path, images=tmp_path / "images", check_images="all")
    assert set(findings(found)) == {"turned"} and found.is_ready


def _resized(tmp_path: Path, sizes: Callable[[int], tuple[int, int]], count: int = 20) -> ValidationReport:
    """A dataset whose annotations say another (width, height) than the files of 64 x 48 have."""
    content = clean(images=count)
    path = write(tmp_path, content)
    for i, image in enumerate(content["images"]):
        image["width"], image["height"] = sizes(i)
    path.write_text(json.dumps(content))
    return validate_dataset("coco_json", tmp_path, annotations=path, images=tmp_path / "images")


def test_exchanged_width_and_height_are_named(tmp_path: Path) -> None:
    found = _resized(tmp_path, lambda _: (HEIGHT, WIDTH))
    assert set(findings(found)) == {"exchanged_size", "too_many_lost"}, "the boxes are judged by the files' sizes"
    assert findings(found)["exchanged_size"].count == 20 and not found.is_ready
    assert found.verdict.startswith("not ready (exchanged_size") and "exchange the width and height" in found.verdict
    assert found.next.endswith(f"--images {tmp_path / 'images'}"), "the folder is right"


def test_a_few_exchanged_sizes_are_lost_images(tmp_path: Path) -> None:
    found = _resized(tmp_path, lambda i: (HEIGHT, WIDTH) if i == 3 else (WIDTH, HEIGHT), count=40)
    assert findings(found)["exchanged_size"].count == 1
    assert findings(found)["exchanged_size"].examples[0].where == "a/0003.png"


def test_sizes_that_are_off_by_one_pixel_are_told_apart(tmp_path: Path) -> None:
    found = _resized(tmp_path, lambda i: (WIDTH + (i % 3 - 1), HEIGHT))
    assert findings(found)["size_off_by_one"].count == 13 and "wrong_size" not in findings(found)
    assert "write the real sizes" in found.verdict


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        (lambda _: (2 * WIDTH, 2 * HEIGHT), "the photographs are 0.5 times the size that the annotations say"),
        (lambda i: (WIDTH + 10 * i + 20, 300), "the photographs are all 64 x 48 pixels"),
    ],
)
def test_resized_photographs_are_described(tmp_path: Path, sizes: Callable[[int], tuple[int, int]], said: str) -> None:
    found = _resized(tmp_path, sizes)
    assert said in findings(found)["wrong_size"].note and said in found.verdict


def test_resized_by_different_factors() -> None:
    factors = SizeFactors()
    for i in range(10):
        factors.add((480 + 30 * i, 640 + 40 * i), (240 + 60 * i, 320 + 80 * i))
    assert "resized by different factors" in (factors.describe() or "")
    factors = SizeFactors()
    for i in range(10):
        factors.add((480, 640), (100 + 30 * i, 900 - 41 * i))
    assert factors.describe() is None, "other photographs"


def test_exchanged_sizes_of_a_case(shared: Callable[[str], Path]) -> None:
    folder = shared("cases/26-width-height-swapped")
    found = validate_dataset("coco_json", folder, annotations=folder / "boxes.json", images=folder / "photos")
    assert not found.is_ready and findings(found)["exchanged_size"].count == 2
