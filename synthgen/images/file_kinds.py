"""Describes a file that is not an image of a supported format, by its first bytes, and says what to do about it."""

from __future__ import annotations

from pathlib import Path

_CONVERT = "; convert it to JPEG"

#: First bytes -> what the file is.
_BY_START: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "is a pointer of Git LFS, not the image; run `git lfs pull`"),
    (b"%PDF", f"is a PDF{_CONVERT}"),
    (b"8BPS", f"is a Photoshop file{_CONVERT}"),
    (b"\xff\x0a", f"is a JPEG XL image{_CONVERT}"),
    (b"\x00\x00\x00\x0cJXL ", f"is a JPEG XL image{_CONVERT}"),
    (b"DDS ", f"is a DDS texture{_CONVERT}"),
    (b"\x76\x2f\x31\x01", f"is an OpenEXR image{_CONVERT}"),
    (b"FUJIFILM", f"is a camera's raw image{_CONVERT}"),
    (b"\x1f\x8b", "is gzip data; unpack it"),
    (b"PK\x03\x04", "is a ZIP archive; unpack it"),
    (b"\x1a\x45\xdf\xa3", "is a video; extract its frames"),
    (b"{", "is text (JSON), not an image"),
)

#: Brand of an ISO media file (bytes 8 to 12) -> what it is. https://nokiatech.github.io/heif/technical.html
_BY_BRAND = {
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"), "a HEIC"),
    **dict.fromkeys((b"avif", b"avis"), "an AVIF"),
    b"crx ": "a camera's raw",
}


def describe_file_kind(path: Path) -> str | None:
    """What a file is that cannot be read as an image, and the remedy; None if it is not known. Never raises.

    Args:
        path: the file; its first 512 bytes are read.
    """
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError:
        return None
    if not start:
        return "is empty; copy or download it again"
    if start[4:8] == b"ftyp":
        kind = _BY_BRAND.get(start[8:12])
        return f"is {kind} image{_CONVERT}" if kind else "is a video; extract its frames"
    for prefix, what in _BY_START:
        if start.startswith(prefix):
            return what
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "is a web page, not an image; download it again"
    if text.startswith(b"<svg") or (text.startswith(b"<?xml") and b"<svg" in text):
        return f"is an SVG drawing{_CONVERT}"
    return "is not complete, or was not copied: it has only zeros" if not start.strip(b"\0") else None
