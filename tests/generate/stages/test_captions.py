"""The captions stage: which boxes are captioned, filters, merged captions."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from synthgen.errors import SynthgenError
from synthgen.generate.captioners import attributes
from synthgen.generate.engine import run_in_process
from synthgen.generate.job import Job
from synthgen.generate.output_checks import PluginError
from synthgen.generate.stages import captions as stage
from synthgen.generate.stages.captions import CaptionStage
from synthgen.records.recipe import format_recipe
from synthgen.records.rle import encode_mask
from synthgen.records.sample import ANNOTATION_FLAGS, CAPTION_REASONS, UNPROMPTED_FLAGS, Annotation, Caption, Sample
from synthgen.storage.shard_store import Shard, ShardStore
from synthgen.text.phrases import comparison_key

HEIGHT, WIDTH = 20, 30
IMAGE = np.zeros((HEIGHT, WIDTH, 3), np.uint8)


class Toy:
    """Answers every box with the same captions, and remembers what it was asked."""

    batch_size = 3
    source = "toy"

    def __init__(self, *answer: str | Caption):
        self.answer = [Caption(a, self.source) if isinstance(a, str) else a for a in answer]
        self.asked: list[tuple[list[list[float]], list[str]]] = []

    def caption(self, images, boxes_xyxy, categories, crowds, top_k):
        self.top_k, self.crowds = top_k, crowds
        for boxes, own in zip(boxes_xyxy, categories, strict=True):
            assert boxes.dtype == np.float32
            assert boxes.shape == (len(own), 4)
            self.asked.append((boxes.tolist(), list(own)))
            yield [list(self.answer) for _ in own]


def sample(*annotations: Annotation) -> Sample:
    return Sample(1, "toy/1", "1.png", HEIGHT, WIDTH, annotations)


def box(number: int = 1, *bbox: float, category: str = "dog", **fields) -> Annotation:
    return Annotation(number, bbox or (2, 2, 5, 5), category, **fields)


def run(toy: Toy, *annotations: Annotation, **options) -> tuple[Annotation, ...]:
    (done,) = CaptionStage(toy, **options).process([sample(*annotations)], [IMAGE])
    return done.annotations


def texts(annotation: Annotation) -> list[str]:
    return [caption.text for caption in annotation.captions]


# --- who is captioned ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", sorted(UNPROMPTED_FLAGS))
def test_crowds_and_boxes_without_area_are_passed_through_unasked(flag):
    toy = Toy("a dog")
    left, right = box(1, 2, 2, 5, 5, flags=(flag,)), box(2, 3, 3, 4, 4)
    first, second = run(toy, left, right)
    assert first == left
    assert texts(second) == ["a dog"]
    assert toy.asked == [([[3, 3, 7, 7]], ["dog"])]


def test_a_crowd_without_its_flag_is_passed_to_the_captioner_as_a_crowd():
    toy = Toy("a dog")
    assert run(toy, crowd := box(iscrowd=True), flagged := box(category="Cup", flags=("crowd",))) == (crowd, flagged)
    assert toy.crowds == [["Cup", "dog"]]
    run(toy, box(flags=("outside",)))
    assert toy.crowds == [[]]


def test_what_is_not_boxed_to_the_last_is_a_crowd_to_the_captioner():
    """LVIS marks per image the categories of which it has boxed some objects, and not all."""
    toy = Toy("a dog")
    given = replace(sample(box(), box(2, category="Cup", flags=("crowd",))), not_exhaustive_categories=("zebra", "dog"))
    list(CaptionStage(toy).process([given], [IMAGE]))
    assert toy.crowds == [["Cup", "dog", "zebra"]]
    (done,) = CaptionStage(attributes.build()).process(
        [replace(sample(box(1, 1, 1, 5, 5), box(2, 20, 1, 5, 5)), not_exhaustive_categories=("dog",))], [IMAGE]
    )
    assert not any(text.startswith("the ") for annotation in done.annotations for text in texts(annotation))


@pytest.mark.parametrize("flag", sorted(set(ANNOTATION_FLAGS) - UNPROMPTED_FLAGS))
def test_any_other_flag_does_not_cost_captions(flag):
    (done,) = run(Toy("a dog"), box(flags=(flag,)))
    assert texts(done) == ["a dog"]
    assert set(done.flags) == {flag} - {"no_caption", "captioner_failed"}


def test_a_box_beyond_the_image_is_asked_for_by_its_part_inside():
    toy = Toy("a dog")
    run(toy, box(1, -5, -4, 15, 10, flags=("clipped",)), box(2, 25, 15, 100, 100, category="Cup", flags=("clipped",)))
    assert toy.asked == [([[0, 0, 10, 6], [25, 15, WIDTH, HEIGHT]], ["dog", "Cup"])]


def test_the_box_the_mask_and_all_else_stay_as_they_were():
    mask = encode_mask(np.eye(HEIGHT, WIDTH, dtype=bool))
    before = box(
        7, -3.25, 2.5, 12.125, 50, flags=("clipped", "fake"), segmentation=mask, mask_source="sam vit_h", box_iou=0.5
    )
    (done,) = run(Toy("a dog"), before)
    assert replace(done, captions=()) == before


def test_rows_and_annotations_keep_their_order_also_without_boxes():
    flat = [box(5), box(3, 4, 4, 0, 0, flags=("degenerate",)), box(9), box(9)]
    samples = [
        replace(sample(*flat), image_id=1),
        replace(sample(), image_id=2),
        replace(sample(*flat[::-1]), image_id=3),
    ]
    done = list(CaptionStage(Toy("a dog")).process(samples, [IMAGE] * 3))
    assert [s.image_id for s in done] == [1, 2, 3]
    assert [[a.id for a in s.annotations] for s in done] == [[5, 3, 9, 9], [], [9, 9, 3, 5]]
    assert done[1] == samples[1]


# --- what stays, what is merged --------------------------------------------------------------------------------------


def test_captions_by_people_stay_first_and_as_they_are_and_those_of_another_run_go():
    human = (Caption(" A  Dog,\n", "human"), Caption("my dog", "human", None, True))
    other = Caption("a hound", "ofa base", -0.5)
    (done,) = run(Toy("a big dog", "My dog!"), box(captions=(human[0], other, human[1])))
    assert done.captions[:2] == human
    assert texts(done)[2:] == ["a big dog"]  # "My dog!" a person has said already
    assert run(Toy("a big dog", "My dog!"), done) == (done,)


def test_top_k_is_of_the_captioner_and_beside_those_by_people():
    toy = Toy(*(f"dog {letter}" for letter in "bcdefgh"))
    (done,) = run(toy, box(captions=(Caption("mine", "human"),)), top_k=3)
    assert toy.top_k == 3
    assert texts(done) == ["mine", "dog b", "dog c", "dog d"]


def test_captions_that_say_the_same_are_one_the_first():
    (done,) = run(Toy("a brown dog", "the brown dog.", "A BROWN DOG", "a dog, brown", "brown-dog"), box())
    assert texts(done) == ["a brown dog", "a dog, brown"]


def test_texts_are_cleaned():
    (done,) = run(Toy("  a\x00dog\n\x1b[31m on \t grass  "), box())
    assert texts(done) == ["a dog [31m on grass"]


@pytest.mark.parametrize("answer", [(), ("",), (" \n", "\x00")])
def test_nothing_said_is_a_flag(answer):
    (done,) = run(Toy(*answer), box(flags=("fake",)))
    assert done == box(flags=("fake", "no_caption"))
    (human,) = run(Toy(*answer), box(captions=(Caption("mine", "human"),)))
    assert human.flags == ()


def test_captions_at_last_take_back_the_flag_of_their_absence():
    (done,) = run(Toy("a dog"), box(flags=("captioner_failed", "fake", "no_caption")))
    assert done.flags == ("fake",)


# --- what is said of a caption ---------------------------------------------------------------------------------------


def judged(text: str | Caption, category: str = "dog", **options) -> Caption:
    (done,) = run(Toy(text), box(category=category), **options)
    return done.captions[0]


def test_a_good_caption_has_no_reasons():
    assert judged("a brown dog on grass") == Caption("a brown dog on grass", "toy", None, True, ())


@pytest.mark.parametrize(
    ("text", "category"),
    [
        ("a dog", "dog"),
        ("Dogs.", "dog"),
        ("the dining table", "Dinning Table"),
        ("a table", "dining table"),
        ("a cabinet or shelf", "Cabinet/shelf"),
        ("a bow", "bow_(weapon)"),
        ("an object", ""),
        ("a 犬", "犬"),
    ],
)
def test_no_more_than_the_category(text, category):
    assert judged(text, category).reasons == ("only_category",)


@pytest.mark.parametrize(
    ("text", "category"), [("a puppy", "dog"), ("left dog", "dog"), ("a dog", "bench"), ("red", "")]
)
def test_more_than_the_category(text, category):
    assert judged(text, category).reasons == ()


def test_whether_the_noun_agrees_is_stored_and_not_a_reason():
    assert judged("a brown cat").category_match is False
    assert judged("a brown cat").reasons == ()
    assert judged("on the left").category_match is None


def test_forbidden_words_are_a_reason_and_drop_nothing():
    forbidden = frozenset({"ugly", "bad dog"})
    assert judged("an UGLY dog", forbidden=forbidden).reasons == ("forbidden_word",)
    assert judged("a bad-dog here", forbidden=forbidden).reasons == ("forbidden_word",)
    assert judged("a snuglyish dog", forbidden=forbidden).reasons == ()


def test_low_scores_are_a_reason_and_no_score_is_another():
    """What gives no scores neither reaches a minimum nor fails it."""
    scores = {-0.123456: (), -1.5: (), -1.50006: ("low_score",), -9.0: ("low_score",), None: ("no_score",)}
    for score, reasons in scores.items():
        found = judged(Caption("a big dog", "toy", score), min_score=-1.5)
        assert found.reasons == reasons, score
        assert found.score == (None if score is None else round(score, 4))
        assert judged(Caption("a big dog", "toy", score)).reasons == ()


def test_stutter_is_a_reason_and_reasons_are_sorted():
    found = judged(Caption("dog dog dog", "toy", -9), min_score=0, forbidden=frozenset({"dog"}))
    assert found.reasons == ("forbidden_word", "low_score", "only_category", "repeats")
    assert {*found.reasons, "no_score"} == set(CAPTION_REASONS)


# --- failures --------------------------------------------------------------------------------------------------------


def test_a_failure_marks_what_was_wanted_and_nothing_else():
    crowd, human = box(2, flags=("crowd",)), Caption("mine", "human")
    wanted = box(3, flags=("fake",), captions=(human, Caption("old", "ofa base", -1)))
    done = CaptionStage(Toy()).failed(sample(crowd, wanted))
    assert done.annotations == (crowd, replace(wanted, flags=("captioner_failed", "fake"), captions=(human,)))


@pytest.mark.parametrize("answers", [0, 1, 3])
def test_a_captioner_that_answers_too_little_or_too_much_is_an_error_not_a_mixture(answers):
    class Wrong(Toy):
        def caption(self, images, boxes_xyxy, categories, crowds, top_k):
            yield from ([self.answer] * answers for _ in boxes_xyxy)

    with pytest.raises(PluginError, match=f"^the number of lists of captions of an image is {answers}, not 2, one for"):
        run(Wrong("a dog"), box(1), box(2))


# --- options ---------------------------------------------------------------------------------------------------------


def test_build_takes_the_plugin_by_name_and_checks_its_options():
    assert stage.build("attributes", {"batch_size": "5"}, top_k=2).batch_size == 5
    with pytest.raises(SynthgenError, match="no captioner named 'atributes'; did you mean 'attributes'"):
        stage.build("atributes", {})


def test_settled_options_are_definite_and_build_takes_them(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("Ugly\n\n bad-dog \nugly\n")
    from_file = stage.resolve_options(forbidden=str(path), min_score=-1.5, top_k=3)
    assert from_file == stage.resolve_options(forbidden=" bad dog,UGLY", min_score=-1.5, top_k=3)
    assert from_file == {"top_k": 3, "min_score": -1.5, "forbidden": "bad dog,ugly"}
    assert stage.resolve_options() == {"top_k": 5}
    built = stage.build("attributes", {}, **from_file)
    assert (built.top_k, built.min_score, built.forbidden) == (3, -1.5, {"bad dog", "ugly"})


def test_options_that_make_no_sense(tmp_path):
    (tmp_path / "latin.txt").write_bytes(b"\xe9t\xe9")
    (tmp_path / "large.txt").write_bytes(b"x" * (2**20 + 1))
    for options, sentence in (
        ({"top_k": 0}, "--top-k 0 should be at least 1"),
        ({"min_score": float("nan")}, "--min-score nan should be a number"),
        ({"min_score": 0.5}, "--min-score 0.5 is what no caption reaches"),
        ({"forbidden": "lists/none.txt"}, "no file lists/none.txt"),
        ({"forbidden": str(tmp_path / "latin.txt")}, "takes a text file in UTF-8"),
        ({"forbidden": str(tmp_path / "large.txt")}, "is larger than"),
        ({"forbidden": "\x00"}, None),
        ({"forbidden": "x" * 5000}, None),
    ):
        if sentence is None:
            stage.resolve_options(**options)
            continue
        with pytest.raises(SynthgenError, match=sentence):
            stage.resolve_options(**options)


def job(store: Path, images: Path, **fields) -> Job:
    given = {
        "stage": "captions",
        "dataset": "real",
        "split": "train",
        "input_layer": "annotations",
        "layer": "captions",
    }
    return Job(**{**given, "plugin": "attributes", "store": store, "image_folder": images, **fields})


def test_the_stages_own_options_are_of_the_recipe_and_none_changes_none():
    plain = job(Path("s"), Path("i"))
    assert "stage_options" not in plain.recipe()  # masks made before there were any keep their fingerprints
    some = replace(plain, stage_options={"top_k": 3})
    assert (
        some.fingerprint("p") != replace(plain, stage_options={"top_k": 5}).fingerprint("p") != plain.fingerprint("p")
    )
    assert format_recipe(some.recipe()) == "attributes top_k=3"
    words = ",".join(f"word{i}" for i in range(999))
    assert len(format_recipe(replace(plain, stage_options={"forbidden": words}).recipe())) < 120


# --- laws ------------------------------------------------------------------------------------------------------------

phrase = st.lists(st.sampled_from("a the big dog cat . on Dog DOGS red ugly \x00 犬".split(" ")), max_size=5).map(
    " ".join
)
made = st.builds(Caption, phrase, st.sampled_from(["human", "ofa base"]), st.none() | st.floats(-9, 0))


@given(
    st.lists(phrase, max_size=8),
    st.lists(st.tuples(st.lists(made, max_size=4), st.booleans()), max_size=4),
    st.integers(1, 5),
)
def test_every_box_is_accounted_for(answers, objects, top_k):
    before = [
        box(i, captions=tuple(given), flags=("outside",) if lost else ()) for i, (given, lost) in enumerate(objects)
    ]
    for old, new in zip(before, run(Toy(*answers), *before, top_k=top_k), strict=True):
        if "outside" in old.flags:
            assert new == old
            continue
        human = [c for c in old.captions if c.source == "human"]
        ours = new.captions[len(human) :]
        assert list(new.captions[: len(human)]) == human
        assert len(ours) <= top_k
        assert len({comparison_key(c.text) for c in ours} - {comparison_key(c.text) for c in human}) == len(ours)
        assert bool(new.captions) != ("no_caption" in new.flags)
        assert {c.source for c in ours} <= {"toy"}


# --- real data -------------------------------------------------------------------------------------------------------


@pytest.fixture
def real(shared, tmp_path) -> Job:
    from synthgen.formats.readers import coco_json
    from synthgen.ingest.ingest import ingest

    root: Path = shared("data/coco_tiny")
    files = coco_json.files(root, "train", root / "annotations/instances_val2017.json")
    ingest(ShardStore(tmp_path), coco_json, files, name="real", split="train", layer="annotations", shard_size=7)
    return job(tmp_path, root / "val2017", stage_options=stage.resolve_options())


def made_by(given: Job) -> list[Sample]:
    store = ShardStore(given.store)
    todo = [shard.in_layer(given.layer) for shard in store.list_shards(given.dataset, given.split, given.input_layer)]
    reports = list(run_in_process(given, todo))
    assert not any(report.error or report.failed for report in reports)
    return [
        s for shard in store.list_shards(given.dataset, given.split, given.layer) for s in store.read_samples(shard)
    ]


def test_photographs_captioned(real, shared):
    samples = made_by(real)
    truth = json.loads((shared("data/coco_tiny") / "annotations/instances_val2017.json").read_text())
    flat = [a for s in samples for a in s.annotations]
    assert len(flat) == len(truth["annotations"])
    for a in flat:
        assert bool(a.captions) != (a.iscrowd or not UNPROMPTED_FLAGS.isdisjoint(a.flags))
        assert len(a.captions) <= 5
        assert len({c.text for c in a.captions}) == len(a.captions)
        assert all(c.category_match is True for c in a.captions), a
        assert [("only_category" in c.reasons) for c in a.captions].count(True) <= 1
    assert (len(flat), sum(len(a.captions) == 5 for a in flat)) == (815, 277), "the README has it as a share"


def test_run_again_the_bytes_are_the_same(real):
    folder, made = ShardStore(real.store).layer_folder("real", "train", "captions"), []
    for one in (real, replace(real, options={"batch_size": 1})):
        shutil.rmtree(folder, ignore_errors=True)
        made_by(one)
        made.append({path.name: path.read_bytes() for path in folder.glob("*.parquet")})
    assert made[0] and made[0] == made[1]


def test_the_footer_counts_captions(real):
    flat = [a for s in made_by(real) for a in s.annotations]
    store = ShardStore(real.store)
    counts = [store.read_footer(shard)["counts"] for shard in store.list_shards("real", "train", "captions")]
    assert sum(c["captions"] for c in counts) == sum(len(a.captions) for a in flat)
    assert sum(c["captioned"] for c in counts) == sum(bool(a.captions) for a in flat)
    assert sum(c["varied"] for c in counts) == sum(len(a.captions) == 5 for a in flat)
    assert sum(c["described"] for c in counts) == sum(bool(a.captions) for a in flat)


def test_what_varies_has_as_many_captions_as_were_asked_for_and_not_by_people(real):
    def counted(**fields):
        given = replace(real, **fields)
        made_by(given)
        store = ShardStore(given.store)
        footers = [store.read_footer(shard) for shard in store.list_shards("real", "train", given.layer)]
        assert {footer["top_k"] for footer in footers} == {given.stage_options.get("top_k", 2)}
        return [sum(footer["counts"][key] for footer in footers) for key in ("captioned", "described", "varied")]

    counts = Counter(len(a.captions) for s in made_by(replace(real, layer="all")) for a in s.annotations)
    total = counts.total() - counts[0]
    two = counted(layer="two", stage_options={"top_k": 2})
    assert two == [total, total, total - counts[1]]
    assert two[2] > counts[5]
    # Masks over these captions were asked for none; what is said of the captions stays true.
    assert counted(layer="masks", input_layer="two", stage="masks", plugin="box_fill", stage_options={}) == two


def test_captions_by_people_are_not_what_a_captioner_varies(tmp_path):
    people = tuple(Caption(f"mine {i}", "human") for i in range(7))
    before = [sample(box(1, captions=people), box(2, flags=("crowd",), captions=people), box(3))]
    store = ShardStore(tmp_path)
    given = job(tmp_path, tmp_path, plugin="fakes.failing_captioner", stage_options={"top_k": 2})
    shard = Shard("real", "train", "annotations", 0, 1)
    footer = {"fingerprint": "f", "counts": {}, "failed": []}
    store.commit(shard, before, footer)
    Image.fromarray(IMAGE).save(tmp_path / "1.png")
    (report,) = run_in_process(given, [shard.in_layer("captions")])
    assert report.error is None, report.error
    assert (report.captioned, report.described, report.varied) == (3, 2, 0)
    assert report.captions == 7 + 7 + 2


def test_masks_and_captions_in_either_order(real):
    masks = replace(real, stage="masks", plugin="box_fill", stage_options={})
    first = made_by(replace(masks, layer="masks"))
    made_by(real)
    captions_last = made_by(replace(real, input_layer="masks", layer="both"))
    masks_last = made_by(replace(masks, input_layer="captions", layer="both-too"))
    assert captions_last == masks_last
    assert all(a.segmentation is not None for s in first for a in s.annotations if not a.iscrowd)


def test_human_phrases_are_kept(shared):
    graphs = json.loads((shared("data/visual_genome_excerpt") / "region_descriptions.json").read_text())
    regions = graphs[0]["regions"][:50]
    size = (max(r["y"] + r["height"] for r in regions), max(r["x"] + r["width"] for r in regions))
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    given = Sample(
        *(1, "vg/1", "1.jpg", *size),
        tuple(
            Annotation(
                r["region_id"],
                (r["x"], r["y"], r["width"], r["height"]),
                "",
                captions=(Caption(r["phrase"], "human"),),
            )
            for r in regions
        ),
    )
    (done,) = CaptionStage(attributes.build()).process([given], [image])
    for before, after in zip(given.annotations, done.annotations, strict=True):
        assert after.captions[:1] == before.captions
        assert after.captions[0].score is None
        assert {c.source for c in after.captions[1:]} == {"attributes"}


def test_a_result_belongs_to_the_sample_that_it_was_made_of():
    human = Caption("our dog", "human")
    before = sample(box(1, captions=(human, Caption("a cat", "older"))), box(2, flags=("crowd",), captions=(human,)))
    (after,) = CaptionStage(Toy("a dog")).process([before], [IMAGE])
    (nothing,) = CaptionStage(Toy()).process([before], [IMAGE])
    first, second = before.annotations
    for result in (after, nothing):
        assert stage.is_result(before, result)
        assert stage.is_result(sample(replace(first, captions=(human,), flags=("no_caption",)), second), result)
        for other in (
            sample(first),
            sample(replace(first, captions=()), second),
            sample(replace(first, bbox=(2, 2, 5, 6)), second),
            sample(replace(first, category="cat"), second),
            sample(first, replace(second, captions=())),
            replace(before, not_exhaustive_categories=("dog",)),
        ):
            assert not stage.is_result(other, result)
