"""The mixture: ratios, excluded images, samples without targets, exact resume."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from fakes import train_layers
from fakes.train_layers import annotation, phrase, row

from synthgen.dataloading.mixture import MAX_EMPTY_SAMPLES, MAX_UNREADABLE, Mixture, StreamItem, plan_mixture
from synthgen.dataloading.sample_stats import MAX_NAMED_FAILURES
from synthgen.errors import SynthgenError
from synthgen.records.sample import Rle, Sample


def one(root: Path, *sources: object, **more: object) -> Mixture:
    return Mixture(train_layers.manifest(root, *sources, **more), reader_id=0, num_readers=1)


def same(a: StreamItem, b: StreamItem) -> bool:
    return (a.source_id, a.image_key, a.example.texts) == (b.source_id, b.image_key, b.example.texts) and all(
        np.array_equal(getattr(a.example, name), getattr(b.example, name))
        for name in ("image", "labels", "boxes_xyxy", "has_mask", "masks", "mask_weights", "ignore")
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    train_layers.commit(tmp_path, 150, shards=2)
    return tmp_path


def mixed(root: Path) -> list[object]:
    """Four sources of one layer, of ratios that are far apart; every other row of one of them is of no use."""
    train_layers.commit(root, 40, name="toy/val/human")
    halves = [replace(row(i), annotations=(annotation(i, "dog"),) if i % 2 else ()) for i in range(60)]
    train_layers.commit(root, halves, name="toy/half/human")
    return [
        train_layers.source(root, ratio=1),
        train_layers.source(root, "toy/val/human", "semantic", ratio=30),
        train_layers.source(root, "toy/half/human", ratio=3),
        train_layers.source(root, "toy/val/human", "detection", ratio=9.5),
    ]


# --- ratios ----------------------------------------------------------------------------------------------------------


def test_ratios_hold(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within 2 % over 10,000 draws; and in fact within a few draws, at any time, whichever source is redrawn."""
    monkeypatch.setattr("synthgen.dataloading.mixture.make_train_example", lambda image, target, *_: blank())
    mixture = one(root, *mixed(root), cache_mib=1)
    count: Counter[int] = Counter()
    for n, drawn in enumerate(islice(mixture, 10_000), start=1):
        count[drawn.source_id] += 1
        if n % 500 == 0:
            for i, ratio in enumerate((1, 30, 3, 9.5)):
                assert abs(count[i] - n * ratio / 43.5) <= 5
    for i, ratio in enumerate((1, 30, 3, 9.5)):
        assert count[i] == pytest.approx(10_000 * ratio / 43.5, rel=0.02)
    assert mixture.stats.counts[2]["skipped/nothing"] > 600, "half of this source is redrawn"
    assert [seen["images"] for seen in mixture.stats.counts] == [count[i] for i in range(4)]


def blank() -> object:
    class Blank:
        labels, masks, annotation_ids, ignore = np.zeros(0, int), (), (), np.zeros(1, bool)

    return Blank()


@pytest.mark.parametrize("ratios", [(1,), (1, 1), (1e-9, 1), (5, 3, 9, 30, 1, 6, 3, 1, 9)])
def test_ratios_hold_for_every_reader_and_for_all_together(root: Path, ratios: tuple[float, ...]) -> None:
    sources = [train_layers.source(root, ratio=ratio, max_texts=i + 1) for i, ratio in enumerate(ratios)]
    manifest = train_layers.manifest(root, *sources)
    plan = plan_mixture(manifest)
    together: Counter[int] = Counter()
    for reader in range(16):
        mixture = Mixture(manifest, reader_id=reader, num_readers=16, plan=plan)
        own = Counter(mixture._choose_source(draw) for draw in range(10_000))
        for i, ratio in enumerate(ratios):
            assert abs(own[i] - 10_000 * ratio / sum(ratios)) <= 6
        together.update(mixture._choose_source(draw) for draw in range(100))
    for i, ratio in enumerate(ratios):
        assert abs(together[i] - 1600 * ratio / sum(ratios)) <= 32


# --- what may not be seen, and what cannot ---------------------------------------------------------------------------


def test_excluded_keys_are_never_seen(root: Path) -> None:
    out = {f"toy/{i}" for i in range(0, 150, 3)}
    (root / "out.txt").write_text("\n".join(sorted(out)))
    mixture = one(root, train_layers.source(root), exclude=(root / "out.txt",))
    seen = Counter(drawn.image_key for drawn in islice(mixture, 300))
    assert not out & seen.keys() and set(seen.values()) == {3} and len(seen) == 100
    assert mixture.stats.counts[0]["skipped/excluded"] == pytest.approx(150, abs=3)


def test_samples_with_an_error_are_passed_over_and_counted(tmp_path: Path) -> None:
    train_layers.commit(tmp_path, [row(i, error="truncated" if i < 30 else None) for i in range(40)])
    mixture = one(tmp_path, train_layers.source(tmp_path))
    assert {drawn.image_key for drawn in islice(mixture, 40)} == {f"toy/{i}" for i in range(30, 40)}
    assert mixture.stats.counts[0]["skipped/error"] == pytest.approx(120, abs=30)


def test_a_source_of_which_nothing_may_be_seen_says_so(tmp_path: Path) -> None:
    train_layers.commit(tmp_path, [row(i, error="truncated" if i < 30 else None) for i in range(40)])
    (tmp_path / "out.txt").write_text("\n".join(f"toy/{i}" for i in range(30, 40)))
    with pytest.raises(SynthgenError, match="no image of toy/train/human can be learned from: all are on a list of ex"):
        next(one(tmp_path, train_layers.source(tmp_path), exclude=(tmp_path / "out.txt",)))


@pytest.mark.parametrize(
    ("task", "annotations", "more", "sentence"),
    [
        ("referring", [annotation(1)], {}, "does this layer have captions?"),
        ("referring", [annotation(1, captions=(phrase("a", source="ofa"), phrase("b", source="ofa")))],
         {"min_caption_score": 0.0}, "2,000 captions were refused; lower the thresholds of mixture.0"),
        ("instance", [], {}, "they have no annotations; name another layer"),
        ("instance", [annotation(1, isthing=False), annotation(2, iscrowd=True)], {},
         "does it fit their 2,000 annotations?"),
    ],
)  # fmt: skip
def test_a_task_that_finds_nothing_says_so(
    tmp_path: Path, task: str, annotations: list, more: dict, sentence: str
) -> None:
    train_layers.commit(tmp_path, [row(i, annotations=tuple(annotations)) for i in range(70)])
    mixture = one(tmp_path, train_layers.source(tmp_path, task=task, **more))
    with pytest.raises(SynthgenError) as why:
        next(mixture)
    assert str(why.value) == f"{task} found nothing in {MAX_EMPTY_SAMPLES:,} samples of toy/train/human; {sentence}"
    assert mixture.stats.counts[0] == {"skipped/nothing": MAX_EMPTY_SAMPLES}


def test_a_source_in_which_one_image_of_many_teaches_something_goes_on(tmp_path: Path) -> None:
    """Also behind its first image, where runs of nothing may be twice as long as the layer."""
    train_layers.commit(tmp_path, [row(i, annotations=() if i else (annotation(1),)) for i in range(640)])
    mixture = one(tmp_path, train_layers.source(tmp_path))
    assert [drawn.image_key for drawn in islice(mixture, 5)] == ["toy/0"] * 5
    assert mixture.stats.counts[0]["skipped/nothing"] > 4 * 320


def test_unreadable_images_are_passed_over_counted_and_named(tmp_path: Path) -> None:
    samples = [row(i, file_name=f"gone{i}.png" if i % 2 else train_layers.PHOTO) for i in range(66)]
    samples[0] = row(0, file_name="../../etc/passwd")
    samples[2] = row(2, annotation(2, segmentation=None), height=99)
    train_layers.commit(tmp_path, samples)
    mixture = one(tmp_path, train_layers.source(tmp_path))
    assert len({drawn.image_key for drawn in islice(mixture, 31)}) == 31
    next(mixture)
    count, names = mixture.stats.counts[0], mixture.stats.failures[0]
    assert count["skipped/unreadable"] >= 33 and len(names) == MAX_NAMED_FAILURES
    assert all(": no file gone" in name or ": file name" in name or ": is 16 x 12" in name for name in names)
    assert str(tmp_path) not in " ".join(names)
    lines = mixture.stats.format_table()
    assert f"    and {count['skipped/unreadable'] - MAX_NAMED_FAILURES:,} more" in lines
    assert any("passed over: " in line and "could not be read" in line for line in lines)


def test_a_wrong_folder_is_reported(tmp_path: Path) -> None:
    train_layers.commit(tmp_path, 10)
    with pytest.raises(SynthgenError) as why:
        next(one(tmp_path, train_layers.source(tmp_path, images=tmp_path / "store")))
    assert str(why.value) == (
        f"{MAX_UNREADABLE} images of toy/train/human in a row cannot be read from {tmp_path / 'store'} (the last: no "
        "file "
        f"{train_layers.PHOTO} below the image folder); is it their folder? Say which is with images: in mixture.0"
    )


def test_a_part_of_a_dataset_that_is_not_there_is_passed_over(tmp_path: Path) -> None:
    """An archive that was not unpacked: its rows stand side by side, and are many row groups."""
    rows = [replace(row(i), file_name=f"lost/{i}.png") if i >= 300 else row(i) for i in range(1500)]
    train_layers.commit(tmp_path, rows)
    mixture = one(tmp_path, train_layers.source(tmp_path))
    assert len({next(mixture).image_key for _ in range(300)}) >= 150
    assert mixture.stats.counts[0]["skipped/unreadable"] > 500


def test_unreadable_images_among_others_never_stop_a_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by being many, but by being many in a row."""
    monkeypatch.setattr("synthgen.dataloading.mixture.MAX_UNREADABLE", 20)
    monkeypatch.setattr("synthgen.dataloading.mixture.MAX_UNREADABLE_PARTIAL", 20)
    train_layers.commit(
        tmp_path, [row(i, file_name="gone.png" if i % 3 == 0 else train_layers.PHOTO) for i in range(60)]
    )
    mixture = one(tmp_path, train_layers.source(tmp_path))
    assert len(list(islice(mixture, 200))) == 200
    assert mixture.stats.counts[0]["skipped/unreadable"] > 4 * 20


def test_annotations_that_contradict_themselves_are_passed_over_unless_all_do(tmp_path: Path) -> None:
    lie = annotation(1, segmentation=Rle((train_layers.HEIGHT, train_layers.WIDTH), b"1000"))
    train_layers.commit(tmp_path, [row(i, lie) if i % 2 else row(i) for i in range(20)])
    mixture = one(tmp_path, train_layers.source(tmp_path))
    assert len({drawn.image_key for drawn in islice(mixture, 20)}) == 10
    assert mixture.stats.counts[0]["skipped/broken"] >= 9 and "annotation 1" in mixture.stats.failures[0][0]
    train_layers.commit(tmp_path, [row(i, lie) for i in range(20)], name="toy/lies/human")
    with pytest.raises(
        SynthgenError, match=r"200 images of toy/lies/human in a row have annotations that cannot be le"
    ):
        next(one(tmp_path, train_layers.source(tmp_path, "toy/lies/human")))


def test_where_the_source_says_no_size_the_image_does(tmp_path: Path) -> None:
    sized = row(1)
    train_layers.commit(tmp_path, [replace(sized, height=0, width=0, image_id=i) for i in range(3)])
    drawn = next(one(tmp_path, train_layers.source(tmp_path)))
    assert drawn.example.orig_size == (train_layers.HEIGHT, train_layers.WIDTH)


@pytest.mark.parametrize("wrong", ["layer", "list", "nothing"])
def test_what_is_not_there_is_said_before_anything_is_read(root: Path, wrong: str) -> None:
    sources = (
        []
        if wrong == "nothing"
        else [train_layers.source(root, "toy/gone/x" if wrong == "layer" else "toy/train/human")]
    )
    exclude = (root / "gone.txt",) if wrong == "list" else ()
    sentence = {"layer": "no shards of toy/gone/x", "list": "gone.txt", "nothing": "nothing to learn from"}[wrong]
    with pytest.raises(SynthgenError, match=sentence):
        plan_mixture(train_layers.manifest(root, *sources, exclude=exclude))


# --- goes on exactly -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("reader", "readers"), [(0, 1), (2, 3)])
def test_a_stream_goes_on_where_it_was(root: Path, reader: int, readers: int) -> None:
    manifest = train_layers.manifest(root, *mixed(root))
    whole = Mixture(manifest, reader_id=reader, num_readers=readers)
    states, given = [json.dumps(whole.state_dict())], []
    for _ in range(150):
        given.append(next(whole))
        states.append(json.dumps(whole.state_dict()))
    for start in (0, 1, 7, 64, 100, 140):
        again = Mixture(manifest, reader_id=reader, num_readers=readers, state=json.loads(states[start]))
        assert all(same(a, b) for a, b in zip(given[start : start + 10], islice(again, 10), strict=True))
        assert json.dumps(again.state_dict()) == states[start + 10]


def test_the_same_seed_gives_the_same_stream_and_another_another(root: Path) -> None:
    def stream(seed: int) -> list[StreamItem]:
        return list(islice(one(root, train_layers.source(root), seed=seed), 20))

    first = stream(0)
    assert all(map(same, first, stream(0)))
    assert [d.image_key for d in first] != [d.image_key for d in stream(1)]


def test_two_sources_of_one_layer_have_orders_of_their_own(root: Path) -> None:
    """Or every photograph would come twice in a row, and be seen twice with the same draws."""
    mixture = one(root, train_layers.source(root), train_layers.source(root, task="detection"))
    drawn = list(islice(mixture, 80))
    first, second = ([d.image_key for d in drawn if d.source_id == i][:35] for i in (0, 1))
    assert len(first) == len(second) == 35
    assert sum(a == b for a, b in zip(first, second, strict=True)) < 10


def test_readers_begin_with_different_sources(root: Path) -> None:
    """Or the first images of all of them together would be of one source."""
    manifest = train_layers.manifest(root, *(train_layers.source(root, max_texts=i) for i in range(1, 9)))
    plan = plan_mixture(manifest)
    readers = [Mixture(manifest, reader_id=reader, num_readers=32, plan=plan) for reader in range(32)]
    assert {mixture._choose_source(0) for mixture in readers} == set(range(8))
    assert readers[3]._choose_source(0) == Mixture(manifest, reader_id=3, num_readers=64, plan=plan)._choose_source(0)


def test_a_source_says_how_many_texts_an_image_is_asked_for(root: Path) -> None:
    for most in (1, 2, 3, 365):
        drawn = next(one(root, train_layers.source(root, max_texts=most)))
        assert len(drawn.example.texts) == min(most, len(train_layers.CATEGORIES))


def test_two_readers_see_different_rows(root: Path) -> None:
    manifest = train_layers.manifest(root, train_layers.source(root))
    parts = [{d.image_key for d in islice(Mixture(manifest, reader_id=r, num_readers=2), 70)} for r in (0, 1)]
    assert len(parts[0]) == len(parts[1]) == 70 and not parts[0] & parts[1]


def test_a_cache_changes_nothing_but_what_is_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[str] = []
    from synthgen.images.decode import load_rgb

    def counting(path: Path, *size: int) -> object:
        loads.append(path.name)
        return load_rgb(path, *size)

    monkeypatch.setattr("synthgen.dataloading.row_stream.load_rgb", counting)
    streams = [list(islice(one(root, train_layers.source(root), cache_mib=mib), 30)) for mib in (0, 1)]
    assert all(map(same, *streams)) and len(loads) == 31, "all rows show one photograph"


# --- what the model saw ----------------------------------------------------------------------------------------------


def test_what_was_seen_is_counted(tmp_path: Path) -> None:
    """A machine's mask refused, a crowd, a phrase refused, an object under its phrase; drawn four times."""
    annotations = (
        annotation(1, captions=(phrase("the  Cat"), phrase("a cat", source="ofa"))),
        replace(annotation(2, "dog", mask_source="sam", box_iou=0.2, captions=(phrase("a dog"),)), bbox=(9, 0, 5, 5)),
        replace(annotation(3, iscrowd=True, segmentation=None), bbox=(0.0, 9.0, 9.0, 3.0)),
    )
    train_layers.commit(
        tmp_path, [Sample(1, "toy/1", train_layers.PHOTO, train_layers.HEIGHT, train_layers.WIDTH, annotations)]
    )
    sources = [
        train_layers.source(tmp_path, task=task, min_box_iou=0.5, caption_sources=("human",))
        for task in ("referring", "instance", "foreground")
    ]
    mixture = Mixture(train_layers.manifest(tmp_path, *sources), reader_id=0, num_readers=1)
    times = Counter(drawn.source_id for drawn in islice(mixture, 9))
    refused = {"mask/box_iou": 1, "caption/source": 1}
    referring, instance, foreground = (
        {key: n / times[i] for key, n in mixture.stats.counts[i].items() if n and key not in ("unseen", "ignored")}
        for i in range(3)
    )
    assert referring == {"images": 1, "objects": 2, "masks": 1, "captions": 2, **refused}
    assert {k: v for k, v in instance.items() if k in refused} == refused and "captions" not in instance
    assert foreground["objects"] == foreground["masks"] == 1 and "captions" not in foreground
    assert mixture.stats.counts[0]["ignored"] == times[0]


def test_objects_out_of_view_are_counted(root: Path) -> None:
    mixture = one(root, train_layers.source(root))
    drawn = list(islice(mixture, 100))
    count = mixture.stats.counts[0]
    assert count["objects"] == sum(len(d.example.labels) for d in drawn)
    assert count["objects"] + count["unseen"] == count["images"] == 100


def test_mask_weights_follow_the_score_asked_for(tmp_path: Path) -> None:
    train_layers.commit(tmp_path, [row(1, annotation(1, mask_source="sam", predicted_iou=0.75))])
    plain = next(one(tmp_path, train_layers.source(tmp_path, task="foreground")))
    assert plain.example.mask_weights.tolist() == [1.0]
    drawn = next(one(tmp_path, train_layers.source(tmp_path, task="foreground", mask_weight="predicted_iou")))
    assert drawn.example.mask_weights.tolist() == [0.75]
