"""Decoding: orientation, kinds of pixels, broken files, size limits; the right pixels or an `ImageError`."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import threading
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fakes.image_files import random_pixels, save_image
from fakes.peak_memory import linux_only, measure_rise
from PIL import Image, ImageFile, ImageOps, PngImagePlugin

from synthgen.images import decode
from synthgen.images.byte_budget import ByteBudget
from synthgen.images.decode import ImageError, load_rgb, read_image_header

RED = (250, 10, 20)


# As `records.images` asks for on import; pytest has its own filters for each test.
pytestmark = pytest.mark.filterwarnings(r"ignore:::PIL\.")


def smooth(height: int = 96, width: int = 128) -> np.ndarray:
    y, x = np.mgrid[0 : 255 : height * 1j, 0 : 255 : width * 1j]
    return np.stack([x, y, 255 - x], -1).astype(np.uint8)


def colour_of(path: Path) -> tuple[int, ...]:
    """The mean colour, rounded; the array is what the contract says."""
    pixels = load_rgb(path)
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    assert pixels.flags.c_contiguous
    return tuple(int(v) for v in pixels.reshape(-1, 3).mean(0).round())


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
    return save_image(path, stored, exif=exif, **how)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", SHOWN)
def test_orientation_is_applied_as_viewers_do(tmp_path, suffix, orientation):
    stored = random_pixels()
    path = oriented(tmp_path / f"x{suffix}", orientation, stored)
    shown = SHOWN[orientation](stored)
    assert np.array_equal(load_rgb(path), shown)
    assert np.array_equal(load_rgb(path, *shown.shape[:2]), shown)
    assert read_image_header(path)[:2] == shown.shape[:2]


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_orientation_is_left_where_the_annotations_know_only_the_stored_size(tmp_path, orientation):
    stored = random_pixels(12, 20)
    path = oriented(tmp_path / "x.png", orientation, stored)
    assert np.array_equal(load_rgb(path, 12, 20), stored)
    assert read_image_header(path) == (20, 12, True)
    with pytest.raises(ImageError, match="12 x 20 pixels, the annotations say 12 x 12"):
        load_rgb(path, 12, 12)


def test_half_a_turn_is_applied_although_both_sizes_agree(tmp_path):
    stored = random_pixels(12, 20)
    path = oriented(tmp_path / "x.png", 3, stored)
    assert np.array_equal(load_rgb(path, 12, 20), stored[::-1, ::-1])
    assert read_image_header(path) == (12, 20, False)


def test_a_turned_tiff_has_only_its_shown_size(tmp_path):
    path = oriented(tmp_path / "x.tif", 6, random_pixels(12, 20))
    assert read_image_header(path) == (20, 12, False)
    with pytest.raises(ImageError, match="the annotations say 20 x 12"):
        load_rgb(path, 12, 20)


def test_a_turned_jpeg(tmp_path):
    path = oriented(tmp_path / "x.jpg", 6, smooth())
    close = np.abs(load_rgb(path, 128, 96).astype(int) - np.rot90(smooth(), -1)).mean()
    assert close < 4


@pytest.mark.parametrize("value", [0, 9, 77, 65535])
def test_an_orientation_that_is_none_is_none(tmp_path, value):
    path = oriented(tmp_path / "x.png", value, random_pixels())
    assert np.array_equal(load_rgb(path), random_pixels())


def test_exif_that_cannot_be_read_does_not_cost_the_image(tmp_path):
    for junk in (b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01" * 40, b"Exif\0\0rubbish", b"Exif\0\0"):
        path = save_image(tmp_path / "x.jpg", smooth(), exif=junk)
        assert load_rgb(path, 96, 128).shape == (96, 128, 3)
        assert read_image_header(path) == (96, 128, False)


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
    found = colour_of(save_image(tmp_path / name, picture, **how))
    assert np.abs(np.subtract(found, expected)).max() <= 2


def test_cmyk_jpeg_as_photoshop_writes_it_upside_down(tmp_path):
    path = save_image(tmp_path / "x.jpg", Image.new("CMYK", (16, 16), (0, 255, 255, 0)))
    assert b"Adobe" in path.read_bytes()  # its samples are stored inverted
    assert np.abs(np.subtract(colour_of(path), (254, 0, 0))).max() <= 3


@pytest.mark.parametrize("transparency", [None, 1, bytes([255, 0, 128])])
def test_palette_gives_its_colours_and_drops_transparency_without_a_word(tmp_path, transparency):
    picture = Image.new("P", (8, 6), 1)
    picture.putpalette([0, 0, 0, *RED, 9, 9, 9])
    path = save_image(tmp_path / "x.png", picture, **({} if transparency is None else {"transparency": transparency}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert colour_of(path) == RED


@pytest.mark.parametrize("name", ["x.png", "x.tif"])
def test_sixteen_bits_keep_the_upper_eight(tmp_path, name):
    values = np.array([[0, 255, 256, 511], [512, 0x7F80, 0xFF00, 0xFFFF]], np.uint16)
    path = save_image(tmp_path / name, Image.fromarray(values))
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
    assert load_rgb(save_image(tmp_path / "x.tif", Image.fromarray(values)))[0, :, 0].tolist() == expected


@pytest.mark.parametrize("value", [-1.0, 1e9, float("nan"), float("inf")])
def test_thirty_two_bits_that_are_none(tmp_path, value):
    path = save_image(tmp_path / "x.tif", Image.fromarray(np.array([[0.0, value]], np.float32)))
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
    first = load_rgb(save_image(tmp_path / "a.jpg", smooth(), quality=90))
    assert np.array_equal(load_rgb(save_image(tmp_path / "b.jpg", smooth(), quality=90, progressive=True)), first)


def test_lab_is_converted_or_refused_but_not_taken_for_rgb(tmp_path):
    path = save_image(tmp_path / "x.tif", Image.new("LAB", (8, 6), (50, 128, 128)))  # L* = 19.6: sRGB 47
    try:
        assert np.abs(np.subtract(colour_of(path), 47)).max() <= 1
    except ImageError as why:
        assert "LAB" in str(why)  # Pillow before 12 knows no way


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
    Image.fromarray(random_pixels(48, 64)).save(buffer, **KINDS[kind])
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
    Image.fromarray(random_pixels(24, 32)).save(buffer, **KINDS[kind])
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
    ("data", "said"),
    [
        (b"", "is empty"),
        (b"\0", "only zeros"),
        (b"no image, just words\n" * 20, "no image of the kinds"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
    ],
)
def test_no_image_at_all(tmp_path, data, said):
    path = tmp_path / "x.jpg"
    path.write_bytes(data)
    for read in (load_rgb, read_image_header):
        with pytest.raises(ImageError, match=said) as caught:
            read(path)
        assert str(tmp_path) not in str(caught.value)


def test_missing(tmp_path):
    for read in (load_rgb, read_image_header):
        with pytest.raises(ImageError, match=r"^no such file$"):
            read(tmp_path / "x.jpg")


def test_a_file_that_may_not_be_read_is_reported_without_its_path(tmp_path, monkeypatch):
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


@linux_only
@pytest.mark.parametrize("side", [(60_000, 60_000), (2**31 - 1, 2**31 - 1), (2**31 - 1, 1), (11_181, 11_181)])
def test_a_header_that_promises_too_much_costs_no_memory(tmp_path, side):
    path = tmp_path / "x.png"
    path.write_bytes(png(*side, 8, 2, b"\0" * 100))
    with measure_rise() as rise:
        for read in (load_rgb, read_image_header):
            with pytest.raises(ImageError, match="more than the limit of 125000000"):
                read(path)
    assert rise.mib < 32


def test_a_large_image_of_another_size_than_annotated_is_not_decoded(tmp_path, monkeypatch):
    path = tmp_path / "x.png"
    path.write_bytes(png(11_000, 11_000, 8, 2, b"\0" * 100))
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("decoded"))
    with pytest.raises(ImageError, match="is 11000 x 11000 pixels, the annotations say 640 x 480"):
        load_rgb(path, 480, 640)


def test_the_limit_is_ours_where_another_library_has_turned_pillows_off(tmp_path, monkeypatch):
    path = save_image(tmp_path / "x.png", random_pixels(12, 20))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    monkeypatch.setattr(decode, "MAX_IMAGE_PIXELS", 239)
    for read in (load_rgb, read_image_header):
        with pytest.raises(ImageError, match="20 x 12 pixels, more than the limit of 239"):
            read(path)


def test_warnings_of_pillow_are_neither_shown_nor_an_outcome(tmp_path):
    """In a process of its own: pytest has filters of its own."""
    save_image(tmp_path / "x.png", random_pixels(12, 20))
    save_image(tmp_path / "x.jpg", smooth(), exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01" * 40)
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
    path = save_image(tmp_path / "x.png", random_pixels(12, 20))
    with pytest.raises(ImageError, match=r"^is 20 x 12 pixels, the annotations say 20 x 13$"):
        load_rgb(path, 13, 20)
    with pytest.raises(ImageError, match="the annotations say 12 x 20"):  # turned, and no orientation says so
        load_rgb(path, 20, 12)
    assert load_rgb(path, 12, 20).shape == load_rgb(path, 0, 20).shape == load_rgb(path).shape


def test_the_header_is_read_without_decoding(tmp_path, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = save_image(tmp_path / "t.png", random_pixels(12, 20), exif=exif)
    plain = save_image(tmp_path / "p.png", random_pixels(12, 20))
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda _: pytest.fail("decoded"))
    assert read_image_header(turned) == (20, 12, True)
    assert read_image_header(plain) == (12, 20, False)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "CMYK", "L", "LA", "P", "1", "YCbCr"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_image_is_converted_in_strips_to_the_same_pixels(tmp_path, mode, orientation, monkeypatch):
    picture = Image.fromarray(smooth(67, 43)).convert(mode)
    suffix = ".jpg" if mode in ("CMYK", "YCbCr") else ".png"
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save_image(tmp_path / f"x{suffix}", picture, exif=exif)
    whole = load_rgb(path)
    for pixels in (1, 43 * 5, 67 * 43 - 1):
        monkeypatch.setattr(decode, "_STRIP_PIXELS", pixels)
        strips = load_rgb(path)
        assert np.array_equal(strips, whole) and strips.dtype == np.uint8 and strips.flags.c_contiguous


def test_a_large_colour_coded_label_map_is_the_same_in_strips(tmp_path, monkeypatch):
    colours = random_pixels(50, 30)
    path = save_image(tmp_path / "labels.png", colours)
    expected = (colours.astype(np.int64) * (65536, 256, 1)).sum(2)
    for pixels in (2**22, 70):
        monkeypatch.setattr(decode, "_STRIP_PIXELS", pixels)
        labels = decode.load_label_map(path, color_coded=True)
        assert labels.dtype == np.int32 and np.array_equal(labels, expected)


def test_threads_decode_only_so_many_bytes_at_a_time(tmp_path, monkeypatch):
    """One image that exceeds them alone is decoded too, by itself."""
    sizes = [(10, 10)] * 6 + [(100, 100)] + [(10, 10)] * 6
    paths = [save_image(tmp_path / f"{i}.png", random_pixels(*size)) for i, size in enumerate(sizes)]
    monkeypatch.setattr(decode, "_budget", ByteBudget(3 * 7 * 100))
    lock, running, seen = threading.Lock(), [], []
    convert = decode._to_rgb

    def slow(image):
        with lock:
            running.append(image.width)
            seen.append(sorted(running))
        time.sleep(0.02)
        with lock:
            running.remove(image.width)
        return convert(image)

    monkeypatch.setattr(decode, "_to_rgb", slow)
    with ThreadPoolExecutor(8) as pool:
        assert [pixels.shape[:2] for pixels in pool.map(load_rgb, paths)] == sizes
    assert max(map(len, seen)) == 3, "room for three small ones"
    assert [100] in seen and all(widths == [100] for widths in seen if 100 in widths)


def test_a_forked_process_decodes_whatever_its_parent_does(tmp_path):
    """The reader processes of a training."""
    path = save_image(tmp_path / "x.png", random_pixels(10, 10))
    program = f"""
import os, threading
from pathlib import Path
from synthgen.images import decode
with decode._budget.hold(2 * decode.MAX_DECODE_BYTES):
    child = os.fork()
    if child == 0:
        os._exit(decode.load_rgb(Path({str(path)!r})).shape != (10, 10, 3))
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16", "I", "F"])
def test_strips_give_the_pixels_of_the_whole_image(tmp_path, monkeypatch, mode):
    """37 rows in strips of 5, against one strip."""
    path = tmp_path / "x.tif"
    image = Image.fromarray(random_pixels(37, 11))
    if mode == "I;16":
        image = Image.fromarray(np.random.default_rng(0).integers(0, 2**16, (37, 11), np.uint16))
    elif mode == "F":
        image = Image.fromarray(np.random.default_rng(0).random((37, 11), np.float32))
    else:
        image = image.convert("L").convert(mode) if mode == "I" else image.convert(mode)
    image.save(path)

    def read(load):
        try:
            return load(path)
        except ImageError as why:
            return str(why)

    ways = [load_rgb, decode.load_label_map, lambda path: decode.load_label_map(path, color_coded=True)]
    whole = [read(load) for load in ways]
    monkeypatch.setattr(decode, "_STRIP_PIXELS", 5 * 11 + 3)
    for one, other in zip(whole, map(read, ways), strict=True):
        assert type(one) is type(other)
        assert one == other if isinstance(one, str) else (one.dtype, one.tolist()) == (other.dtype, other.tolist())
    assert isinstance(whole[0], np.ndarray)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_an_orientation_turns_pixels_as_pillow_does(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save_image(tmp_path / "x.png", random_pixels(12, 20), exif=exif)
    with Image.open(path) as image:
        assert np.array_equal(load_rgb(path), np.asarray(ImageOps.exif_transpose(image)))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is measured as Linux shows it")
@pytest.mark.parametrize(
    ("mode", "suffix", "side"),
    [
        ("CMYK", "tif", 11_180),
        ("I", "tif", 11_180),
        ("RGB", "jpg", 11_180),
        ("RGB", "jp2", 7_327),
        ("RGB", "webp", 7_947),
    ],
)
def test_the_largest_image_takes_at_most_a_gib(tmp_path, mode, suffix, side):
    """In a process of its own; the kernel keeps its peak."""
    path = tmp_path / f"x.{suffix}"
    options = {
        "tif": {"compression": "tiff_deflate"},
        "jpg": {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0", "progressive": True},
        "webp": {"lossless": True, "method": 0},
    }
    Image.new(mode, (side, side)).save(path, **options.get(suffix, {}))
    code = """if True:
        import sys
        from pathlib import Path
        from synthgen.images.decode import ImageError, load_label_map, load_rgb
        def kib(key):
            return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith(key)))
        open("/proc/self/clear_refs", "w").write("5")
        before = kib("VmRSS")
        load_rgb(Path(sys.argv[1]))
        try:
            load_label_map(Path(sys.argv[1]))
        except ImageError:
            pass
        print(kib("VmHWM") - before)
    """
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert 2**18 < int(done.stdout) <= 2**20  # KiB


@pytest.mark.parametrize("suffix", ["jp2", "webp", "avif"])
def test_formats_with_hungry_decoders_have_a_smaller_limit(tmp_path, monkeypatch, suffix):
    path = save_image(tmp_path / f"x.{suffix}", random_pixels(12, 20))
    assert load_rgb(path).shape == (12, 20, 3)
    monkeypatch.setattr(decode, "_MAX_PIXELS_BY_FORMAT", dict.fromkeys(decode._MAX_PIXELS_BY_FORMAT, 239))
    for read in (load_rgb, read_image_header):
        with pytest.raises(ImageError, match="20 x 12 pixels, more than the limit of 239"):
            read(path)


@pytest.mark.parametrize(
    "name", ["Too many open files.jpg", "can't start new thread.png", "Cannot allocate memory.png"]
)
def test_a_file_name_does_not_pose_as_an_error_of_the_machine(tmp_path, name):
    (tmp_path / name).write_bytes(b"no image")
    with pytest.raises(ImageError, match="cannot be decoded"):
        load_rgb(tmp_path / name)
