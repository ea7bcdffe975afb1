"""The check of a manifest: a message for each mistake, notes, and counts of what will be read."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes import layer_kinds, train_layers
from fakes.manifest_files import check_text, manifest_with_source

from synthgen.dataloading.manifest_check import ManifestReport, check_manifest
from synthgen.errors import SynthgenError
from synthgen.storage.shard_store import ShardStore

GOOD = "{shards: coco/train2017/human, task: instance}"

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
    ("an unknown key", manifest_with_source(GOOD[1:-1], "sed: 3"), ["sed: no such key; did you mean 'seed'?"]),
    (
        "an unknown key of a source",
        manifest_with_source(f"{GOOD[1:-1]}, min_iou: 0.5"),
        ["mixture.0.min_iou: no such key; did you mean 'min_predicted_iou'?"],
    ),
    (
        "another's word",
        manifest_with_source(f"{GOOD[1:-1]}, weight: 2"),
        ["mixture.0.weight: no such key; did you mean 'ratio'?"],
    ),
    (
        "a key like no other",
        manifest_with_source(GOOD[1:-1], "dataloader: {zzz: 1}"),
        ["dataloader.zzz: no such key; take it out (have: num_workers, cache_mib)"],
    ),
    (
        "a key of another source",
        "name: x\neval: [{shards: coco/val2017/human, task: instance, ratio: 2}]",
        ["eval.0.ratio: no such key; take it out (have: shards, task, images, size)"],
    ),
    (
        "an unknown task",
        manifest_with_source("shards: coco/train2017/human, task: instnce"),
        ["mixture.0.task: no task named 'instnce'; did you mean 'instance'?"],
    ),
    (
        "a task that is code",
        manifest_with_source("shards: coco/train2017/human, task: os.path"),
        ["mixture.0.task: no task named 'os.path' (have: box_prompt, captioning, detection,"],
    ),
    ("no task", manifest_with_source("shards: coco/train2017/human"), ["mixture.0.task: is missing; add it"]),
    (
        "a layer of two words",
        manifest_with_source("shards: coco/train2017, task: instance"),
        ["mixture.0.shards: 'coco/train2017' names no layer; write DATASET/SPLIT/LAYER"],
    ),
    (
        "a layer that climbs",
        manifest_with_source("shards: ../../etc, task: instance"),
        ["mixture.0.shards: '..' cannot name a dataset, split or layer"],
    ),
    (
        "an unknown layer",
        manifest_with_source("shards: coco/train2017/humn, task: instance"),
        ["mixture.0.shards: no layer coco/train2017/humn in ... ; did you mean 'coco/train2017/human'?"],
    ),
    (
        "a layer not made yet",
        manifest_with_source("shards: objects365/train/masks, task: instance"),
        ["mixture.0.shards: no layer objects365/train/masks in ... `synthgen masks --dataset objects365 --split tr"],
    ),
    (
        "another dataset's layer",
        manifest_with_source("shards: lvis/train2017/human, task: instance"),
        ["mixture.0.shards: no layer lvis/train2017/human in ... `synthgen ingest --dataset lvis --split train2017"],
    ),
    (
        "a layer of one's own data",
        manifest_with_source("shards: own/train/masks-2, task: instance"),
        [
            "no layer own/train/masks-2 in ... `synthgen masks --dataset coco-json --name own --split train "
            "--annotations FILE --images FOLDER --layer masks-2 --store "
        ],
    ),
    (
        "a negative ratio",
        manifest_with_source(f"{GOOD[1:-1]}, ratio: -1"),
        ["mixture.0.ratio: should be greater than 0, got -1"],
    ),
    (
        "a ratio in quotes",
        manifest_with_source(f"{GOOD[1:-1]}, ratio: '2'"),
        ["mixture.0.ratio: should be a number, got '2'"],
    ),
    (
        "a ratio of yes",
        manifest_with_source(f"{GOOD[1:-1]}, ratio: true"),
        ["mixture.0.ratio: should be a number, got true"],
    ),
    (
        "an endless ratio",
        manifest_with_source(f"{GOOD[1:-1]}, ratio: .inf"),
        ["mixture.0.ratio: should be a finite number, got inf"],
    ),
    (
        "a share in percent",
        manifest_with_source(f"{GOOD[1:-1]}, share: 30"),
        ["mixture.0.share: should be at most 1, got 30"],
    ),
    ("no share", manifest_with_source(f"{GOOD[1:-1]}, share: 0"), ["mixture.0.share: should be greater than 0, got 0"]),
    (
        "a score out of range",
        manifest_with_source("shards: coco/train2017/scored, task: instance, min_predicted_iou: 88"),
        ["mixture.0.min_predicted_iou: should be at most 1, got 88"],
    ),
    (
        "a score that is not there",
        manifest_with_source("shards: coco/train2017/masks, task: instance, min_predicted_iou: 0.8"),
        [
            "mixture.0.min_predicted_iou: masks of this layer carry no predicted_iou; "
            "use min_box_iou or min_stability_score"
        ],
    ),
    (
        "a score that no mask reaches",
        manifest_with_source("shards: coco/train2017/scored, task: instance, min_stability_score: 0.95"),
        ["mixture.0.min_stability_score: no mask reaches 0.95, the best has 0.900; lower it"],
    ),
    (
        "a caption score that is not there",
        manifest_with_source("shards: coco/train2017/captions, task: referring, min_caption_score: -1"),
        ["mixture.0.min_caption_score: captions of this layer carry no score; use drop_reasons, or take it out"],
    ),
    (
        "a caption score that none reaches",
        manifest_with_source("shards: coco/train2017/scored, task: referring, min_caption_score: -0.1"),
        ["mixture.0.min_caption_score: no caption reaches -0.1, the best has -0.500; lower it"],
    ),
    (
        "captions that nobody checked",
        manifest_with_source("shards: coco/train2017/scored, task: referring, require_category_match: true"),
        ["mixture.0.require_category_match: no caption of this layer was checked; take it out"],
    ),
    (
        "writers that wrote nothing",
        manifest_with_source("shards: coco/train2017/scored, task: referring, caption_sources: [human]"),
        ["mixture.0.caption_sources: no captions by human in this layer, but by ofa base; name these"],
    ),
    (
        "an unknown reason",
        manifest_with_source("shards: coco/train2017/captions, task: referring, drop_reasons: [only_categry]"),
        ["mixture.0.drop_reasons.0: no reason named 'only_categry'; did you mean 'only_category'?"],
    ),
    (
        "reasons without a list",
        manifest_with_source("shards: coco/train2017/captions, task: referring, drop_reasons: repeats"),
        ["mixture.0.drop_reasons: should be a list, got 'repeats'"],
    ),
    (
        "an unknown weight",
        manifest_with_source(f"{GOOD[1:-1]}, mask_weight: box"),
        ["mixture.0.mask_weight: should be predicted_iou, box_iou or soft_iou, got 'box'; did you mean 'box_iou'?"],
    ),
    (
        "referring without captions",
        manifest_with_source("shards: coco/train2017/human, task: referring"),
        ["mixture.0.task: 'referring' learns from captions, and this layer has none; name one that has (of"],
    ),
    (
        "regions of boxes",
        manifest_with_source("shards: coco/train2017/annotations, task: semantic"),
        ["mixture.0.task: 'semantic' learns from masks, and this layer has none ... `synthgen masks --dataset coco"],
    ),
    (
        "names of regions",
        manifest_with_source("shards: vg/train/regions, task: detection"),
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
    (
        "a key twice",
        manifest_with_source(f"{GOOD[1:-1]}, task: semantic"),
        ["mixture.0.task: said 2 times, in line 3; leave one"],
    ),
    (
        "a section twice",
        manifest_with_source(GOOD[1:-1], "seed: 1", "seed: 2"),
        ["seed: said 2 times, in lines 4 and 5; leave one"],
    ),
    (
        "a list that is not there",
        manifest_with_source(GOOD[1:-1], "exclude: [no.txt]"),
        ["exclude.0: no file ... no.txt; make it: `synthgen exclude LAYER... --out "],
    ),
    (
        "a list that is not there, of an evaluated layer",
        manifest_with_source(
            GOOD[1:-1], "eval: [{shards: coco/val2017/human, task: instance}]", "exclude: [e/coco_val2017.txt]"
        ),
        ["exclude.0: no file ... `synthgen exclude coco/val2017/human --out "],
    ),
    (
        "a list of other things",
        manifest_with_source(GOOD[1:-1], "exclude: [words.txt]"),
        ["exclude.0: ... line 2 'no key' is no image key, as DATASET/NAME is, nor are 1 others; "],
    ),
    (
        "a list that is a folder",
        manifest_with_source(GOOD[1:-1], "exclude: [images]"),
        ["exclude.0: cannot read ... (Is a directory)"],
    ),
    (
        "the same list twice",
        manifest_with_source(GOOD[1:-1], "exclude: [other.txt, other.txt]"),
        ["exclude.1: the same as exclude.0; take it out"],
    ),
    (
        "all of a source excluded",
        manifest_with_source(GOOD[1:-1], "exclude: [all.txt]"),
        ["mixture.0: all 8 images of coco/train2017/human are excluded by exclude.0; take it out"],
    ),
    (
        "leakage",
        manifest_with_source(
            "shards: vg/train/regions, task: referring", "eval: [{shards: coco/val2017/human, task: instance}]"
        ),
        [
            "mixture.0: 2 images of vg/train/regions are also in eval.0 coco/val2017/human, e.g. coco/000000000102; "
            "run `synthgen exclude coco/val2017/human --out ",
        ],
    ),
    (
        "learned from what is measured on",
        manifest_with_source(
            "shards: coco/val2017/human, task: instance", "eval: [{shards: coco/val2017/human, task: instance}]"
        ),
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
        manifest_with_source("shards: lost/train/human, task: instance"),
        ["mixture.0.images: where are the images of lost/train? Add images: FOLDER"],
    ),
    (
        "no folder of images",
        manifest_with_source(f"{GOOD[1:-1]}, images: nowhere"),
        ["mixture.0.images: no folder ... nowhere; name that of the images of coco/train2017"],
    ),
    (
        "another folder of images",
        manifest_with_source(f"{GOOD[1:-1]}, images: shards"),
        ["mixture.0.images: ... has none of the first 8 images of coco/train2017/human, e.g. 000000000000.jpg"],
    ),
    (
        "an unknown backbone",
        manifest_with_source(GOOD[1:-1], "model: {backbone: resnet}"),
        [
            "model.backbone: should be resnet50, swin_t, swin_s, swin_b, swin_l, tiny, or timm/ and a name of timm, "
            "... ; did you mean 'resnet50'?"
        ],
    ),
    *[
        (
            f"the backbone {name}, which timm's registry cannot have",
            manifest_with_source(GOOD[1:-1], f"model: {{backbone: '{name}'}}"),
            [f"model.backbone: should be ... or timm/ and a name of timm, such as timm/convnext_tiny, got '{name}'"],
        )
        for name in (
            "timm/hf-hub:some/one",
            "timm/../x",
            "timm/",
            "timm/a.b.c",
            "timm/local-dir:x",
            "hf-hub:timm/resnet18",
        )
    ],
    (
        "queries of the other kind",
        manifest_with_source(GOOD[1:-1], "model: {queries: learnable, conditional_queries: 200}"),
        ["model: queries 'learnable' use no conditional_queries; take it out, or choose queries: mixed"],
    ),
    (
        "a union of one kind",
        manifest_with_source(GOOD[1:-1], "model: {queries: conditional, self_attention: union}"),
        [
            "model: queries 'conditional' are of one kind, so that there is no union; take self_attention out, or "
            "choose queries: mixed"
        ],
    ),
    (
        "boxes around masks of no proposals",
        manifest_with_source(GOOD[1:-1], "model: {queries: learnable, initialize_box_type: bitmask}"),
        [
            "model: queries 'learnable' have no proposals, so that no box begins around a proposal's mask; take "
            "initialize_box_type out, or choose queries: mixed or conditional"
        ],
    ),
    (
        "an unknown beginning of boxes",
        manifest_with_source(GOOD[1:-1], "model: {initialize_box_type: mask}"),
        ["model.initialize_box_type: should be mask2box or bitmask"],
    ),
    (
        "no queries",
        manifest_with_source(GOOD[1:-1], "model: {learnable_queries: 0}"),
        ["model: queries 'mixed' need learnable_queries above 0; raise it, or choose queries: conditional"],
    ),
    (
        "an unknown text encoder",
        manifest_with_source(GOOD[1:-1], "model: {text_encoder: clip}"),
        [
            "model.text_encoder: no text encoder named 'clip' (have: clip_b, clip_l, minilm, tiny; a folder has a "
            "slash in its name); did you mean 'clip_"
        ],
    ),
    (
        "half a step",
        manifest_with_source(GOOD[1:-1], "schedule: {steps: 2.5}"),
        ["schedule.steps: should be a whole number, got 2"],
    ),
    (
        "milestones in steps",
        manifest_with_source(GOOD[1:-1], "schedule: {milestones: [9000, 9500]}"),
        ["schedule.milestones: should be shares of the steps, each larger than the last, in (0, 1), got [9000.0"],
    ),
    (
        "compiled layers and batches of many shapes",
        manifest_with_source(GOOD[1:-1], "schedule: {compile: true, group_by_size: true}"),
        [
            "schedule: group_by_size makes batches of many shapes, and each would be compiled anew; take it or compile "
            "out"
        ],
    ),
    (
        "milestones of a cosine",
        manifest_with_source(GOOD[1:-1], "schedule: {lr_decay: cosine, milestones: [0.5]}"),
        ["schedule: milestones have no effect with lr_decay: cosine; take one of them out"],
    ),
    (
        "a warm-up without end",
        manifest_with_source(GOOD[1:-1], "schedule: {steps: 10}"),
        ["schedule: warmup_steps 10 should be fewer than the steps, 10; lower it"],
    ),
    (
        "an average of all",
        manifest_with_source(GOOD[1:-1], "schedule: {ema_decay: 1}"),
        ["schedule.ema_decay: should be less than 1, got 1"],
    ),
    (
        "a scale of one number",
        manifest_with_source(GOOD[1:-1], "augment: {scale: [1]}"),
        ["augment.scale.1: is missing; add it"],
    ),
    (
        "augmentation out of range, and a slip",
        manifest_with_source(GOOD[1:-1], "augment: {flip: 3, scal: [1, 2]}"),
        ["augment.flip: should be 0 to 1, got 3", "augment.scal: no such key; did you mean 'scale'?"],
    ),
    (
        "text for a number",
        manifest_with_source(GOOD[1:-1], "augment: {flip: '1'}"),
        ["augment.flip: should be a number, got '1'"],
    ),
    (
        "a wrong task of a wrong dataset",
        manifest_with_source("shards: cocoo/train2017/masks, task: instanc"),
        ["mixture.0.shards: no layer cocoo/train2017/masks in ", "mixture.0.task: no task named 'instanc'; did you"],
    ),
    (
        "no task, and no layer",
        "name: x\neval: [{shards: cocoo/val2017/human}]",
        ["eval.0.shards: no layer cocoo/val2017/human ... did you mean", "eval.0.task: is missing; add it"],
    ),
    (
        "a wrong task of images that are measured on",
        manifest_with_source(
            "shards: coco/val2017/human, task: instanc", "eval: [{shards: coco/val2017/human, task: instance}]"
        ),
        ["mixture.0: 4 images of coco/val2017/human are also in eval.0", "mixture.0.task: no task named 'instanc'"],
    ),
    (
        "evaluated at one size",
        manifest_with_source(GOOD[1:-1], "eval_size: 800"),
        ["eval_size: should be two numbers of pixels, the smaller first, such as [800, 1333], got 800"],
    ),
    (
        "evaluated at three sizes",
        manifest_with_source(GOOD[1:-1], "eval_size: [1, 2, 3]"),
        ["eval_size: should be two numbers of pixels, the smaller first, such as [800, 1333], got [1, 2, 3]"],
    ),
    (
        "a captioner's words that are no text",
        manifest_with_source(
            "shards: coco/train2017/captions, task: captioning", "captioner: {weights: random, tokenizer: 3}"
        ),
        ["captioner.tokenizer: should be a text, got 3"],
    ),
    (
        "a captioner of nothing",
        manifest_with_source("shards: coco/train2017/captions, task: captioning", "captioner: {weights: random}"),
        [
            "captioner: weights 'random' come without a tokenizer and without embeddings; add "
            "tokenizer: FOLDER, of vocab.json and "
            "merges.txt, and train_embeddings: true"
        ],
    ),
    (
        "weights by a name that is none",
        manifest_with_source(GOOD[1:-1], "model: {backbone_weights: pretraned}"),
        [
            "model.backbone_weights: no weights named 'pretraned' (have: pretrained, random, lite; a file or a folder "
            "has a slash in its name); did you mean 'pretrained'?"
        ],
    ),
]


@pytest.mark.parametrize(("what", "text", "expected"), WRONG, ids=[row[0] for row in WRONG])
def test_each_wrong_manifest_gets_its_sentences(folder: Path, what: str, text: str, expected: list[str]) -> None:
    told = check_text(folder, text)
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


def test_ten_mistakes_are_reported_at_once_in_the_order_of_the_manifest(folder: Path) -> None:
    told = check_text(folder, TEN)
    assert isinstance(told, list)
    assert [line.split(":")[0] for line in told] == [
        *("name", "seed", "mixture.0.task", "mixture.0.ratio", "mixture.1.shards", "mixture.1.min_iou"),
        *("mixture.2.task", "mixture.2.share", "exclude.0", "eval.0.shards", "schedule.lr", "nam"),
    ]


def test_the_example_of_the_specification_is_reported_word_for_word(folder: Path) -> None:
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
    found = check_text(folder, manifest_with_source(entry))
    assert isinstance(found, ManifestReport), found
    assert len(found.warnings) == 1, found.warnings
    assert note in found.warnings[0]


def test_what_will_be_read_is_counted(folder: Path) -> None:
    text = manifest_with_source(
        "shards: coco/train2017/scored, task: referring, share: 0.5, ratio: 3, min_predicted_iou: 0.7, "
        "min_caption_score: -1",
        "  - {shards: vg/train/regions, task: referring}",
        "eval: [{shards: coco/val2017/panoptic, task: panoptic}]",
        "exclude: [val.txt]",
    )
    found = check_text(folder, text)
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
    found = check_text(
        folder, manifest_with_source(GOOD[1:-1], *(f"  - {{shards: {entry}}}" for entry in more), "exclude: [val.txt]")
    )
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
def test_a_name_that_keeps_images_from_being_mirrored_is_reported(
    tmp_path: Path, names: tuple[str, ...], more: str, note: str | None
) -> None:
    train_layers.commit(tmp_path, 3, name="toy/train/human", categories=names)
    (tmp_path / "m.yaml").write_text(
        manifest_with_source("shards: toy/train/human, task: instance, images: photos", more)
    )
    found = check_manifest(tmp_path / "m.yaml", store=tmp_path / "store")
    assert len(found.warnings) == (note is not None)
    assert note is None or note in found.warnings[0]


def test_a_store_that_is_none_is_one_mistake(folder: Path) -> None:
    path = folder / "m.yaml"
    path.write_text(manifest_with_source(GOOD[1:-1], "eval: [{shards: coco/val2017/human, task: instance}]"))
    with pytest.raises(SynthgenError, match=r"has a mistake\n  store: no shards in .*nowhere; name the folder"):
        check_manifest(path, store=folder / "nowhere")


def test_a_damaged_shard_is_a_sentence(tmp_path: Path) -> None:
    layer_kinds.write_store(tmp_path)
    (tmp_path / "shards/coco/train2017/human/00000-of-00001.parquet").write_bytes(b"PAR1 and no more")
    told = check_text(tmp_path, manifest_with_source(GOOD[1:-1]))
    assert isinstance(told, list)
    assert len(told) == 1
    assert told[0].startswith("mixture.0.shards: ")
    assert "is damaged" in told[0]


def test_a_layer_whose_input_has_changed_is_a_note(tmp_path: Path) -> None:
    """Images that were repaired below it would be lost to the training."""
    store = ShardStore(tmp_path / "shards")
    keys = layer_kinds.coco_keys(*range(6))
    for name in ("human", "captions"):
        layer_kinds.write_layer(
            store, f"coco/train/{name}", keys, layer_kinds.human, shards=3, images=tmp_path / "images"
        )
    shards = store.list_shards("coco", "train", "captions")
    for shard in shards:
        digest = store.read_content_digest(shard.in_layer("human"))
        footer = {**(store.read_footer(shard) or {}), "parent": {"layer": "human", "content_sha256": digest}}
        store.commit(shard, list(store.read_samples(shard)), footer)
    text = manifest_with_source("shards: coco/train/captions, task: instance")
    found = check_text(tmp_path, text)
    assert isinstance(found, ManifestReport) and found.warnings == ()
    for shard in shards[1:]:
        parent = shard.in_layer("human")
        store.commit(parent, list(store.read_samples(parent))[::-1], store.read_footer(parent) or {})
    found = check_text(tmp_path, text)
    assert isinstance(found, ManifestReport)
    (warning,) = found.warnings
    assert "2 of 3 shards of coco/train/captions are stale: the layer that they were made from has changed" in warning
