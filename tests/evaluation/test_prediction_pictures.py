"""Pictures of what was found: colours, labels, legends, reduced sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from synthgen.evaluation.metrics import Detection, PanopticMap, PanopticSegment, SemanticMap
from synthgen.evaluation.prediction_pictures import draw_found
from synthgen.records.rle import encode_mask
from synthgen.visualize.drawing import draw_overlay

TEXTS = ("ball", "sky")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """(image, marks, blocks) of each call of `draw_overlay`."""
    calls: list[Any] = []

    def noted(image, marks, blocks=(), footer="", **options):
        calls.append((image, marks, blocks))
        return draw_overlay(image, marks, blocks, footer, **options)

    monkeypatch.setattr("synthgen.evaluation.prediction_pictures.draw_overlay", noted)
    return calls


def image(height: int = 40, width: int = 60) -> np.ndarray:
    return np.full((height, width, 3), 90, np.uint8)


def detections() -> list[Detection]:
    mask = np.zeros((40, 60), np.bool_)
    mask[5:15, 5:25] = True
    return [
        Detection(0, 0.254, (5.0, 5.0, 25.0, 15.0), encode_mask(mask), 0),
        Detection(1, 1.0, (0.0, 0.0, 60.0, 40.0), encode_mask(~mask), 7),
    ]


def panoptic_map() -> PanopticMap:
    ids = np.zeros((40, 60), np.int32)
    ids[:20], ids[25:35, 10:30] = 1, 2
    return PanopticMap(ids, (PanopticSegment(1, 0.8, (0, 7)), PanopticSegment(0, 0.6, (7,))))


def test_words_stand_in_the_picture_as_they_were_asked_for(drawn: list[Any]) -> None:
    draw_found(image(), detections(), ["a 10.5 cm ruler", "sky"])
    assert [mark.label for mark in drawn[0][1]] == ["a 10.5 cm ruler .25", "sky 1.00"]


def test_each_object_has_a_colour_of_its_own_or_that_of_its_kind_of_query(drawn: list[Any]) -> None:
    for choice in ("object", "query"):
        draw_found(image(), detections(), TEXTS, num_conditional=5, color_by=choice)
    own, by_query = (call[1] for call in drawn)
    assert [mark.color for mark in own] == [None, None]
    assert len({mark.color for mark in by_query}) == 2 and None not in {mark.color for mark in by_query}
    draw_found(image(), detections(), TEXTS, num_conditional=8, color_by="query")
    assert {mark.color for mark in drawn[2][1]} == {by_query[0].color}, "both conditional"


def test_the_legend_of_queries_counts_what_they_found(drawn: list[Any]) -> None:
    draw_found(
        image(), panoptic_map(), TEXTS, num_conditional=5, color_by="query", stuff_names=frozenset({"sky"})
    )  # fmt: skip
    blocks = [(block.title, list(block.lines)) for block in drawn[0][2]]
    assert blocks == [("learnable queries: 1", ["1 ball"]), ("queries of both kinds: 1", ["1 sky (stuff)"])]


def test_the_pixels_of_a_mask_take_the_colour_of_its_query() -> None:
    picture = draw_found(image(), panoptic_map(), TEXTS, num_conditional=8, color_by="query")
    scale = 1024 / 60
    inside, outside = (picture[round(y * scale), round(x * scale)].astype(int) for y, x in ((30, 28), (38, 50)))
    assert outside.tolist() == [90, 90, 90]
    assert inside[2] > inside[0] > 0, "blue: conditional"


@pytest.mark.parametrize("kind", ["detections", "panoptic", "semantic"])
def test_a_large_photograph_is_drawn_smaller(drawn: list[Any], monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr("synthgen.evaluation.prediction_pictures._MAX_DRAWN_SIDE", 30)
    labels = np.zeros((40, 60), np.int32)
    labels[20:] = 1
    found = {"detections": detections(), "panoptic": panoptic_map(), "semantic": SemanticMap(labels, {0: 0, 1: 7})}
    draw_found(image(), found[kind], TEXTS, num_conditional=5)
    small, marks, _ = drawn[0]
    assert small.shape == (20, 30, 3) and len(marks) == 2
    for mark in marks:
        size = mark.mask.size if hasattr(mark.mask, "counts") else mark.mask.shape
        assert tuple(size) == (20, 30)
        x1, y1, x2, y2 = mark.box_xyxy
        assert 0 <= x1 < x2 <= 30 and 0 <= y1 < y2 <= 20
    if kind != "detections":
        assert not any(mark.has_box for mark in marks)
        for mark in marks:
            x, y = round(mark.box_xyxy[0]), round(mark.box_xyxy[1])
            assert mark.mask[y, x], "the label stands in its own mask"


def test_nothing_found_is_the_photograph_alone() -> None:
    for found in ([], PanopticMap(np.zeros((40, 60), np.int32), ())):
        picture = draw_found(image(), found, TEXTS, color_by="query")
        assert (picture[:100, :100] == 90).all()
