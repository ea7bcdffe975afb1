"""The listing of an image folder: sorted, images only, links followed once, bounded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from synthgen.errors import SynthgenError
from synthgen.ingest import folder_listing
from synthgen.ingest.folder_listing import list_image_files, suffix_of


def listed(folder: Path) -> list[str]:
    files = list_image_files(folder)
    return files.take(np.arange(len(files)))


def test_images_are_listed_in_order(tmp_path: Path) -> None:
    for name in ("b.png", "a/z.JPG", "a/b/c.webp", "a.jpg", "no_suffix", "boxes.json", "film.mp4", ".hidden.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert listed(tmp_path) == ["a.jpg", "b.png", "no_suffix", "a/z.JPG", "a/b/c.webp"]


def test_links_are_followed_and_circles_end(tmp_path: Path) -> None:
    photos, elsewhere = tmp_path / "photos", tmp_path / "elsewhere"
    photos.mkdir()
    elsewhere.mkdir()
    (elsewhere / "x.png").touch()
    (photos / "link").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(photos)
    (photos / "broken.png").symlink_to(tmp_path / "nothing.png")
    assert listed(photos) == ["link/x.png"]


def test_a_name_that_is_no_text_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "x.png").touch()
    Path(f"{tmp_path}/\udcff.png").touch()
    assert listed(tmp_path) == ["x.png"]


def test_too_many_files_are_a_sentence(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(folder_listing, "MAX_LISTED_FILES", 20_000)
    monkeypatch.setattr(folder_listing, "_walk", lambda _: (f"{i}.png" for i in range(50_000)))
    with pytest.raises(SynthgenError, match="more than 20,000 images"):
        list_image_files(tmp_path)
    monkeypatch.undo()
    with pytest.raises(SynthgenError, match="cannot be listed"):
        list_image_files(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("a.png", ".png"), ("a.b.JPG", ".JPG"), ("a", ""), (".png", ""), ("v1.2024", ""), ("a.", ""), ("x.jp2", ".jp2")],
)
def test_suffixes(name: str, suffix: str) -> None:
    assert suffix_of(name) == suffix
