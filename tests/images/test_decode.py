"""Every odd image file has a defined outcome: the right pixels, or an `ImageError`; never a crash or a hang."""

from __future__ import annotations

import io
import os
import resource
import struct
import subprocess
import sys
import threading
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin

from synthgen.images import decode
from synthgen.images.decode import ImageError, find_image, load_rgb, prefetch_images, read_image_header
from synthgen.records.sample import Sample

RED = (250, 10, 20)

# As `records.images` asks for on import; pytest has its own filters for each test.
pytestmark = pytest.mark.filterwarnings(r"ignore:::PIL\.")


def noise(height: int = 12, width: int = 20, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def smooth(height: int = 96, width: int = 128) -> np.ndarray:
    y, x = np.mgrid[0 : 255 : height * 1j, 0 : 255 : width * 1j]
    return np.stack([x, y, 255 - x], -1).astype(np.uint8)


def save(path: Path, pixels: np.ndarray | Image.Image, **how) -> Path:
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    picture.save(path, **how)
    return path


def colour_of(path: Path) -> tuple[int, ...]:
    """The mean colour, rounded; the array is what the contract says."""
    pixels = load_rgb(path)
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    assert pixels.flags.c_contiguous
    return tuple(int(v) for v in pixels.reshape(-1, 3).mean(0).round())


# --- orientation -----------------------------------------------------------------------------------------------------

SHOWN = {  # by the EXIF standard: which side of the stored pixels is the top, and which the left, of the picture
    1: lambda s: s,
    2: lambda s: s[:, ::-1],
    3: lambda s: s[::-1, ::-1],
    4: lambda s: s[::-1],
    5: lambda s: s.swapaxes(0, 1),
    6: lambda s: np.rot90(s, -1),
    7: lambda s: np.rot90(s, 2).swapaxes(0, 1),
    8: np.rot90,
}


def oriented(path: Path, orientation: int, stored: np.ndarray) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    how = {"lossless": True} if path.suffix == ".webp" else {}
    return save(path, stored, exif=exif, **how)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", SHOWN)
def test_orientation_is_applied_as_viewers_do(tmp_path, suffix, orientation):
    stored = noise()
    path = oriented(tmp_path / f"x{suffix}", orientation, stored)
    shown = SHOWN[orientation](stored)
    assert np.array_equal(load_rgb(path), shown)
    assert np.array_equal(load_rgb(path, *shown.shape[:2]), shown)
    assert read_image_header(path)[:2] == shown.shape[:2]


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_orientation_is_left_where_the_annotations_know_only_the_stored_size(tmp_path, orientation):
    stored = noise(12, 20)
    path = oriented(tmp_path / "x.png", orientation, stored)
    assert np.array_equal(load_rgb(path, 12, 20), stored)
    assert read_image_header(path) == (20, 12, True)
    with pytest.raises(ImageError, match="12 x 20 pixels, the annotations say 12 x 12"):
        load_rgb(path, 12, 12)


def test_half_a_turn_is_applied_although_both_sizes_agree(tmp_path):
    stored = noise(12, 20)
    path = oriented(tmp_path / "x.png", 3, stored)
    assert np.array_equal(load_rgb(path, 12, 20), stored[::-1, ::-1])
    assert read_image_header(path) == (12, 20, False)


def test_a_turned_tiff_has_only_its_shown_size(tmp_path):
    path = oriented(tmp_path / "x.tif", 6, noise(12, 20))
    assert read_image_header(path) == (20, 12, False)
    with pytest.raises(ImageError, match="the annotations say 20 x 12"):
        load_rgb(path, 12, 20)


def test_a_turned_jpeg(tmp_path):
    path = oriented(tmp_path / "x.jpg", 6, smooth())
    close = np.abs(load_rgb(path, 128, 96).astype(int) - np.rot90(smooth(), -1)).mean()
    assert close < 4


@pytest.mark.parametrize("value", [0, 9, 77, 65535])
def test_an_orientation_that_is_none_is_none(tmp_path, value):
    path = oriented(tmp_path / "x.png", value, noise())
    assert np.array_equal(load_rgb(path), noise())


def test_exif_that_cannot_be_read_does_not_cost_the_image(tmp_path):
    for junk in (b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01" * 40, b"Exif\0\0rubbish", b"Exif\0\0"):
        path = save(tmp_path / "x.jpg", smooth(), exif=junk)
        assert load_rgb(path, 96, 128).shape == (96, 128, 3)
        assert read_image_header(path) == (96, 128, False)


# --- kinds of pixels -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "picture", "expected"),
    [
        ("grey.png", Image.new("L", (8, 6), 77), (77, 77, 77)),
        ("grey.jpg", Image.new("L", (8, 6), 77), (77, 77, 77)),
        ("la.png", Image.new("LA", (8, 6), (77, 0)), (77, 77, 77)),
        ("rgba.png", Image.new("RGBA", (8, 6), (*RED, 3)), RED),
        ("rgba.webp", Image.new("RGBA", (8, 6), (*RED, 255)), RED),
        ("rgba.tif", Image.new("RGBA", (8, 6), (*RED, 3)), RED),
        ("bit0.png", Image.new("1", (8, 6), 0), (0, 0, 0)),
        ("bit1.png", Image.new("1", (8, 6), 1), (255, 255, 255)),
        ("bit1.tif", Image.new("1", (8, 6), 1), (255, 255, 255)),
        ("cmyk.tif", Image.new("CMYK", (8, 6), (0, 255, 255, 0)), (255, 0, 0)),
        ("ycbcr.tif", Image.new("RGB", (8, 6), (254, 0, 0)), (254, 0, 0)),
        ("ycbcr.jpg", Image.new("YCbCr", (8, 6), (76, 85, 255)), (254, 0, 0)),
        ("x.bmp", Image.new("RGB", (8, 6), RED), RED),
        ("x.ppm", Image.new("RGB", (8, 6), RED), RED),
        ("x.jp2", Image.new("RGB", (8, 6), RED), RED),
    ],
)
def test_kinds_of_pixels(tmp_path, name, picture, expected):
    how = {"lossless": True} if name.endswith("webp") else {"compression": "jpeg"} if name == "ycbcr.tif" else {}
    found = colour_of(save(tmp_path / name, picture, **how))
    assert np.abs(np.subtract(found, expected)).max() <= 2


def test_cmyk_jpeg_as_photoshop_writes_it_upside_down(tmp_path):
    path = save(tmp_path / "x.jpg", Image.new("CMYK", (16, 16), (0, 255, 255, 0)))
    assert b"Adobe" in path.read_bytes()  # its samples are stored inverted
    assert np.abs(np.subtract(colour_of(path), (254, 0, 0))).max() <= 3


@pytest.mark.parametrize("transparency", [None, 1, bytes([255, 0, 128])])
def test_palette_gives_its_colours_and_drops_transparency_without_a_word(tmp_path, transparency):
    picture = Image.new("P", (8, 6), 1)
    picture.putpalette([0, 0, 0, *RED, 9, 9, 9])
    path = save(tmp_path / "x.png", picture, **({} if transparency is None else {"transparency": transparency}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert colour_of(path) == RED


@pytest.mark.parametrize("name", ["x.png", "x.tif"])
def test_sixteen_bits_keep_the_upper_eight(tmp_path, name):
    values = np.array([[0, 255, 256, 511], [512, 0x7F80, 0xFF00, 0xFFFF]], np.uint16)
    path = save(tmp_path / name, Image.fromarray(values))
    assert load_rgb(path)[..., 0].tolist() == [[0, 0, 1, 1], [2, 0x7F, 255, 255]]


def test_sixteen_bits_in_motorola_order(tmp_path):
    """An I;16B TIFF, written by hand: 2 x 1 pixels, 0x1234 and 0xFEDC."""
    tags = [(256, 4, 2), (257, 4, 1), (258, 3, 16), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1), (279, 4, 4)]
    tags.insert(6, (278, 4, 1))
    tags = sorted(tags)
    entries = b"".join(
        struct.pack(">HHI", tag, kind, 1) + (struct.pack(">HH", value, 0) if kind == 3 else struct.pack(">I", value))
        for tag, kind, value in tags
    )
    directory = struct.pack(">H", len(tags)) + entries + b"\0\0\0\0"
    path = tmp_path / "x.tif"
    path.write_bytes(b"MM\0*" + struct.pack(">I", 12) + struct.pack(">HH", 0x1234, 0xFEDC) + directory)
    with Image.open(path) as picture:
        assert picture.mode == "I;16B"
    assert load_rgb(path).tolist() == [[[0x12] * 3, [0xFE] * 3]]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 200]], np.int32), [0, 200]),
        (np.array([[0, 65535]], np.int32), [0, 255]),
        (np.array([[0, 257]], np.int32), [0, 1]),
        (np.array([[0.0, 200.0]], np.float32), [0, 200]),
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 127, 255]),
        (np.array([[0.0, 65535.0]], np.float32), [0, 255]),
        (np.array([[0.0, 0.0]], np.float32), [0, 0]),
    ],
)
def test_thirty_two_bits_that_are_intensities(tmp_path, values, expected):
    assert load_rgb(save(tmp_path / "x.tif", Image.fromarray(values)))[0, :, 0].tolist() == expected


@pytest.mark.parametrize("value", [-1.0, 1e9, float("nan"), float("inf")])
def test_thirty_two_bits_that_are_none(tmp_path, value):
    path = save(tmp_path / "x.tif", Image.fromarray(np.array([[0.0, value]], np.float32)))
    with pytest.raises(ImageError, match="mode F"):
        load_rgb(path)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, colour: int, pixels: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def test_sixteen_bit_colour_png(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(png(1, 1, 16, 2, b"\0" + struct.pack(">HHH", 0xFA12, 0x0A34, 0x14FF)))
    assert colour_of(path) == RED


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_animations_give_their_first_frame(tmp_path, kind):
    frames = [Image.new("RGB", (8, 6), colour) for colour in (RED, (0, 255, 0), (0, 0, 255))]
    path = tmp_path / f"x.{kind.lower()}"
    how = {"lossless": True} if kind == "WEBP" else {}
    frames[0].save(path, format=kind, save_all=True, append_images=frames[1:], **how)
    assert colour_of(path) == RED


def test_progressive_jpeg_gives_what_a_baseline_one_gives(tmp_path):
    first = load_rgb(save(tmp_path / "a.jpg", smooth(), quality=90))
    assert np.array_equal(load_rgb(save(tmp_path / "b.jpg", smooth(), quality=90, progressive=True)), first)


def test_lab_is_converted_or_refused_but_not_taken_for_rgb(tmp_path):
    path = save(tmp_path / "x.tif", Image.new("LAB", (8, 6), (50, 128, 128)))  # L* = 19.6: sRGB 47
    try:
        assert np.abs(np.subtract(colour_of(path), 47)).max() <= 1
    except ImageError as why:
        assert "LAB" in str(why)  # Pillow before 12 knows no way


# --- broken files ----------------------------------------------------------------------------------------------------

KINDS = {
    "jpg": {"format": "JPEG"},
    "progressive.jpg": {"format": "JPEG", "progressive": True},
    "png": {"format": "PNG"},
    "webp": {"format": "WEBP"},
    "tif": {"format": "TIFF"},
    "lzw.tif": {"format": "TIFF", "compression": "tiff_lzw"},
    "bmp": {"format": "BMP"},
    "gif": {"format": "GIF"},
    "ppm": {"format": "PPM"},
    "jp2": {"format": "JPEG2000"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_cut_anywhere_is_an_error_or_whole(tmp_path, kind):
    """Never half an image: grey below the cut would be masks of nothing."""
    buffer = io.BytesIO()
    Image.fromarray(noise(48, 64)).save(buffer, **KINDS[kind])
    data = buffer.getvalue()
    path = tmp_path / f"x.{kind}"
    path.write_bytes(data)
    whole = load_rgb(path)
    errors = 0
    lengths = {*np.linspace(0, len(data) - 1, 60).astype(int), *range(len(data) - 12, len(data))}
    for length in sorted(lengths):
        path.write_bytes(data[:length])
        try:
            found = load_rgb(path, 48, 64)
        except ImageError:
            errors += 1
        else:
            assert np.array_equal(found, whole), f"cut at {length} of {len(data)}"
    assert errors >= 50


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_with_flipped_bytes_never_crashes(tmp_path, kind):
    buffer = io.BytesIO()
    Image.fromarray(noise(24, 32)).save(buffer, **KINDS[kind])
    data, rng = buffer.getvalue(), np.random.default_rng(1)
    path = tmp_path / f"x.{kind}"
    for _ in range(60):
        broken = bytearray(data)
        for place in rng.integers(0, min(len(data), 400), 3):
            broken[place] = rng.integers(256)
        path.write_bytes(broken)
        try:
            assert load_rgb(path, 24, 32).shape == (24, 32, 3)
        except ImageError as why:
            assert str(tmp_path) not in str(why)


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"no image, just words\n" * 20, b"<svg xmlns='http://www.w3.org/2000/svg'/>"]
)
def test_no_image_at_all(tmp_path, data):
    path = tmp_path / "x.jpg"
    path.write_bytes(data)
    for read in (load_rgb, read_image_header):
        with pytest.raises(ImageError, match="no image of the kinds") as caught:
            read(path)
        assert str(tmp_path) not in str(caught.value)


def test_missing(tmp_path):
    for read in (load_rgb, read_image_header):
        with pytest.raises(ImageError, match=r"^no such file$"):
            read(tmp_path / "x.jpg")


def test_a_file_that_may_not_be_read_is_told_without_its_path(tmp_path, monkeypatch):
    def denied(path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Image, "open", denied)
    with pytest.raises(ImageError, match="Permission denied") as caught:
        load_rgb(tmp_path / "x.jpg")
    assert str(tmp_path) not in str(caught.value)


def test_postscript_is_not_run_whatever_its_name(tmp_path, monkeypatch):
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("ran a program over a file"))
    path = tmp_path / "x.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n%%EOF\n")
    with pytest.raises(ImageError):
        load_rgb(path)


def test_every_format_named_is_known_to_pillow():
    Image.init()
    assert set(decode.IMAGE_FORMATS) <= set(Image.OPEN)


# --- size ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [(60_000, 60_000), (2**31 - 1, 2**31 - 1), (2**31 - 1, 1), (13_380, 13_380)])
def test_a_header_that_promises_too_much_costs_no_memory(tmp_path, side):
    path = tmp_path / "x.png"
    path.write_bytes(png(*side, 8, 2, b"\0" * 100))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for read in (load_rgb, read_image_header):
        with pytest.raises(ImageError, match="more than the limit of 178956970"):
            read(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024  # KiB


def test_a_large_image_of_another_size_than_annotated_is_not_decoded(tmp_path, monkeypatch):
    path = tmp_path / "x.png"
    path.write_bytes(png(13_000, 13_000, 8, 2, b"\0" * 100))
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("decoded"))
    with pytest.raises(ImageError, match="is 13000 x 13000 pixels, the annotations say 640 x 480"):
        load_rgb(path, 480, 640)


def test_the_limit_is_ours_where_another_library_has_turned_pillows_off(tmp_path, monkeypatch):
    path = save(tmp_path / "x.png", noise(12, 20))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    monkeypatch.setattr(decode, "MAX_IMAGE_PIXELS", 239)
    for read in (load_rgb, read_image_header):
        with pytest.raises(ImageError, match="20 x 12 pixels, more than the limit of 239"):
            read(path)


def test_warnings_of_pillow_are_neither_shown_nor_an_outcome(tmp_path):
    """In a process of its own: pytest has filters of its own."""
    save(tmp_path / "x.png", noise(12, 20))
    save(tmp_path / "x.jpg", smooth(), exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01" * 40)
    code = """if True:
        import sys
        from pathlib import Path
        from PIL import Image
        from synthgen.images.decode import load_rgb
        Image.MAX_IMAGE_PIXELS = 200  # Pillow would warn of 240 pixels
        print(load_rgb(Path(sys.argv[1]) / "x.png").shape)
        Image.MAX_IMAGE_PIXELS = None
        print(load_rgb(Path(sys.argv[1]) / "x.jpg").shape)
    """
    done = subprocess.run([sys.executable, "-W", "error", "-c", code, tmp_path], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("(12, 20, 3)\n(96, 128, 3)\n", "")


def test_another_size_than_annotated(tmp_path):
    path = save(tmp_path / "x.png", noise(12, 20))
    with pytest.raises(ImageError, match=r"^is 20 x 12 pixels, the annotations say 20 x 13$"):
        load_rgb(path, 13, 20)
    with pytest.raises(ImageError, match="the annotations say 12 x 20"):  # turned, and no orientation says so
        load_rgb(path, 20, 12)
    assert load_rgb(path, 12, 20).shape == load_rgb(path, 0, 20).shape == load_rgb(path).shape


def test_the_header_is_read_without_decoding(tmp_path, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = save(tmp_path / "t.png", noise(12, 20), exif=exif)
    plain = save(tmp_path / "p.png", noise(12, 20))
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda _: pytest.fail("decoded"))
    assert read_image_header(turned) == (20, 12, True)
    assert read_image_header(plain) == (12, 20, False)


# --- names -----------------------------------------------------------------------------------------------------------


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
    save(tmp_path / "x.png", noise())
    root = tmp_path / "photos"
    root.mkdir()
    (root / "x.png").symlink_to("../x.png")
    assert load_rgb(find_image(root, "x.png")).shape == (12, 20, 3)


# --- decoding ahead --------------------------------------------------------------------------------------------------


def sample(number: int, name: str, height: int = 12, width: int = 20, **fields) -> Sample:
    return Sample(number, f"toy/{number}", name, height, width, **fields)


@pytest.fixture
def folder(tmp_path):
    for number in range(40):
        save(tmp_path / f"{number}.png", np.full((12, 20, 3), number, np.uint8))
    (tmp_path / "bad.png").write_bytes(b"bad")
    return tmp_path


@pytest.mark.parametrize("threads", [1, 4])
def test_order_is_kept_and_a_bad_file_stops_nobody(folder, threads):
    samples = [sample(i, f"{i}.png") for i in range(40)]
    samples[3] = sample(3, "bad.png")
    samples[7] = sample(7, "missing.png")
    samples[9] = sample(9, "../9.png")
    samples[11] = sample(11, "11.png", 5, 5)
    samples[13] = sample(13, "13.png", error="an earlier stage's reason")
    samples[15] = sample(15, "15.png", 0, 0)
    found = list(prefetch_images(iter(samples), folder, num_threads=threads))
    assert [s for s, _ in found] == samples
    for s, pixels in found:
        if s.image_id in (3, 7, 9, 11):
            assert isinstance(pixels, ImageError)
        elif s.image_id == 13:
            assert pixels is None
        else:
            assert pixels.shape == (12, 20, 3)
            assert (pixels == s.image_id).all()


class Decoder:
    """Stands in for `load_rgb`; counts images that are begun and not yet taken."""

    def __init__(self, monkeypatch):
        self.begun, self.lock = 0, threading.Lock()
        monkeypatch.setattr(decode, "load_rgb", self)

    def __call__(self, path, height=0, width=0):
        with self.lock:
            self.begun += 1
        return np.zeros((1, 1, 3), np.uint8)


def test_no_more_than_two_images_a_thread_are_in_flight(folder, monkeypatch):
    decoder = Decoder(monkeypatch)
    most = 0
    for taken, _ in enumerate(prefetch_images([sample(i, f"{i}.png") for i in range(40)], folder, num_threads=2)):
        time.sleep(0.002)  # time for the threads to run away, if they could
        most = max(most, decoder.begun - taken)
    assert decoder.begun == 40
    assert 1 < most <= 5  # four in flight and the one in hand


def test_no_more_than_so_many_bytes_are_in_flight(folder, monkeypatch):
    decoder = Decoder(monkeypatch)
    monkeypatch.setattr(decode, "PREFETCH_BYTES", 3 * 1000 * 1000)
    ahead = []
    samples = [sample(i, f"{i}.png", 1000, 500) for i in range(20)]  # two at a time
    for taken, _ in enumerate(prefetch_images(samples, folder, num_threads=8)):
        time.sleep(0.005)
        ahead.append(decoder.begun - taken - 1)
    assert max(ahead) <= 2
    assert max(ahead[10:]) >= 1  # what was taken has made room
    one_is_too_large = [sample(i, f"{i}.png", 10_000, 10_000) for i in range(3)]
    assert len(list(prefetch_images(one_is_too_large, folder, num_threads=8))) == 3


def test_an_image_of_unstated_size_is_weighed_by_its_header(tmp_path, monkeypatch):
    for number in range(6):
        save(tmp_path / f"{number}.png", Image.new("1", (4000, 4000)))  # a few hundred bytes on disk, 48 MB as RGB
    decoder = Decoder(monkeypatch)
    monkeypatch.setattr(decode, "PREFETCH_BYTES", 100 * 2**20)
    most = 0
    for taken, _ in enumerate(
        prefetch_images([sample(i, f"{i}.png", 0, 0) for i in range(6)], tmp_path, num_threads=8)
    ):
        time.sleep(0.002)
        most = max(most, decoder.begun - taken)
    assert most <= 3


def test_samples_are_taken_only_when_there_is_room(folder):
    taken = []

    def samples():
        for i in range(40):
            taken.append(i)
            yield sample(i, f"{i}.png")

    ahead = prefetch_images(samples(), folder, num_threads=2)
    next(ahead)
    assert len(taken) <= 6
    ahead.close()


def test_closing_early_gives_up_what_has_not_begun(folder, monkeypatch):
    begun = []

    def slow(path, *_):
        begun.append(path)
        time.sleep(0.001 if path.name == "0.png" else 0.3)

    monkeypatch.setattr(decode, "load_rgb", slow)
    ahead = prefetch_images([sample(i, f"{i}.png") for i in range(40)], folder, num_threads=2)
    next(ahead)  # 1 and 2 are being decoded, 3 waits
    ahead.close()
    assert len(begun) <= 3
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_threads_agree_with_one_another(folder):
    """Pillow's filters, plugins and limits are shared by all threads; the outcomes must not depend on it."""
    save(folder / "big.png", np.zeros((12, 20, 3), np.uint8))
    names = [f"{i}.png" if i % 3 else "bad.png" for i in range(40)] * 5
    samples = [sample(i, name) for i, name in enumerate(names)]

    def outcome():
        return [
            str(p) if isinstance(p, ImageError) else p.tobytes()
            for _, p in prefetch_images(samples, folder, num_threads=8)
        ]

    first = outcome()
    filters = list(warnings.filters)
    assert all(outcome() == first for _ in range(3))
    assert warnings.filters == filters
