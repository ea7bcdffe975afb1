"""Training a captioner: inputs as in captioning, losses, parameter groups, checkpoints, resume."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import caption_dataset, tiny_ofa

from synthgen import plugins
from synthgen.checkpoints import captioner, checkpoint
from synthgen.dataloading.config import CaptionerConfig
from synthgen.dataloading.eval_loader import EvalLoader
from synthgen.dataloading.manifest import Manifest, load_manifest
from synthgen.dataloading.manifest_check import check_manifest
from synthgen.dataloading.mixture import Mixture
from synthgen.dataloading.train_loader import TrainLoader
from synthgen.distributed import DistributedContext
from synthgen.errors import SynthgenError
from synthgen.evaluation import captioner_evaluator, evaluate
from synthgen.evaluation.captioner_evaluator import normalize_images, target_box_bins
from synthgen.evaluation.metrics import cider
from synthgen.images.decode import load_rgb
from synthgen.models.ofa import preprocess
from synthgen.models.ofa.training import label_smoothed_loss, teacher_forced_logits
from synthgen.records.sample import Caption
from synthgen.storage.image_folder import record_image_folder
from synthgen.storage.shard_store import ShardStore
from synthgen.training import report, trainer
from synthgen.training.captioner_learner import CaptionerLearner
from synthgen.visualize import training_samples

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
CAPTIONER = "captioner: {weights: ./ofa, train_embeddings: true, image_size: 96, regions_per_image: 4}"

MANIFEST = f"""
name: toy
store: shards
mixture:
  - {{shards: {caption_dataset.LAYER}, task: captioning}}
{CAPTIONER}
dataloader: {{num_workers: 0}}
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs, what was said of their shapes, an OFA of random weights, and a manifest of all three."""
    folder = caption_dataset.write_caption_dataset(tmp_path_factory.mktemp("captioner") / "world")
    tiny_ofa.checkpoint(folder / "ofa", tiny_ofa.random_weights(tiny_ofa.SPEAKING_NUMBERS))
    (folder / "toy.yaml").write_text(MANIFEST)
    (folder / "eval.yaml").write_text(MANIFEST.replace("mixture:", "eval:"))
    return folder


def learner(world: Path) -> CaptionerLearner:
    return CaptionerLearner(load_manifest(world / "toy.yaml"), CPU)


def batch(world: Path, *, size: int = 3, **more):
    with TrainLoader(
        load_manifest(world / "toy.yaml").model_copy(update=more), batch_size=size, num_workers=0
    ) as loader:
        return next(loader)


def test_image_and_box_are_what_the_describing_captioner_sees(world):
    """Pixel by pixel, bin by bin: the annotation's box in the original's frame, the image as OFA resizes it."""
    found = batch(world, size=12)
    boxes = boxes_of(world)
    for image, target in zip(found.images, found.targets, strict=True):
        photo = load_rgb(world / "photos" / f"{target['image_key'].split('/')[1]}.png", 90, 120)
        theirs = preprocess.preprocess_images([preprocess.resize_to_square(photo, 96)], CPU)[0]
        assert float((normalize_images(image[None])[0] - theirs).abs().max()) < 1e-5
        own = torch.tensor([boxes[i] for (i,) in target["annotation_ids"]])
        assert torch.equal(target_box_bins(target), preprocess.quantize_boxes(own, 90, 120, 96))


def boxes_of(world: Path) -> dict[int, list[float]]:
    once = EvalLoader(load_manifest(world / "eval.yaml"), 0, batch_size=6)
    samples = [target["sample"] for found in once for target in found.targets]
    return {a.id: [x, y, x + w, y + h] for s in samples for a in s.annotations for x, y, w, h in [a.bbox]}


def test_bins_of_any_box_are_the_describing_captioners():
    rng = np.random.default_rng(0)
    height, width, side = 427, 640, 480
    x, y = np.sort(rng.uniform(0, width, (2, 20_000)), axis=0), np.sort(rng.uniform(0, height, (2, 20_000)), axis=0)
    corners = np.stack([x[0], y[0], x[1], y[1]], axis=1).round(2).astype(np.float32)
    seen = (corners.astype(np.float64) * np.array([side / width, side / height] * 2)).astype(np.float32)
    x1, y1, x2, y2 = seen.astype(np.float64).T / side
    boxes = np.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], axis=1).astype(np.float32)
    ours = target_box_bins({"boxes": torch.from_numpy(boxes), "size": (side, side)})
    theirs = preprocess.quantize_boxes(torch.from_numpy(corners), height, width, side)
    assert (ours - theirs).abs().max() <= 1, "a corner between two bins may be rounded either way"
    assert float((ours != theirs).float().mean()) < 2e-4


def test_an_image_is_never_mirrored_nor_cut_and_shows_so_many_regions(world):
    manifest = load_manifest(world / "toy.yaml")
    for regions in (2, 4):
        own = manifest.model_copy(
            update={"captioner": manifest.captioner.model_copy(update={"regions_per_image": regions})}
        )
        for drawn in islice(Mixture(own, reader_id=0, num_readers=1), 12):
            assert drawn.example.image.shape == (96, 96, 3) and drawn.example.size == (96, 96)
            assert len(drawn.example.labels) == regions and not drawn.example.ignore.any()


def test_check_and_show_know_captioning(world, tmp_path):
    found = check_manifest(world / "toy.yaml")
    assert found.warnings == () and found.sources[0].source.task == "captioning"
    assert check_manifest(world / "eval.yaml").warnings == ()
    shown = training_samples.draw_training_samples(world / "toy.yaml", out=tmp_path, n=2)
    assert all("captioning" in path.name and path.exists() for path in shown.picture_paths)


@pytest.mark.parametrize(
    ("change", "sentences"),
    [
        ((CAPTIONER, ""), ["mixture.0.task: 'captioning' trains a captioner; say captioner: {}, or more of it"]),
        ((CAPTIONER, "captioner:"), ["mixture.0.task: 'captioning' trains a captioner; say captioner: {}"]),
        (("captioning}", "referring}"), ["mixture.0.task: 'referring' trains no captioner; name 'captioning'"]),
        (
            ("name: toy", "name: toy\nmodel: {}"),
            ["model: is one network and captioner: another, and one is trained; take the other out"],
        ),
        (("name: toy", "name: toy\naugment: {flip: 0}"), ["augment: changes nothing, as a captioner sees whole"]),
        (("name: toy", "name: toy\nschedule: {compile: true}"), ["schedule.compile: compiles layers that a captioner"]),
        (("name: toy", "name: toy\neval_size: [96, 96]"), ["eval_size: changes nothing, as a captioner sees whole"]),
        (
            ("name: toy", "name: toy\neval: [{shards: a/b/c, task: captioning, size: [96, 96]}]"),
            ["eval.0.size: changes nothing, as a captioner sees whole"],
        ),
        (("image_size: 96", "image_size: 100"), ["captioner.image_size: "]),
        (("image_size: 96", "imagesize: 96"), ["captioner.imagesize: no such key; did you mean 'image_size'?"]),
        (("weights: ./ofa", "weights: ofa"), ["captioner.weights: no weights named 'ofa' (have: pretrained, random; "]),
        (("weights: ./ofa", "weights: ./ofa, size: tiny"), ["captioner: weights", "say their own size; take size out"]),
        (
            ("weights: ./ofa", "weights: random"),
            ["captioner: weights", "come without a tokenizer; add tokenizer: FOLDER"],
        ),
        (
            ("./ofa, train_embeddings: true", "random, tokenizer: ./ofa"),
            ["captioner: weights", "have no embeddings; add train_embeddings: true"],
        ),
    ],
)
def test_each_mistake_has_its_place_and_its_remedy(tmp_path, change, sentences):
    assert change[0] in MANIFEST
    (tmp_path / "toy.yaml").write_text(MANIFEST.replace(*change))
    with pytest.raises(SynthgenError) as why:
        load_manifest(tmp_path / "toy.yaml")
    for sentence in sentences:
        assert sentence in str(why.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("./ofa", "./nowhere"), r"no weights of an OFA in .*nowhere; mend captioner.weights"),
        (
            ("./ofa", "./ofa, tokenizer: ./shards"),
            r"shards lacks vocab.json and merges.txt, which all OFAs have; run: hf",
        ),
        (
            ("./ofa", "./toy.yaml, tokenizer: ./ofa"),
            r"toy.yaml: it is no PyTorch checkpoint.*; see captioner.weights and",
        ),
        (("image_size: 96", "image_size: 128"), r"captioner.image_size 128 is more than this OFA's 112 pixels"),
        (("weights: ./ofa", "size: tiny"), r"no weights of an OFA in .*ofa-tiny; run: hf download OFA-Sys/ofa-tiny"),
    ],
)
def test_weights_that_cannot_be_had_are_a_sentence(world, change, sentence, monkeypatch, tmp_path):
    monkeypatch.setenv("SYNTHGEN_WEIGHTS", str(tmp_path))
    path = world / "wrong.yaml"
    path.write_text(MANIFEST.replace(*change))
    with pytest.raises(SynthgenError, match=sentence):
        CaptionerLearner(load_manifest(path), CPU)


def test_random_weights_are_of_the_size_and_the_words_that_are_said(world):
    torch.manual_seed(0)
    network, tokenizer, words = captioner.build_captioner(
        CaptionerConfig(size="tiny", weights="random", tokenizer=str(world / "ofa"), train_embeddings=True)
    )
    assert network.config.dim == 256 and network.config.vocab_size == tokenizer.vocab_size
    assert words == world / "ofa"


def test_the_loss_is_that_of_every_token_of_every_phrase(world):
    own, found = learner(world), batch(world)
    words = own.tokenizer
    cost, count = 0.0, 0
    for image, target in zip(found.images, found.targets, strict=True):
        for corners, label in zip(target_box_bins(target).tolist(), target["labels"].tolist(), strict=True):
            text = torch.tensor([[*words.encode(" " + target["texts"][label].lower()), 2]])
            prompt = torch.tensor([words.encode_region_prompt(corners)])
            logits = teacher_forced_logits(own.module, normalize_images(image[None]), [0], prompt, text)
            cost, count = cost + float(label_smoothed_loss(logits, text[0]).detach()), count + text.numel()
    assert own.count_targets(found) == count
    losses = own.compute_losses(found, num_targets=count / 2)
    assert losses.keys() == {"words"}
    assert float(losses["words"].detach()) == pytest.approx(2 * cost / count, rel=1e-4)
    assert torch.equal(own.compute_losses(found, num_targets=count / 2)["words"], losses["words"]), "nothing is drawn"


def test_a_batch_without_words_costs_nothing(world):
    own, found = learner(world), batch(world)
    for target in found.targets:
        target["texts"] = tuple("?!.,"[: i + 1] for i in range(len(target["texts"])))
    assert own.count_targets(found) == 0
    loss = own.compute_losses(found, num_targets=1.0)["words"]
    loss.backward()
    assert loss.item() == 0
    learning = [p.grad for p in own.module.parameters() if p.requires_grad]
    assert all(gradient is not None and not gradient.any() for gradient in learning), "processes wait for gradients"


def test_long_phrases_are_cut_and_long_words_end_where_the_network_ends(world):
    own = learner(world)
    assert own._cached_tokens("a " * 50) == own._cached_tokens("A " * 30), "30 words, whatever their case"
    assert len(own._cached_tokens("a" * 500)) == tiny_ofa.SPEAKING_NUMBERS.max_positions
    assert own._cached_tokens("?!") == ()


def test_groups_hold_what_learns_and_the_stem_has_the_backbones_rate(world):
    own, manifest = learner(world), load_manifest(world / "toy.yaml")
    schedule = manifest.schedule.model_copy(update={"lr": 1.0, "backbone_lr": 0.5})
    rates = {id(p): group["lr"] for group in own.param_groups(schedule) for p in group["params"]}
    for name, p in own.module.named_parameters():
        stem = name.startswith("encoder.embed_images.")
        assert rates.pop(id(p), None) == (None if not p.requires_grad else 0.5 if stem else 1.0), name
    assert not rates


def test_without_the_package_it_is_a_sentence_before_the_training(world, monkeypatch):
    monkeypatch.setattr(cider, "find_spec", lambda name: None)
    with pytest.raises(SynthgenError, match=r"pycocoevalcap; install it: pip install 'synthgen-masks\[eval\]'$"):
        CaptionerLearner(load_manifest(world / "eval.yaml"), CPU)
    CaptionerLearner(load_manifest(world / "toy.yaml"), CPU)  # what is not evaluated needs it not


SCHEDULE = """
schedule: {{steps: {steps}, batch_size: 6, lr: 2.0e-3, backbone_lr: 2.0e-3, max_grad_norm: 1.0, weight_decay: 0.0,
           warmup_steps: {warmup}, milestones: [0.75, 0.9]{more}}}
"""


def trained(world: Path, out: Path, *, steps: int, warmup: int = 1, more: str = "") -> report.TrainResult:
    path = world / f"{out.name}.yaml"
    path.write_text(MANIFEST + SCHEDULE.format(steps=steps, warmup=warmup, more=more))
    return trainer.train(path, out=out, device="cpu")


def describer(path: Path):
    """The OFA captioner of `synthgen captions`."""
    options = {"checkpoint": str(path), "device": "cpu", "num_beams": 5, "max_length": 16}
    return plugins.build_plugin("generate.captioners", "ofa", options)


@pytest.mark.slow
def test_it_learns_what_only_the_box_shows_and_the_ofa_captioner_says_the_same(world, tmp_path):
    pytest.importorskip("pycocoevalcap")
    done = trained(world, tmp_path / "learned", steps=140, warmup=15)
    (found,), path = evaluate.evaluate_checkpoint(done.last_checkpoint, world / "eval.yaml", device="cpu")
    assert path is not None and path.exists()
    assert found.images == 6
    assert found.values["token_F1"] > 90, found
    assert found.values["CIDEr"] > 300, found

    manifest = load_manifest(world / "eval.yaml")
    network, tokenizer, held = captioner.load_captioner(done.last_checkpoint, device=CPU)
    assert held.step == 140
    speaker = describer(done.last_checkpoint)
    ours = {}
    for seen in EvalLoader(manifest, 0, batch_size=6):
        for target, (asked, compared) in zip(
            seen.targets, captioner_evaluator._compare_batch(network, tokenizer, seen), strict=True
        ):
            key = asked.sample.image_key
            ours[key] = [text for text, _ in compared.stats]
            photo = load_rgb(world / "photos" / target["sample"].file_name, 90, 120)
            boxes = target["original"].boxes_xyxy
            (theirs,) = speaker.caption([photo], [boxes], [[""] * len(boxes)], [[]], 1)
            assert [cider.normalize_text(own[0].text) for own in theirs] == ours[key]
    assert len(ours) == 6 and len({tuple(texts) for texts in ours.values()}) > 1
    assert all(len(set(texts)) == 4 for texts in ours.values()), "of each shape of an image something else is said"


def test_a_captioner_is_measured_at_the_side_that_it_learned_from(world, tmp_path):
    """Unless the manifest says another."""
    given = load_manifest(world / "eval.yaml")
    free = given.model_copy(update={"captioner": CaptionerConfig.model_validate({"regions_per_image": 4})})
    held = checkpoint.Checkpoint("captioner", 1, {"image_size": 96}, (), {})
    assert captioner.with_learned_image_size(free, held).captioner == CaptionerConfig.model_validate(
        {"regions_per_image": 4, "image_size": 96}
    )
    said = given.model_copy(update={"captioner": CaptionerConfig(image_size=64)})
    assert captioner.with_learned_image_size(said, held) is said
    assert captioner.with_learned_image_size(free, replace(held, model_config={})) is free
    for hostile in (10**9, "96", None, 97):
        with pytest.raises(SynthgenError, match=r"its image_size is none; say captioner\.image_size"):
            captioner.with_learned_image_size(free, replace(held, model_config={"image_size": hostile}))


def test_the_ofa_captioner_reads_the_checkpoint_also_of_averaged_weights(world, tmp_path):
    """Weights by the published names, the words beside them, tied tables once and alike."""
    done = trained(world, tmp_path / "averaged", steps=2, more=", ema_decay: 0.9")
    speaker = describer(done.last_checkpoint)
    assert speaker.side == 96, "it sees images as large as it learned from"
    network, _, held = captioner.load_captioner(done.last_checkpoint, device=CPU)
    assert held.kind == "captioner" and held.model_config["weights"] == str(world / "ofa")
    theirs = dict(speaker.network.named_parameters())
    assert all(torch.equal(p, theirs[name]) for name, p in network.named_parameters())
    raw = checkpoint.load_checkpoint(done.last_checkpoint).training_state["weights"]
    assert not torch.equal(raw["encoder.embed_tokens.weight"], theirs["encoder.embed_tokens.weight"])


def test_a_checkpoint_of_another_kind_and_one_without_words_are_a_sentence(world, tmp_path):
    done = trained(world, tmp_path / "bare", steps=1, warmup=0)
    (done.folder / "vocab.json").unlink()
    with pytest.raises(SynthgenError, match=r"vocab.json cannot be read .*; training writes vocab.json and merges.txt"):
        captioner.load_captioner(done.last_checkpoint, device=CPU)
    held = checkpoint.load_checkpoint(done.last_checkpoint)
    checkpoint.save_checkpoint(tmp_path / "other.pt", replace(held, kind="mqformer"))
    with pytest.raises(SynthgenError, match=r"other.pt is a checkpoint of a mqformer, not of a captioner; name"):
        captioner.load_captioner(tmp_path / "other.pt", device=CPU)
    with pytest.raises(SynthgenError, match=r"is a checkpoint of a captioner, not of MQ-Former; name another"):
        checkpoint.load_network(done.last_checkpoint, device=CPU)


def test_a_broken_off_training_goes_on_as_if_it_had_not_been(world, tmp_path, monkeypatch):
    whole = trained(world, tmp_path / "run", steps=4, more=", checkpoint_every: 2")
    weights = checkpoint.load_checkpoint(whole.last_checkpoint).weights
    whole.last_checkpoint.unlink()
    again = trainer.train(world / "run.yaml", out=tmp_path / "run", device="cpu")
    assert again.new_steps == 2
    resumed = checkpoint.load_checkpoint(again.last_checkpoint).weights
    assert all(torch.equal(weights[name], resumed[name]) for name in weights)


def test_processes_share_the_images_and_what_they_measure_is_the_same(world):
    pytest.importorskip("pycocoevalcap")
    manifest = load_manifest(world / "eval.yaml")
    own = learner(world)
    (alone,) = captioner_evaluator.evaluate_captioner(
        own.module, own.tokenizer, manifest, DistributedContext(0, 1, CPU)
    )
    parts: list[object] = []

    class First(DistributedContext):
        def on_rank0(self, action):
            return action()

        def all_gather(self, value):
            parts.append(value)
            return [value]

    class Second(First):
        def all_gather(self, value):
            return [parts[0], value]

    captioner_evaluator.evaluate_captioner(own.module, own.tokenizer, manifest, First(0, 2, CPU))
    (together,) = captioner_evaluator.evaluate_captioner(own.module, own.tokenizer, manifest, Second(1, 2, CPU))
    assert together == alone and alone.images == 6


def test_phrases_by_machines_are_reported(world, monkeypatch, tmp_path):
    """Who agrees with what a machine said of objects has not been measured against people."""
    pytest.importorskip("pycocoevalcap")
    monkeypatch.setattr(captioner_evaluator, "_compare_batch", lambda *_: [])  # whatever it says
    own, manifest = learner(world), load_manifest(world / "eval.yaml")
    people, store = ShardStore(manifest.store), ShardStore(tmp_path / "shards")
    (shard,) = people.list_shards(*caption_dataset.LAYER.split("/"))
    machine = (Caption("a cat", "ofa large"),)
    samples = [
        replace(s, annotations=tuple(replace(a, captions=machine) for a in s.annotations))
        for s in people.read_samples(shard)
    ]
    store.commit(shard, samples, {"categories": []})
    record_image_folder(store, *caption_dataset.LAYER.split("/"), world / "photos")
    for place, by in ((people, []), (store, ["captions by ofa large"])):
        at = manifest.model_copy(update={"store": place.root})
        (found,) = captioner_evaluator.evaluate_captioner(own.module, own.tokenizer, at, DistributedContext(0, 1, CPU))
        assert found.by_machines == by


def test_a_manifest_without_a_captioner_has_none(world):
    assert Manifest(name="x").captioner is None
    assert load_manifest(world / "toy.yaml").captioner.image_size == 96
