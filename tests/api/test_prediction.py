"""`predict_folder`: ids, average precision, batches, unreadable images, interruptions, wrong arguments."""

from __future__ import annotations

import contextlib
import io
import json
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import eval_dataset
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import synthgen as sg
from synthgen.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from synthgen.dataloading.manifest import Manifest
from synthgen.dataloading.source_config import EvalSource
from synthgen.evaluation import network_predictor, postprocess
from synthgen.evaluation.evaluate import evaluate_network
from synthgen.records.rle import decode_mask, encode_mask, rle_area
from synthgen.records.sample import Annotation, Rle
from synthgen.storage.shard_store import Shard, ShardStore

pytestmark = pytest.mark.usefixtures("one_thread")

OPTIONS: dict[str, Any] = {"device": "cpu", "short": 64, "long": 96}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    eval_dataset.write_eval_dataset(tmp_path)
    eval_dataset.write_checkpoint(tmp_path / "best.pt")


def predict(images: Any = "photos", prompts: Any = (), **options: Any) -> sg.PredictionReport:
    return sg.predict_folder(images, options.pop("checkpoint", "best.pt"), prompts, **{**OPTIONS, **options})


def loaded(path: Path) -> Any:
    return json.loads(path.read_text())


def write_findable_layer() -> str:
    """A layer whose objects are some of what the random network finds, so that average precision is not zero."""
    predictor = sg.Predictor.from_checkpoint("best.pt", **OPTIONS)
    store = ShardStore(Path("store"))
    (shard,) = store.list_shards(*eval_dataset.LAYER.split("/"))
    samples = []
    for sample in store.read_samples(shard):
        found = predictor(f"photos/{sample.file_name}", ["ball", "plate"], threshold=0.0)
        annotations = []
        for number, one in enumerate(found[1::3], 1):
            assert one.mask is not None
            mask = one.mask.copy()
            mask[:, : 2 * (number % 4)] = False  # some objects overlap more than others
            if mask.any():
                # Whole pixels inside the image: evaluation clips boxes, and keeps them in float32.
                x1, y1, x2, y2 = (round(edge) for edge in one.box_xyxy)
                bbox = (x1, y1, max(1, x2 - x1 - number % 3), max(1, y2 - y1))
                annotations.append(
                    Annotation(100 * sample.image_id + number, bbox, one.text, segmentation=encode_mask(mask),
                               mask_source="human")
                )  # fmt: skip
        samples.append(replace(sample, annotations=tuple(annotations)))
    store.commit(Shard("gallery", "val", "findable", 0, 1), samples, {"categories": ["ball", "plate"]})
    return "gallery/val/findable"


def write_annotations(path: Path, *, layer: str = eval_dataset.LAYER, isthing: bool = False) -> Path:
    """The things of a layer as a COCO file, with ids of its own."""
    images, annotations = [], []
    numbers = {"plate": 40, "ball": 7}
    store = ShardStore(Path("store"))
    for shard in store.list_shards(*layer.split("/")):
        for sample in store.read_samples(shard):
            images.append({"id": 100 + sample.image_id, "file_name": f"photos/{sample.file_name}",
                           "height": sample.height, "width": sample.width})  # fmt: skip
            for a in sample.annotations:
                if a.isthing and a.segmentation is not None:
                    mask = {"size": list(a.segmentation.size), "counts": a.segmentation.counts.decode()}
                    annotations.append({"id": a.id, "image_id": 100 + sample.image_id, "bbox": list(a.bbox),
                                        "category_id": numbers[a.category], "area": rle_area(a.segmentation),
                                        "iscrowd": 0, "segmentation": mask})  # fmt: skip
    categories = [{"id": i, "name": name, **({"isthing": 1} if isthing else {})} for name, i in numbers.items()]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def coco_values(truth: Path, results: list[Any], iou_type: str) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(truth))
        judge = COCOeval(coco, coco.loadRes(results), iou_type)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return [100 * float(value) for value in judge.stats]


@pytest.mark.parametrize(("task", "iou_type"), [("instance", "segm"), ("detection", "bbox")])
def test_pycocotools_and_evaluate_find_the_same_average_precision(task: str, iou_type: str, tmp_path: Path) -> None:
    layer = write_findable_layer()
    truth = write_annotations(tmp_path / "truth.json", layer=layer)
    report = predict(tmp_path / "photos", annotations=truth, task=task, batch_size=2)
    assert report.path == Path("predictions/results.json") and report.images == 4 and not report.num_failed
    source = EvalSource(shards=layer, task=task, images=tmp_path / "photos")
    manifest = Manifest(name="toy", store=tmp_path / "store", eval=(source,))
    network = eval_dataset.untrained_network()
    (expected,) = evaluate_network(network, manifest, device=torch.device("cpu"), short=64, long=96)
    assert 5 < expected.values["AP"] < 95, "a value that many rules could give"
    results = loaded(report.path)
    assert coco_values(truth, results, iou_type)[0] == pytest.approx(expected.values["AP"], abs=1e-6)
    if task == "instance":  # pycocotools takes the area of a box, where there is one, for that of the mask
        results = [{name: value for name, value in one.items() if name != "bbox"} for one in results]
    found = coco_values(truth, results, iou_type)
    for value, (name, other) in zip(
        found, {**dict.fromkeys(_NAMES, -100.0), **expected.values}.items(), strict=True
    ):  # fmt: skip
        assert value == pytest.approx(other, abs=1e-6), name


_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def test_without_a_file_images_and_names_are_numbered_in_their_order() -> None:
    Image.open("photos/1.png").save("photos/10.png")
    (Path("photos") / "below").mkdir()
    Image.open("photos/1.png").save("photos/below/1.jpg")
    Path("photos/notes.txt").write_text("mine")
    report = predict(batch_size=3)
    content = loaded(report.path)
    names = {one["id"]: one["file_name"] for one in content["images"]}
    assert names == dict(enumerate(["1.png", "10.png", "2.png", "3.png", "4.png", "below/1.jpg"], 1))
    assert [one["name"] for one in content["categories"]] == list(eval_dataset.CATEGORIES)
    assert [one["id"] for one in content["categories"]] == [1, 2, 3, 4]
    assert {one["image_id"] for one in content["annotations"]} == set(names)
    assert {one["query"] for one in content["annotations"]} == {"conditional", "learnable"}
    assert list(report.skipped.values()) == [(1, ("notes.txt",))]
    lines = list(report.format_lines())
    assert lines[0] == f"6 images, {report.objects} objects" and any("notes.txt" in line for line in lines)
    assert report.objects == len(content["annotations"]) and "objects found: " in lines[1]
    confident = sum(one["score"] >= 0.25 for one in content["annotations"])
    assert lines[1].endswith(f" of {confident} with scores of at least 0.25") and confident < report.objects
    sizes = {one["file_name"]: (one["height"], one["width"]) for one in content["images"]}
    assert sizes["1.png"] == (72, 120) and sizes["below/1.jpg"] == (72, 120)


def test_images_of_one_size_run_together_and_find_what_they_find_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other sizes would be padded in one batch, which changes results."""
    pixels = np.asarray(Image.open("photos/1.png"))
    for name, own in (("5", pixels[:, ::-1]), ("6", pixels[::-1]), ("7", 255 - pixels)):
        Image.fromarray(np.ascontiguousarray(own)).save(f"photos/{name}.png")
    sizes = []
    real = network_predictor.predict_images

    def noted(network: Any, images: list[Any], *args: Any, **options: Any) -> Any:
        sizes.append(len(images))
        return real(network, images, *args, **options)

    monkeypatch.setattr(network_predictor, "predict_images", noted)
    together = loaded(predict(batch_size=3, out="together").path)
    assert sorted(sizes) == [1, 1, 1, 1, 3], "four of one size, three of other sizes"
    sizes.clear()
    alone = loaded(predict(batch_size=1, out="alone").path)
    assert sizes == [1] * 7
    assert len(alone["annotations"]) == len(together["annotations"]) > 100
    by_image: dict[int, list[Any]] = {}
    for one in alone["annotations"]:
        by_image.setdefault(one["image_id"], []).append(one)
    for one in together["annotations"]:
        twin = by_image[one["image_id"]].pop(0)
        assert (one["category_id"], one["query"]) == (twin["category_id"], twin["query"])
        assert one["score"] == pytest.approx(twin["score"], abs=1e-4)
        assert one["bbox"] == pytest.approx(twin["bbox"], abs=1e-2)
        assert one["area"] == pytest.approx(twin["area"], abs=3)


def test_the_detections_are_those_of_a_single_image(tmp_path: Path) -> None:
    predictor = sg.Predictor.from_checkpoint("best.pt", **OPTIONS)
    found = predictor("photos/2.png", ["a red ball", "grass"], threshold=0.3)
    report = predict(["photos/2.png"], ["a red ball", " grass "], min_score=0.3)
    records = loaded(report.path)["annotations"]
    assert len(found) == len(records) > 3
    for one, record in zip(found, records, strict=True):
        assert ["a red ball", "grass"][record["category_id"] - 1] == one.text
        assert (record["score"], record["query"]) == (pytest.approx(one.score, abs=1e-6), one.query)
        assert one.rle is not None and record["segmentation"]["counts"] == one.rle.counts.decode()
    few = predict("photos", max_detections=2, out="few")
    counts = [one["image_id"] for one in loaded(few.path)["annotations"]]
    assert max(map(counts.count, counts)) <= 2 and few.objects <= 8


@pytest.mark.parametrize("task", ["panoptic", "semantic"])
def test_maps_are_those_of_the_network(task: str) -> None:
    report = predict(task=task, stuff=["sky", "grass"], batch_size=2)
    predictor = sg.Predictor.from_checkpoint("best.pt", **OPTIONS)
    content = loaded(report.path)
    assert report.path.name == f"{task}_predictions.json" and report.objects > 4
    for number in (1, 2, 3, 4):
        pixels = np.asarray(Image.open(f"photos/{number}.png").convert("RGB"))
        (seen,) = predictor.look_batch(
            [pixels], eval_dataset.CATEGORIES, stuff_names=frozenset({"sky", "grass"})
        )  # fmt: skip
        found = np.asarray(Image.open(report.path.with_suffix("") / f"{number}.png")).astype(np.int64)
        if task == "semantic":
            assert np.array_equal(found - 1, postprocess.semantic(seen).labels)
            continue
        expected = postprocess.panoptic(seen)
        ids = found[..., 0] + 256 * found[..., 1] + 65536 * found[..., 2]
        (own,) = [one for one in content["annotations"] if one["image_id"] == number]
        assert [one["category_id"] - 1 for one in own["segments_info"]] == [one.label for one in expected.segments]
        for place, segment in enumerate(own["segments_info"], 1):
            assert np.array_equal(ids == segment["id"], expected.segment_ids == place)
    assert set(report.by_kind) <= {"things", "stuff"}
    if task == "panoptic":
        assert [one["isthing"] for one in content["categories"]] == [1, 1, 0, 0]


def test_foreground_and_referring_give_one_mask_a_text() -> None:
    content = loaded(predict(task="foreground", out="f").path)
    assert [one["name"] for one in content["categories"]] == ["foreground"]
    assert len(content["annotations"]) == len(content["images"]) == 4
    content = loaded(predict(prompts=["a red ball", "the other"], task="referring", out="r").path)
    pairs = [(one["image_id"], one["category_id"]) for one in content["annotations"]]
    assert 4 < len(pairs) == len(set(pairs)) <= 8, "an empty mask is none"
    for one in content["annotations"]:
        assert decode_mask(Rle(tuple(one["segmentation"]["size"]), one["segmentation"]["counts"].encode())).any()


def test_things_and_stuff_are_those_of_the_annotation_file(tmp_path: Path) -> None:
    truth = write_annotations(tmp_path / "truth.json", isthing=True)
    report = predict(annotations=truth, prompts=["plate"], pictures=True, color_by="query")
    assert set(report.by_kind) == {"things"}
    assert {one["category_id"] for one in loaded(report.path)} == {40}
    picture = Path("predictions/pictures/1.png.found.png")
    assert Image.open(picture).size[0] >= 1024


def test_images_that_are_not_in_both_are_counted(tmp_path: Path) -> None:
    truth = write_annotations(tmp_path / "truth.json")
    Image.open("photos/1.png").save("photos/mine.png")
    Path("photos/4.png").unlink()
    report = predict(annotations=truth)
    assert report.images == 3 and {one["image_id"] for one in loaded(report.path)} <= {101, 102, 103}
    assert dict(report.skipped) == {
        "images that truth.json does not list": (1, ("mine.png",)),
        "images of truth.json that are not in the folder": (1, ()),
    }


def test_an_image_that_cannot_be_read_is_a_row_and_the_others_are_predicted() -> None:
    Path("photos/0.png").write_text("no image")
    whole = Path("photos/2.png").read_bytes()
    Path("photos/2.png").write_bytes(whole[: len(whole) // 2])  # its header is fine
    report = predict(batch_size=4)
    assert report.num_failed == 2 and report.images == 3
    assert [name for name, _ in report.failed] == ["0.png", "2.png"]
    content = loaded(report.path)
    assert {one["id"] for one in content["images"]} == {2, 4, 5}, "ids do not depend on what can be read"
    assert [one["file_name"] for one in loaded(report.report_path)["failed"]] == ["0.png", "2.png"]
    assert any(line.startswith("  0.png: ") for line in report.format_lines())


def test_a_name_that_is_not_utf8_is_a_row() -> None:
    Path("photos/bad\udcff.png").write_bytes(Path("photos/1.png").read_bytes())
    report = predict()
    assert report.failed == (("bad\\udcff.png", "its name is not UTF-8; rename it"),) and report.images == 4


def test_the_same_call_gives_the_same_bytes_also_with_its_results_among_the_images() -> None:
    first = predict(out="photos/found", pictures=True, task="semantic")
    before = {path: path.read_bytes() for path in Path("photos/found").rglob("*") if path.is_file()}
    assert len(before) == 4 + 4 + 3
    again = predict(out="photos/found", pictures=True, task="semantic")
    assert {path: path.read_bytes() for path in Path("photos/found").rglob("*") if path.is_file()} == before
    assert first.images == again.images == 4 and not again.replaced
    assert predict(out="photos/found", task="semantic", prompts=["ball", "sky"]).replaced


def test_an_interrupted_call_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = network_predictor.predict_images

    def interrupted(*args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(network_predictor, "predict_images", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict(task="panoptic", pictures=True)
    assert not Path("predictions").exists()


def test_batches_that_do_not_fit_into_memory_are_halved(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("5", "6", "7"):
        Path(f"photos/{name}.png").write_bytes(Path("photos/1.png").read_bytes())
    sizes = []
    real = network_predictor.predict_images

    def small(network: Any, images: list[Any], *args: Any, **options: Any) -> Any:
        sizes.append(len(images))
        if len(images) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(network, images, *args, **options)

    monkeypatch.setattr(network_predictor, "predict_images", small)
    report = predict(batch_size=4)
    assert report.images == 7 and sorted(sizes) == [1, 1, 1, 1, 1, 1, 1, 2, 2, 4], (
        "a size that failed is not tried again"
    )
    assert "out of memory: going on with 1 images at once" in caplog.text

    def none(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(network_predictor, "predict_images", none)
    with pytest.raises(sg.SynthgenError, match="lower --batch-size, or --short") as caught:
        predict()
    assert caught.value.exit_code == 1


def test_the_masks_of_one_batch_are_gone_when_the_next_one_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the device ran out of memory, the halves of a batch follow each other."""
    for name in ("5", "6", "7"):
        Path(f"photos/{name}.png").write_bytes(Path("photos/1.png").read_bytes())
    alive: list[weakref.ref[torch.Tensor]] = []
    real = network_predictor.predict_images

    def small(network: Any, images: list[Any], *args: Any, **options: Any) -> Any:
        assert not any(one() is not None for one in alive), "masks of images that ran before are on the device"
        if len(images) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        seen = real(network, images, *args, **options)
        alive.extend(weakref.ref(one.mask_logits) for one in seen)
        return seen

    monkeypatch.setattr(network_predictor, "predict_images", small)
    assert predict(batch_size=4).images == 7 and len(alive) == 7


def test_post_processing_that_does_not_fit_into_memory_halves_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("5", "6", "7"):
        Path(f"photos/{name}.png").write_bytes(Path("photos/1.png").read_bytes())
    want = loaded(predict(batch_size=1, out="alone").path)
    real, calls = postprocess.instances, []

    def small(*args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(*args, **options)

    monkeypatch.setattr(postprocess, "instances", small)
    found = loaded(predict(batch_size=4).path)
    assert len(found["images"]) == 7 and len(found["annotations"]) == len(want["annotations"])


def test_maps_and_pictures_of_an_earlier_run_do_not_stay() -> None:
    Path("photos/1.png").rename("1.png")
    predict(task="semantic", pictures=True, prompts=["ball", "sky"])
    predict(task="panoptic", pictures=True)
    Path("1.png").rename("photos/1.png")
    Path("photos/2.png").unlink()
    report = predict(task="semantic", pictures=True)
    assert not Path("predictions/semantic_predictions/2.png").exists()
    assert not Path("predictions/pictures/2.png.found.png").exists()
    assert Path("predictions/panoptic_predictions/2.png").exists(), "of another task"
    assert report.replaced and report.old_pictures is None
    later = predict()
    assert later.old_pictures == Path("predictions/pictures")
    assert any("pictures is of an earlier run; add --pictures" in line for line in later.format_lines())


def test_without_any_image_that_can_be_read_an_earlier_result_stays() -> None:
    predict(task="semantic")
    before = {path: path.read_bytes() for path in Path("predictions").rglob("*") if path.is_file()}
    for path in Path("photos").iterdir():
        path.write_text("no image")
    with pytest.raises(sg.SynthgenError) as caught:
        predict(task="semantic")
    said = str(caught.value).splitlines()
    assert said[0] == "cannot read any of the 4 images, and leave predictions as it is; check the files:"
    assert len(said) == 5 and said[1].startswith("  1.png: ") and caught.value.exit_code == 1
    assert {path: path.read_bytes() for path in Path("predictions").rglob("*") if path.is_file()} == before
    with pytest.raises(sg.SynthgenError, match=r"cannot read the image, and leave new as it is"):
        predict("photos/1.png", out="new")
    assert not Path("new").exists()


@pytest.mark.parametrize(
    ("task", "name", "sentence"),
    [
        ("semantic", "semantic_predictions", r"semantic_predictions is not a folder; move it away, or choose another"),
        ("panoptic", "panoptic_predictions", r"panoptic_predictions is not a folder"),
        ("instance", "pictures", r"pictures is not a folder"),
        ("panoptic", "panoptic_predictions/a/mine.txt", r"mine\.txt is not by predict, which would replace"),
        ("instance", "pictures/holiday.png", r"holiday\.png is not by predict"),
    ],
)
def test_what_no_run_has_written_is_not_replaced(
    task: str, name: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path("predictions") / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    monkeypatch.setattr(network_predictor, "predict_images", None)  # nothing has begun
    with pytest.raises(sg.SynthgenError, match=sentence) as caught:
        predict(task=task, pictures=True)
    assert caught.value.exit_code == 2 and path.read_text() == "mine"


def test_a_run_does_not_replace_the_images_that_it_reads() -> None:
    predict(pictures=True)
    with pytest.raises(sg.SynthgenError, match=r"holds predictions/pictures, which this run reads") as caught:
        predict(["photos", "predictions/pictures"], pictures=True)
    assert caught.value.exit_code == 2 and Path("predictions/pictures/1.png.found.png").exists()


@pytest.mark.parametrize("task", ["panoptic", "semantic"])
def test_odd_file_names_are_predicted(task: str) -> None:
    own = Path("photos/1.png").read_bytes()
    names = [
        "a.png.jpg", "a.jpg", "a.png", "x.jpg", "x.png/1.png", "y.png/1.jpg", "y.jpg", "class_names.json/1.png",
        f"{'n' * 251}.jpg", f"{'n' * 250}o.jpg", f"{'ä' * 120}.jpg",
    ]  # fmt: skip
    for name in names:
        (Path("odd") / name).parent.mkdir(parents=True, exist_ok=True)
        (Path("odd") / name).write_bytes(own)
    report = predict("odd", task=task, pictures=True)
    assert report.images == len(names) and not report.num_failed
    content = loaded(report.path)
    maps = [
        one["file_name" if task == "panoptic" else "map"] for one in content.get("annotations", content.get("maps"))
    ]
    folder = report.path.with_suffix("")
    assert {str(path.relative_to(folder)) for path in folder.rglob("*.png") if path.is_file()} == set(maps)
    assert len(set(maps)) == len(names)
    assert sum(path.is_file() for path in Path("predictions/pictures").rglob("*")) == len(names)


def test_places_that_are_not_below_each_other_are_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("here/a").mkdir(parents=True)
    Path("photos/1.png").rename("here/a/1.png")
    monkeypatch.chdir("here")
    report = predict(["a", "../photos", "./a"], checkpoint="../best.pt")
    assert report.images == 4 and not report.num_failed
    assert loaded(report.path)["images"][0]["file_name"] == "here/a/1.png"


def test_a_link_to_itself_is_a_row() -> None:
    Path("photos/loop.png").symlink_to("loop.png")
    report = predict()
    assert report.images == 4 and [name for name, _ in report.failed] == ["loop.png"]


def test_no_prompts_are_all_names() -> None:
    names = [
        one["name"] for one in loaded(predict(prompts=None, min_score=None, max_detections=None).path)["categories"]
    ]
    assert names == list(eval_dataset.CATEGORIES)


def test_a_network_of_boxes_alone_gives_boxes() -> None:
    save_checkpoint(Path("boxes.pt"), replace(load_checkpoint(Path("best.pt")), has_learned_masks=False))
    report = predict(checkpoint="boxes.pt")
    records = loaded(report.path)["annotations"]
    assert report.task == "detection" and records and not any("segmentation" in one for one in records)
    assert records[0]["area"] == pytest.approx(records[0]["bbox"][2] * records[0]["bbox"][3])
    with pytest.raises(sg.SynthgenError, match=r"the task panoptic needs masks, .* say --task detection"):
        predict(checkpoint="boxes.pt", task="panoptic")


@pytest.mark.parametrize(
    ("images", "options", "sentence"),
    [
        ("none", {}, r"no file or folder none; name an image"),
        ([], {}, r"images is empty"),
        (3, {}, r"images=3 is not a path"),
        ("store", {}, r"no image files in store; name a folder"),
        ("photos", {"task": "captioning"}, r"task='captioning' is not valid; give 'instance'"),
        ("photos", {"task": "foreground", "prompts": ["x"]}, r"takes no prompts"),
        ("photos", {"prompts": "ball"}, r"prompts='ball' is not valid; give a list of texts"),
        ("photos", {"prompts": ["a", " "]}, r"has an entry that is not a text or is empty"),
        ("photos", {"batch_size": 0}, r"batch_size=0 is not valid"),
        ("photos", {"max_detections": 0}, r"max_detections=0 is not valid"),
        ("photos", {"min_score": 1.5}, r"min_score=1.5 is not valid"),
        (
            "photos",
            {"min_score": 0.0, "task": "semantic"},
            r"the task semantic takes no --min-score: its maps have rules",
        ),
        ("photos", {"max_detections": 9, "task": "panoptic"}, r"takes no --max-detections: .*; leave it out"),
        (
            "photos",
            {"task": "foreground", "annotations": "truth.json"},
            r"truth\.json has no category 'foreground', the ",
        ),
        ("photos", {"out": "photos"}, r"photos holds the images; choose another --out"),
        ("photos", {"out": "elsewhere/../photos"}, r"photos holds the images; choose another --out"),
        ("photos", {"color_by": "mask"}, r"color_by='mask' is not valid"),
        ("photos", {"pictures": 1}, r"pictures=1 is not valid"),
        ("photos", {"stuff": ["sea"]}, r"stuff 'sea' is none of the texts"),
        ("photos", {"annotations": "none.json"}, r"no file none\.json"),
        ("photos", {"annotations": "truth.json", "prompts": ["bal"]}, r"no category 'bal'; did you mean 'ball'"),
        ("store", {"annotations": "truth.json"}, r"no image files in store"),
        ("elsewhere", {"annotations": "truth.json"}, r"lists none of the 1 images in elsewhere \(such as x\.png\)"),
        ("photos", {"device": "gpu"}, r"--device gpu should be"),
        ("photos", {"checkpoint": "store"}, r"store"),
        ("photos", {"out": "best.pt"}, r"choose another --out"),
    ],
)
def test_each_wrong_argument_has_its_sentence(images: Any, options: dict[str, Any], sentence: str) -> None:
    write_annotations(Path("truth.json"))
    Path("elsewhere").mkdir()
    Image.open("photos/1.png").save("elsewhere/x.png")
    with pytest.raises(sg.SynthgenError, match=sentence) as caught:
        predict(images, **options)
    assert caught.value.exit_code == 2 and not Path("predictions").exists()
