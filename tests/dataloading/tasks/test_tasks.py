"""What each task learns of an image, by hand: positives, negatives, what is ignored, and what teaches nothing."""

from __future__ import annotations

import inspect
import random
from dataclasses import replace

import numpy as np
import pytest
from fakes.ascii_samples import (
    ascii_rows,
    ascii_sample,
    boxed_annotation,
    human_captions,
    letter_mask,
    masked_annotation,
    rle_to_ascii,
)

from synthgen import plugins
from synthgen.dataloading.tasks import Target, Task, detection, foreground, instance, panoptic, referring, semantic
from synthgen.dataloading.tasks._texts import MAX_TEXTS
from synthgen.dataloading.tasks._weighted import weight_masks
from synthgen.errors import SynthgenError
from synthgen.records.geometry import decode_mask, encode_mask
from synthgen.records.sample import Caption, Rle, Sample

CATEGORIES = ("person", "dog", "sky", "sky-other")
TASKS = {
    name: plugins.load_plugin("dataloading.tasks", name)
    for name in ("captioning", "detection", "foreground", "instance", "panoptic", "referring", "semantic")
}
METRICS = {"ap", "box_ap", "pq", "miou", "ciou", "maxf", "cider"}

#: A person (p), a dog (d), a crowd of persons (c), sky (s) and void (.).
PARK = """
ssssss
ssssss
pp..cc
pp..cc
dd..cc
"""


def park(**changes: dict[str, object]) -> Sample:
    """The scene of `PARK`; `changes` are made to annotations by letter."""
    given = {
        "p": masked_annotation(PARK, "p", 1, "person", captions=human_captions("the left man")),
        "d": masked_annotation(PARK, "d", 2, "dog", captions=human_captions("a dog", "dog at his feet")),
        "c": masked_annotation(PARK, "c", 3, "person", iscrowd=True, flags=("crowd",)),
        "s": masked_annotation(PARK, "s", 4, "sky", isthing=False),
    }
    return ascii_sample(PARK, [replace(a, **changes.get(letter, {})) for letter, a in given.items()])


def learn(task: Task, sample: Sample, *, seed: int = 0, **options: int) -> Target:
    target = task.target(sample, CATEGORIES, random.Random(seed), **options)
    assert target is not None
    return target


def named(target: Target) -> list[str]:
    return [target.texts[label] for label in target.labels]


# --- the shelf -------------------------------------------------------------------------------------------------------


def test_the_shelf_has_these_tasks():
    assert plugins.list_plugins("dataloading.tasks") == sorted(TASKS)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_offers_what_the_shelf_says(name):
    task = TASKS[name]
    assert task.METRIC in METRICS
    assert task.AUGMENTATION in {"jitter", "semantic", "whole", "foreground", "square"}
    parameters = inspect.signature(task.target).parameters
    assert list(parameters) == ["sample", "categories", "rng", "max_texts"]
    assert parameters["max_texts"].default == MAX_TEXTS == 365
    assert parameters["max_texts"].kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.parametrize("name", TASKS)
def test_a_target_has_the_types_it_says(name):
    target = learn(TASKS[name], park())
    n = len(target.labels)
    assert n > 0
    assert (target.labels.dtype, target.labels.shape) == (np.int64, (n,))
    assert (target.boxes_xyxy.dtype, target.boxes_xyxy.shape) == (np.float32, (n, 4))
    assert (target.mask_weights.dtype, target.mask_weights.tolist()) == (np.float32, [1] * n)
    assert len(target.masks) == len(target.annotation_ids) == n


@pytest.mark.parametrize("name", sorted(set(TASKS) - {"foreground"}))
def test_nothing_teaches_nothing(name):
    for sample in (
        ascii_sample(PARK, []),
        ascii_sample(PARK, [], height=0, width=0),
        ascii_sample(PARK, [boxed_annotation(1, (0, 0, 0, 0), "person")]),
    ):
        assert TASKS[name].target(sample, CATEGORIES, random.Random(0)) is None


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize(
    ("rle", "wrong"),
    [
        (Rle((5, 6), b"12"), "runs cover 3"),
        (Rle((5, 6), b""), "runs cover 0"),
        (Rle((5, 6), b"\xff"), "not a COCO run-length text"),
        (encode_mask(np.ones((6, 5), bool)), "a mask of 6 x 5 in an image of 5 x 6"),
    ],
)
def test_a_mask_that_lies_is_told_with_its_place(name, rle, wrong):
    with pytest.raises(SynthgenError, match=rf"image 1 \(1.png\), annotation 2: .*{wrong}.*; make its layer again"):
        TASKS[name].target(park(d={"segmentation": rle}), CATEGORIES, random.Random(0))


@pytest.mark.parametrize("name", TASKS)
def test_an_image_of_no_size_is_told(name):
    with pytest.raises(SynthgenError, match=r"image 1 \(1.png\) has no size"):
        TASKS[name].target(replace(park(), height=0), CATEGORIES, random.Random(0))


# --- instance and detection ------------------------------------------------------------------------------------------


def test_instance_learns_things_one_by_one_and_ignores_the_crowd():
    target = learn(instance, park())
    assert named(target) == ["person", "dog"]
    assert target.annotation_ids == ((1,), (2,))
    assert [rle_to_ascii(mask) for mask in target.masks] == [
        rle_to_ascii(encode_mask(letter_mask(PARK, letter))) for letter in "pd"
    ]
    assert target.boxes_xyxy.tolist() == [[0, 2, 2, 4], [0, 4, 2, 5]]
    assert rle_to_ascii(target.ignore) == rle_to_ascii(encode_mask(letter_mask(PARK, "c")))


def test_the_names_of_an_images_own_stuff_are_no_negatives_of_it():
    assert learn(instance, park()).texts == ("person", "dog", "sky-other")
    without = replace(park(), annotations=park().annotations[:3])
    assert learn(instance, without).texts == CATEGORIES


def test_a_name_of_a_thing_and_of_stuff_is_the_things_and_the_stuff_is_ignored():
    target = learn(instance, park(s={"category": "dog"}))
    assert named(target) == ["person", "dog"] and target.annotation_ids == ((1,), (2,))
    assert rle_to_ascii(target.ignore) == rle_to_ascii(encode_mask(letter_mask(PARK, "s") | letter_mask(PARK, "c")))


def test_a_crowd_without_a_mask_is_its_box_but_never_the_person_in_it():
    crowd = {"segmentation": None, "bbox": (0.5, 2.0, 5.5, 2.5)}
    assert rle_to_ascii(learn(instance, park(c=crowd)).ignore) == ascii_rows(
        "......", "......", "..####", "..####", "..####"
    )


def test_a_rejected_mask_still_trains_class_and_box():
    target = learn(instance, park(d={"segmentation": None, "bbox": (-3.0, 3.5, 5.0, 9.0)}))
    assert named(target) == ["person", "dog"]
    assert target.masks[1] is None
    assert target.boxes_xyxy[1].tolist() == [0, 3.5, 2, 5], "clipped to the image"


def test_an_empty_mask_is_no_mask():
    empty = encode_mask(np.zeros((5, 6), bool))
    assert learn(instance, park(d={"segmentation": empty})).masks[1] is None


@pytest.mark.parametrize(
    "change",
    [
        {"bbox": (0.0, 4.0, 0.0, 1.0), "flags": ("degenerate",)},
        {"bbox": (float("nan"),) * 4, "flags": ("degenerate", "no_box")},
        {"bbox": (9.0, 9.0, 2.0, 2.0), "flags": ("outside",)},
        {"bbox": (5.0, 4.0, -2.0, 2.0)},
        {"bbox": (1e8, 4.0, 1e-30, 2.0)},
        {"bbox": (1.0, 4.0, 1e308, float("inf"))},
        {"bbox": (0.1, 4.0, 1e-12, 1.0)},
    ],
)
def test_an_unusable_box_is_the_masks_and_without_a_mask_the_annotation_is_skipped(change):
    target = learn(instance, park(d=change))
    assert target.boxes_xyxy[1].tolist() == [0, 4, 2, 5]
    bare = learn(instance, park(d={**change, "segmentation": None}))
    assert named(bare) == ["person"]
    assert "dog" not in bare.texts, "somebody saw a dog, so it is no negative"


def test_what_has_no_name_is_neither_positive_nor_negative():
    target = learn(instance, park(d={"category": "", "flags": ("unknown_category",)}))
    assert named(target) == ["person"] and "" not in target.texts
    assert rle_to_ascii(target.ignore) == rle_to_ascii(encode_mask(letter_mask(PARK, "c") | letter_mask(PARK, "d")))


def test_boxes_into_which_a_machine_drew_are_told_apart():
    """The people's own box serves then, whatever became of the mask; not where the box was read off a mask."""
    drawn = {"mask_source": "sam vit_h"}
    sample = park(p=drawn, d={"mask_source": "human"}, c=drawn, s=drawn)
    target = learn(instance, sample)
    assert named(target) == ["person", "dog"] and target.box_prompted == (0,)
    assert learn(panoptic, sample).box_prompted == (0, 2), "the sky is of one annotation"
    two = ascii_sample(PARK, [*sample.annotations, replace(sample.annotations[3], id=9)])
    assert learn(panoptic, two).box_prompted == (0,), "and now of two"
    assert learn(detection, sample).box_prompted == (), "no mask is learned"
    assert learn(referring, sample).box_prompted == tuple(
        i for i, ids in enumerate(learn(referring, sample).annotation_ids) if ids == (1,)
    )
    assert learn(instance, park(p={**drawn, "flags": ("degenerate",)})).box_prompted == ()
    assert learn(instance, park(p={**drawn, "segmentation": None})).box_prompted == ()
    assert learn(instance, park(p={"mask_source": None})).box_prompted == (), "nobody knows who drew it"
    person = sample.annotations[0]
    twice = ascii_sample(PARK, [person, replace(person, id=9, segmentation=None, mask_source=None)])
    assert learn(instance, twice).box_prompted == (0,)


def test_two_of_one_box_category_and_mask_are_one_object():
    first = park().annotations[0]
    twice = replace(first, id=9, flags=("duplicate",), captions=())
    for again in (twice, replace(twice, segmentation=None)):
        target = learn(instance, ascii_sample(PARK, [first, again]))
        assert target.annotation_ids == ((1, 9),) and target.masks == (first.segmentation,)
    bare = [replace(a, segmentation=None) for a in (first, twice)]
    assert learn(instance, ascii_sample(PARK, bare)).annotation_ids == ((1, 9),)
    late = learn(instance, ascii_sample(PARK, [bare[0], twice]))
    assert late.annotation_ids == ((1, 9),) and late.masks == (twice.segmentation,), "the first has no mask"


def test_two_of_one_box_and_different_masks_are_two():
    chess = "ab\nba"
    sample = ascii_sample(
        chess, [masked_annotation(chess, letter, i, "dog", flags=("duplicate",)) for i, letter in enumerate("ab")]
    )
    assert sample.annotations[0].bbox == sample.annotations[1].bbox
    assert learn(instance, sample).annotation_ids == learn(panoptic, sample).annotation_ids == ((0,), (1,))
    bare = boxed_annotation(3, sample.annotations[0].bbox, "dog", flags=("duplicate",))
    three = replace(sample, annotations=(*sample.annotations, bare))
    assert learn(instance, three).annotation_ids == ((0, 3), (1,)), "what has no mask is the first"
    first, second = sample.annotations
    between = [replace(first, id=5), boxed_annotation(7, (0, 0, 1, 1), "dog"), replace(second, id=9)]
    assert learn(instance, ascii_sample(chess, between)).annotation_ids == ((5,), (7,), (9,)), (
        "in the order of their ids"
    )
    other = replace(sample.annotations[1], category="person", segmentation=sample.annotations[0].segmentation)
    assert len(learn(instance, ascii_sample(chess, [sample.annotations[0], other])).labels) == 2, "of another category"


@pytest.mark.parametrize("flag", ["fake", "reflected", "clipped", "part", "no_caption"])
def test_depictions_mirror_images_and_parts_are_objects(flag):
    assert named(learn(instance, park(d={"flags": (flag,)}))) == ["person", "dog"]


def test_names_are_left_as_they_are_spelt():
    sample = park(p={"category": "wall-other-merged"}, d={"category": "wall-other"})
    target = learn(instance, sample)
    assert named(target) == ["wall-other-merged", "wall-other"]
    assert target.texts == ("person", "dog", "sky-other", "wall-other", "wall-other-merged")


def test_only_crowds_teach_nothing():
    sample = ascii_sample(PARK, [park().annotations[2]])
    assert instance.target(sample, CATEGORIES, random.Random(0)) is None


def test_detection_is_instance_without_masks():
    boxes, masks = learn(detection, park()), learn(instance, park())
    assert boxes.masks == (None, None)
    for field in ("texts", "ignore", "annotation_ids"):
        assert getattr(boxes, field) == getattr(masks, field)
    assert np.array_equal(boxes.labels, masks.labels) and np.array_equal(boxes.boxes_xyxy, masks.boxes_xyxy)
    assert detection.target(ascii_sample(PARK, []), CATEGORIES, random.Random(0)) is None


# --- panoptic --------------------------------------------------------------------------------------------------------

TWO_SKIES = """
ss..tt
ss..tt
pp..pp
"""


def test_panoptic_learns_things_one_by_one_and_stuff_as_one():
    sample = ascii_sample(
        TWO_SKIES,
        [
            masked_annotation(TWO_SKIES, "s", 1, "sky", isthing=False),
            masked_annotation(TWO_SKIES, "p", 2, "person"),
            masked_annotation(TWO_SKIES, "t", 3, "sky", isthing=False),
        ],
    )
    target = learn(panoptic, sample)
    assert named(target) == ["person", "sky"] and target.annotation_ids == ((2,), (1, 3))
    assert rle_to_ascii(target.masks[1]) == ascii_rows("##..##", "##..##", "......")
    assert target.boxes_xyxy.tolist() == [[0, 2, 6, 3], [0, 0, 6, 2]]
    assert target.texts == CATEGORIES
    assert target.ignore is None, "pixels of no segment are background"

    thin = replace(sample.annotations[2], bbox=(0.0, 0.0, 6.0, 3.0))
    odd = learn(panoptic, replace(sample, annotations=(*sample.annotations[:2], thin)))
    assert odd.ignore is None, "a box is larger than its mask, and that is no gap"

    one = replace(sample.annotations[2], segmentation=None)
    short = learn(panoptic, replace(sample, annotations=(*sample.annotations[:2], one)))
    assert rle_to_ascii(short.masks[1]) == ascii_rows("##....", "##....", "......")
    assert rle_to_ascii(short.ignore) == ascii_rows("....##", "....##", "......"), "there, the sky's mask is short"
    assert short.boxes_xyxy.tolist() == target.boxes_xyxy.tolist()

    bare = tuple(replace(a, segmentation=None) for a in sample.annotations)
    none = learn(panoptic, replace(sample, annotations=bare))
    assert none.masks == (None, None) and named(none) == ["person", "sky"] and none.ignore is None


def test_panoptic_ignores_crowds_and_what_has_no_name_of_things_and_stuff():
    assert rle_to_ascii(learn(panoptic, park()).ignore) == rle_to_ascii(encode_mask(letter_mask(PARK, "c")))
    sample = park(s={"category": ""})
    target = learn(panoptic, sample)
    assert named(target) == ["person", "dog"] and target.texts == CATEGORIES
    assert rle_to_ascii(target.ignore) == rle_to_ascii(encode_mask(letter_mask(PARK, "c") | letter_mask(PARK, "s")))


@pytest.mark.parametrize("task", [panoptic, semantic])
def test_parts_belong_to_their_objects(task):
    target = learn(task, park(d={"flags": ("part",)}))
    assert "dog" not in target.texts and set(named(target)) == {"person", "sky"}
    assert (
        task.target(
            ascii_sample(PARK, [masked_annotation(PARK, "d", 1, "dog", flags=("part",))]), CATEGORIES, random.Random(0)
        )
        is None
    )


# --- semantic --------------------------------------------------------------------------------------------------------


def test_semantic_unites_a_category_crowds_included_and_ignores_the_rest():
    target = learn(semantic, park())
    assert named(target) == ["person", "dog", "sky"] and target.texts == CATEGORIES
    assert target.annotation_ids == ((1, 3), (2,), (4,))
    assert rle_to_ascii(target.masks[0]) == rle_to_ascii(encode_mask(letter_mask(PARK, "p") | letter_mask(PARK, "c")))
    assert rle_to_ascii(target.ignore) == rle_to_ascii(encode_mask(letter_mask(PARK, ".")))


def test_semantic_ignores_what_has_no_name_or_no_mask():
    target = learn(semantic, park(s={"category": ""}, d={"segmentation": None}))
    assert named(target) == ["person", "dog"] and target.masks[1] is None
    assert target.boxes_xyxy[1].tolist() == [0, 4, 2, 5]
    assert rle_to_ascii(target.ignore) == rle_to_ascii(
        encode_mask(np.isin(letter_mask(PARK, "p") | letter_mask(PARK, "c"), False))
    )


def test_a_wholly_labelled_image_has_nothing_to_ignore():
    assert (
        learn(
            semantic,
            ascii_sample("aab", [masked_annotation("aab", "a", 1, "dog"), masked_annotation("aab", "b", 2, "sky")]),
        ).ignore
        is None
    )


def test_overlaps_of_instances_are_in_both_regions():
    person, dog, *_ = park().annotations
    over = replace(person, segmentation=encode_mask(letter_mask(PARK, "p") | letter_mask(PARK, "d")))
    target = learn(semantic, ascii_sample(PARK, [over, dog]))
    assert target.masks == (over.segmentation, dog.segmentation)


# --- referring -------------------------------------------------------------------------------------------------------


def test_referring_draws_one_phrase_for_each_object_that_has_some():
    targets = [learn(referring, park(), seed=seed) for seed in range(40)]
    for target in targets:
        assert target.annotation_ids == ((1,), (2,)), "sky and crowd were not described"
        assert named(target)[0] == "the left man"
        assert len(target.texts) == 2 and set(target.texts) == set(named(target))
        assert rle_to_ascii(target.ignore) == rle_to_ascii(encode_mask(letter_mask(PARK, "c")))
    drawn = [named(target)[1] for target in targets]
    assert {drawn.count(phrase) >= 10 for phrase in ("a dog", "dog at his feet")} == {True}, drawn
    assert {target.texts[0] == "the left man" for target in targets} == {True, False}, "no order tells the object"


def test_a_crowd_is_no_object_whoever_described_it():
    target = learn(referring, park(c={"captions": human_captions("two men")}))
    assert target.annotation_ids == ((1,), (2,)) and "two men" not in target.texts
    assert rle_to_ascii(target.ignore) == rle_to_ascii(encode_mask(letter_mask(PARK, "c")))


def test_objects_of_one_phrase_share_it_whatever_its_case_and_blanks():
    sample = park(
        p={"captions": human_captions("A  dog ")},
        d={"captions": human_captions("a dog")},
        s={"captions": human_captions("the sky")},
    )
    for seed in range(10):
        target = learn(referring, sample, seed=seed)
        first, second, sky = named(target)
        assert first == second and first in ("A dog", "a dog") and sky == "the sky"
        assert len(target.texts) == 2


def test_what_a_machine_left_undescribed_may_fit_its_neighbours_phrase():
    machine = (Caption("a man", "ofa base", -0.4),)
    sample = park(p={"captions": machine}, d={"captions": ()})
    target = learn(referring, sample)
    assert target.annotation_ids == ((1,),)
    assert (decode_mask(target.ignore) >= (letter_mask(PARK, "d") | letter_mask(PARK, "s"))).all()
    by_people = learn(referring, park(p={"captions": human_captions("the man")}, d={"captions": ()}))
    assert not (decode_mask(by_people.ignore) & letter_mask(PARK, "d")).any(), "people mean one object"


@pytest.mark.parametrize("order", [1, -1])
def test_no_object_gets_a_phrase_of_its_own_as_a_negative(order):
    """A captioner says "a man" of every man: either all of them are meant, or each is told by another phrase."""
    own = {"p": ("a man", "a man in a hat"), "d": ("A man", "a man in red"), "s": ("a man",)}
    own = {letter: phrases[::order] for letter, phrases in own.items()}
    sample = park(**{letter: {"captions": human_captions(*phrases)} for letter, phrases in own.items()})
    seen = set()
    for seed in range(60):
        target = learn(referring, sample, seed=seed)
        for (which,), text in zip(target.annotation_ids, named(target), strict=True):
            theirs = {phrase.lower() for phrase in own["pdcs"[which - 1]]}
            assert {t.lower() for t in target.texts if t != text}.isdisjoint(theirs)
        assert (target.ignore is not None) and (len(target.annotation_ids) in (2, 3))
        ignored = (decode_mask(target.ignore) & letter_mask(PARK, "s")).any()
        assert ignored == ((4,) not in target.annotation_ids), "what nothing tells apart is neither right nor wrong"
        seen.add(tuple(sorted(named(target))))
    assert len(seen) > 2


def test_a_blank_phrase_is_none():
    sample = park(p={"captions": human_captions("", " \n", "a man")}, d={"captions": human_captions("  ")})
    for seed in range(10):
        assert learn(referring, sample, seed=seed).texts == ("a man",)
    assert referring.target(park(p={"captions": ()}, d={"captions": human_captions("")}), (), random.Random(0)) is None


def test_a_phrase_needs_no_category_and_no_mask():
    sample = ascii_sample(
        PARK,
        [
            boxed_annotation(1, (0, 0, 3, 2), "", captions=human_captions("grey sky")),
            boxed_annotation(2, (0, 0, 3, 2), ""),
        ],
    )
    target = learn(referring, sample)
    assert target.texts == ("grey sky",) and target.masks == (None,)
    assert target.annotation_ids == ((1, 2),), "one region, given twice"


def test_more_phrases_than_texts_are_drawn_from():
    sample = ascii_sample(
        PARK, [boxed_annotation(i, (i / 100, 0, 2, 2), "dog", captions=human_captions(f"dog {i}")) for i in range(200)]
    )
    targets = [learn(referring, sample, seed=seed, max_texts=20) for seed in (1, 2)]
    for target in targets:
        assert len(target.texts) == len(target.labels) == 20
        assert named(target) == [f"dog {i}" for (i,) in target.annotation_ids]
    assert targets[0].annotation_ids != targets[1].annotation_ids


# --- foreground ------------------------------------------------------------------------------------------------------


def test_foreground_is_all_masks_as_one():
    target = learn(foreground, park())
    assert target.texts == ("foreground",) and target.labels.tolist() == [0]
    assert target.annotation_ids == ((1, 2, 3, 4),) and target.ignore is None
    assert rle_to_ascii(target.masks[0]) == rle_to_ascii(encode_mask(~letter_mask(PARK, ".")))
    assert target.boxes_xyxy.tolist() == [[0, 0, 6, 5]]


def test_foreground_ignores_the_box_of_what_lost_its_mask():
    target = learn(foreground, park(s={"segmentation": None}))
    assert rle_to_ascii(target.ignore) == rle_to_ascii(encode_mask(letter_mask(PARK, "s")))
    bare = learn(foreground, ascii_sample(PARK, [boxed_annotation(1, (1, 1, 2, 2), "foreground")]))
    assert bare.masks == (None,) and bare.ignore is None and bare.boxes_xyxy.tolist() == [[1, 1, 3, 3]]


def test_foreground_learns_absence_only_where_it_is_known():
    empty = encode_mask(np.zeros((5, 6), bool))
    for sample in (
        ascii_sample(PARK, []),
        ascii_sample(PARK, [boxed_annotation(1, (0, 0, 0, 0), "foreground", segmentation=empty)]),
    ):
        target = learn(foreground, sample)
        assert target.texts == ("foreground",) and target.masks == () and target.ignore is None
        assert target.boxes_xyxy.shape == (0, 4) and target.labels.shape == target.mask_weights.shape == (0,)
    unread = boxed_annotation(1, (float("nan"),) * 4, "foreground", flags=("bad_segmentation", "no_box"))
    for sample in (ascii_sample(PARK, [unread]), ascii_sample(PARK, [], error="its mask cannot be read")):
        assert foreground.target(sample, (), random.Random(0)) is None


# --- the label space -------------------------------------------------------------------------------------------------

MANY = tuple(f"name {i:05d}" for i in range(1000))


@pytest.mark.parametrize("task", [instance, detection, panoptic, semantic])
def test_all_names_in_their_order_where_they_are_few(task):
    names = ("dog", *reversed(MANY[:362]))
    sample = park(s={"isthing": True})
    texts = task.target(sample, names, random.Random(0)).texts
    assert texts == (*names, "person", "sky"), "the same for every image, so that embeddings can be kept"
    assert len(texts) == MAX_TEXTS
    fewer = task.target(sample, names, random.Random(0), max_texts=MAX_TEXTS - 1).texts
    assert len(fewer) == MAX_TEXTS - 1 and set(fewer) < set(texts)


@pytest.mark.parametrize("task", [instance, detection, panoptic, semantic])
def test_positives_and_a_draw_where_names_are_many(task):
    draws = []
    for seed in range(3):
        target = task.target(park(), MANY, random.Random(seed))
        positives = set(named(target))
        assert len(target.texts) == MAX_TEXTS and list(target.texts) == sorted(target.texts)
        assert positives <= set(target.texts) <= {*MANY, *positives}
        draws.append(set(target.texts) - positives)
    assert draws[0] != draws[1] != draws[2]


def test_every_name_is_as_likely_a_negative_as_any_other():
    sample = ascii_sample("a", [masked_annotation("a", "a", 1, "name 00003")])
    counts = dict.fromkeys(MANY[:20], 0)
    for seed in range(2000):
        for text in instance.target(sample, MANY[:20], random.Random(seed), max_texts=6).texts:
            counts[text] += 1
    assert counts.pop("name 00003") == 2000
    assert sum(counts.values()) == 5 * 2000
    assert max(counts.values()) - min(counts.values()) < 150, "526 each, with a deviation of 20"


def test_positives_are_never_left_out():
    sample = ascii_sample("abc", [masked_annotation("abc", letter, ord(letter), f"name {letter}") for letter in "abc"])
    for most in (0, 1, 2, 3, 4):
        texts = instance.target(sample, MANY, random.Random(0), max_texts=most).texts
        assert {"name a", "name b", "name c"} <= set(texts) and len(texts) == max(3, most)


def test_the_names_of_what_is_unsure_are_not_drawn():
    names = ("sky", *MANY[:6])
    for seed in range(50):
        assert "sky" not in instance.target(park(), names, random.Random(seed), max_texts=7).texts


@pytest.mark.parametrize("task", [instance, detection, panoptic, semantic])
def test_only_what_was_looked_for_is_a_negative(task):
    sample = replace(park(), neg_categories=("wall", "dog", "cup", "sea"), not_exhaustive_categories=("person", "sea"))
    texts = {"person", "dog", "wall", "cup"} | ({"sky"} if task in (panoptic, semantic) else set())
    assert task.target(sample, MANY, random.Random(0)).texts == tuple(sorted(texts)), "dog is there after all"
    nothing = task.target(replace(sample, neg_categories=()), MANY, random.Random(0))
    assert set(nothing.texts) == set(named(nothing)), "of nothing is it known that it is absent"
    many = replace(sample, neg_categories=MANY)
    drawn = task.target(many, CATEGORIES, random.Random(0), max_texts=9).texts
    assert len(drawn) == 9 and len(set(drawn) & set(MANY)) == 9 - len(texts & {"person", "dog", "sky"})


def test_of_a_name_with_more_objects_than_annotations_those_are_learned():
    given = replace(park(), not_exhaustive_categories=("dog", "sky-other"))
    target = learn(instance, given)
    assert named(target) == ["person", "dog"] and target.texts == ("person", "dog"), "sky-other is somewhere"


# --- weights ---------------------------------------------------------------------------------------------------------


def test_masks_weigh_what_their_segmenter_says_and_human_ones_weigh_one():
    sample = park(
        p={"mask_source": "sam vit_h", "predicted_iou": 0.75, "box_iou": 0.5},
        d={"predicted_iou": 0.25},
        s={"mask_source": "grabcut", "box_iou": 2.0},
    )
    target = learn(panoptic, sample)
    assert weight_masks(target, sample, "predicted_iou").mask_weights.tolist() == [0.75, 1, 1]
    assert weight_masks(target, sample, "box_iou").mask_weights.tolist() == [0.5, 1, 1], "a score beyond 1 is 1"
    assert target.mask_weights.tolist() == [1, 1, 1]
    for field in ("texts", "labels", "masks", "ignore", "annotation_ids"):
        assert getattr(weight_masks(target, sample, "box_iou"), field) is getattr(target, field)


@pytest.mark.parametrize(("score", "weight"), [(None, 1), (float("nan"), 1), (-1.0, 0), (0.0, 0), (1.5, 1)])
def test_odd_scores(score, weight):
    sample = park(p={"mask_source": "sam vit_h", "predicted_iou": score})
    assert weight_masks(learn(instance, sample), sample, "predicted_iou").mask_weights.tolist() == [weight, 1]


def test_one_of_several_masks_weighs_by_their_areas():
    sample = park(
        p={"mask_source": "sam", "box_iou": 0.25}, c={"mask_source": "sam", "box_iou": 0.75}, d={"segmentation": None}
    )
    assert (letter_mask(PARK, "p").sum(), letter_mask(PARK, "c").sum()) == (4, 6)
    target = weight_masks(learn(semantic, sample), sample, "box_iou")
    assert named(target) == ["person", "dog", "sky"]
    assert target.mask_weights.tolist() == [np.float32((4 * 0.25 + 6 * 0.75) / 10), 1, 1]
