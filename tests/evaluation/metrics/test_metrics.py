"""Laws of every metric: the truth is 100, nothing is 0, order is nothing; what nobody knows is nobody's mistake."""

from __future__ import annotations

import pickle
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from fakes.ascii_samples import ascii_sample, boxed_annotation, human_captions, masked_annotation

from synthgen import plugins
from synthgen.evaluation import postprocess
from synthgen.evaluation.evaluate import _with_all_phrases
from synthgen.evaluation.evaluator import load_metric
from synthgen.evaluation.metrics import Detection, GroundTruth
from synthgen.evaluation.postprocess import RawPrediction
from synthgen.records.geometry import decode_mask, encode_mask

#: Letters are objects, capitals are stuff; dots are of nothing.
DRAWINGS = (
    "aaaa....GGGG aaaabbbbGGGG ....bbbbGGGG SSSSSSSS.GGG SSSSSSSS.GGG",
    "SSSSSSSSSSSS SSSSSaaaSSSS SSSSSaaaSSSS GGGGGGGGGGGG GGGGbbGGGGGG",
    "GGGGGGGGGGGG GGGcccGGGGGG GGGcccGGGGGG aaaaGGGGGGGG aaaa....GGGG",
)
NAMES = {"a": "cat", "b": "dog", "c": "cat", "S": "sky", "G": "grass"}
PHRASES = {"a": ("the first one", "a cat"), "b": ("the dog",), "c": ("the other cat",)}
TASKS = ["instance", "detection", "panoptic", "semantic", "referring", "foreground"]


def samples():
    return [
        ascii_sample(drawing, [
            masked_annotation(drawing, letter, 10 * i + place, NAMES[letter], isthing=letter.islower(),
                   captions=human_captions(*PHRASES.get(letter, ())))
            for place, letter in enumerate(sorted(set(drawing) - set(". ")), 1)
        ], image_id=i, image_key=f"ascii/{i}")
        for i, drawing in enumerate(DRAWINGS)
    ]  # fmt: skip


def asked(task, sample, names=("cat", "dog", "sky", "grass", "cow")):
    if task == "foreground":
        sample = replace(sample, annotations=tuple(a for a in sample.annotations if a.isthing))
    target = plugins.load_plugin("dataloading.tasks", task).target(sample, names, random.Random(0))
    target = _with_all_phrases(sample, target) if task == "referring" else target
    return GroundTruth(sample, target, frozenset({"sky", "grass"}))


def perfect(one: GroundTruth, queries=8) -> RawPrediction:
    """A network that knows the truth: a query for each object, in an order of its own; the others see nothing."""
    target, size = one.target, (one.sample.height, one.sample.width)
    logits, masks = torch.full((queries, len(target.texts)), -12.0), torch.full((queries, *size), -20.0)
    boxes = torch.rand(queries, 4, generator=torch.Generator().manual_seed(1))
    place = random.Random(2).sample(range(queries), len(target.labels))
    for query, label, box, mask in zip(place, target.labels, target.boxes_xyxy, target.masks, strict=True):
        logits[query, label] = 12.0
        x1, y1, x2, y2 = (box / np.array(size[::-1] * 2)).tolist()
        boxes[query] = torch.tensor([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1])
        if mask is not None:
            masks[query][torch.from_numpy(decode_mask(mask))] = 20.0
    stuff = frozenset(i for i, text in enumerate(target.texts) if text in one.stuff_names)
    return RawPrediction(logits, boxes, masks, size, size, size, queries // 2, stuff)


def blind(one: GroundTruth, queries=8) -> RawPrediction:
    size = (one.sample.height, one.sample.width)
    masks = torch.full((queries, *size), -20.0)
    logits = torch.full((queries, len(one.target.texts)), -12.0)
    logits[:, -1] += 1  # of a name that is nowhere
    return RawPrediction(logits, torch.zeros(queries, 4), masks, size, size, size, 4)


def measure(task, predict, given=None):
    metric = load_metric(task)
    images = [asked(task, sample) for sample in given or samples()]
    compared = [metric.compare(one, getattr(postprocess, metric.TAKES)(predict(one))) for one in images]
    return metric.scores(compared), compared


@pytest.mark.parametrize("task", TASKS)
def test_the_truth_is_100(task):
    found, compared = measure(task, perfect)
    errors = found.values.pop("MAE", 0.0)
    assert errors == pytest.approx(0, abs=1e-6)
    if "AR1" in found.values:
        assert found.values.pop("AR1") == pytest.approx(87.5), "one of the two cats of an image"
    every = [*found.values.values(), *found.by_name.values()]
    assert every == pytest.approx([100] * len(every)) and load_metric(task).MAIN in found.values
    objects = sum(len(asked(task, sample).target.labels) for sample in samples())
    assert task == "foreground" or sum(len(one.true_positives) for one in compared) == objects
    if task in ("panoptic", "semantic"):
        assert {is_thing for one in compared for is_thing, _ in one.true_positives} == {True, False}


@pytest.mark.parametrize("task", TASKS)
def test_nothing_is_0(task):
    found, compared = measure(task, blind)
    assert found.values[load_metric(task).MAIN] == pytest.approx(0)
    assert not any(one.true_positives for one in compared)
    for name, value in found.values.items():
        assert value == pytest.approx(0) or name == "MAE", name


@pytest.mark.parametrize("task", TASKS)
def test_order_is_nothing_and_what_is_kept_travels(task):
    def noisy(one):
        seen = perfect(one)
        rng = torch.Generator().manual_seed(one.sample.image_id)
        seen.logits.add_(torch.randn(seen.logits.shape, generator=rng) * 10)
        seen.mask_logits.add_(torch.randn(seen.mask_logits.shape, generator=rng) * 15)
        seen.boxes.add_(torch.randn(seen.boxes.shape, generator=rng) * 0.05)
        return seen

    found, compared = measure(task, noisy)
    assert 1 < found.values[load_metric(task).MAIN] < 99
    text = pickle.dumps(compared[::-1])
    again = load_metric(task).scores(pickle.loads(text))
    assert again.values == pytest.approx(found.values, abs=1e-9) and again.by_name == pytest.approx(found.by_name)
    other, _ = measure(task, noisy, samples()[::-1])
    assert other.values == pytest.approx(found.values, abs=1e-9)


@pytest.mark.parametrize("task", TASKS)
def test_of_no_image_there_is_no_value(task):
    assert load_metric(task).scores([]).values == {}


def found_at(drawing, letter, label, score=0.9, query=0) -> Detection:
    one = masked_annotation(drawing, letter, 1, "")
    x, y, w, h = one.bbox
    return Detection(label, score, (x, y, x + w, y + h), one.segmentation, query)


PLACES = "aaaa..cc aaaa..cc ....wwww ....wwww"


def of_instances(task, annotations, found, **fields):
    """AP of one image with one cat and what else is in it; `found` by letters, all of them said to be cats."""
    sample = ascii_sample(PLACES, [masked_annotation(PLACES, "a", 1, "cat"), *annotations], **fields)
    one = asked(task, sample)
    label = one.target.texts.index("cat")
    every = [found_at(PLACES, letter, label, score) for letter, score in found.items()]
    return load_metric(task).scores([load_metric(task).compare(one, every)]).values["AP"]


@pytest.mark.parametrize("task", ["instance", "detection"])
def test_what_is_there_unknown_is_neither_right_nor_wrong(task):
    wrong = {"c": 0.99, "a": 0.5}
    assert of_instances(task, [], wrong) == pytest.approx(50, abs=1)
    crowd = masked_annotation(PLACES, "c", 2, "cat", iscrowd=True)
    assert of_instances(task, [crowd], wrong) == pytest.approx(100)
    assert of_instances(task, [replace(crowd, category="dog")], wrong) == pytest.approx(50, abs=1), "another's crowd"
    assert of_instances(task, [replace(crowd, category="", iscrowd=False)], wrong) == pytest.approx(100), "unnamed"
    stuff = replace(crowd, iscrowd=False, isthing=False)
    assert of_instances(task, [stuff], wrong) == pytest.approx(100), "stuff of the name"
    lvis = {"neg_categories": ("dog",), "not_exhaustive_categories": ("cat",)}
    assert of_instances(task, [], wrong, **lvis) == pytest.approx(100), "not all cats are annotated"
    assert of_instances(task, [], wrong, neg_categories=("dog",)) == pytest.approx(50, abs=1)


def test_an_object_without_a_mask_is_asked_for_only_where_boxes_are():
    bare = boxed_annotation(2, (6.0, 0.0, 2.0, 2.0), "cat")
    for found in ({"a": 0.5}, {"c": 0.99, "a": 0.5}):
        assert of_instances("instance", [bare], found) == pytest.approx(100)
    assert of_instances("detection", [bare], {"a": 0.5}) == pytest.approx(50, abs=1)
    assert of_instances("detection", [bare], {"c": 0.99, "a": 0.5}) == pytest.approx(100)


def test_areas_of_boxes_are_those_of_masks_where_there_are_some():
    """As in COCO, whose small objects are those of small masks."""
    mask = np.zeros((80, 80), np.bool_)
    mask[::4, ::4] = True  # 400 pixels in a box of 77 x 77
    sample = ascii_sample("." * 80 + (" " + "." * 80) * 79, [
        boxed_annotation(1, (0.0, 0.0, 77.0, 77.0), "cat", segmentation=encode_mask(mask), mask_source="human")
    ])  # fmt: skip
    one = asked("detection", sample)
    label = one.target.texts.index("cat")
    compared = load_metric("detection").compare(one, [Detection(label, 0.9, (0.0, 0.0, 77.0, 77.0), None, 0)])
    values = load_metric("detection").scores([compared]).values
    assert values["APs"] == pytest.approx(100) and "APl" not in values


def test_a_region_that_was_found_in_void_or_in_a_crowd_is_not_wrong():
    drawing = "aaaaaa.... aaaaaa.... cccccc.... SSSSSSSSSS SSSSSSSSSS"
    annotations = [masked_annotation(drawing, "a", 1, "cat"), masked_annotation(drawing, "S", 2, "sky", isthing=False)]
    crowd = masked_annotation(drawing, "c", 3, "cat", iscrowd=True)
    metric = load_metric("panoptic")
    for given, letter, name, wrong in (
        (annotations, ".", "cow", 0),
        ([*annotations, crowd], "c", "cat", 0),
        ([*annotations, crowd], "c", "cow", 1),
        ([*annotations, replace(crowd, category="")], "c", "cow", 0),
        ([*annotations, replace(crowd, flags=("part",), iscrowd=False)], "c", "cow", 0),
    ):
        one = asked("panoptic", ascii_sample(drawing, given))
        seen = perfect(one)
        other = ascii_sample(drawing, [masked_annotation(drawing, letter, 9, name)]).annotations[0]
        free = next(q for q in range(8) if seen.logits[q].max() < 0)
        seen.logits[free, one.target.texts.index(name)] = 12.0
        seen.mask_logits[free][torch.from_numpy(decode_mask(other.segmentation))] = 20.0
        compared = metric.compare(one, postprocess.panoptic(seen))
        assert sum(row[3] for row in compared.stats.values()) == wrong, (letter, name)


def test_masks_of_the_truth_that_overlap_lie_small_on_large():
    drawing, over = "aaaaaaaa aaaaaaaa aaaaaaaa", "........ ..bb.... ........"
    sample = ascii_sample(drawing, [masked_annotation(over, "b", 1, "dog"), masked_annotation(drawing, "a", 2, "cat")])
    covered = ascii_sample(
        drawing, [masked_annotation(drawing, "a", 1, "dog"), masked_annotation(drawing, "a", 2, "cat")]
    )
    for task in ("panoptic", "semantic"):
        one = asked(task, sample)
        seen = perfect(one)
        cat = next(q for q in range(8) if seen.logits[q].max() > 0 and (seen.mask_logits[q] > 0).sum() > 2)
        seen.mask_logits[cat, 1, 2:4] = -20.0
        compared = load_metric(task).compare(one, getattr(postprocess, load_metric(task).TAKES)(seen))
        assert load_metric(task).scores([compared]).values[load_metric(task).MAIN] == pytest.approx(100)
    _, (compared,) = measure("panoptic", blind, [covered])
    assert len(compared.stats) == 1, "what is covered wholly is not missed"


def test_pixels_without_a_label_are_ignored():
    drawing = "SSSS....GG SSSS....GG"
    one = asked(
        "semantic",
        ascii_sample(drawing, [masked_annotation(drawing, "S", 1, "sky"), masked_annotation(drawing, "G", 2, "grass")]),
    )
    seen = perfect(one)
    for query in range(8):
        seen.mask_logits[query, :, 4:8] = torch.randn(2, 4, generator=torch.Generator().manual_seed(query))
    compared = load_metric("semantic").compare(one, postprocess.semantic(seen))
    assert load_metric("semantic").scores([compared]).values["mIoU"] == pytest.approx(100)


def test_referring_weighs_phrases_alike_and_pixels_alike():
    """An object of 8 pixels found whole, one of 4 of which half is found: mIoU 75, cIoU 10 of 12."""
    drawing, half = "aaaa..bb aaaa..bb", "......bb ........"
    sample = ascii_sample(drawing, [
        masked_annotation(drawing, "a", 1, "x", captions=human_captions("one")),
        masked_annotation(drawing, "b", 2, "x", captions=human_captions("two")),
    ])  # fmt: skip
    one, metric = asked("referring", sample), load_metric("referring")
    labels = {text: i for i, text in enumerate(one.target.texts)}
    found = [found_at(drawing, "a", labels["one"]), found_at(half, "b", labels["two"])]
    values = metric.scores([metric.compare(one, found)]).values
    assert values == pytest.approx(
        {"mIoU": 75, "cIoU": 100 * 10 / 12, "P@50": 50, "P@60": 50, "P@70": 50, "P@80": 50, "P@90": 50}
    )
    values = metric.scores([metric.compare(one, found[:1])]).values
    assert values["mIoU"] == pytest.approx(50) and values["cIoU"] == pytest.approx(100 * 8 / 12)


def test_every_phrase_of_an_object_is_asked_for():
    sample = samples()[0]
    one = asked("referring", sample)
    assert [one.target.texts[i] for i in one.target.labels] == ["the first one", "a cat", "the dog"]
    assert one.target.annotation_ids == ((2,), (2,), (3,)) or len(set(one.target.annotation_ids)) == 2
    crowd = replace(sample, annotations=tuple(replace(a, iscrowd=True) for a in sample.annotations))
    assert _with_all_phrases(crowd, one.target) is one.target


def f_measure(likely, truth):
    """Written as it is defined: 255 thresholds, beta^2 = 0.3."""
    best = []
    for level in range(1, 256):
        told = np.rint(likely * 255) >= level
        both = (told & truth).sum()
        p, r = both / max(told.sum(), 1), both / truth.sum()
        best.append(1.3 * p * r / (0.3 * p + r) if both else 0.0)
    return best


def test_maxf_is_as_it_is_defined():
    rng, metric = np.random.default_rng(0), load_metric("foreground")
    curves, errors, compared = [], [], []
    for drawing in ("..aaaa.. ..aaaa..", "aa...... aa......"):
        one = asked("foreground", ascii_sample(drawing, [masked_annotation(drawing, "a", 1, "x")]))
        truth = decode_mask(one.target.masks[0])
        likely = (0.5 * truth + 0.5 * rng.random(truth.shape)).astype(np.float32)
        curves.append(f_measure(likely, truth))
        errors.append(np.abs(likely - truth).mean())
        compared.append(metric.compare(one, postprocess.ForegroundMap(likely)))
    mean = 100 * np.mean(curves, axis=0)
    values = metric.scores(compared).values
    assert values == pytest.approx({"maxF": mean.max(), "meanF": mean.mean(), "MAE": 100 * np.mean(errors)}, abs=1e-4)


def test_an_image_without_foreground_counts_by_its_error_alone():
    metric = load_metric("foreground")
    full = asked("foreground", samples()[0])
    empty = asked("foreground", ascii_sample("....", [masked_annotation("....", "a", 1, "x")]))
    found = [metric.compare(full, postprocess.foreground(perfect(full))),
             metric.compare(empty, postprocess.ForegroundMap(np.full((1, 4), 0.5, np.float32)))]  # fmt: skip
    values = metric.scores(found).values
    assert values["maxF"] == pytest.approx(100) and values["MAE"] == pytest.approx(25)
    assert metric.scores(found[1:]).values == {"MAE": 50}


def test_a_region_whose_foreground_is_unknown_counts_nowhere():
    """A box without a mask is ignored."""
    drawing = "aa...... aa......"
    one = asked(
        "foreground",
        ascii_sample(
            drawing, [masked_annotation(drawing, "a", 1, "x"), boxed_annotation(2, (4.0, 0.0, 4.0, 2.0), "y")]
        ),
    )
    seen = perfect(one)
    seen.mask_logits[:, :, 4:] = 20.0
    values = (
        load_metric("foreground").scores([load_metric("foreground").compare(one, postprocess.foreground(seen))]).values
    )
    assert values["maxF"] == pytest.approx(100) and values["MAE"] == pytest.approx(0, abs=1e-4)
