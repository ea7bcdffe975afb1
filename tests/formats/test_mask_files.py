"""Files of masks that were made elsewhere: COCO instances, results, PNG files; hostile ones."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from synthgen.errors import SynthgenError
from synthgen.formats.mask_files import decode_masks, payload_size, png_payload, read_head, read_masks
from synthgen.formats.readers import AnnotationBatch
from synthgen.records.box_table import NO_ID
from synthgen.records.rle import encode_mask, rle_area

SQUARE = [[2, 2, 10, 2, 10, 12, 2, 12]]


def read_file(path: Path, content: Any) -> tuple[list[tuple[int, str]], Any, AnnotationBatch]:
    """The images, the head and the annotations of a file."""
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    images: list[tuple[int, str]] = []
    head = read_head(path, lambda ids, names: images.extend(zip(ids.tolist(), names, strict=True)))
    batches = list(read_masks(path, head))
    whole = {
        name: np.concatenate([getattr(batch, name) for batch in batches])
        for name in ("image_id", "id", "bbox", "category", "iscrowd")
    }
    payloads = [payload for batch in batches for payload in batch.payload or ()]
    return images, head, AnnotationBatch(**whole, payload=payloads)


def test_coco_instances(tmp_path: Path) -> None:
    content = {
        "annotations": [
            {"id": 7, "image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4], "segmentation": SQUARE, "iscrowd": 1},
            {"image_id": "a.jpg", "category_id": None, "segmentation": None, "score": "0.5"},
        ],
        "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2}],
        "categories": [{"id": 3, "name": " cat "}, {"id": 4, "name": ""}],
        "info": {"synthgen": {"models": ["sam vit_h"]}},
    }
    images, head, batch = read_file(tmp_path / "a.json", content)
    assert images == [(1, "a.jpg"), (2, "")]
    assert not head.is_list and head.categories == {3: "cat"} and head.models == ("sam vit_h",)
    assert batch.id.tolist() == [7, NO_ID] and batch.category.tolist() == [3, NO_ID]
    assert batch.bbox[0].tolist() == [1, 2, 3, 4] and np.isnan(batch.bbox[1]).all()
    assert batch.iscrowd.tolist() == [True, False]
    assert batch.payload is not None and batch.payload[1] is None


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_coco_results(tmp_path: Path, pack: Any) -> None:
    rle = {"size": [20, 30], "counts": encode_mask(np.eye(20, 30)).counts.decode()}
    content = [{"image_id": 3, "category_id": 1, "segmentation": rle, "score": score} for score in (0.25, 1.5)]
    _, head, batch = read_file(tmp_path / "a.json", pack(b"\n " + json.dumps(content).encode()))
    assert head.is_list and batch.payload is not None
    (first,), (second,) = (decode_masks(payload or b"", tmp_path, 20, 30) for payload in batch.payload)
    assert first.rle == encode_mask(np.eye(20, 30)) and first.origin is not None
    assert first.origin.predicted_iou == 0.25 and first.origin.stated is None
    assert second.rle == first.rle and second.origin is None  # not a score of [0, 1]
    assert payload_size(batch.payload[0] or b"", tmp_path) == (20, 30)


@pytest.mark.parametrize("content", [b"", b"3", b"{}", b'{"images": []}', b"[3]", b"[[]]", b"PK\x03\x04", b'{"a": '])
def test_other_files_are_refused_with_a_sentence(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(SynthgenError):
        read_file(tmp_path / "a.json", content)


def test_a_mask_that_cannot_be_used_has_a_reason(tmp_path: Path) -> None:
    (square,) = decode_masks(json.dumps(SQUARE).encode(), tmp_path, 20, 30)
    assert square.rle is not None and square.box == (2, 2, 10, 12) and not square.problems
    for text in (
        "0",
        "[[1, 2]]",
        '{"size": [5, 5], "counts": "04"}',
        '{"counts": []}',
        "nonsense",
        "[[1e9, 1, 2, 2, 3, 3]]",
    ):
        (mask,) = decode_masks(text.encode(), tmp_path, 20, 30)
        assert mask.rle is None and mask.box is None and set(mask.problems) == {"bad_segmentation"}
    (empty,) = decode_masks(json.dumps({"size": [20, 30], "counts": [600]}).encode(), tmp_path, 20, 30)
    assert empty.rle is None and set(empty.problems) == {"empty_mask"}


def test_png_masks(tmp_path: Path) -> None:
    labels = np.zeros((20, 30), np.uint16)
    labels[2:5, 3:9], labels[10:, 20:] = 700, 3
    Image.fromarray(labels).save(tmp_path / "ä map.png")
    Image.fromarray((labels > 0).astype(np.uint8) * 255).save(tmp_path / "one.png")
    masks = decode_masks(png_payload("ä map.png", is_id_map=True), tmp_path, 20, 30)
    assert [(mask.label, rle_area(mask.rle)) for mask in masks if mask.rle] == [(3, 100), (700, 18)]
    (one,) = decode_masks(png_payload("one.png", is_id_map=False), tmp_path, 20, 30)
    assert one.label is None and one.rle is not None and rle_area(one.rle) == 118
    (wrong,) = decode_masks(png_payload("one.png", is_id_map=False), tmp_path, 30, 20)
    assert "30 x 20 pixels, and its image 20 x 30" in wrong.problems["bad_segmentation"]
    (missing,) = decode_masks(png_payload("no.png", is_id_map=True), tmp_path, 20, 30)
    assert missing.rle is None and set(missing.problems) == {"bad_segmentation"}
    assert payload_size(png_payload("one.png", is_id_map=True), tmp_path) == (20, 30)
    assert payload_size(png_payload("no.png", is_id_map=True), tmp_path) is None


@pytest.mark.parametrize(
    ("provenance", "models", "source", "stated"),
    [
        (None, '["sam"]', None, None),
        ("reviewed", '["sam"]', "sam", "reviewed"),
        ("machine", '["lite"]', "lite", "machine"),
        ("machine", "[" * 99_999, None, "machine"),
        ("human", None, "human", "human"),
        ("human,machine", '["sam"]', "sam", "machine"),
        ("human,machine", '["sam", "lite"]', None, None),
    ],
)
def test_what_an_exported_png_says_of_its_masks(
    tmp_path: Path, provenance: str | None, models: str | None, source: str | None, stated: str | None
) -> None:
    info = PngInfo()
    for keyword, text in (("synthgen:provenance", provenance), ("synthgen:models", models)):
        if text is not None:
            info.add_text(keyword, text)
    Image.fromarray(np.ones((20, 30), np.uint8)).save(tmp_path / "a.png", pnginfo=info)
    (mask,) = decode_masks(png_payload("a.png", is_id_map=False), tmp_path, 20, 30)
    assert (mask.origin and mask.origin.mask_source, mask.origin and mask.origin.stated) == (source, stated)


@given(st.binary(max_size=60))
def test_no_payload_raises(tmp_path_factory: pytest.TempPathFactory, payload: bytes) -> None:
    if not payload.startswith(b"\x00"):
        for mask in decode_masks(payload, tmp_path_factory.getbasetemp(), 20, 30):
            assert (mask.rle is None) == (mask.box is None)
