"""Findings about image files: missing, unreadable, turned, of another size."""

from __future__ import annotations

import json
from pathlib import Path

from fakes.validated_datasets import HEIGHT, WIDTH, clean, findings, photo_path, write
from PIL import Image

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
