"""Refs and their sentences: every form, missing objects, hostile files."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes.refer_datasets import caption_texts, read, refused, toy, write

from synthgen.errors import SynthgenError
from synthgen.formats.readers import refcoco

Shared = Callable[[str], Path]


EXCERPT = "data/refcoco_excerpt"


def test_a_split_has_its_images_with_all_their_objects(tmp_path: Path) -> None:
    refs, content = toy(tmp_path)
    refs[1]["split"] = "testA"  # of image 1
    write(tmp_path, refs, content)
    train, report = read(tmp_path)
    assert [s.image_id for s in train] == [1, 2] and report.annotations == report.masks == 6
    assert [caption_texts(a) for s in train for a in s.annotations] == [
        ["train cup 10"],
        [],
        [],
        ["train cup 20"],
        [],
        [],
    ]
    assert [[caption_texts(a) for a in s.annotations] for s in read(tmp_path, "val")[0]] == [[[], ["val cup 21"], []]]
    assert [s.image_id for s in read(tmp_path, "testA")[0]] == [1]
    with pytest.raises(SynthgenError, match=r"has no refs of split 'testB' \(have: testA, train, val\); choose one"):
        read(tmp_path, "testB")


@pytest.mark.parametrize(
    ("sentences", "texts"),
    [
        ([{"sent": " left cup "}], ["left cup"]),
        ([{"raw": "Left cup!"}], ["Left cup!"]),
        ([{"sent": "", "raw": "Left cup!"}], ["Left cup!"]),
        ([{"sent": 7, "raw": "Left cup!"}], ["Left cup!"]),
        ([{"sent": "a"}, {"sent": "a"}, {"sent": "b"}], ["a", "a", "b"]),  # two people said the same
        ([{"sent": "caf\ud800"}], ["caf?"]),
        ([{"sent": "a"}, None, 3, "x", [], {}, {"sent": None}], ["a"]),
        ([], []),
        (None, []),
        ("left cup", []),
        ({"sent": "a"}, []),
    ],
)
def test_every_form_of_sentences(tmp_path: Path, caplog: Any, sentences: Any, texts: list[str]) -> None:
    refs, content = toy(tmp_path)
    refs[0]["sentences"] = sentences
    write(tmp_path, refs, content)
    samples, _ = read(tmp_path)
    assert caption_texts(samples[0].annotations[0]) == texts and len(samples[0].annotations) == 3
    assert ("1 refs of split train have no sentence, e.g. that of annotation 10 of image 1" in caplog.text) == (
        not texts
    )


def test_a_ref_without_the_key_of_sentences(tmp_path: Path) -> None:
    refs, content = toy(tmp_path)
    del refs[0]["sentences"]
    write(tmp_path, refs, content)
    assert len(read(tmp_path)[0]) == 2


@pytest.mark.parametrize("layer", refcoco.LAYERS)
def test_an_object_that_is_not_annotated_keeps_its_sentences_without_a_box(
    tmp_path: Path, caplog: Any, layer: str
) -> None:
    refs, content = toy(tmp_path)
    extra = [{**refs[0], "image_id": 2, "ann_id": 99, "category_id": 1}, {**refs[2], "image_id": 77, "ann_id": 5}]
    write(tmp_path, [*refs, *extra], content)
    samples, report = read(tmp_path, layer=layer)
    assert [s.image_id for s in samples] == [1, 2, 77]
    assert report.annotations == 8 and report.flags == {"degenerate": 2, "no_box": 2} and report.errors == 1
    lost = samples[1].annotations[-1]
    assert (lost.id, lost.category, lost.segmentation) == (99, "cup", None)
    assert caption_texts(lost) == (["train cup 10"] if layer == "human" else [])
    assert "lists no image of this id" in str(samples[2].error)
    assert "2 objects that" in caplog.text and "annotation 99 of image 2" in caplog.text


def test_two_refs_of_one_object_are_both_its_captions(tmp_path: Path) -> None:
    refs, content = toy(tmp_path)
    refs.append({**refs[0], "ref_id": 5, "sentences": [{"sent": "again"}]})
    write(tmp_path, refs, content)
    assert caption_texts(read(tmp_path)[0][0].annotations[0]) == ["train cup 10", "again"]


def test_two_annotations_of_one_id_share_no_sentence(tmp_path: Path) -> None:
    refs, content = toy(tmp_path)
    content["annotations"].append({**content["annotations"][0], "bbox": [1, 1, 2, 2]})
    write(tmp_path, refs, content)
    samples, _ = read(tmp_path)
    assert sorted(caption_texts(a) for a in samples[0].annotations) == [[], [], [], ["train cup 10"]]


def test_an_annotation_of_the_same_id_in_another_image_is_another(tmp_path: Path) -> None:
    refs, content = toy(tmp_path)
    content["annotations"][3]["id"] = 10  # in image 2; the ref of image 2 asks for 20
    refs[2]["sentences"] = [{"sent": "not this one"}]
    write(tmp_path, refs, content)
    samples, report = read(tmp_path)
    assert caption_texts(samples[0].annotations[0]) == ["train cup 10"]
    assert [(a.id, caption_texts(a)) for a in samples[1].annotations] == [
        (10, []),
        (20, ["not this one"]),
        (21, []),
        (22, []),
    ]
    assert report.flags == {"degenerate": 1, "no_box": 1}


@pytest.mark.parametrize("ids", [("1", "10"), (1.0, 10.0)])
def test_ids_in_quotes(tmp_path: Path, ids: tuple[Any, Any]) -> None:
    refs, content = toy(tmp_path)
    refs[0]["image_id"], refs[0]["ann_id"] = ids
    write(tmp_path, refs, content)
    assert caption_texts(read(tmp_path)[0][0].annotations[0]) == ["train cup 10"]


def test_a_bad_mask_keeps_its_sentences(tmp_path: Path) -> None:
    refs, content = toy(tmp_path)
    content["annotations"][0]["segmentation"] = "none"
    content["annotations"][3]["segmentation"] = None
    write(tmp_path, refs, content)
    samples, report = read(tmp_path)
    assert report.masks == 4 and report.flags == {"bad_segmentation": 1}
    assert [caption_texts(s.annotations[0]) for s in samples] == [["train cup 10"], ["train cup 20"]]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda refs: {"refs": refs}, "holds a dict, not a list of refs; is it the right file"),
        (lambda refs: None, "holds a NoneType, not a list"),
        (lambda refs: [], r"has no refs of split 'train' \(have: none\)"),
        (lambda refs: [*refs, 7], "ref 5 is a int, not a dict"),
        (lambda refs: [*refs, []], "ref 5 is a list, not a dict"),
        (lambda refs: [{**refs[0], "image_id": None}], "ref 1 has no 'image_id' that can be read; mend it"),
        (lambda refs: [{**refs[0], "image_id": ""}], "ref 1 has no 'image_id'"),
        (lambda refs: [{**refs[0], "image_id": "x" * 10_000}], "1 of the 1 objects .* are not in .*instances"),
        (lambda refs: [{**refs[0], "image_id": 2**70}], "a number of 9 bytes"),
        (lambda refs: [{**refs[0], "ann_id": [1]}], "ref 1 has no 'ann_id'"),
        (lambda refs: [{**refs[0], "split": 1}], "ref 1 has no 'split'"),
        (lambda refs: [{k: v for k, v in refs[0].items() if k != "split"}], "ref 1 has no 'split'"),
        (lambda refs: [{**refs[0], "split": "x" * 10_000}], "no refs of split 'train'"),
        (
            lambda refs: [{**r, "ann_id": 70 + r["ann_id"]} for r in refs],
            "2 of the 2 objects .* are not in .*instances",
        ),
        (lambda refs: b"", "truncated"),
        (lambda refs: b"\x80\x02cos\nsystem\n.", "it holds os.system, and only lists"),
        (lambda refs: json.dumps(refs).encode(), "not a pickle"),
    ],
)
def test_refs_that_cannot_be_used(tmp_path: Path, change: Callable[[list[Any]], Any], sentence: str) -> None:
    refs, content = toy(tmp_path)
    write(tmp_path, change(refs), content)
    refused(tmp_path, sentence)


def _shared_sentences(refs: list[Any]) -> None:
    """A thousand refs that have the same thousand sentences: a million to walk through."""
    refs[:] = [{**refs[0], "sentences": refs[0]["sentences"] * 1000}] * 1000


def _shared_text(refs: list[Any]) -> None:
    """A thousand sentences that are the same long text: a hundred megabytes of captions."""
    text = "x" * 100_000
    refs[0]["sentences"] = [{"sent": text} for _ in range(1000)]


def _shared_blanks(refs: list[Any]) -> None:
    """As many of the same long blank: nothing is kept of them, and yet they are read."""
    blank = " " * 100_000
    refs[:] = [{**refs[0], "sentences": [{"sent": blank, "raw": blank} for _ in range(1000)]}]


def _itself(refs: list[Any]) -> None:
    refs[0]["sentences"] = refs[0]["sentences"] * 1000
    refs[0]["sentences"].append(refs[0]["sentences"])
    refs[:] = [refs[0]] * 1000


@pytest.mark.parametrize("bomb", [_shared_sentences, _shared_text, _shared_blanks, _itself])
def test_refs_that_are_small_in_the_file_and_large_to_walk(tmp_path: Path, bomb: Callable[[list[Any]], None]) -> None:
    refs, content = toy(tmp_path)
    bomb(refs)
    write(tmp_path, refs, content)
    assert (tmp_path / "refcoco" / "refs(unc).p").stat().st_size < 200_000
    refused(tmp_path, "holds the same sentences again and again, more than 4 times its own bytes")


def test_refs_nested_in_themselves_are_no_sentences(tmp_path: Path) -> None:
    """2 ** 60 lists, and one reference to each but the last twice: nobody walks there."""
    refs, content = toy(tmp_path)
    nest: Any = []
    for _ in range(60):
        nest = [nest, nest]
    refs[0]["sentences"] = nest
    refs[0]["tokens"] = nest
    write(tmp_path, refs, content)
    assert caption_texts(read(tmp_path)[0][0].annotations[0]) == []


def test_another_datasets_annotations(tmp_path: Path, shared: Shared) -> None:
    """refs of one folder, instances.json of another."""
    refs, _ = toy(tmp_path)
    write(tmp_path, refs, json.loads(shared(f"{EXCERPT}/refcoco/instances.json").read_text()))
    refused(tmp_path, r"2 of the 2 objects .* are not in .*instances\.json, e\.g\. annotation 10 of image 1; put")


def test_the_same_bytes_whatever_the_pickles_protocol_and_the_order_of_the_file(tmp_path: Path) -> None:
    refs, content = toy(tmp_path / "a")
    made = []
    for place, protocol in enumerate(range(6)):
        root = tmp_path / str(place)
        mixed = {key: content[key] for key in sorted(content, reverse=place % 2 == 1)}
        write(root, pickle.dumps(refs[::-1] if place > 3 else refs, protocol), mixed)
        made.append(read(root)[0])
    assert all(samples == made[0] for samples in made)
