"""`load_layer`: a layer is a sequence of samples; slices and filters obey laws; images and drawings; hostile names."""

from __future__ import annotations

import pickle
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import scored_layers
from hypothesis import given, settings
from hypothesis import strategies as st

from synthgen.errors import ArgumentError, SynthgenError
from synthgen.layers.layer import Layer, LayerSample, load_layer
from synthgen.records.rle import decode_mask
from synthgen.records.sample import Sample, is_checked_by_person
from synthgen.storage.shard_store import Shard, ShardStore

COUNT = 150
SCORES = ("min_stability_score", "min_predicted_iou", "min_box_iou", "min_soft_iou")

#: Arguments of `filter`.
CONDITIONS = st.fixed_dictionaries(
    {},
    optional={
        **{name: st.sampled_from((0.0, 0.3, 0.5, 0.9, 1.0)) for name in SCORES},
        "min_area": st.sampled_from((0, 50, 200.5)),
        "categories": st.lists(st.sampled_from(scored_layers.CATEGORIES), max_size=3),
    },
)
INDICES = st.one_of(st.none(), st.integers(-COUNT - 5, COUNT + 5))


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return scored_layers.make_samples(COUNT)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, samples: list[Sample]) -> Path:
    root = tmp_path_factory.mktemp("layer")
    scored_layers.commit_layer(root, samples)
    return root


@pytest.fixture(scope="module")
def layer(root: Path) -> Layer:
    return load_layer(root / "store", scored_layers.LAYER)


def plain(sample: Sample) -> Sample:
    return Sample(**{field.name: getattr(sample, field.name) for field in fields(Sample)})


def test_a_layer_is_the_sequence_of_its_samples(layer: Layer, samples: list[Sample]) -> None:
    assert [plain(sample) for sample in layer] == samples
    assert [plain(sample) for sample in layer] == samples, "a second time"
    assert len(layer) == len(samples) == COUNT
    assert [plain(layer[i]) for i in range(COUNT)] == samples
    assert [plain(layer[i - COUNT]) for i in range(COUNT)] == samples
    assert [plain(sample) for sample in reversed(layer)] == samples[::-1]
    assert layer[7] in layer and layer.index(layer[77]) == 77


@pytest.mark.parametrize("index", [COUNT, COUNT + 70, -COUNT - 1])
def test_there_is_no_image_beyond_the_end(layer: Layer, index: int) -> None:
    with pytest.raises(IndexError, match=rf"toy/train/masks has 150 images; there is no image {index}"):
        layer[index]


@settings(max_examples=25)
@given(st.slices(COUNT), st.builds(slice, INDICES, INDICES, st.sampled_from((None, 1, 2, -1, -3, 64, 150))))
def test_slices_are_those_of_the_list(layer: Layer, first: slice, second: slice) -> None:
    numbers = list(range(1, COUNT + 1))
    part = layer[second][first] if (first.step or 1) > 0 else layer[second]
    wanted = numbers[second][first] if (first.step or 1) > 0 else numbers[second]
    assert isinstance(part, Layer)
    assert len(part) == len(wanted)
    assert [sample.image_id for sample in part] == wanted
    assert [part[i].image_id for i in range(len(part))] == wanted


@settings(max_examples=25)
@given(CONDITIONS)
def test_a_filter_keeps_what_meets_its_conditions(layer: Layer, samples: list[Sample], conditions: dict) -> None:
    found = layer.filter(**conditions)
    assert len(found) == COUNT, "images stay"
    for got, sample in zip(found, samples, strict=True):
        wanted = []
        for a in sample.annotations:
            area = 0.0
            if a.segmentation is None:
                area = a.bbox[2] * a.bbox[3]
            elif "min_area" in conditions:
                area = int(decode_mask(a.segmentation).sum())
            scores = {name: getattr(a, name.removeprefix("min_")) for name in SCORES if name in conditions}
            is_good = all(
                a.segmentation is not None
                and (is_checked_by_person(a) or (score is not None and score >= conditions[name]))
                for name, score in scores.items()
            )
            is_large = area >= conditions.get("min_area", 0)
            if is_good and is_large and a.category in conditions.get("categories", scored_layers.CATEGORIES):
                wanted.append(a)
        assert list(got.annotations) == wanted


@settings(max_examples=25)
@given(CONDITIONS, CONDITIONS)
def test_filters_are_idempotent_and_commute(layer: Layer, one: dict, two: dict) -> None:
    part = layer[::5]
    both = list(part.filter(**one).filter(**two))
    assert both == list(part.filter(**two).filter(**one))
    assert both == list(part.filter(**one).filter(**two).filter(**one))
    assert both == list(layer.filter(**one).filter(**two)[::5]), "a slice of a filtered layer is the filter of a slice"
    assert list(part.filter(**one)) == list(part.filter(**one).filter(**one))


def test_a_filter_leaves_the_layer_as_it_is(layer: Layer, samples: list[Sample]) -> None:
    assert not any(sample.annotations for sample in layer.filter(categories=[]))
    assert [plain(sample) for sample in layer] == samples
    assert layer.filter(min_area=1).categories == layer.categories == scored_layers.CATEGORIES


@pytest.mark.parametrize(
    ("conditions", "sentence"),
    [
        ({"min_stability_score": 1.5}, r"min_stability_score=1\.5 is not valid; give a number from 0 to 1"),
        ({"min_predicted_iou": "0.9"}, r"min_predicted_iou='0\.9' is not valid"),
        ({"min_soft_iou": float("nan")}, r"min_soft_iou=nan is not valid"),
        ({"min_box_iou": True}, r"min_box_iou=True is not valid"),
        ({"min_area": -1}, r"min_area=-1 is not valid; give a number of pixels"),
        ({"categories": "cat"}, r"categories='cat' is one text; give a list of names"),
        ({"categories": 3}, r"categories=3 is not valid; give a list of names"),
        ({"categories": ["cat", "brid"]}, r"has no category 'brid'; did you mean 'bird'\? \(have: bird, cat, dog\)"),
    ],
)
def test_each_wrong_condition_has_its_sentence(layer: Layer, conditions: dict, sentence: str) -> None:
    with pytest.raises(ArgumentError, match=sentence):
        layer.filter(**conditions)
    with pytest.raises(ValueError, match=sentence):
        layer.filter(**conditions)


def test_only_one_row_group_is_read_for_an_image(layer: Layer, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[int, list[int]]] = []
    real = ShardStore.read_samples

    def noted(self: ShardStore, shard: Shard, row_groups: list[int]) -> object:
        read.append((shard.index, list(row_groups)))
        return real(self, shard, row_groups)

    monkeypatch.setattr(ShardStore, "read_samples", noted)
    fresh = load_layer(root / "store", scored_layers.LAYER)
    assert fresh[65].image_id == 66
    assert fresh[69].image_id == 70
    assert read == [(0, [1])], "the second image is in the same row group"
    read.clear()
    assert [sample.image_id for sample in fresh[::69]] == [1, 70, 139]
    assert read == [(0, [0, 1]), (3, [0])], "the shard without one of the rows is not read"
    read.clear()
    assert next(iter(fresh)).image_id == 1
    assert read == [(0, [0, 1])], "a shard is opened when its first row is needed"


def test_a_layer_says_what_made_it(layer: Layer, root: Path) -> None:
    assert layer.name == scored_layers.LAYER
    assert layer.recipe == scored_layers.RECIPE
    assert layer.num_missing_shards == 0
    assert layer.image_folder == root / "photos"
    assert repr(layer) == f"<Layer toy/train/masks in {root / 'store'}, 150 images>"


def test_a_layer_can_be_pickled_for_worker_processes(layer: Layer) -> None:
    copy = pickle.loads(pickle.dumps(layer.filter(min_area=50)[10:20]))
    assert list(copy) == list(layer.filter(min_area=50)[10:20])


def test_an_unfinished_layer_has_the_images_that_are_there(tmp_path: Path) -> None:
    scored_layers.commit_layer(tmp_path, scored_layers.make_samples(5), sizes=(3, 2), num_shards=4)
    layer = load_layer(tmp_path / "store", f"/{scored_layers.LAYER}/")
    assert (len(layer), layer.num_missing_shards) == (5, 2)
    assert len(layer.filter(categories=["of a shard that is missing"])) == 5


def test_the_error_about_a_missing_layer_names_those_that_are_there(root: Path, tmp_path: Path) -> None:
    for name in ("toy/train/captions", "toy/train", "nothing", "../../etc", "toy/train/masks/00000"):
        with pytest.raises(SynthgenError, match=r"no layer .*|cannot name a dataset"):
            load_layer(root / "store", name)
    with pytest.raises(SynthgenError, match=r"\(have: toy/train/masks\)"):
        load_layer(root / "store", "toy/val/masks")
    with pytest.raises(SynthgenError, match=r"\(have: none\)"):
        load_layer(tmp_path / "nowhere", "toy/val/masks")
    with pytest.raises(ArgumentError, match=r"name=7 is not a text"):
        load_layer(root / "store", 7)  # type: ignore[arg-type]
    with pytest.raises(SynthgenError, match=r"s3://bucket/x is a URL"):
        load_layer("s3://bucket/x", scored_layers.LAYER)


def test_a_shard_that_was_made_again_meanwhile_is_reported(tmp_path: Path) -> None:
    samples = scored_layers.make_samples(10)
    scored_layers.commit_layer(tmp_path, samples, sizes=(10,))
    opened = [load_layer(tmp_path / "store", scored_layers.LAYER) for _ in range(2)]
    assert [len(layer) for layer in opened] == [10, 10]
    scored_layers.commit_layer(tmp_path, samples[:4], sizes=(4,))
    with pytest.raises(SynthgenError, match=r"was made again since the layer was opened; open the layer again"):
        opened[0][9]
    with pytest.raises(SynthgenError, match=r"was made again since the layer was opened; open the layer again"):
        list(opened[1])


# --- images ----------------------------------------------------------------------------------------------------------


def test_a_sample_reads_and_draws_its_image(tmp_path: Path) -> None:
    scored_layers.commit_layer(tmp_path, scored_layers.make_samples(3), sizes=(3,))
    pixels = scored_layers.draw_photo(tmp_path, "0001.png")
    layer = load_layer(tmp_path / "store", scored_layers.LAYER)
    image = layer[0].image()
    assert image.dtype == np.uint8 and (image == pixels).all()
    drawn = layer[0].plot()
    assert drawn.mode == "RGB" and max(drawn.size) >= 1024
    with pytest.raises(SynthgenError, match=r"image 0002\.png in .*photos: .*; check the folder"):
        layer[1].image()
    grey = layer[1].plot()
    assert grey.size != drawn.size
    assert layer[1].error is None, "drawing does not change the sample"


def test_another_image_folder_may_be_named(tmp_path: Path) -> None:
    scored_layers.commit_layer(tmp_path, scored_layers.make_samples(1), sizes=(1,))
    pixels = scored_layers.draw_photo(tmp_path, "0001.png")
    (tmp_path / "photos").rename(tmp_path / "moved")
    unknown = load_layer(tmp_path / "store", scored_layers.LAYER)
    assert unknown.image_folder is None
    for action in (unknown[0].image, unknown[0].plot):
        with pytest.raises(SynthgenError, match=r"the folder of image 0001\.png is not known; name it: load_layer"):
            action()
    named = load_layer(tmp_path / "store", scored_layers.LAYER, images=tmp_path / "moved")
    assert (named[0].image() == pixels).all()
    assert named[0] == unknown[0], "the folder is not part of the content"


HOSTILE_NAMES = (
    "../secret.png", "/etc/passwd", "a/../../secret.png", "..\\secret.png", "C:/x.png", "x\0.png", "\x1b[2J.png", "",
)  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_hostile_name_reads_no_file_outside_the_folder(tmp_path: Path, name: str) -> None:
    scored_layers.draw_photo(tmp_path, "../secret.png")
    scored_layers.commit_layer(tmp_path, [Sample(1, "toy/1", name, *scored_layers.SIZE)], sizes=(1,))
    sample = load_layer(tmp_path / "store", scored_layers.LAYER)[0]
    assert isinstance(sample, LayerSample) and sample.file_name == name
    with pytest.raises(SynthgenError) as why:
        sample.image()
    assert str(why.value).isprintable()
    assert max(sample.plot().size) >= 640
    frame = load_layer(tmp_path / "store", scored_layers.LAYER).to_arrow()
    assert frame.column("file_name").to_pylist() == [name]


def test_the_arrow_table_holds_all_rows(layer: Layer, samples: list[Sample]) -> None:
    table = layer.to_arrow()
    assert table.column("image_id").to_pylist() == [sample.image_id for sample in samples]
    dogs = layer.filter(categories=["dog"]).to_arrow().column("annotations").to_pylist()
    ids = [[a["id"] for a in row] for row in dogs]
    assert ids == [[a.id for a in sample.annotations if a.category == "dog"] for sample in samples]
    assert layer[:0].to_arrow().schema == table.schema


@pytest.mark.parametrize("path", [3, "", "a\0b", "a\ud800", "x" * 5000])
def test_each_wrong_path_has_its_sentence(layer: Layer, root: Path, path: Any) -> None:
    with pytest.raises(ArgumentError, match=r"^store="):
        load_layer(path, scored_layers.LAYER)
    with pytest.raises(ArgumentError, match=r"^images="):
        load_layer(root / "store", scored_layers.LAYER, images=path)
    with pytest.raises(ArgumentError, match=r"^path="):
        layer.to_coco(path)


def test_an_image_folder_that_is_not_there_is_reported_at_once(root: Path) -> None:
    with pytest.raises(SynthgenError, match=r"^no folder nowhere with the images of toy/train/masks"):
        load_layer(root / "store", scored_layers.LAYER, images="nowhere")


def test_a_sample_is_one_short_line(layer: Layer) -> None:
    first = repr(layer[0])
    assert first == f"<LayerSample 1: 0001.png, height 40, width 60, {len(layer[0].annotations)} annotations>"
    assert repr(replace(layer[0], file_name="a\nb.png")).isprintable()


@pytest.mark.parametrize("number", [np.float32(0.5), np.float64(0.5)])
def test_a_condition_may_be_a_number_of_numpy(layer: Layer, number: Any) -> None:
    assert list(layer.filter(min_stability_score=number)) == list(layer.filter(min_stability_score=0.5))
    assert list(layer.filter(min_area=np.int64(200))) == list(layer.filter(min_area=200))


def test_a_category_that_is_not_a_text_is_refused_in_an_unfinished_layer(tmp_path: Path) -> None:
    scored_layers.commit_layer(tmp_path, scored_layers.make_samples(150))
    next((tmp_path / "store/toy/train/masks").glob("*.parquet")).unlink()
    with pytest.raises(ArgumentError, match=r"^categories has 3, which is not a text"):
        load_layer(tmp_path / "store", scored_layers.LAYER).filter(categories=[3])  # type: ignore[list-item]
