"""Manifests: what is right is read as it is written, each mistake gets its sentence, and nothing in one is executed."""

from __future__ import annotations

import pickle
import time
from pathlib import Path

import pytest
import yaml
from fakes import layer_kinds, train_layers
from hypothesis import given
from hypothesis import strategies as st

from synthgen.dataloading import yaml_loader
from synthgen.dataloading.manifest import Manifest, load_manifest
from synthgen.dataloading.manifest_check import ManifestReport, check_manifest
from synthgen.dataloading.source_config import TrainSource
from synthgen.errors import MultipleErrors, SynthgenError
from synthgen.storage.shard_store import Shard

MANIFESTS = Path(__file__).parents[2] / "manifests"

GOOD = "{shards: coco/train2017/human, task: instance}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `shards` and images; manifests are written into it."""
    folder = tmp_path_factory.mktemp("run")
    layer_kinds.write_store(folder)
    (folder / "words.txt").write_text("coco/000000000001\nno key\n\n# a comment\nnor this\n")
    (folder / "val.txt").write_text("".join(f"{key}\n" for key in layer_kinds.coco_keys(*range(100, 104))))
    (folder / "all.txt").write_text("".join(f"{key}\n" for key in layer_kinds.coco_keys(*range(200))))
    (folder / "other.txt").write_text("coco/999999999999\n")
    return folder


def examined(folder: Path, text: str) -> ManifestReport | list[str]:
    """The manifest `text`, or its mistakes as told."""
    path = folder / "m.yaml"
    path.write_text(text)
    try:
        return check_manifest(path, store=folder / "shards")
    except MultipleErrors as why:
        assert why.lines[0].startswith(f"{path} has ")
        assert all(line.startswith("  ") and "\n" not in line for line in why.lines[1:])
        return [line.strip() for line in why.lines[1:]]


def source(entry: str, *more: str) -> str:
    """A manifest with one source, whose keys `entry` begins."""
    return f"name: x\nmixture:\n  - {{{entry}}}\n" + "".join(f"{line}\n" for line in more)


WRONG: list[tuple[str, str, list[str]]] = [
    # (what is wrong, manifest, all that is told; " ... " stands for anything)
    ("no name", f"mixture: [{GOOD}]", ["name: is missing; add it"]),
    ("a name that is no name", f"name: ../x\nmixture: [{GOOD}]", ["name: should be 1 to 100 letters, digits,"]),
    ("nothing in it", "name: x", ["manifest: nothing to learn from, nothing to evaluate on; add mixture: or eval:"]),
    (
        "a mixture said twice",
        f"name: x\nmixture: [{GOOD}]\nmixture: [{GOOD}]",
        ["mixture: said 2 times, in lines 2 and 3; leave one of them"],
    ),
    ("an empty mixture", "name: x\nmixture: []", ["manifest: nothing to learn from"]),
    (
        "a mixture without value",
        "name: x\nmixture:",
        ["manifest: nothing to", "mixture: should be a list, got nothing"],
    ),
    ("a mixture that is none", "name: x\nmixture: coco", ["mixture: should be a list, got 'coco'"]),
    ("a source that is none", "name: x\nmixture: [coco]", ["mixture.0: should be a mapping of keys, got 'coco'"]),
    ("an unknown key", source(GOOD[1:-1], "sed: 3"), ["sed: no such key; did you mean 'seed'?"]),
    (
        "an unknown key of a source",
        source(f"{GOOD[1:-1]}, min_iou: 0.5"),
        ["mixture.0.min_iou: no such key; did you mean 'min_predicted_iou'?"],
    ),
    ("another's word", source(f"{GOOD[1:-1]}, weight: 2"), ["mixture.0.weight: no such key; did you mean 'ratio'?"]),
    (
        "a key like no other",
        source(GOOD[1:-1], "readers: {zzz: 1}"),
        ["readers.zzz: no such key; take it out (have: workers, cache_mib)"],
    ),
    (
        "a key of another source",
        "name: x\neval: [{shards: coco/val2017/human, task: instance, ratio: 2}]",
        ["eval.0.ratio: no such key; take it out (have: shards, task, images, size)"],
    ),
    (
        "an unknown task",
        source("shards: coco/train2017/human, task: instnce"),
        ["mixture.0.task: no task named 'instnce'; did you mean 'instance'?"],
    ),
    (
        "a task that is code",
        source("shards: coco/train2017/human, task: os.path"),
        ["mixture.0.task: no task named 'os.path' (have: captioning, detection, foreground,"],
    ),
    ("no task", source("shards: coco/train2017/human"), ["mixture.0.task: is missing; add it"]),
    (
        "a layer of two words",
        source("shards: coco/train2017, task: instance"),
        ["mixture.0.shards: 'coco/train2017' names no layer; write DATASET/SPLIT/LAYER"],
    ),
    (
        "a layer that climbs",
        source("shards: ../../etc, task: instance"),
        ["mixture.0.shards: '..' cannot name a dataset, split or layer"],
    ),
    (
        "an unknown layer",
        source("shards: coco/train2017/humn, task: instance"),
        ["mixture.0.shards: no layer coco/train2017/humn in ... ; did you mean 'coco/train2017/human'?"],
    ),
    (
        "a layer not made yet",
        source("shards: objects365/train/masks, task: instance"),
        ["mixture.0.shards: no layer objects365/train/masks in ... `synthgen masks --dataset objects365 --split tr"],
    ),
    (
        "another dataset's layer",
        source("shards: lvis/train2017/human, task: instance"),
        ["mixture.0.shards: no layer lvis/train2017/human in ... `synthgen ingest --dataset lvis --split train2017"],
    ),
    (
        "a layer of one's own data",
        source("shards: own/train/masks-2, task: instance"),
        [
            "no layer own/train/masks-2 in ... `synthgen masks --dataset coco-json --name own --split train "
            "--annotations FILE --images FOLDER --layer masks-2 --store "
        ],
    ),
    ("a negative ratio", source(f"{GOOD[1:-1]}, ratio: -1"), ["mixture.0.ratio: should be greater than 0, got -1"]),
    ("a ratio in quotes", source(f"{GOOD[1:-1]}, ratio: '2'"), ["mixture.0.ratio: should be a number, got '2'"]),
    ("a ratio of yes", source(f"{GOOD[1:-1]}, ratio: true"), ["mixture.0.ratio: should be a number, got true"]),
    ("an endless ratio", source(f"{GOOD[1:-1]}, ratio: .inf"), ["mixture.0.ratio: should be a finite number, got inf"]),
    ("a share in percent", source(f"{GOOD[1:-1]}, share: 30"), ["mixture.0.share: should be at most 1, got 30"]),
    ("no share", source(f"{GOOD[1:-1]}, share: 0"), ["mixture.0.share: should be greater than 0, got 0"]),
    (
        "a score out of range",
        source("shards: coco/train2017/scored, task: instance, min_predicted_iou: 88"),
        ["mixture.0.min_predicted_iou: should be at most 1, got 88"],
    ),
    (
        "a score that is not there",
        source("shards: coco/train2017/masks, task: instance, min_predicted_iou: 0.8"),
        [
            "mixture.0.min_predicted_iou: masks of this layer carry no predicted_iou; "
            "use min_box_iou or min_stability_score"
        ],
    ),
    (
        "a score that no mask reaches",
        source("shards: coco/train2017/scored, task: instance, min_stability_score: 0.95"),
        ["mixture.0.min_stability_score: no mask reaches 0.95, the best has 0.900; lower it"],
    ),
    (
        "a caption score that is not there",
        source("shards: coco/train2017/captions, task: referring, min_caption_score: -1"),
        ["mixture.0.min_caption_score: captions of this layer carry no score; use drop_reasons, or take it out"],
    ),
    (
        "a caption score that none reaches",
        source("shards: coco/train2017/scored, task: referring, min_caption_score: -0.1"),
        ["mixture.0.min_caption_score: no caption reaches -0.1, the best has -0.500; lower it"],
    ),
    (
        "captions that nobody checked",
        source("shards: coco/train2017/scored, task: referring, require_category_match: true"),
        ["mixture.0.require_category_match: no caption of this layer was checked; take it out"],
    ),
    (
        "writers that wrote nothing",
        source("shards: coco/train2017/scored, task: referring, caption_sources: [human]"),
        ["mixture.0.caption_sources: no captions by human in this layer, but by ofa base; name these"],
    ),
    (
        "an unknown reason",
        source("shards: coco/train2017/captions, task: referring, drop_reasons: [only_categry]"),
        ["mixture.0.drop_reasons.0: no reason named 'only_categry'; did you mean 'only_category'?"],
    ),
    (
        "reasons without a list",
        source("shards: coco/train2017/captions, task: referring, drop_reasons: repeats"),
        ["mixture.0.drop_reasons: should be a list, got 'repeats'"],
    ),
    (
        "an unknown weight",
        source(f"{GOOD[1:-1]}, mask_weight: box"),
        ["mixture.0.mask_weight: should be predicted_iou or box_iou, got 'box'; did you mean 'box_iou'?"],
    ),
    (
        "referring without captions",
        source("shards: coco/train2017/human, task: referring"),
        ["mixture.0.task: 'referring' learns from captions, and this layer has none; name one that has (of"],
    ),
    (
        "regions of boxes",
        source("shards: coco/train2017/annotations, task: semantic"),
        ["mixture.0.task: 'semantic' learns from masks, and this layer has none ... `synthgen masks --dataset coco"],
    ),
    (
        "names of regions",
        source("shards: vg/train/regions, task: detection"),
        ["mixture.0.task: 'detection' tells names apart, and no object of this layer has one; try 'referring'"],
    ),
    (
        "the same twice",
        f"name: x\nmixture: [{GOOD}, {GOOD[:-1]}, ratio: 3}}]",
        ["mixture.1: the same as mixture.0; raise the ratio there instead"],
    ),
    (
        "evaluated twice",
        "name: x\neval: [{shards: coco/val2017/human, task: instance}, {shards: coco/val2017/human, task: instance}]",
        ["eval.1: the same as eval.0; take it out"],
    ),
    ("a key twice", source(f"{GOOD[1:-1]}, task: semantic"), ["mixture.0.task: said 2 times, in line 3; leave one"]),
    ("a section twice", source(GOOD[1:-1], "seed: 1", "seed: 2"), ["seed: said 2 times, in lines 4 and 5; leave one"]),
    (
        "a list that is not there",
        source(GOOD[1:-1], "exclude: [no.txt]"),
        ["exclude.0: no file ... no.txt; make it: `synthgen exclude LAYER... --out "],
    ),
    (
        "a list that is not there, of an evaluated layer",
        source(GOOD[1:-1], "eval: [{shards: coco/val2017/human, task: instance}]", "exclude: [e/coco_val2017.txt]"),
        ["exclude.0: no file ... `synthgen exclude coco/val2017/human --out "],
    ),
    (
        "a list of other things",
        source(GOOD[1:-1], "exclude: [words.txt]"),
        ["exclude.0: ... line 2 'no key' is no image key, as DATASET/NAME is, nor are 1 others; "],
    ),
    (
        "a list that is a folder",
        source(GOOD[1:-1], "exclude: [images]"),
        ["exclude.0: cannot read ... (Is a directory)"],
    ),
    (
        "the same list twice",
        source(GOOD[1:-1], "exclude: [other.txt, other.txt]"),
        ["exclude.1: the same as exclude.0; take it out"],
    ),
    (
        "all of a source excluded",
        source(GOOD[1:-1], "exclude: [all.txt]"),
        ["mixture.0: all 8 images of coco/train2017/human are excluded by exclude.0; take it out"],
    ),
    (
        "leakage",
        source("shards: vg/train/regions, task: referring", "eval: [{shards: coco/val2017/human, task: instance}]"),
        [
            "mixture.0: 2 images of vg/train/regions are also in eval.0 coco/val2017/human, e.g. coco/000000000102; "
            "run `synthgen exclude coco/val2017/human --out ",
        ],
    ),
    (
        "learned from what is measured on",
        source("shards: coco/val2017/human, task: instance", "eval: [{shards: coco/val2017/human, task: instance}]"),
        ["mixture.0: 4 images of coco/val2017/human are also in eval.0 ... take one of the two out"],
    ),
    (
        "truth by a machine",
        "name: x\neval: [{shards: coco/val2017/masks, task: instance}]",
        ["eval.0.shards: its masks are by grabcut, and ground truth is by people; name a layer that is (of these"],
    ),
    (
        "no truth",
        "name: x\neval: [{shards: coco/train2017/annotations, task: instance}]",
        ["eval.0.shards: has no masks, and 'instance' is measured by them; name a layer that has"],
    ),
    (
        "no phrases to measure",
        "name: x\neval: [{shards: coco/val2017/human, task: referring}]",
        ["eval.0.shards: has no captions, and 'referring' is measured by them; name a layer that has"],
    ),
    (
        "images nobody knows of",
        source("shards: lost/train/human, task: instance"),
        ["mixture.0.images: where are the images of lost/train? Add images: FOLDER"],
    ),
    (
        "no folder of images",
        source(f"{GOOD[1:-1]}, images: nowhere"),
        ["mixture.0.images: no folder ... nowhere; name that of the images of coco/train2017"],
    ),
    (
        "another folder of images",
        source(f"{GOOD[1:-1]}, images: shards"),
        ["mixture.0.images: ... has none of the first 8 images of coco/train2017/human, e.g. 000000000000.jpg"],
    ),
    (
        "an unknown backbone",
        source(GOOD[1:-1], "model: {backbone: resnet}"),
        ["model.backbone: should be resnet50, swin_t, swin_s, swin_b, swin_l or tiny ... ; did you mean 'resnet50'?"],
    ),
    (
        "queries of the other kind",
        source(GOOD[1:-1], "model: {queries: learnable, conditional_queries: 200}"),
        ["model: queries 'learnable' use no conditional_queries; take it out, or choose queries: mixed"],
    ),
    (
        "no queries",
        source(GOOD[1:-1], "model: {learnable_queries: 0}"),
        ["model: queries 'mixed' need learnable_queries above 0; raise it, or choose queries: conditional"],
    ),
    (
        "an unknown text encoder",
        source(GOOD[1:-1], "model: {text_encoder: clip}"),
        [
            "model.text_encoder: no text encoder named 'clip' (have: clip_b, clip_l, minilm, tiny; a folder has a "
            "slash in its name); did you mean 'clip_"
        ],
    ),
    (
        "half a step",
        source(GOOD[1:-1], "schedule: {steps: 2.5}"),
        ["schedule.steps: should be a whole number, got 2"],
    ),
    (
        "milestones in steps",
        source(GOOD[1:-1], "schedule: {milestones: [9000, 9500]}"),
        ["schedule.milestones: should be shares of the steps, each larger than the last, in (0, 1), got [9000.0"],
    ),
    (
        "a warm-up without end",
        source(GOOD[1:-1], "schedule: {steps: 10}"),
        ["schedule: warmup_steps 10 should be fewer than the steps, 10; lower it"],
    ),
    ("an average of all", source(GOOD[1:-1], "schedule: {ema: 1}"), ["schedule.ema: should be less than 1, got 1"]),
    ("a scale of one number", source(GOOD[1:-1], "augment: {scale: [1]}"), ["augment.scale.1: is missing; add it"]),
    (
        "augmentation out of range, and a slip",
        source(GOOD[1:-1], "augment: {flip: 3, scal: [1, 2]}"),
        ["augment.flip: should be 0 to 1, got 3", "augment.scal: no such key; did you mean 'scale'?"],
    ),
    ("text for a number", source(GOOD[1:-1], "augment: {flip: '1'}"), ["augment.flip: should be a number, got '1'"]),
    (
        "a wrong task of a wrong dataset",
        source("shards: cocoo/train2017/masks, task: instanc"),
        ["mixture.0.shards: no layer cocoo/train2017/masks in ", "mixture.0.task: no task named 'instanc'; did you"],
    ),
    (
        "no task, and no layer",
        "name: x\neval: [{shards: cocoo/val2017/human}]",
        ["eval.0.shards: no layer cocoo/val2017/human ... did you mean", "eval.0.task: is missing; add it"],
    ),
    (
        "a wrong task of images that are measured on",
        source("shards: coco/val2017/human, task: instanc", "eval: [{shards: coco/val2017/human, task: instance}]"),
        ["mixture.0: 4 images of coco/val2017/human are also in eval.0", "mixture.0.task: no task named 'instanc'"],
    ),
    (
        "evaluated at one size",
        source(GOOD[1:-1], "eval_size: 800"),
        ["eval_size: should be two numbers of pixels, the smaller first, such as [800, 1333], got 800"],
    ),
    (
        "evaluated at three sizes",
        source(GOOD[1:-1], "eval_size: [1, 2, 3]"),
        ["eval_size: should be two numbers of pixels, the smaller first, such as [800, 1333], got [1, 2, 3]"],
    ),
    (
        "a captioner's words that are no text",
        source("shards: coco/train2017/captions, task: captioning", "captioner: {weights: random, words: 3}"),
        ["captioner.words: should be a text, got 3"],
    ),
    (
        "a captioner of nothing",
        source("shards: coco/train2017/captions, task: captioning", "captioner: {weights: random}"),
        [
            "captioner: weights 'random' come without words, and know none; say words: FOLDER, of vocab.json and "
            "merges.txt, and train_words: true"
        ],
    ),
    (
        "weights by a name that is none",
        source(GOOD[1:-1], "model: {backbone_weights: pretraned}"),
        [
            "model.backbone_weights: no weights named 'pretraned' (have: pretrained, random; a file or a folder has a "
            "slash in its name); did you mean 'pretrained'?"
        ],
    ),
]


@pytest.mark.parametrize(("what", "text", "expected"), WRONG, ids=[row[0] for row in WRONG])
def test_each_wrong_manifest_gets_its_sentences(folder: Path, what: str, text: str, expected: list[str]) -> None:
    told = examined(folder, text)
    assert isinstance(told, list), f"nothing was told of {what}"
    assert len(told) == len(expected), told
    for line, sentence in zip(told, expected, strict=True):
        assert all(part in line for part in sentence.split(" ... ")), (line, sentence)


def test_the_list_is_long_enough() -> None:
    assert len(WRONG) >= 25
    assert len({text for _, text, _ in WRONG}) == len(WRONG)


TEN = """
nam: x
seed: -1
mixture:
  - {shards: coco/train2017/human, task: instnce, ratio: 0}
  - {shards: coco/train2017/humn, task: instance, min_iou: 0.5}
  - {shards: coco/train2017/human, task: referring, share: 2}
eval:
  - {shards: coco/val2017/masks, task: instance}
exclude: [no.txt]
schedule: {lr: -1}
"""


def test_ten_mistakes_are_told_at_once_in_the_order_of_the_manifest(folder: Path) -> None:
    told = examined(folder, TEN)
    assert isinstance(told, list)
    assert [line.split(":")[0] for line in told] == [
        *("name", "seed", "mixture.0.task", "mixture.0.ratio", "mixture.1.shards", "mixture.1.min_iou"),
        *("mixture.2.task", "mixture.2.share", "exclude.0", "eval.0.shards", "schedule.lr", "nam"),
    ]


def test_the_house_example_is_told_as_the_house_has_it(folder: Path) -> None:
    path = folder / "mqformer.yaml"
    path.write_text(
        "name: x\nmixture:\n  - {shards: coco/train2017/human, task: instance}\n"
        "  - {shards: coco/train2017/masks, task: instnce, ratio: -1, min_iou: 0.5}\nexclude: [exclude/coco_val.txt]\n"
    )
    with pytest.raises(SynthgenError) as why:
        check_manifest(path, store=folder / "shards")
    told = str(why.value).splitlines()
    assert told[:4] == [
        f"{path} has 4 mistakes",
        "  mixture.1.task: no task named 'instnce'; did you mean 'instance'?",
        "  mixture.1.ratio: should be greater than 0, got -1",
        "  mixture.1.min_iou: no such key; did you mean 'min_predicted_iou'?",
    ]
    assert told[4].startswith(f"  exclude.0: no file {folder / 'exclude/coco_val.txt'}; make it: `synthgen exclude ")


def test_thousands_of_mistakes_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text("name: x\nmixture:\n" + "  - 3\n" * 2_000)
    with pytest.raises(SynthgenError) as why:
        load_manifest(path)
    lines = str(why.value).splitlines()
    assert lines[0] == f"{path} has 2,000 mistakes"
    assert len(lines) == 102
    assert lines[-1] == "  ... and 1,900 more"


# --- what is right ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", ["words", "./words", "sub/../words"])
def test_a_captioners_words_are_a_folder_whatever_it_is_called(folder: Path, words: str) -> None:
    more = f"captioner: {{weights: random, train_words: true, words: {words}}}"
    found = examined(folder, source("shards: coco/train2017/captions, task: captioning", more))
    assert isinstance(found, ManifestReport), found
    assert found.manifest.captioner is not None
    assert found.manifest.captioner.words == f"{folder}/{words}"


def test_a_manifest_is_read_as_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "m.yaml"
    path.parent.mkdir()
    path.write_text(
        """
name: x_1.0
seed: 7
store: ../shards
mixture:
  - {shards: coco/train2017/captions, task: referring, ratio: 3, images: photos, share: 0.3, min_box_iou: 0.5,
     drop_reasons: [only_category, repeats], caption_sources: [human, ofa base], mask_weight: box_iou, max_texts: 20}
exclude: [exclude/a.txt, /abs/b.txt]
augment: {size: 512, scale: [0.5, 1]}
model: {backbone: resnet50, queries: learnable, learnable_queries: 400}
schedule: {steps: 90_000, lr: 1e-4, milestones: [0.5], clip: null, ema: 0.999}
readers: {workers: 0}
"""
    )
    found = load_manifest(path)
    assert found == Manifest.model_validate_json(found.model_dump_json())  # nothing is lost
    assert (found.name, found.seed, found.store) == ("x_1.0", 7, path.parent / "../shards")
    (one,) = found.mixture
    assert isinstance(one, TrainSource)
    assert (one.ratio, one.share, one.images, one.min_box_iou) == (3.0, 0.3, path.parent / "photos", 0.5)
    assert (one.drop_reasons, one.caption_sources) == (("only_category", "repeats"), ("human", "ofa base"))
    assert found.exclude == (path.parent / "exclude/a.txt", Path("/abs/b.txt"))
    assert (found.augment.size, found.augment.scale, found.augment.flip) == (512, (0.5, 1.0), 0.5)
    assert (found.model.queries, found.model.learnable_queries) == ("learnable", 400)
    assert (found.schedule.steps, found.schedule.lr, found.schedule.clip) == (90_000, 1e-4, None)
    assert found.schedule.backbone_lr == 2e-5
    assert (found.readers.workers, found.readers.cache_mib) == (0, 0)
    assert pickle.loads(pickle.dumps(found)) == found  # it travels to worker processes


def test_defaults_are_the_papers(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(f"name: x\nmixture: [{GOOD}]\n")
    found = load_manifest(tmp_path / "m.yaml")
    assert (found.model.queries, found.model.learnable_queries, found.model.conditional_queries) == ("mixed", 100, 300)
    schedule = found.schedule
    assert (schedule.lr, schedule.backbone_lr, schedule.warmup_steps, schedule.weight_decay) == (2e-4, 2e-5, 10, 0.05)
    assert (schedule.milestones, schedule.batch_size, schedule.clip) == ((0.9, 0.95), 32, 0.01)
    assert abs(schedule.steps * schedule.batch_size / 118_287 - 50) < 1  # epochs of COCO


def test_who_says_where_the_store_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(f"name: x\nmixture: [{GOOD}]\n")
    monkeypatch.delenv("SYNTHGEN_STORE", raising=False)
    assert load_manifest(path).store == Path("shards")
    monkeypatch.setenv("SYNTHGEN_STORE", "/of/the/environment")
    assert load_manifest(path).store == Path("/of/the/environment")
    path.write_text(f"name: x\nstore: own\nmixture: [{GOOD}]\n")
    assert load_manifest(path).store == tmp_path / "own"
    assert load_manifest(path, store=Path("flag")).store == Path("flag")


def test_the_first_share_of_a_layer_is_by_its_plan() -> None:
    shards = [Shard("a", "b", "c", i, 10) for i in range(10)]
    third = TrainSource(shards="a/b/c", task="instance", share=0.3)
    assert third.select_shards(shards) == shards[:3]
    assert third.select_shards(shards[2:]) == shards[2:3]  # what is not there yet leaves the others as they are
    assert TrainSource(shards="a/b/c", task="instance", share=0.01).select_shards(shards) == shards[:1]
    assert TrainSource(shards="a/b/c", task="instance").select_shards(shards) == shards


# --- what is worth to know -------------------------------------------------------------------------------------------

NOTES = [
    (
        "shards: coco/train2017/part, task: instance",
        "mixture.0.shards: 2 of 3 shards of coco/train2017/part are",
    ),
    (
        "shards: coco/train2017/errors, task: instance",
        "mixture.0.shards: 3 of 8 images of coco/train2017/errors",
    ),
    ("shards: coco/train2017/annotations, task: instance", "'instance' learns where, not which pixels"),
    ("shards: coco/train2017/human, task: panoptic", "mixture.0.task: no stuff in this layer"),
    (
        "shards: coco/train2017/human, task: instance, min_box_iou: 0.5",
        "changes nothing, as all masks here are by people",
    ),
    (
        "shards: coco/train2017/masks, task: detection, min_box_iou: 0.5",
        "changes nothing, as 'detection' reads no",
    ),
    (
        "shards: coco/train2017/captions, task: instance, drop_reasons: [repeats]",
        "as 'instance' reads no captions",
    ),
    (
        "shards: coco/train2017/scored, task: referring, drop_reasons: [repeats]",
        "no caption of this layer has a reason",
    ),
    ("shards: coco/train2017/captions, task: instance, mask_weight: predicted_iou", "carry no predicted_iou"),
    ("shards: refcoco/val/human, task: referring, min_caption_score: -1", "as all captions here are by people"),
    ("shards: refcoco/val/human, task: referring, require_category_match: true", "captions by people pass"),
]


@pytest.mark.parametrize(("entry", "note"), NOTES, ids=[note for _, note in NOTES])
def test_what_is_no_mistake_is_a_note(folder: Path, entry: str, note: str) -> None:
    found = examined(folder, source(entry))
    assert isinstance(found, ManifestReport), found
    assert len(found.warnings) == 1, found.warnings
    assert note in found.warnings[0]


def test_what_will_be_read_is_counted(folder: Path) -> None:
    text = source(
        "shards: coco/train2017/scored, task: referring, share: 0.5, ratio: 3, min_predicted_iou: 0.7, "
        "min_caption_score: -1",
        "  - {shards: vg/train/regions, task: referring}",
        "eval: [{shards: coco/val2017/panoptic, task: panoptic}]",
        "exclude: [val.txt]",
    )
    found = examined(folder, text)
    assert isinstance(found, ManifestReport), found
    first, regions, measured = found.sources
    assert [first.stats.count(what) for what in ("images", "objects", "masks", "captions")] == [4, 8, 8, 8]
    assert (first.draw_probability, regions.draw_probability, measured.draw_probability) == (0.75, 0.25, None)
    assert (first.num_excluded, regions.num_excluded) == (0, 2)
    assert first.kept_shares == {"mask": 0.5, "caption": 0.5}
    assert regions.kept_shares == {}
    assert first.image_folder == folder / "images"
    assert found.excluded_keys == frozenset(layer_kinds.coco_keys(*range(100, 104)))
    assert found.manifest.store == folder / "shards"


def test_a_photograph_is_counted_once_in_however_many_layers_it_is(folder: Path) -> None:
    """Eight of COCO in two layers, one of them in Visual Genome too; and those of a list in none."""
    more = ("coco/train2017/scored, task: referring", "vg/train/regions, task: referring")
    found = examined(folder, source(GOOD[1:-1], *(f"  - {{shards: {entry}}}" for entry in more), "exclude: [val.txt]"))
    assert isinstance(found, ManifestReport), found
    assert [(row.stats.count("images"), row.num_excluded) for row in found.sources] == [(8, 0), (8, 0), (8, 2)]
    assert found.num_unique_images == 8 + 8 - 1 - 2


@pytest.mark.parametrize(
    ("names", "more", "note"),
    [
        (("dog", "right whale"), "", "no image of 'right whale' is mirrored, as nobody can tell what that would mean"),
        (("dog", "right whale", "left behind"), "", "no image of 'right whale' and 1 other name is mirrored, as"),
        (("right whale",), "augment: {flip: 0}", None),
        (("left hand", "dog"), "", None),
    ],
)
def test_a_name_that_keeps_images_from_being_mirrored_is_told(
    tmp_path: Path, names: tuple[str, ...], more: str, note: str | None
) -> None:
    train_layers.commit(tmp_path, 3, name="toy/train/human", categories=names)
    (tmp_path / "m.yaml").write_text(source("shards: toy/train/human, task: instance, images: photos", more))
    found = check_manifest(tmp_path / "m.yaml", store=tmp_path / "store")
    assert len(found.warnings) == (note is not None)
    assert note is None or note in found.warnings[0]


def test_a_store_that_is_none_is_one_mistake(folder: Path) -> None:
    path = folder / "m.yaml"
    path.write_text(source(GOOD[1:-1], "eval: [{shards: coco/val2017/human, task: instance}]"))
    with pytest.raises(SynthgenError, match=r"has a mistake\n  store: no shards in .*nowhere; name the folder"):
        check_manifest(path, store=folder / "nowhere")


def test_a_damaged_shard_is_a_sentence(tmp_path: Path) -> None:
    layer_kinds.write_store(tmp_path)
    (tmp_path / "shards/coco/train2017/human/00000-of-00001.parquet").write_bytes(b"PAR1 and no more")
    told = examined(tmp_path, source(GOOD[1:-1]))
    assert isinstance(told, list)
    assert len(told) == 1
    assert told[0].startswith("mixture.0.shards: ")
    assert "is damaged" in told[0]


# --- files by strangers ----------------------------------------------------------------------------------------------

LAUGHS = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
HOSTILE = [
    (
        "!!python/object/apply:os.system ['touch pwned']",
        r"has a tag \(tag:yaml.org,2002:python/object/apply:os.sys",
    ),
    ("name: !!python/name:os.system", r"has a tag .* in line 1"),
    ("name: !x y", r"has a tag \(!x\)"),
    ("name: !!binary aGFsbG8=", "has a tag"),
    (LAUGHS, r"has an anchor or alias \(&a\) in line 1, and a manifest has none"),
    ("a: &b x\n", "has an anchor"),
    ("a: *b\n", "has an anchor or alias"),
    # PyYAML has a limit of its own since 6.0.4, which its C scanner reaches before the first event.
    ("[" * 100_000, "is nested 16 levels deep at line 1|is no YAML at line 1"),
    ("a:\n" + "".join(" " * i + "- - -\n" for i in range(1, 400)), "is nested 16 levels deep|is no YAML"),
    ("{a: " * 50_000, "is nested 16 levels deep|is no YAML at line 1"),
    ("? " * 50_000, "is nested 16 levels deep|a mapping as a key|is no YAML at line 1"),
    ("", "is empty, and a manifest is a mapping"),
    ("# only words\n", "is empty"),
    ("- a\n- b\n", "is a list, and a manifest is a mapping"),
    ("just words", "is a single value, and a manifest"),
    ("name: x\n\tseed: 1\n", r"is no YAML at line 2, column 1: it is indented by a tab; use blanks"),
    ("name: 'x", r"is no YAML at line \d+, column \d+: .*; mend it there"),
    ("name: {x", r"is no YAML at line"),
    ("name: x\n---\nname: y\n", "holds a second document at line 2"),
    ("? [a, b]\n: c\n", "has a list or a mapping as a key in line 1"),
    ("name: x\0y", "holds a control character in line 1"),
    ('name: x\nseed: "a\\0b"', "holds a control character in line 2"),
    ('name: "\\e[2J"', "holds a control character in line 1"),
    ("%YAML 9.9\n--- x", "is no YAML at line 1"),
    ("x" * (yaml_loader.MAX_BYTES + 1), "is larger than 256 KiB and is no manifest"),
]


@pytest.mark.parametrize("loader", ["CSafeLoader", "SafeLoader"])
@pytest.mark.parametrize(("text", "sentence"), HOSTILE, ids=[sentence[:30] for _, sentence in HOSTILE])
def test_hostile_yaml_is_a_sentence_and_executes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, sentence: str, loader: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if not hasattr(yaml, loader):
        pytest.skip(f"PyYAML was built without {loader}")
    monkeypatch.setattr(yaml_loader, "_LOADER", getattr(yaml, loader))
    path = tmp_path / "m.yaml"
    path.write_text(text)
    begun = time.process_time()
    with pytest.raises(SynthgenError, match=sentence) as why:
        load_manifest(path)
    assert "\n" not in str(why.value)
    assert len(str(why.value)) < 500
    assert time.process_time() - begun < 2
    assert [p.name for p in tmp_path.iterdir()] == ["m.yaml"]


def test_places_that_hold_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(SynthgenError, match=r"no manifest .*nix; check its name"):
        load_manifest(tmp_path / "nix")
    with pytest.raises(SynthgenError, match="is a folder; name a manifest"):
        load_manifest(tmp_path)
    with pytest.raises(SynthgenError, match="is no ordinary file"):
        load_manifest(Path("/dev/zero"))
    (tmp_path / "latin.yaml").write_bytes("name: größe".encode("latin-1"))
    with pytest.raises(SynthgenError, match=r"is no text in UTF-8 \(byte 8\)"):
        load_manifest(tmp_path / "latin.yaml")
    (tmp_path / "wide.yaml").write_text("name: x", encoding="utf-16")
    with pytest.raises(SynthgenError, match="is no text in UTF-8"):
        load_manifest(tmp_path / "wide.yaml")


def test_a_file_of_a_gibibyte_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    with path.open("wb") as file:
        file.truncate(2**30)
    begun = time.process_time()
    with pytest.raises(SynthgenError, match="is larger than"):
        load_manifest(path)
    assert time.process_time() - begun < 0.5


def test_yaml_is_of_its_later_version(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(
        "a: no\nb: 1e-4\nc: 010\nd: 0o10\ne: 12:30\nf: 2020-01-01\ng: '1'\nh: ~\ni: .5\nj: -1_000\nk: +3.e2\nl: 1.2.3\n"
        "m: TRUE\nn: Yes\no: 0x1f\np: _1\nq: e5\nr: .\ns: '<<'\nt: =\nu: -.inf\n1: [2, {3: 4}]\n"
    )
    assert yaml_loader.load_yaml(path) == {
        **{"a": "no", "b": 1e-4, "c": 10, "d": "0o10", "e": "12:30", "f": "2020-01-01", "g": "1", "h": None, "i": 0.5},
        **{"j": -1000, "k": 300.0, "l": "1.2.3", "m": True, "n": "Yes", "o": "0x1f", "p": "_1", "q": "e5", "r": "."},
        **{"s": "<<", "t": "=", "u": float("-inf"), "1": [2, {"3": 4}]},
    }


_PLAIN = st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False) | st.text()
_TREES = st.recursive(_PLAIN, lambda some: st.lists(some) | st.dictionaries(st.text(), some), max_leaves=20)


@given(st.dictionaries(st.text(), _TREES))
def test_what_pyyaml_writes_is_read_back(tmp_path_factory: pytest.TempPathFactory, tree: dict[str, object]) -> None:
    """Whatever plain data: our reading of the events of a text is that of the data which it was made from."""
    path = tmp_path_factory.getbasetemp() / "tree.yaml"
    path.write_text(yaml.dump(tree, Dumper=_Plain, allow_unicode=True), encoding="utf-8")
    try:
        found = yaml_loader.load_yaml(path)
    except SynthgenError as why:
        assert "control character" in str(why) or "levels deep" in str(why)
        return
    assert found == tree


class _Plain(yaml.SafeDumper):
    """Quotes every text, and refers to nothing."""

    def ignore_aliases(self, data: object) -> bool:
        return True


_Plain.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))


@given(st.text())
def test_any_text_is_a_manifest_or_a_sentence(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    with pytest.raises(SynthgenError):
        load_manifest(path)
