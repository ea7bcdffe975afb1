"""`predict_folder`: ids, average precision, batches, unreadable images, interruptions, wrong arguments."""

from __future__ import annotations

import contextlib
import io
import json
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
