"""RefCOCO, RefCOCO+ and RefCOCOg: counts of the real files, splits without leakage, invalid files."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from synthgen.errors import SynthgenError
from synthgen.formats.readers import DatasetFiles, coco_json, refcoco, refcoco_plus, refcocog
from synthgen.generate.dataset_spec import resolve_dataset
from synthgen.images.decode import find_image
from synthgen.ingest.ingest import IngestReport, ingest
from synthgen.ingest.validation.validate import validate_dataset
from synthgen.records.rle import rle_area
from synthgen.records.sample import Annotation, Sample
from synthgen.storage.shard_store import ShardStore

Shared = Callable[[str], Path]
EXCERPT = "data/refcoco_excerpt"


def ingested(store: Path, module: Any, files: DatasetFiles, layer: str = "human") -> tuple[list[Sample], IngestReport]:
    report = ingest(ShardStore(store), module, files, name="d", split=files.split, layer=layer)
    shards = ShardStore(store).list_shards("d", files.split, layer)
    samples = [sample for shard in shards for sample in ShardStore(store).read_samples(shard)]
    assert report.annotations == sum(len(sample.annotations) for sample in samples)
    return samples, report


def said(annotation: Annotation) -> list[str]:
    return [caption.text for caption in annotation.captions]


# ------------------------------------------------------------------------------------------------- the real excerpt

#: (dataset, its folder, whose split) -> refs and sentences of each part, and objects of the image.
REAL: list[tuple[Any, str, str, dict[str, tuple[int, int]], int]] = [
    (refcoco, "refcoco", "unc", {"train": (2, 5)}, 5),
    (refcoco, "refcoco", "google", {"train": (2, 6), "val": (1, 2), "test": (2, 6)}, 5),
    (refcoco_plus, "refcoco+", "unc", {"train": (2, 6)}, 2),
    (refcocog, "refcocog", "umd", {"train": (2, 4)}, 3),
    (refcocog, "refcocog", "google", {"train": (2, 4), "val": (1, 2)}, 3),
]


@pytest.mark.parametrize(("module", "folder", "by", "splits", "objects"), REAL, ids=lambda v: v if v is str else None)
def test_the_real_refs(
    tmp_path: Path,
    shared: Shared,
    module: Any,
    folder: str,
    by: str,
    splits: dict[str, tuple[int, int]],
    objects: int,
) -> None:
    place = shared(EXCERPT) / folder
    refs = json.loads((place / f"refs({by}).json").read_text())
    theirs = {a["id"]: a for a in json.loads((place / "instances.json").read_text())["annotations"]}
    for split, (described, sentences) in splits.items():
        files = module.files(shared(EXCERPT) / "nowhere", split, place / f"refs({by}).p")
        boxes, _ = ingested(tmp_path / split, module, files, "annotations")
        (sample,), report = ingested(tmp_path / split, module, files)
        assert (report.images, report.annotations, report.masks, report.flags) == (1, objects, objects, {})
        assert sample.image_key == "coco/000000460986"
        assert sample.file_name == "train2014/COCO_train2014_000000460986.jpg"
        captioned = {a.id: said(a) for a in sample.annotations if a.captions}
        assert captioned == {
            ref["ann_id"]: [sentence["sent"] for sentence in ref["sentences"]] for ref in refs if ref["split"] == split
        }
        assert (len(captioned), sum(map(len, captioned.values()))) == (described, sentences)
        assert {caption.source for a in sample.annotations for caption in a.captions} == {"human"}
        for annotation in sample.annotations:
            assert annotation.segmentation is not None and annotation.mask_source == "human"
            assert rle_area(annotation.segmentation) == pytest.approx(theirs[annotation.id]["area"], rel=0.03)
            assert annotation.bbox == tuple(theirs[annotation.id]["bbox"])
        assert [(a.id, a.bbox, a.category) for a in boxes[0].annotations] == [
            (a.id, a.bbox, a.category) for a in sample.annotations
        ]
        assert not any(a.captions or a.segmentation for a in boxes[0].annotations)


def test_the_excerpt_is_whole(tmp_path: Path, shared: Shared) -> None:
    """14 refs, 35 sentences, 6 masks: what is said of the excerpt, counted in what was made of it."""
    described = sentences = 0
    masks = set()
    for place, (module, folder, by, splits, _) in enumerate(REAL):
        for split in splits:
            files = module.files(tmp_path, split, shared(EXCERPT) / folder / f"refs({by}).p")
            (sample,), _ = ingested(tmp_path / str(place), module, files)
            described += sum(bool(a.captions) for a in sample.annotations)
            sentences += sum(len(a.captions) for a in sample.annotations)
            masks |= {a.segmentation for a in sample.annotations}
    assert (described, sentences, len(masks)) == (14, 35, 6)


@pytest.mark.parametrize(("module", "by"), [(refcoco, "google"), (refcocog, "google")])
def test_a_split_has_no_sentences_of_another(tmp_path: Path, shared: Shared, module: Any, by: str) -> None:
    """One photograph in all of Google's splits: each has what was said for it, and the objects of the others bare."""
    folder = module.__name__.rsplit(".", 1)[-1]
    seen: list[tuple[int, str]] = []
    for split in ("train", "val", *(["test"] if module is refcoco else [])):
        files = module.files(tmp_path, split, shared(EXCERPT) / folder / f"refs({by}).p")
        (sample,), _ = ingested(tmp_path / "store", module, files)
        seen += [(a.id, text) for a in sample.annotations for text in said(a)]
    assert len(seen) == len(set(seen)) > 0


@pytest.mark.parametrize(
    ("dataset", "module", "folder"),
    [("refcoco", refcoco, "refcoco"), ("refcoco-plus", refcoco_plus, "refcoco+"), ("refcocog", refcocog, "refcocog")],
)
def test_a_command_finds_the_release(shared: Shared, dataset: str, module: Any, folder: str) -> None:
    """Its folders are called as they unpack, whatever the option is called."""
    files = resolve_dataset(dataset, None, None, shared(EXCERPT), None, None).locate_files()
    by = "umd" if module is refcocog else "unc"
    assert files.sources["refs"] == shared(EXCERPT) / folder / f"refs({by}).p" and files.split == "train"


# ------------------------------------------------------------------------------------------------- a toy in its format


def toy(root: Path, folder: str = "refcoco", by: str = "unc") -> tuple[list[Any], dict[str, Any]]:
    """Two images of three objects each: one is described in train, one in val, one not at all."""
    refs, annotations = [], []
    for image in (1, 2):
        for place, split in enumerate(["train", "val", ""]):
            number = 10 * image + place
            box = [10 * place, 5, 8, 8]
            polygon = [box[0], 5, box[0] + 8, 5, box[0] + 8, 13, box[0], 13]
            annotations.append(
                {
                    "id": number,
                    "image_id": image,
                    "category_id": 1,
                    "bbox": box,
                    "iscrowd": 0,
                    "segmentation": [polygon],
                }
            )
            if split:
                sentences = [
                    {"sent": f"{split} cup {number}", "raw": f"{split.upper()} Cup, {number}!", "sent_id": number}
                ]
                refs.append({"image_id": image, "ann_id": number, "category_id": 1, "split": split, "ref_id": number})
                refs[-1]["sentences"] = sentences
    names = [f"COCO_train2014_{image:012d}.jpg" for image in (1, 2)]
    content = {
        "images": [{"id": i, "file_name": n, "height": 20, "width": 30} for i, n in enumerate(names, start=1)],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "cup"}],
    }
    write(root, refs, content, folder, by)
    return refs, content


def write(root: Path, refs: Any, content: Any, folder: str = "refcoco", by: str = "unc") -> None:
    (root / folder).mkdir(parents=True, exist_ok=True)
    (root / folder / f"refs({by}).p").write_bytes(refs if isinstance(refs, bytes) else pickle.dumps(refs, 2))
    (root / folder / "instances.json").write_text(json.dumps(content))


def read(root: Path, split: str = "train", layer: str = "human") -> tuple[list[Sample], IngestReport]:
    return ingested(root / "store", refcoco, refcoco.files(root / "refcoco", split, None), layer)


def refused(root: Path, sentence: str, split: str = "train") -> None:
    with pytest.raises(SynthgenError, match=sentence) as why:
        read(root, split)
    assert "\n" not in str(why.value)
    assert not list((root / "store").rglob("*.parquet"))


def test_a_split_has_its_images_with_all_their_objects(tmp_path: Path) -> None:
    refs, content = toy(tmp_path)
    refs[1]["split"] = "testA"  # of image 1
    write(tmp_path, refs, content)
    train, report = read(tmp_path)
    assert [s.image_id for s in train] == [1, 2] and report.annotations == report.masks == 6
    assert [said(a) for s in train for a in s.annotations] == [["train cup 10"], [], [], ["train cup 20"], [], []]
    assert [[said(a) for a in s.annotations] for s in read(tmp_path, "val")[0]] == [[[], ["val cup 21"], []]]
    assert [s.image_id for s in read(tmp_path, "testA")[0]] == [1]
    with pytest.raises(SynthgenError, match=r"has no refs of split 'testB' \(have: testA, train, val\); choose one"):
        read(tmp_path, "testB")


@pytest.mark.parametrize("module", [refcoco, refcoco_plus, refcocog])
def test_where_the_files_are(tmp_path: Path, module: Any) -> None:
    plugin = module.__name__.rsplit(".", 1)[-1]
    folder = {"refcoco_plus": "refcoco+"}.get(plugin, plugin)
    by = "umd" if module is refcocog else "unc"
    root = tmp_path / plugin
    with pytest.raises(SynthgenError, match=rf"no refs\({by}\)\.p in .*unpack .*zip of the release there"):
        module.files(root, "train", None)
    write(tmp_path, [], {}, folder, by)
    there = tmp_path / folder
    assert module.files(root, "val", None) == DatasetFiles(
        {"refs": there / f"refs({by}).p", "instances": there / "instances.json"}, root, split="val"
    )
    (there / "refs(google).p").touch()
    assert module.files(root, "train", there / "refs(google).p").sources["refs"] == there / "refs(google).p"
    with pytest.raises(SynthgenError, match=r"no file .*--annotations should name a file of refs"):
        module.files(root, "train", there / "refs(mine).p")
    (there / "instances.json").unlink()
    with pytest.raises(SynthgenError, match=r"no instances.json beside .*put it there"):
        module.files(root, "train", None)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("refcoco/train2014", "COCO_train2014_{:012d}.jpg"),
        ("refcoco/images/train2014", "COCO_train2014_{:012d}.jpg"),
        ("coco/train2014", "COCO_train2014_{:012d}.jpg"),
        ("coco/train2017", "{:012d}.jpg"),
        ("images/mscoco/images/train2014", "COCO_train2014_{:012d}.jpg"),
    ],
)
def test_the_photographs_of_either_year_are_found_and_the_shards_do_not_tell(
    tmp_path: Path, folder: str, name: str
) -> None:
    """Where photographs lie is nothing that decides bytes."""
    toy(tmp_path)
    bare, _ = read(tmp_path)
    for number in (1, 2):
        path = tmp_path / folder / name.format(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 20)).save(path)
    files = refcoco.files(tmp_path / "refcoco", "train", None)
    samples, _ = ingested(tmp_path / "again", refcoco, files)
    assert samples == bare
    assert [find_image(files.image_folder, s.file_name).name for s in samples] == [
        name.format(number) for number in (1, 2)
    ]
    (split,) = validate_dataset("refcoco", tmp_path / "refcoco", ["train"]).splits
    assert (split.images, split.boxes, split.files_checked) == (2, 6, 2)
    assert {finding.code for finding in split.findings} <= {"other_path"}


# ------------------------------------------------------------------------------------------- what is wrong in the files


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
    assert said(samples[0].annotations[0]) == texts and len(samples[0].annotations) == 3
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
    assert said(lost) == (["train cup 10"] if layer == "human" else [])
    assert "lists no image of this id" in str(samples[2].error)
    assert "2 objects that" in caplog.text and "annotation 99 of image 2" in caplog.text


def test_two_refs_of_one_object_are_both_its_captions(tmp_path: Path) -> None:
    refs, content = toy(tmp_path)
    refs.append({**refs[0], "ref_id": 5, "sentences": [{"sent": "again"}]})
    write(tmp_path, refs, content)
    assert said(read(tmp_path)[0][0].annotations[0]) == ["train cup 10", "again"]


def test_two_annotations_of_one_id_share_no_sentence(tmp_path: Path) -> None:
    refs, content = toy(tmp_path)
    content["annotations"].append({**content["annotations"][0], "bbox": [1, 1, 2, 2]})
    write(tmp_path, refs, content)
    samples, _ = read(tmp_path)
    assert sorted(said(a) for a in samples[0].annotations) == [[], [], [], ["train cup 10"]]


def test_an_annotation_of_the_same_id_in_another_image_is_another(tmp_path: Path) -> None:
    refs, content = toy(tmp_path)
    content["annotations"][3]["id"] = 10  # in image 2; the ref of image 2 asks for 20
    refs[2]["sentences"] = [{"sent": "not this one"}]
    write(tmp_path, refs, content)
    samples, report = read(tmp_path)
    assert said(samples[0].annotations[0]) == ["train cup 10"]
    assert [(a.id, said(a)) for a in samples[1].annotations] == [(10, []), (20, ["not this one"]), (21, []), (22, [])]
    assert report.flags == {"degenerate": 1, "no_box": 1}


@pytest.mark.parametrize("ids", [("1", "10"), (1.0, 10.0)])
def test_ids_in_quotes(tmp_path: Path, ids: tuple[Any, Any]) -> None:
    refs, content = toy(tmp_path)
    refs[0]["image_id"], refs[0]["ann_id"] = ids
    write(tmp_path, refs, content)
    assert said(read(tmp_path)[0][0].annotations[0]) == ["train cup 10"]


def test_a_bad_mask_keeps_its_sentences(tmp_path: Path) -> None:
    refs, content = toy(tmp_path)
    content["annotations"][0]["segmentation"] = "none"
    content["annotations"][3]["segmentation"] = None
    write(tmp_path, refs, content)
    samples, report = read(tmp_path)
    assert report.masks == 4 and report.flags == {"bad_segmentation": 1}
    assert [said(s.annotations[0]) for s in samples] == [["train cup 10"], ["train cup 20"]]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda refs: {"refs": refs}, "holds a dict, not a list of refs; is it the right file"),
        (lambda refs: None, "holds a NoneType, not a list"),
        (lambda refs: [], r"has no refs of split 'train' \(have: none\)"),
        (lambda refs: [*refs, 7], "ref 5 is a int, not a dict"),
        (lambda refs: [*refs, []], "ref 5 is a list, not a dict"),
        (lambda refs: [{**refs[0], "image_id": None}], "ref 1 has no 'image_id' that can be read; mend it"),
        (lambda refs: [{**refs[0], "image_id": "x" * 10_000}], "ref 1 has no 'image_id'"),
        (lambda refs: [{**refs[0], "image_id": 2**70}], "ref 1 has no 'image_id'"),
        (lambda refs: [{**refs[0], "ann_id": [1]}], "ref 1 has no 'ann_id'"),
        (lambda refs: [{**refs[0], "split": 1}], "ref 1 has no 'split'"),
        (lambda refs: [{k: v for k, v in refs[0].items() if k != "split"}], "ref 1 has no 'split'"),
        (lambda refs: [{**refs[0], "split": "x" * 10_000}], "no refs of split 'train'"),
        (
            lambda refs: [{**r, "ann_id": 70 + r["ann_id"]} for r in refs],
            "2 of the 2 objects .* are not in .*instances",
        ),
        (lambda refs: b"", "ends too early"),
        (lambda refs: b"\x80\x02cos\nsystem\n.", "it holds os.system, and only lists"),
        (lambda refs: json.dumps(refs).encode(), "no pickle|ends too early"),
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
    assert said(read(tmp_path)[0][0].annotations[0]) == []


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


def test_their_masks_are_those_of_any_coco_style_file(tmp_path: Path, shared: Shared) -> None:
    source = shared(f"{EXCERPT}/refcoco/instances.json")
    plain = DatasetFiles({"instances": source}, tmp_path, split="train")
    (theirs,), _ = ingested(tmp_path / "plain", coco_json, plain)
    (ours,), _ = ingested(tmp_path, refcoco, refcoco.files(shared(f"{EXCERPT}/refcoco"), "train", None))
    assert theirs.image_key == ours.image_key
    assert [(a.id, a.segmentation) for a in theirs.annotations] == [(a.id, a.segmentation) for a in ours.annotations]
