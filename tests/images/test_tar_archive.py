"""Tar archives: formats, links, names that leave the folder, duplicates, cut and hostile files."""

from __future__ import annotations

import gzip
import io
import tarfile
import time
import tracemalloc
from pathlib import Path

import pytest
from fakes import packed_datasets as packed
from hypothesis import given
from hypothesis import strategies as st

from synthgen.images import tar_archive
from synthgen.images.image_error import ImageError
from synthgen.images.tar_archive import TarMember, build_index, open_member, scan_tar

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def header(name: str, size: int = 0, kind: bytes = b"0") -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def read(path: Path, member: TarMember) -> bytes:
    with open_member(path, member.start, member.size) as file:
        return file.read()


@given(
    files=st.lists(st.tuples(st.integers(1, 260), st.binary(max_size=1_500)), max_size=6),
    kind=st.sampled_from(FORMATS[1:]),
)
def test_every_member_that_tarfile_writes_is_read(
    tmp_path_factory: pytest.TempPathFactory, files: list[tuple[int, bytes]], kind: int
) -> None:
    members = [(f"{i}/" + "n" * length + "é.jpg", content) for i, (length, content) in enumerate(files)]
    path = packed.write_tar(tmp_path_factory.mktemp("tar") / "x.tar", members, format=kind)
    found = list(scan_tar(path))
    assert [(one.name, read(path, one), one.problem) for one in found] == [(n, c, "") for n, c in members]


@pytest.mark.parametrize("kind", FORMATS)
def test_long_paths_of_each_format(tmp_path: Path, kind: int) -> None:
    name = "a" * 90 + "/" + "b" * 90 + ".jpg"
    [member] = scan_tar(packed.write_tar(tmp_path / "x.tar", [(name, b"12345")], format=kind))
    assert (member.name, member.size) == (name, 5)


def test_folders_are_left_out_and_a_dot_in_front_too(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        folder = tarfile.TarInfo("./in")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        archive.addfile(tarfile.TarInfo("./in//./x.jpg"))
    assert [member.name for member in scan_tar(tmp_path / "x.tar")] == ["in/x.jpg"]


@pytest.mark.parametrize(
    ("name", "kind", "problem"),
    [
        ("/etc/passwd", b"0", "not a path below"),
        ("../x.jpg", b"0", "not a path below"),
        ("a/../../x.jpg", b"0", "not a path below"),
        ("C:/x.jpg", b"0", "not a path below"),
        ("a\\..\\x.jpg", b"0", "backslash"),
        ("x.jpg", tarfile.SYMTYPE, "a symbolic link"),
        ("x.jpg", tarfile.LNKTYPE, "a hard link"),
        ("x.jpg", tarfile.CHRTYPE, "a device"),
        ("x.jpg", tarfile.BLKTYPE, "a device"),
        ("x.jpg", tarfile.FIFOTYPE, "a pipe"),
        ("x.jpg", tarfile.GNUTYPE_SPARSE, "a sparse file"),
        ("x.jpg", b"V", "an unknown kind|unknown kind"),
    ],
)
def test_a_member_that_is_no_plain_file_below_the_archive_is_refused(
    tmp_path: Path, name: str, kind: bytes, problem: str
) -> None:
    path = write(tmp_path / "x.tar", header(name, kind=kind) + header("good.jpg", 3) + b"abc".ljust(512, b"\0"))
    refused, good = scan_tar(path)
    assert problem in refused.problem or problem.split("|")[-1] in refused.problem
    assert (good.name, good.problem) == ("good.jpg", "")
    index = build_index(scan_tar(path))
    assert index.num_refused == 1 and index.locate("good.jpg")[1] == 3
    with pytest.raises(ImageError):
        index.locate(refused.name)


def test_a_sparse_file_of_pax_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("x.jpg")
        info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
        archive.addfile(info)
    assert [member.problem for member in scan_tar(tmp_path / "x.tar")] == ["is a sparse file"]


def test_of_members_with_one_name_the_last_counts(tmp_path: Path) -> None:
    path = packed.write_tar(tmp_path / "x.tar", [("a.jpg", b"1"), ("b.jpg", b"22"), ("./a.jpg", b"333")])
    index = build_index(scan_tar(path))
    assert (index.locate("a.jpg")[1], index.locate("b.jpg")[1], index.num_duplicates) == (3, 2, 1)


def test_of_a_cut_archive_the_members_before_the_cut_are_read(tmp_path: Path) -> None:
    content = packed.write_tar(tmp_path / "x.tar", [(f"{i}.jpg", bytes([i]) * 700) for i in range(4)]).read_bytes()
    for length in range(1_024, len(content), 256):
        path = write(tmp_path / "cut.tar", content[:length])
        index = build_index(scan_tar(path))
        whole = [i for i in range(4) if 1_536 * i + 512 + 700 <= length]
        for i in whole:
            start, size = index.locate(f"{i}.jpg")
            assert read(path, TarMember("", start, size)) == bytes([i]) * 700
        if len(whole) < 4:
            with pytest.raises(ImageError, match=r"cut off|no member"):
                index.locate(f"{len(whole)}.jpg")
        if length % 1_536 and length < 4 * 1_536:
            assert "cut off" in index.damage or index.damage == ""
    index = build_index(scan_tar(write(tmp_path / "cut.tar", content[: 2 * 1_536 + 600])))
    assert index.damage == "is cut off after 3,672 bytes"
    with pytest.raises(ImageError, match=r"2\.jpg lies where its archive is cut off"):
        index.locate("2.jpg")
    with pytest.raises(ImageError, match=r"no member 3\.jpg in its archive; the archive is cut off"):
        index.locate("3.jpg")


def test_a_damaged_header_ends_the_archive(tmp_path: Path) -> None:
    content = bytearray(packed.write_tar(tmp_path / "x.tar", [("a.jpg", b"1"), ("b.jpg", b"2")]).read_bytes())
    content[1_024 + 3] ^= 1
    members = list(scan_tar(write(tmp_path / "x.tar", bytes(content))))
    assert [(one.name, one.problem) for one in members] == [("a.jpg", ""), ("", "is damaged at byte 1,024")]


def test_a_checksum_of_signed_bytes_is_accepted(tmp_path: Path) -> None:
    """Some old programs summed so; it differs where a name is not ASCII."""
    block = bytearray(header("é.jpg"))
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % (sum(block) - 512)
    assert [member.name for member in scan_tar(write(tmp_path / "x.tar", bytes(block)))] == ["é.jpg"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (gzip.compress(b"x" * 2_000, mtime=0), "is compressed .gzip.; unpack"),
        (b"BZh91AY" + b"x" * 600, "is compressed .bzip2."),
        (b"\xfd7zXZ\0" + b"x" * 600, "is compressed .xz."),
        (b"\x28\xb5\x2f\xfd" + b"x" * 600, "is compressed .zstd."),
        (b"PK\3\4" + b"x" * 600, "not a tar archive"),
        (b"short", "not a tar archive"),
    ],
)
def test_another_kind_of_file_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        list(scan_tar(write(tmp_path / "x.tar", content)))


def test_an_empty_file_has_no_members(tmp_path: Path) -> None:
    assert [one.problem for one in scan_tar(write(tmp_path / "x.tar", b""))] == ["is empty"]
    assert not list(scan_tar(write(tmp_path / "x.tar", bytes(1_024))))


def test_huge_declared_sizes_and_headers_take_no_memory(tmp_path: Path) -> None:
    good = header("good.jpg", 1) + b"x".ljust(512, b"\0")
    pax = header("pax", 8 * 2**20, b"x") + b"11 path=a\n".ljust(8 * 2**20, b"\0") + good
    long = header("././@LongLink", 2**20, b"L") + b"n" * 2**20 + good
    tracemalloc.start()
    for content, expected in (
        (
            good + header("huge.jpg", 8**11 - 1),
            ["", "lies where its archive is cut off", "is cut off after 1,536 bytes"],
        ),
        (good + header("pax", 8**11 - 1, b"x"), ["", "is cut off or damaged at byte 1,024"]),
        (pax, ["has an extended header of 8,388,608 bytes"]),
        (long, ["has an extended header of 1,048,576 bytes"]),
        (good + header("pax", 0, b"x") * 20 + good, ["", "is cut off or damaged at byte 5,120"]),
    ):
        path = write(tmp_path / "x.tar", content)
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        assert [member.problem for member in scan_tar(path)] == expected
        assert tracemalloc.get_traced_memory()[1] - before < 2**17
    tracemalloc.stop()


@pytest.mark.parametrize("size", [b"1" * 5_000, b"9" * 20, b"abc", b"-1", "٣".encode()])
def test_a_size_of_pax_that_is_no_size_ends_the_archive(tmp_path: Path, size: bytes) -> None:
    good = header("good.jpg", 1) + b"x".ljust(512, b"\0")
    length = next(n for n in range(10_000) if n == len(b"%d size=%s\n" % (n, size)))
    record = b"%d size=%s\n" % (length, size)
    pax = header("pax", length, b"x") + record + bytes(-length % 512)
    found = list(scan_tar(write(tmp_path / "x.tar", good + pax + good)))
    assert [(one.name, bool(one.problem)) for one in found] == [("good.jpg", False), ("", True)]


def test_an_archive_of_very_many_members_is_read_up_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_archive, "MAX_MEMBERS", 500)
    blocks = b"".join(header(f"{i}.jpg") for i in range(600)) + header("folder", kind=b"5") * 20
    index = build_index(scan_tar(write(tmp_path / "x.tar", blocks)))
    assert len(index.keys) == 500 and "more than 500 members" in index.damage


def test_an_index_takes_some_bytes_a_member_and_little_time(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tar", b"".join(header(f"folder/{i:012d}.jpg") for i in range(5_000)))
    tracemalloc.start()
    began = time.process_time()
    index = build_index(scan_tar(path))
    assert time.process_time() - began < 2
    assert tracemalloc.get_traced_memory()[1] < 200 * 5_000
    tracemalloc.stop()
    assert sum(array.nbytes for array in (index.keys, index.starts, index.sizes)) == 24 * 5_000


def test_a_member_is_read_in_parts_like_a_file(tmp_path: Path) -> None:
    path = packed.write_tar(tmp_path / "x.tar", [("a", b"0123456789"), ("b", b"x")])
    member = next(iter(scan_tar(path)))
    with open_member(path, member.start, member.size) as file:
        assert file.seek(-3, io.SEEK_END) == 7 and file.read() == b"789" and file.read() == b""
        assert file.seek(2) == 2 and file.read(3) == b"234" and file.tell() == 5
        with pytest.raises((OSError, ValueError)):
            file.seek(-1)
