"""`run_export`: everything is written or counted, a folder appears whole or not at all, and images come along."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import exports
from fakes.ingest_runs import ingest_layer
from PIL import Image
from pycocotools.coco import COCO

from synthgen.errors import ArgumentError, SynthgenError
from synthgen.export.exporters import coco
from synthgen.export.options import ExportOptions
from synthgen.export.run import MARKER, choose_image_mode, run_export
from synthgen.export.source import ExportSource
from synthgen.formats.readers import coco_json
from synthgen.formats.recognition import recognize_dataset
from synthgen.layers.layer import load_layer
from synthgen.layers.layer_export import export_layers
from synthgen.progress import NoProgress
from synthgen.records.sample import Annotation, Sample


def make_source(folder: Path, samples: list[Sample], **changes: Any) -> ExportSource:
    """A source whose images are there."""
    photos = folder / "photos"
    for sample in samples:
        path = photos / sample.file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", exports.SIZE[::-1], (sample.image_id % 256, 0, 0)).save(path)
    records = [{"id": c.id, "name": c.name, "supercategory": c.supercategory} for c in exports.CATEGORIES]
    values: dict[str, Any] = {
        "name": "toy/train/masks",
        "recipe": {"plugin": "sam"},
        "categories": ["cat", "cup", "dog"],
        "category_records": records,
        "licenses": [],
        "num_images": len(samples),
        "has_unknown": False,
        "image_folder": photos,
        "samples": lambda: iter(samples),
        "image_keys": lambda: [sample.image_key for sample in samples],
    }
    return ExportSource(**(values | changes))


def make_samples(count: int = 8) -> list[Sample]:
    return [
        exports.make_sample(i, (exports.make_annotation(2 * i), exports.make_annotation(2 * i + 1)))
        for i in range(1, count + 1)
    ]


def export(source: ExportSource, out: Path, **options: Any) -> Any:
    return run_export([source], "coco", out, ExportOptions(**options), NoProgress)


def read(out: Path, split: str = "train") -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / f"annotations/instances_{split}.json").read_text())
    return content


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_splits_share_the_images_and_the_folder_says_what_it_is(tmp_path: Path) -> None:
    source = make_source(tmp_path, make_samples(40))
    report = export(source, tmp_path / "out", val=0.3)
    parts = {split: read(tmp_path / "out", split) for split in ("train", "val")}
    assert {split: len(content["images"]) for split, content in parts.items()} == report.images
    assert sum(report.images.values()) == 40 and min(report.images.values()) > 2
    assert report.annotations == {split: len(content["annotations"]) for split, content in parts.items()}
    for split, content in parts.items():
        for image in content["images"]:
            link = tmp_path / "out/images" / split / image["file_name"]
            assert link.stat().st_nlink == 2 and Image.open(link).size == exports.SIZE[::-1]
        assert content["categories"] == [*source.category_records[:2], {"id": 9, "name": "cup"}]
    marker = json.loads((tmp_path / "out" / MARKER).read_text())
    assert marker["provenance"] == {"machine": 80} and marker["models"] == ["sam vit_h"]
    assert marker["format"] == "coco" and marker["layer"] == "toy/train/masks"
    assert str(tmp_path) not in json.dumps(marker), "nothing names this machine"


@pytest.mark.parametrize(("to", "reader"), [("coco", "coco_json"), ("cvat", "cvat"), ("labelstudio", "label_studio")])
def test_a_folder_is_recognised_as_its_format_alone(tmp_path: Path, to: str, reader: str) -> None:
    run_export([make_source(tmp_path, make_samples())], to, tmp_path / "out", ExportOptions(), NoProgress)
    assert recognize_dataset(tmp_path / "out").plugin == reader


def test_a_wrong_option_of_a_format_is_wrong_input(tmp_path: Path) -> None:
    source = make_source(tmp_path, make_samples())
    with pytest.raises(ArgumentError) as error:
        run_export([source], "png", tmp_path / "out", ExportOptions(format_options={"layout": "map"}), NoProgress)
    assert error.value.exit_code == 2 and not (tmp_path / "out").exists()


def test_the_same_export_has_the_same_bytes(tmp_path: Path) -> None:
    source = make_source(tmp_path, make_samples())
    for name in ("one", "two"):
        export(source, tmp_path / name, val=0.5, image_mode="copy")
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")


def test_everything_that_is_left_out_is_counted(tmp_path: Path) -> None:
    empty = exports.ring_mask(height=0)
    own = (
        exports.make_annotation(1),
        exports.make_annotation(2, segmentation=None),
        exports.make_annotation(3, segmentation=empty),
        exports.make_annotation(4, segmentation=exports.ring_mask(height=3, width=3, hole=False)),
        exports.make_annotation(5, category="cup", category_id=9),
        exports.make_annotation(6, predicted_iou=0.1),
    )
    samples = [
        exports.make_sample(1, own),
        exports.make_sample(2, (), error="no such file"),
        exports.make_sample(3, ()),
        exports.make_sample(4, (exports.make_annotation(7),)),
    ]
    source = make_source(tmp_path, samples, accepts=lambda a: (a.predicted_iou or 0) >= 0.5)
    (tmp_path / "photos/0004.png").unlink()
    report = export(source, tmp_path / "out", skip_empty=True, min_area=20, category_map={"cup": None})
    assert report.left_out == {"category_map": 2, "filter": 1, "min_area": 1, "no_mask": 1}
    assert report.left_out_images == {"empty": 1, "error": 1, "missing_file": 1}
    assert report.annotations == {"train": 1}


def test_no_annotation_disappears_without_a_reason(tmp_path: Path) -> None:
    """Written and left out together are all of them, whatever the options."""
    samples = [
        exports.make_sample(i, tuple(exports.make_annotation(10 * i + j, hole=bool(j % 2)) for j in range(i % 5)))
        for i in range(1, 30)
    ]
    source = make_source(tmp_path, samples, accepts=lambda a: a.id % 7 != 0)
    total = sum(len(sample.annotations) for sample in samples)
    for number, options in enumerate(
        [{}, {"min_area": 400}, {"category_map": {"dog": ""}}, {"val": 0.4}, {"largest_component": True}]
    ):
        report = export(source, tmp_path / f"out{number}", **options)
        assert sum(report.annotations.values()) + sum(report.left_out.values()) == total, options
        assert sum(report.images.values()) == len(samples)


def test_boxes_stay_if_asked_for(tmp_path: Path) -> None:
    samples = [exports.make_sample(1, (exports.make_annotation(1, segmentation=None, mask_source=None),))]
    report = export(make_source(tmp_path, samples), tmp_path / "out", keep_boxes=True)
    assert report.annotations == {"train": 1} and report.masks == {}
    assert "segmentation" not in read(tmp_path / "out")["annotations"][0]


def test_holes_are_filled_and_small_parts_removed(tmp_path: Path) -> None:
    source = make_source(tmp_path, [exports.make_sample(1, (exports.make_annotation(1),))])
    export(source, tmp_path / "with")
    export(source, tmp_path / "without", fill_holes=True)
    areas = [read(tmp_path / name)["annotations"][0]["area"] for name in ("with", "without")]
    assert areas[1] == 24 * 20 > areas[0]


def test_provenance_and_models_are_counted(tmp_path: Path) -> None:
    own = (
        exports.make_annotation(1),
        exports.make_annotation(2, source="human"),
        exports.make_annotation(3, provenance="reviewed"),
    )
    report = export(make_source(tmp_path, [exports.make_sample(1, own)]), tmp_path / "out")
    assert report.masks == {"human": 1, "machine": 1, "reviewed": 1} and report.models == {"sam vit_h": 2}
    content = read(tmp_path / "out")
    assert [a["provenance"] for a in content["annotations"]] == ["machine", "human", "reviewed"]
    assert content["info"]["synthgen"]["provenance"] == report.masks


class StoppedError(BaseException):
    pass


@pytest.mark.parametrize("place", [0, 3, 7])
def test_a_stopped_export_leaves_nothing(tmp_path: Path, place: int) -> None:
    samples = make_samples()

    def stream() -> Iterator[Sample]:
        for i, sample in enumerate(samples):
            if i == place:
                raise StoppedError
            yield sample

    source = replace(make_source(tmp_path, samples), samples=stream)
    with pytest.raises(StoppedError):
        export(source, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos"]
    export(make_source(tmp_path, samples), tmp_path / "out")
    assert len(read(tmp_path / "out")["images"]) == len(samples)


def test_only_an_earlier_export_is_replaced_and_only_if_asked_for(tmp_path: Path) -> None:
    source = make_source(tmp_path, make_samples())
    out = tmp_path / "out"
    out.mkdir()
    export(source, out)  # an empty folder is no loss
    with pytest.raises(SynthgenError, match=r"holds an export already; add --overwrite"):
        export(source, out)
    (out / "old.txt").write_text("old")
    export(source, out, overwrite=True, max_images=2)
    assert not (out / "old.txt").exists() and len(read(out)["images"]) == 2
    foreign = tmp_path / "thesis"
    foreign.mkdir()
    (foreign / "chapter1.tex").write_text("x")
    for options in ({}, {"overwrite": True}):
        with pytest.raises(SynthgenError, match=r"is not empty and not an export of synthgen"):
            export(source, foreign, **options)
    assert (foreign / "chapter1.tex").read_text() == "x"
    (tmp_path / "link").symlink_to(foreign)
    with pytest.raises(SynthgenError, match=r"is not a folder"):
        export(source, tmp_path / "link", overwrite=True)


def test_wrong_input_starts_nothing(tmp_path: Path) -> None:
    source = make_source(tmp_path, make_samples(), image_folder=None)
    with pytest.raises(SynthgenError, match=r"the folder of the images of toy/train/masks is not known"):
        export(source, tmp_path / "new/out")
    with pytest.raises(SynthgenError, match=r"did you mean 'coco'"):
        run_export([source], "coc", tmp_path / "new/out", ExportOptions(), NoProgress)
    with pytest.raises(SynthgenError, match=r"size"):
        export(source, tmp_path / "new/out", format_options={"size": 3}, image_mode="none")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos"]
    export(source, tmp_path / "new/out", image_mode="none")
    assert sorted(os.listdir(tmp_path / "new/out")) == ["README.md", "annotations", "croissant.json", MARKER]


def test_image_modes_that_do_not_suit_a_format_are_refused() -> None:
    assert choose_image_mode("coco", "link", None) == "link"
    assert choose_image_mode("coco", "link", "copy") == "copy"
    assert choose_image_mode("hf", "embed", "none") == "none"
    with pytest.raises(ArgumentError, match=r"image_mode=embed does not suit coco; give link, copy or none"):
        choose_image_mode("coco", "link", "embed")
    with pytest.raises(ArgumentError, match=r"image_mode=link does not suit webdataset; give embed or none"):
        choose_image_mode("webdataset", "embed", "link")
    assert choose_image_mode("hf", "embed", "link", ("embed", "link")) == "link"


def test_a_card_and_a_croissant_file_describe_the_folder(tmp_path: Path) -> None:
    source = make_source(tmp_path, make_samples(4), conditions={"min_box_iou": 0.25})
    export(source, tmp_path / "out")
    card = (tmp_path / "out/README.md").read_text()
    assert "| machine | 8 |" in card and "| min\\_box\\_iou | 0\\.25 |" in card
    files = json.loads((tmp_path / "out/croissant.json").read_text())["distribution"]
    assert {one["contentUrl"] for one in files} == {"annotations/instances_train.json", MARKER}  # no photographs
    assert len(files) == 5  # the lists of the COCO file have a record each


@pytest.mark.parametrize("to", ["hf", "webdataset"])
def test_exported_folders_are_of_one_format(tmp_path: Path, to: str) -> None:
    run_export([make_source(tmp_path, make_samples(4))], to, tmp_path / "out", ExportOptions(), NoProgress)
    assert recognize_dataset(tmp_path / "out").plugin == to


def test_hostile_names_stay_in_the_folder(tmp_path: Path) -> None:
    samples = [replace(make_samples(1)[0], file_name="../../escape.png")]
    (tmp_path / "deep/photos").mkdir(parents=True)
    source = make_source(tmp_path / "deep/photos/x", samples)
    report = export(source, tmp_path / "out")
    assert report.left_out_images == {"missing_file": 1}
    assert not list(tmp_path.rglob("out/**/escape.png"))


def test_a_damaged_mask_stops_the_export_with_its_place(tmp_path: Path) -> None:
    wrong = replace(exports.make_annotation(4), segmentation=replace(exports.ring_mask(), size=(3, 4)))
    source = make_source(tmp_path, [exports.make_sample(1, (wrong,))])
    with pytest.raises(SynthgenError, match=r"annotation 4 of image 0001\.png: its mask is 3 x 4, not 48 x 64"):
        export(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_several_layers_keep_their_splits(tmp_path: Path) -> None:
    train = make_source(tmp_path / "a", make_samples(4))
    others = [replace(sample, image_id=100 + sample.image_id, annotations=()) for sample in make_samples(3)]
    valid = make_source(tmp_path / "b", others, name="toy/valid/masks")
    report = run_export([train, valid], "coco", tmp_path / "out", ExportOptions(), NoProgress)
    assert report.images == {"train": 4, "valid": 3}
    clash = replace(valid, category_records=[{"id": 3, "name": "horse"}], categories=["horse"])
    report = run_export([train, clash], "coco", tmp_path / "clash", ExportOptions(), NoProgress)
    ids = {record["name"]: record["id"] for record in read(tmp_path / "clash")["categories"]}
    assert ids == {"cat": 1, "cup": 2, "dog": 3, "horse": 4}, "ids that clash are given anew"


def test_every_exporter_has_what_the_protocol_asks_for() -> None:
    assert coco.IMAGES == "link" and coco.TITLE


def coco_content(path: Path) -> dict[str, Any]:
    """What a round trip keeps of a COCO file, in the order of ids."""
    content = json.loads(path.read_text())
    kept = {
        "images": ("id", "file_name", "height", "width", "license"),
        "annotations": ("id", "image_id", "category_id", "bbox", "area", "iscrowd"),
        "categories": ("id", "name", "supercategory"),
        "licenses": ("id", "name", "url"),
    }
    return {
        key: sorted(
            ({name: record[name] for name in names if name in record} for record in content.get(key, [])),
            key=lambda record: record["id"],
        )
        for key, names in kept.items()
    }


@pytest.mark.parametrize("name", ["coco128", "coco_tiny", "coco_mini"])
def test_coco_to_the_store_and_back_is_the_same(shared: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    """Ids, categories, crowds, areas and licences; and each mask pixel by pixel, as pycocotools draws it."""
    root = shared(f"data/{name}")
    source = root / "annotations/instances_train2017.json"
    files = coco_json.files(root / "train2017", "train", source)
    ingest_layer(tmp_path / "store", files, "human")
    report = export_layers([load_layer(tmp_path / "store", "d/train/human")], "coco", tmp_path / "out")
    back = tmp_path / "out/annotations/instances_train.json"
    assert coco_content(back) == coco_content(source)
    assert report.left_out == {} and report.left_out_images == {}
    theirs, ours = COCO(str(source)), COCO(str(back))
    assert Counter(a["iscrowd"] for a in ours.anns.values())[1] > 0
    for number, annotation in theirs.anns.items():
        assert (theirs.annToMask(annotation) == ours.annToMask(ours.anns[number])).all()


def test_an_annotation_has_all_its_scores_in_the_file(tmp_path: Path) -> None:
    export(make_source(tmp_path, [exports.make_sample(1, (exports.make_annotation(1),))]), tmp_path / "out")
    [record] = read(tmp_path / "out")["annotations"]
    own: Annotation = exports.make_annotation(1)
    assert record["mask_source"] == own.mask_source and record["captions"] == ["a <b>cat</b>"]
    assert {name: record[name] for name in ("predicted_iou", "stability_score", "box_iou", "soft_iou")} == {
        "predicted_iou": 0.9, "stability_score": 0.8, "box_iou": 1.0, "soft_iou": 0.7,
    }  # fmt: skip


def test_labels_of_images_that_stay_in_place_do_not_leave_the_folder(tmp_path: Path) -> None:
    victim = tmp_path / "victim.txt"
    victim.write_text("precious")
    names = (str(tmp_path / "victim.jpg"), "../../victim.jpg", "x/a.jpg", "x/a.png")
    samples = [
        replace(exports.make_sample(i, (exports.make_annotation(i, category_id=3, category="cat"),)), file_name=name)
        for i, name in enumerate(names, start=1)
    ]
    source = replace(make_source(tmp_path / "none", []), samples=lambda: iter(samples), num_images=len(samples))
    report = run_export([source], "yolo", tmp_path / "out", ExportOptions(image_mode="none"), NoProgress)
    assert report.annotations == {"train": 4} and victim.read_text() == "precious"
    labels = [path for path in (tmp_path / "out").rglob("*.txt") if "labels" in path.parts]
    assert len(labels) == 4 and sum(len(path.read_text().splitlines()) for path in labels) == 4


def test_an_export_does_not_replace_what_it_reads(tmp_path: Path) -> None:
    source = make_source(tmp_path, make_samples())
    out = tmp_path / "out"
    export(source, out, image_mode="copy")
    for inside in (
        replace(source, image_folder=out / "images/train"),
        replace(source, reads=(out / "shards",)),
        replace(source, reads=(out,)),
    ):
        before = files_of(out)
        with pytest.raises(SynthgenError, match=r"which this export reads"):
            export(inside, out, overwrite=True)
        assert files_of(out) == before


def test_what_appears_in_the_folder_meanwhile_stays(tmp_path: Path) -> None:
    samples, out = make_samples(), tmp_path / "out"

    def stream() -> Iterator[Sample]:
        out.mkdir()
        (out / "thesis.txt").write_text("x")
        yield from samples

    with pytest.raises(SynthgenError, match=r"is not empty and not an export of synthgen"):
        export(replace(make_source(tmp_path, samples), samples=stream), out)
    assert (out / "thesis.txt").read_text() == "x"


def test_a_kill_while_an_export_is_replaced_loses_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after the earlier export was moved away: the next run moves it back before it begins."""
    source, out = make_source(tmp_path, make_samples()), tmp_path / "out"
    export(source, out)
    before = files_of(out)
    own = Path.rename

    def stop(self: Path, target: Path) -> Path:
        if Path(target) == out and self.name == "export":
            raise StoppedError
        return own(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", stop)
        with pytest.raises(StoppedError):
            export(source, out, overwrite=True, max_images=1)
    assert files_of(out) == before, "an error moves it back at once"
    out.rename(tmp_path / "out.replaced")
    with pytest.raises(SynthgenError, match=r"holds an export already"):
        export(source, out)
    assert files_of(out) == before and not (tmp_path / "out.replaced").exists()
    export(source, out, overwrite=True, max_images=1)
    assert len(read(out)["images"]) == 1 and not (tmp_path / "out.replaced").exists()


def test_licences_of_two_layers_stay_apart(tmp_path: Path) -> None:
    one = [exports.make_sample(1, (exports.make_annotation(1),), license_id=1)]
    two = [exports.make_sample(i, (exports.make_annotation(i),), license_id=i - 1) for i in (2, 3)]
    first = replace(make_source(tmp_path / "a", one), licenses=[{"id": 1, "name": "CC0", "url": "x"}])
    second = replace(
        make_source(tmp_path / "b", two),
        name="toy/val/masks",
        licenses=[{"id": 1, "name": "ARR", "url": "y"}, {"id": 2, "name": "CC0", "url": "x"}],
    )
    run_export([first, second], "coco", tmp_path / "out", ExportOptions(), NoProgress)
    found = {}
    for split in ("train", "val"):
        content = read(tmp_path / "out", split)
        names = {one["id"]: one["name"] for one in content["licenses"]}
        found |= {image["id"]: names[image["license"]] for image in content["images"]}
    assert found == {1: "CC0", 2: "ARR", 3: "CC0"}


def test_a_name_with_two_ids_in_two_layers_is_one_category(tmp_path: Path) -> None:
    first = make_source(tmp_path / "a", make_samples(2))
    second = replace(
        make_source(tmp_path / "b", [exports.make_sample(9, (exports.make_annotation(9, category_id=30),))]),
        name="toy/val/masks",
        category_records=[{"id": 30, "name": "cat"}, {"id": 31, "name": "dog"}],
    )
    report = run_export([first, second], "coco", tmp_path / "out", ExportOptions(), NoProgress)
    assert report.categories == ("cat", "cup", "dog")
    assert {a["category_id"] for a in read(tmp_path / "out", "val")["annotations"]} == {1}


def test_lists_of_absent_categories_follow_the_map_and_not_the_filter(tmp_path: Path) -> None:
    own = (exports.make_annotation(3), exports.make_annotation(4))  # a cat and a dog
    samples = [exports.make_sample(1, own, neg_categories=("cup",), not_exhaustive_categories=("dog",))]
    source = make_source(tmp_path, samples, accepts=lambda a: a.category == "cat")

    def lists(name: str, one: ExportSource, **options: Any) -> tuple[set[str], set[str]]:
        run_export([one], "lvis", tmp_path / name, ExportOptions(**options), NoProgress)
        content = json.loads((tmp_path / name / "annotations/lvis_train.json").read_text())
        names = {category["id"]: category["name"] for category in content["categories"]}
        [image] = content["images"]
        found = (image["neg_category_ids"], image["not_exhaustive_category_ids"])
        return {names[i] for i in found[0]}, {names[i] for i in found[1]}

    assert lists("filter", source) == ({"cup"}, {"dog"})
    assert lists("map", source, category_map={"dog": "animal", "cup": "thing"}) == ({"thing"}, {"animal"})
    assert lists("joined", source, category_map={"cat": "any", "cup": "any"}) == (set(), {"dog"})
    everything = replace(source, samples=lambda: iter([replace(samples[0], neg_categories=None)]))
    assert lists("all", everything) == ({"cup"}, {"dog"})


def test_folders_that_two_splits_share_hold_two_images_of_one_name(tmp_path: Path) -> None:
    sources = []
    for number, split in enumerate(("train", "extra")):
        sample = replace(make_samples(1)[0], image_id=number, file_name="a.png")
        sources.append(replace(make_source(tmp_path / split, [sample]), name=f"toy/{split}/masks"))
    run_export(sources, "roboflow", tmp_path / "out", ExportOptions(), NoProgress)
    content = json.loads((tmp_path / "out/train/_annotations.coco.json").read_text())
    assert [image["file_name"] for image in content["images"]] == ["a.png", "a_2.png"]
    assert {"a.png", "a_2.png"} <= set(os.listdir(tmp_path / "out/train"))


def test_masks_that_a_format_leaves_out_are_not_counted(tmp_path: Path) -> None:
    own = (exports.make_annotation(1), exports.make_annotation(2, iscrowd=True))
    source = make_source(tmp_path, [exports.make_sample(1, own)])
    report = run_export([source], "yolo", tmp_path / "segment", ExportOptions(), NoProgress)
    assert report.annotations == {"train": 1} and report.masks == {"machine": 1}
    options = ExportOptions(format_options={"task": "detect"})
    report = run_export([source], "yolo", tmp_path / "detect", options, NoProgress)
    assert report.annotations == {"train": 1} and report.masks == {}
