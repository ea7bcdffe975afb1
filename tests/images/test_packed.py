"""Images in archives: names, bytes, threads, forked processes, archives that change."""

from __future__ import annotations

import errno
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fakes import packed_datasets as packed

from synthgen.images.decode import ImageError, find_image, load_rgb, read_image_header
from synthgen.images.packed import PackedImage, open_image

COUNT = 9


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same images in four archives and as files."""
    root = tmp_path_factory.mktemp("packed")
    content = packed.table(COUNT)
    packed.write_tar(root / "a/b.tar", [(f"./in/{i:03d}.jpg", packed.jpeg(i)) for i in range(COUNT)])
    packed.write_parquet(root / "data/x.parquet", content)
    packed.write_arrow(root / "x.arrow", content)
    packed.write_loose(root / "loose", COUNT)
    return root


NAMES = {
    "tar": "a/b.tar/in/{:03d}.jpg",
    "parquet": "data/x.parquet/image/{}",
    "arrow": "x.arrow/image/{}",
    "loose": "loose/{:03d}.jpg",
}


@pytest.mark.parametrize("kind", NAMES)
def test_an_image_has_the_bytes_that_were_packed(folder: Path, kind: str) -> None:
    for i in [*range(COUNT), 3, 0]:
        source = find_image(folder, NAMES[kind].format(i))
        with open_image(source) as file:
            assert file.read() == packed.jpeg(i)
            assert file.seek(2) == 2 and file.read(3) == packed.jpeg(i)[2:5]
        assert read_image_header(source) == (32, 48, False)
        assert (load_rgb(source, 32, 48) == load_rgb(folder / f"loose/{i:03d}.jpg")).all()


@pytest.mark.parametrize("kind", [kind for kind in NAMES if kind != "loose"])
def test_an_image_has_a_path_as_if_its_archive_were_a_folder(folder: Path, kind: str) -> None:
    source = find_image(folder, NAMES[kind].format(2))
    assert isinstance(source, PackedImage) and source.path == folder / NAMES[kind].format(2)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a/b.tar/in/009.jpg", "no member in/009.jpg"),
        ("a/b.tar", "not a path|cannot be|no image"),
        ("a/b.tar/../../x.jpg", "not a path below"),
        ("data/x.parquet/image/9", "no row 9 in its file of 9 rows"),
        ("data/x.parquet/image/-1", "is not COLUMN/ROW"),
        ("data/x.parquet/image/01", "is not COLUMN/ROW"),
        ("data/x.parquet/3", "is not COLUMN/ROW"),
        ("data/x.parquet/photo/1", "no column photo"),
        ("data/x.parquet/width/1", "does not hold one image a row"),
        ("data/x.parquet/objects/1", "no column objects"),
        ("x.arrow/image/9", "no row 9 in its file of 9 rows"),
        ("x.arrow/photo/1", "no column photo"),
        ("x.arrow/width/1", "does not hold images"),
        ("x.arrow/objects/1", "does not hold images"),
        ("b.tar/in/000.jpg", "no file b.tar/in/000.jpg below the image folder"),
        ("loose/000.jpg/in/000.jpg", "no file"),
    ],
)
def test_a_name_without_an_image_is_an_error_in_one_sentence(folder: Path, name: str, reason: str) -> None:
    with pytest.raises(ImageError, match=reason) as why:
        load_rgb(find_image(folder, name))
    assert "\n" not in str(why.value) and str(folder) not in str(why.value)


def test_a_folder_that_is_named_like_an_archive_is_a_folder(tmp_path: Path) -> None:
    packed.write_loose(tmp_path / "x.tar", 2)
    packed.write_loose(tmp_path / "y.parquet/image", 1)
    (tmp_path / "y.parquet/image/0").write_bytes(packed.jpeg(7))
    assert find_image(tmp_path, "x.tar/001.jpg") == tmp_path / "x.tar/001.jpg"
    assert find_image(tmp_path, "y.parquet/image/0") == tmp_path / "y.parquet/image/0"


def test_an_archive_in_a_folder_named_like_one_is_found(tmp_path: Path) -> None:
    packed.write_tar(tmp_path / "x.tar/y.TAR", [("0.jpg", packed.jpeg(0))])
    with open_image(find_image(tmp_path, "x.tar/y.TAR/0.jpg")) as file:
        assert file.read() == packed.jpeg(0)


def test_names_of_coco_are_found_in_archives_of_either_year(tmp_path: Path) -> None:
    packed.write_tar(tmp_path / "val.tar", [("val2017/000000000139.jpg", packed.jpeg(1))])
    found = find_image(tmp_path, "val.tar/val2017/000000000139.jpg")
    assert isinstance(found, PackedImage)
    assert find_image(tmp_path, "images/v1/val.tar/val2017/000000000139.jpg") == found


def test_an_archive_that_is_replaced_is_read_anew(tmp_path: Path) -> None:
    for seed in (1, 2):
        packed.write_tar(tmp_path / "x.tar", [("0.jpg", packed.jpeg(seed, width=40 + seed))])
        packed.write_parquet(tmp_path / "x.parquet", packed.table(3, seed=seed))
        packed.write_arrow(tmp_path / "x.arrow", packed.table(3, seed=seed))
        for path in tmp_path.iterdir():
            os.utime(path, ns=(seed * 10**9, seed * 10**9))
        assert read_image_header(find_image(tmp_path, "x.tar/0.jpg"))[1] == 40 + seed
        for name in ("x.parquet/image/1", "x.arrow/image/1"):
            with open_image(find_image(tmp_path, name)) as file:
                assert file.read() == packed.jpeg(seed + 1)


def test_a_machine_without_open_files_is_no_error_of_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed.write_tar(tmp_path / "x.tar", [("0.jpg", packed.jpeg(0))])

    def fail(code: int) -> Callable[[Path], object]:
        def raise_it(path: Path) -> object:
            raise OSError(code, os.strerror(code), str(path))

        return raise_it

    monkeypatch.setattr("synthgen.images.packed.open_index", fail(errno.EMFILE))
    with pytest.raises(OSError, match="Too many open files"):
        find_image(tmp_path, "x.tar/0.jpg")
    monkeypatch.setattr("synthgen.images.packed.open_index", fail(errno.EACCES))
    with pytest.raises(ImageError, match=r"its archive cannot be read \(Permission denied\)"):
        find_image(tmp_path, "x.tar/0.jpg")


def test_an_archive_that_vanishes_is_an_error_of_the_image(tmp_path: Path) -> None:
    packed.write_tar(tmp_path / "x.tar", [("0.jpg", packed.jpeg(0))])
    source = find_image(tmp_path, "x.tar/0.jpg")
    (tmp_path / "x.tar").unlink()
    with pytest.raises(ImageError, match="no such file"):
        load_rgb(source)


def _read_all(folder: Path, seed: int) -> bool:
    order = [(kind, (i * 7 + seed) % COUNT) for i in range(COUNT) for kind in NAMES]
    for kind, i in order:
        with open_image(find_image(folder, NAMES[kind].format(i))) as file:
            if file.read() != packed.jpeg(i):
                return False
    return True


def test_threads_read_the_same_archives(folder: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda seed: _read_all(folder, seed), range(16)))


def test_forked_processes_read_the_same_archives(folder: Path) -> None:
    assert _read_all(folder, 0)  # so that the children have what the parent remembers
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.starmap(_read_all, [(folder, seed) for seed in range(4)]) == [True] * 4
