"""Images that a file lists twice: harmless with one name, refused or reported with two."""

from __future__ import annotations

import numpy as np
import pytest

from synthgen.errors import SynthgenError
from synthgen.formats.readers import ImageBatch, SourceFinding
from synthgen.ingest.image_table import ImageTable
from synthgen.ingest.repeated_ids import settle_repeated_ids


def table(*images: tuple[int, str]) -> ImageTable:
    found = ImageTable()
    size = np.ones(len(images), np.int32)
    ids = np.array([i for i, _ in images], np.int64)
    found.add(ImageBatch(ids, [name for _, name in images], [""] * len(images), size, size))
    return found


def settle(
    images: ImageTable, refuse: bool = False
) -> tuple[list[int], list[int], list[bool], dict[str, SourceFinding]]:
    reported: list[SourceFinding] = []
    rows, ids, again = settle_repeated_ids(images, *images.sort_by_id(), "a.json", reported.append, refuse=refuse)
    return rows.tolist(), ids.tolist(), again.tolist(), {one.code: one for one in reported}


def test_different_ids_stay_as_they_are() -> None:
    assert settle(table((3, "a"), (1, "b")), refuse=True) == ([1, 0], [1, 3], [False, False], {})


def test_an_image_listed_again_is_left_out() -> None:
    rows, ids, again, reported = settle(table((3, "a"), (1, "b"), (3, "a"), (3, "a")), refuse=True)
    assert (rows, ids, again) == ([1, 0], [1, 3], [False, False])
    assert reported["repeated_image"].count == 2 and reported["repeated_image"].examples[0] == (
        "a",
        "is listed again, id 3",
    )


def test_two_images_of_one_id_are_refused() -> None:
    with pytest.raises(SynthgenError, match=r"a\.json: two images have the id 3, a and b, so .* give each image an id"):
        settle(table((3, "a"), (1, "b"), (3, "b")), refuse=True)
    with pytest.raises(SynthgenError, match=r"a and b \(and 1 more images"):
        settle(table((3, "a"), (3, "b"), (3, "a"), (3, "c")), refuse=True)


def test_two_images_of_one_id_are_reported_and_stay() -> None:
    rows, ids, again, reported = settle(table((3, "a"), (3, "b"), (3, "a"), (3, "c")))
    assert (rows, ids, again) == ([0, 1, 3], [3, 3, 3], [False, True, True])
    assert {code: one.count for code, one in reported.items()} == {"same_image_id": 2, "repeated_image": 1}


def test_many_repeated_ids_take_linear_time() -> None:
    images = table(*[(i // 2, "a") for i in range(200_000)])
    rows, *_ = settle(images, refuse=True)
    assert len(rows) == 100_000


def test_control_characters_of_a_name_are_escaped() -> None:
    with pytest.raises(SynthgenError) as refused:
        settle(table((3, "a.jpg"), (3, "\r\nb\x1b")), refuse=True)
    assert str(refused.value).isprintable()
