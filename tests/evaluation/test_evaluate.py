"""Evaluation from store to table: image frames, batches, processes, skipped images, the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fakes import eval_dataset

from synthgen.dataloading.manifest import Manifest
from synthgen.dataloading.source_config import EvalSource
from synthgen.distributed import DistributedContext
from synthgen.evaluation import evaluate as module
from synthgen.evaluation import results
from synthgen.evaluation.evaluate import evaluate_network
from synthgen.evaluation.metrics import ImageResult, Scores, miou
from synthgen.evaluation.postprocess import RawPrediction
from synthgen.evaluation.results import EvalResult
from synthgen.storage.shard_store import Shard, ShardStore

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
TASKS = ("instance", "detection", "panoptic", "semantic", "referring", "foreground")
MAIN = {"instance": "AP", "detection": "AP", "panoptic": "PQ", "semantic": "mIoU", "referring": "mIoU",
        "foreground": "maxF"}  # fmt: skip


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    eval_dataset.write_eval_dataset(tmp_path)
    sources = [EvalSource(shards=eval_dataset.LAYER, task=task, images=tmp_path / "photos") for task in TASKS]
    return Manifest(name="toy", store=tmp_path / "store", eval=tuple(sources))


def small(manifest: Manifest, network=None, **options) -> list[EvalResult]:
    return evaluate_network(
        network or eval_dataset.untrained_network(), manifest, device=CPU, short=64, long=96, **options
    )


def oracle(network, batch, asked, names, precision):
    """What a network would say that knows the targets of the batch, in its frame."""
    for one, target in zip(asked, batch.targets, strict=True):
        texts, wanted = one.target.texts, target["masks"]
        padded = tuple(batch.images.shape[-2:])
        logits, masks = torch.full((8, len(texts)), -12.0), torch.full((8, *padded), -9.0)
        boxes = torch.zeros(8, 4)
        for query, (label, box) in enumerate(zip(target["labels"].tolist(), target["boxes"], strict=True)):
            for i, text in enumerate(texts):
                if text == target["texts"][label]:
                    logits[query, i] = 12.0
            boxes[query] = box
            if len(wanted):
                masks[query][wanted[query]] = 9.0
        stuff = frozenset(i for i, text in enumerate(texts) if text in one.stuff_names)
        # Conditional queries are the first three, which are those of things.
        yield RawPrediction(logits, boxes, masks, padded, target["size"], target["orig_size"], 3, stuff)


def test_who_knows_the_targets_of_the_batch_is_right_in_the_frame_of_the_file(manifest, monkeypatch):
    """Masks are drawn at another size, in a batch with padding: what is lost there is a pixel at the edges."""
    monkeypatch.setattr(module, "_predict", oracle)
    for one in evaluate_network(
        eval_dataset.untrained_network(), manifest, device=CPU, short=150, long=400, batch_size=3
    ):
        assert one.metric == MAIN[one.task] and one.images == 4 and one.source == eval_dataset.LAYER
        assert one.values[one.metric] > 93, one
        if one.task == "instance":
            assert one.values["AP50"] == pytest.approx(100) and set(one.by_name) == {"ball", "plate"}
        if one.task in ("panoptic", "semantic"):
            assert set(one.by_name) == set(eval_dataset.CATEGORIES)
        things = 8 if one.task == "semantic" else 12  # balls of an image are one region
        if one.task not in ("foreground", "semantic"):
            assert one.by_kind["things"] == {"conditional": 100, "learnable": 0, "found": things}
        if one.task == "panoptic":
            assert one.by_kind["stuff"] == {"conditional": 0, "learnable": 100, "found": 8}
            assert one.values["RQ_stuff"] == one.values["RQ_things"] == pytest.approx(100)


def test_a_layer_is_seen_at_its_own_size_and_at_the_one_that_is_said(manifest, monkeypatch):
    seen = []

    def noted(network, batch, *_):
        seen.append(min(batch.targets[0]["size"]))
        return oracle(network, batch, *_)

    monkeypatch.setattr(module, "_predict", noted)
    own = tuple(
        one.model_copy(update={"size": (90, 150)} if one.task == "foreground" else {}) for one in manifest.eval[-2:]
    )
    given = manifest.model_copy(update={"eval": own, "eval_size": (60, 100)})
    evaluate_network(eval_dataset.untrained_network(), given, device=CPU)
    assert seen == [60] * 4 + [90] * 4
    seen.clear()
    evaluate_network(eval_dataset.untrained_network(), given, device=CPU, short=30, long=50)
    assert seen == [30] * 8


def test_batches_change_nothing(manifest):
    alone, together = small(manifest), small(manifest, batch_size=3)
    assert [one.task for one in alone] == list(TASKS)
    for one, other in zip(alone, together, strict=True):
        assert other.values == pytest.approx(one.values, abs=1.0) and other.images == one.images
    assert any(one.values[one.metric] > 0 for one in alone), "random weights find something of six tasks"


def test_it_is_the_same_each_time_and_leaves_the_network_as_it_was(manifest):
    network = eval_dataset.untrained_network().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = small(manifest, network)
    assert network.training and found == small(manifest, network.eval()) and not network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_processes_share_the_images_and_all_know_the_whole(manifest, monkeypatch):
    whole = small(manifest)
    parts: list[list[object]] = [[], []]
    monkeypatch.setattr(DistributedContext, "on_rank0", lambda _, do: do())
    monkeypatch.setattr(DistributedContext, "all_gather", lambda here, value: parts[here.rank].append(value) or [value])
    shares = [small(manifest, rank=rank, world_size=2) for rank in (0, 1)]
    assert [one.images for share in shares for one in share] == [2] * 12
    for rank in (0, 1):
        places = iter(zip(*parts, strict=True))
        monkeypatch.setattr(DistributedContext, "all_gather", lambda here, value: list(next(places)))  # noqa: B023
        assert small(manifest, rank=rank, world_size=2) == whole


def test_sums_are_in_one_order_whoever_measured_what(manifest, monkeypatch):
    """Floats do not add up to the same in another: what is measured would depend on how many processes there were."""
    share = {1: 1e16, 2: 1.0, 3: -1e16, 4: 1.0}
    monkeypatch.setattr(miou, "compare", lambda asked, _: ImageResult(share[asked.sample.image_id]))
    monkeypatch.setattr(miou, "scores", lambda all_: Scores({"mIoU": sum(one.stats for one in all_)}, {}))
    one_task = manifest.model_copy(update={"eval": tuple(s for s in manifest.eval if s.task == "semantic")})
    (whole,) = small(one_task)
    monkeypatch.setattr(
        DistributedContext,
        "all_gather",
        lambda _, value: [(value[0][::-1], *value[1:]) if isinstance(value, tuple) else value],
    )
    assert small(one_task) == [whole]


def test_a_name_of_things_and_of_stuff_is_a_things(manifest, monkeypatch):
    """As of two datasets in one layer: if it were stuff, its things would be one region, and none of them found."""
    store = ShardStore(manifest.store)
    (shard,) = store.list_shards(*eval_dataset.LAYER.split("/"))
    first, *others = store.read_samples(shard)
    mixed = tuple(replace(a, category="ball") if a.category == "grass" else a for a in first.annotations)
    store.commit(shard, [replace(first, annotations=mixed), *others], {"categories": list(eval_dataset.CATEGORIES)})
    monkeypatch.setattr(module, "_predict", oracle)
    panoptic = manifest.model_copy(update={"eval": tuple(s for s in manifest.eval if s.task == "panoptic")})
    (found,) = evaluate_network(eval_dataset.untrained_network(), panoptic, device=CPU, short=150, long=400)
    assert found.by_name["ball"] > 90 and found.by_name["sky"] > 90
    assert {kind: row["found"] for kind, row in found.by_kind.items()} == {"things": 13, "stuff": 7}


def test_skipped_images_are_reported(manifest, tmp_path):
    store = ShardStore(manifest.store)
    shard = store.list_shards(*eval_dataset.LAYER.split("/"))[0]
    samples = list(store.read_samples(shard))
    samples[1] = replace(samples[1], error="it was broken")
    samples[3] = replace(samples[3], annotations=())
    store.commit(Shard("gallery", "val", "human", 0, 1), samples, {"categories": list(eval_dataset.CATEGORIES)})
    (tmp_path / "photos" / "1.png").write_bytes(b"no photograph")
    found = {one.task: one for one in small(manifest)}
    text = "\n".join(results.format_results(list(found.values())))
    assert found["semantic"].images == 1 and found["semantic"].seen["counts"][0]["skipped/nothing"] == 1
    assert found["instance"].images == 2, "where an image holds nothing, what is found is wrong"
    assert "1 could not be read" in text and "1 have an error" in text and "1.png" in text


def test_of_no_image_there_is_a_zero_and_a_word(manifest, tmp_path):
    for photo in (tmp_path / "photos").iterdir():
        photo.unlink()
    for one in small(manifest):
        assert one.images == 0 and one.values[one.metric] == 0
        assert "nothing could be measured" in "\n".join(results.format_results([one]))


def test_where_no_object_has_a_mask_there_is_no_ap_of_masks(manifest):
    """It would be a 0 that says nothing of the network, and counts in the mean of all layers."""
    store = ShardStore(manifest.store)
    samples = [
        replace(sample, annotations=tuple(replace(a, segmentation=None, mask_source=None) for a in sample.annotations))
        for sample in store.read_samples(store.list_shards(*eval_dataset.LAYER.split("/"))[0])
    ]
    store.commit(Shard("gallery", "val", "human", 0, 1), samples, {"categories": list(eval_dataset.CATEGORIES)})
    found = {one.task: one for one in small(manifest.model_copy(update={"eval": manifest.eval[:2]}))}
    assert found["instance"].images == 0 and found["detection"].images == 4
    assert "nothing could be measured" in "\n".join(results.format_results([found["instance"]]))


def test_ground_truth_by_machines_is_reported(manifest):
    store = ShardStore(manifest.store)
    (shard,) = store.list_shards(*eval_dataset.LAYER.split("/"))
    samples = [
        replace(sample, annotations=tuple(replace(a, mask_source="sam vit_h") for a in sample.annotations))
        for sample in store.read_samples(shard)
    ]
    assert not any(one.by_machines for one in small(manifest))
    store.commit(shard, samples, {"categories": list(eval_dataset.CATEGORIES)})
    told = {one.task: "\n".join(results.format_results([one])) for one in small(manifest)}
    assert "  the truth is masks by sam vit_h: this is agreement with machines" in told["instance"]
    assert "machines" not in told["detection"], "its boxes are people's"


def test_several_layers_have_a_mean_and_a_median():
    each = [EvalResult(f"a/b/c{i}", "instance", "AP", {"AP": value}, 5) for i, value in enumerate((10.0, 20.0, 60.0))]
    none = EvalResult("a/b/d", "instance", "AP", {"AP": 0.0}, 0)
    other = EvalResult("a/b/e", "panoptic", "PQ", {"PQ": 50.0}, 5)
    assert results.average_by_task([*each, none, other]) == {"instance AP": {"mean": 30, "median": 20, "layers": 3}}
    assert "instance AP of 3 layers: mean 30.00, median 20.00" in list(results.format_results([*each, none, other]))


TOY = """\
name: toy
store: store
eval:
  - {shards: gallery/val/human, task: instance, images: photos}
  - {shards: gallery/val/human, task: panoptic, images: photos}
"""


def test_a_checkpoint_is_measured_as_typed(synthgen, tmp_path):
    eval_dataset.write_eval_dataset(tmp_path)
    eval_dataset.write_checkpoint(tmp_path / "runs" / "best.pt")
    (tmp_path / "toy.yaml").write_text(TOY)
    words = ("evaluate", "--checkpoint", "runs/best.pt", "--manifest", "toy.yaml", "--device", "cpu",
             "--short", "64", "--loader-workers", "0")  # fmt: skip
    code, told = synthgen(*words)
    assert code == 0, told
    assert "gallery/val/human panoptic, 4 images" in told and "runs/best.toy.json" in told and "PQ_stuff" in told
    written = (tmp_path / "runs" / "best.toy.json").read_bytes()
    content = json.loads(written)
    assert content["checkpoint"] == "best.pt" and content["step"] == 7 and content["manifest"] == "toy"
    assert [one["metric"] for one in content["measured"]] == ["AP", "PQ"]
    assert str(tmp_path) not in written.decode()
    assert synthgen(*words, "--out", "other.json")[0] == 0
    assert (tmp_path / "other.json").read_bytes() == written, "same weights, same images, same bytes"


def test_what_cannot_be_measured_is_reported_in_a_sentence(synthgen, tmp_path, monkeypatch):
    eval_dataset.write_eval_dataset(tmp_path)
    eval_dataset.write_checkpoint(tmp_path / "best.pt")
    (tmp_path / "toy.yaml").write_text(TOY)
    (tmp_path / "blind.yaml").write_text("name: blind\nmixture:\n  - {shards: a/b/c, task: instance}\n")
    own = ("evaluate", "--checkpoint", "best.pt", "--manifest", "toy.yaml", "--device", "cpu", "--loader-workers", "0")
    for words, sentence in (
        (("--manifest", "blind.yaml"), "names nothing to evaluate on"),
        (("--manifest", "none.yaml"), "none.yaml"),
        (("--checkpoint", "none.pt"), "none.pt"),
        (("--checkpoint", "rnus/best.pt"), "no file rnus/best.pt; name a checkpoint"),
        (("--checkpoint", "."), "no file .; name a checkpoint"),
        (("--checkpoint", "photos/1.png"), "photos/1.png cannot be used as a checkpoint"),
        (("--text-encoder", "clib_b"), "no text encoder named 'clib_b'"),
        (("--precision", "fp8"), "--precision fp8"),
        (("--store", "nowhere"), "gallery/val/human"),
        (("--out", "photos/1.png/x.json", "--short", "32"), "choose another --out"),
    ):
        code, told = synthgen(*own, *words)
        assert code == 2 and sentence in told and "Traceback" not in told, told
    assert not (tmp_path / "rnus").exists()
    monkeypatch.setattr(module, "evaluate_network", lambda *_, **__: pytest.fail("it is found after the work"))
    code, told = synthgen(*own, "--out", "photos")
    assert code == 2 and "cannot write photos (Is a directory); choose another --out" in told
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    for photo in (tmp_path / "photos").iterdir():
        photo.unlink()
    code, told = synthgen(*own)
    assert code == 1 and "nothing could be measured" in told and "4 could not be read" in told
