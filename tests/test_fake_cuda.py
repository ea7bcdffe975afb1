"""No operation mixes tensors of the CPU and of the GPU, tested with a fake GPU on the CPU."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import caption_dataset, eval_dataset, tiny_ofa, tiny_sam
from fakes.cuda_sync import record_cuda_syncs
from fakes.fake_cuda import FakeCudaTensor, MixedDevicesError, fake_gpu
from fakes.training_step import load_batch, small_manifest, training_step
from torch import nn
from torch.nn import functional

from synthgen import plugins
from synthgen.checkpoints import checkpoint
from synthgen.dataloading.config import CaptionerConfig, ScheduleConfig
from synthgen.dataloading.manifest import Manifest
from synthgen.dataloading.source_config import EvalSource, TrainSource
from synthgen.distributed import DistributedContext
from synthgen.evaluation import evaluate, predictor
from synthgen.evaluation.metrics import Scores, cider
from synthgen.models.mqformer.text_encoder import find_minilm
from synthgen.progress import NoProgress
from synthgen.records.rle import decode_mask
from synthgen.training import trainer
from synthgen.training.captioner_learner import CaptionerLearner
from synthgen.training.learner import SegmentationLearner
from synthgen.training.targets import build_mask_targets

CPU = torch.device("cpu")
CUDA = torch.device("cuda", 0)


@pytest.fixture
def gpu(one_thread: None) -> Iterator[torch.device]:
    with fake_gpu() as device:
        yield device


# --- the GPU that is none ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "meet",
    [
        lambda x: x + torch.ones(3),
        lambda x: torch.ones(3) + x,
        lambda x: torch.ones(3) * x.sum(),
        lambda x: x @ torch.ones(3),
        lambda x: x.add_(torch.ones(3)),
        lambda x: torch.ones(3).add_(x),
        lambda x: torch.tensor(1.0).add_(x.sum()),
        lambda x: torch.cat([x, torch.ones(3)]),
        lambda x: torch.stack([x.sum(), torch.tensor(1.0)]),
        lambda x: x.gather(0, torch.tensor([1])),
        lambda x: x.index_select(0, torch.tensor(1)),
        lambda x: torch.arange(3)[x.long()],
        lambda x: x.masked_fill(torch.ones(3, dtype=torch.bool), 0),
        lambda x: torch.where(x > 0, x, torch.ones(3)),
        lambda x: functional.embedding(torch.tensor([1]), x[:, None]),
        lambda x: functional.linear(x, torch.ones(2, 3)),
        nn.Linear(3, 2),
        lambda x: x.new_zeros(3) + torch.zeros(3),
        lambda x: x.index_put_((torch.tensor([0]),), torch.ones(1)),
        lambda x: torch.equal(x, torch.ones(3)),
        lambda x: torch.rand(3, device=x.device, generator=torch.Generator()),
    ],
)
def test_what_a_gpu_refuses_raises(gpu, meet):
    with pytest.raises(RuntimeError, match=r"same device|generator"):
        meet(torch.ones(3).to(gpu))


@pytest.mark.parametrize("read", [lambda x: x.numpy(), np.asarray, lambda x: x.detach().numpy()])
def test_numpy_sees_nothing_of_a_gpu(gpu, read):
    with pytest.raises(TypeError, match=r"Use Tensor.cpu\(\)"):
        read(torch.ones(3, device=gpu))


def test_what_a_gpu_allows_has_its_values_and_stays_there(gpu):
    x = torch.arange(3, dtype=torch.float32).to("cuda", non_blocking=True)
    assert x.device == CUDA and x.is_cuda and x.cuda() is x and isinstance(x, FakeCudaTensor)
    for one, values in (
        (x + torch.tensor(1.0), [1, 2, 3]),
        (2 * x, [0, 2, 4]),
        (x[torch.tensor([2, 0])], [2, 0]),
        (x[[2, 0]], [2, 0]),
        (x[np.array([2, 0])], [2, 0]),
        (x[torch.tensor([False, True, True])], [1, 2]),
        (x[1:][:, None].T.flatten(), [1, 2]),
        (torch.where(x > 1, x, 0), [0, 0, 2]),
        (x.new_tensor([4, 5]), [4, 5]),
        (torch.tensor([4, 5], device=x.device), [4, 5]),
        (torch.arange(3, device="cuda"), [0, 1, 2]),
        (torch.full_like(x, 3), [3, 3, 3]),
        (x.new_zeros(2), [0, 0]),
        (x.to(device=gpu, dtype=torch.bool), [False, True, True]),
        (functional.one_hot(x.long()[:2], 2).flatten(), [1, 0, 0, 1]),
        (torch.zeros(3, device=gpu).copy_(torch.ones(3)), [1, 1, 1]),
        (torch.stack(list(x)), [0, 1, 2]),
    ):
        assert one.device == CUDA and isinstance(one, FakeCudaTensor) and one.tolist() == values
    x[1:] = torch.tensor([7.0, 8.0])  # a copy, as of a tensor to another
    x[x > 7] = 5
    back = x.cpu()
    assert type(back) is torch.Tensor and back.device.type == "cpu" and back.numpy().tolist() == [0, 7, 5]
    with torch.inference_mode():
        assert x.to(device=gpu, dtype=torch.bool).tolist() == [False, True, True] and x.cpu().numpy()[1] == 7
    assert (x.sum().item(), float(x[1]), bool(x[0]), int(x.argmax())) == (12, 7, False, 1)
    assert torch.ones(2).copy_(x[1:]).numpy().tolist() == [7, 5]


def test_what_is_of_no_gpu_stays_as_it_is(gpu):
    assert type(torch.zeros(3)) is torch.Tensor and torch.zeros(3, device="meta").is_meta
    with torch.device("meta"):
        layer = nn.Linear(2, 2)
    assert type(layer.weight) is nn.Parameter and layer.weight.is_meta and torch.zeros_like(layer.weight).is_meta


def test_a_network_learns_there_what_it_learns_here(gpu):
    def learned(device: torch.device) -> list[torch.Tensor]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Flatten(), nn.LayerNorm(16), nn.Linear(16, 4))
        attention = nn.MultiheadAttention(4, 2, batch_first=True)
        net, attention = net.to(device), attention.to(device)
        parameters = [*net.parameters(), *attention.parameters()]
        optimiser = torch.optim.AdamW(
            parameters, lr=0.1, eps=1e-2
        )  # a gradient that is none but for rounding moves nothing
        for _ in range(2):
            x = net(torch.rand(5, 3, 4, 4).to(device))[None]
            loss = (attention(x, x, x, need_weights=False)[0] - torch.rand(5, 4).to(device)).square().mean()
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 0.5)
            optimiser.step()
        assert all(p.grad.device.type == device.type for p in parameters)
        return [p.detach().cpu() for p in parameters]

    for here, there in zip(learned(torch.device("cpu")), learned(gpu), strict=True):
        torch.testing.assert_close(there, here)


def test_what_is_tied_stays_tied(gpu):
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.weight = first.weight
    both = nn.Sequential(first, second).to(gpu)
    assert both[0].weight is both[1].weight and both[0].weight.device == CUDA
    both(torch.ones(1, 2, device=gpu)).sum().backward()
    assert both[0].weight.grad.device == CUDA


def test_autocast_is_cudas(gpu):
    x, layer = torch.ones(2, 4, device=gpu), nn.Linear(4, 4).to(gpu)
    with torch.autocast("cuda", torch.bfloat16):
        y = layer(x)
        assert y.dtype == (y @ x.T).dtype == (y + 1).dtype == torch.bfloat16
        assert {one.dtype for one in (y.exp(), y.sum(), functional.layer_norm(y, (4,)), y.softmax(-1))} == {x.dtype}
        assert nn.Linear(4, 4)(torch.ones(2, 4)).dtype == torch.float32, "of the CPU's tensors this is not said"
        with torch.autocast("cuda", enabled=False):
            assert layer(x).dtype == torch.float32
    assert layer(x).dtype == torch.float32
    y.sum().backward()
    assert layer.weight.grad.dtype == torch.float32


def test_the_gpu_is_gone_behind_it():
    with fake_gpu():
        assert torch.cuda.is_available()
        x = torch.ones(3, device="cuda")
    assert type(torch.zeros(1).to(torch.bfloat16)) is torch.Tensor
    with pytest.raises(MixedDevicesError):
        x + torch.ones(3)


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("queries", ["mixed", "learnable", "conditional"])
@pytest.mark.parametrize("denoising", [0, 2])
def test_a_segmenter_learns_there_what_it_learns_here(tmp_path, queries, denoising):
    manifest = small_manifest(tmp_path, queries=queries, denoising_groups=denoising)
    found = []
    for place in (nullcontext(torch.device("cpu")), fake_gpu()):
        torch.manual_seed(0)
        with place as device:
            learner = SegmentationLearner(manifest, device)
            assert {p.device.type for p in learner.module.parameters()} == {device.type}
            found.append(training_step(learner, load_batch(manifest, device), manifest.schedule))
    assert found[1] == pytest.approx(found[0], rel=1e-3) and all(map(math.isfinite, found[1].values()))


def test_in_half_precision_and_with_activations_made_twice(tmp_path, gpu):
    manifest = small_manifest(tmp_path, denoising_groups=2, precision="bf16", checkpointing=True)
    learner = SegmentationLearner(manifest, gpu)
    assert all(map(math.isfinite, training_step(learner, load_batch(manifest, gpu), manifest.schedule).values()))


@pytest.mark.parametrize("queries", ["mixed", "learnable", "conditional"])
def test_a_step_waits_for_the_gpu_where_it_matches_and_nowhere_else(tmp_path, gpu, queries):
    """Wherever it waits, what was asked of the GPU runs out; the loop waits once more, for the losses."""
    manifest = small_manifest(tmp_path, queries=queries, denoising_groups=2, precision="bf16")
    learner, batch = SegmentationLearner(manifest, gpu), load_batch(manifest, gpu)
    learner.compute_losses(batch, num_targets=1.0)  # texts are known from now on
    with record_cuda_syncs() as found:
        torch.stack(list(learner.compute_losses(batch, num_targets=1.0).values())).sum().backward()
    assert found == ["matcher.__call__ aten::_to_copy"] * 2, "the costs come here, and the matches go there"
    with record_cuda_syncs() as found:
        learner.compute_losses(batch, num_targets=1.0)["label"].item()
        found[:] = [one for one in found if "match" not in one]
    assert len(found) == 1, "who listens hears nothing"


def test_a_target_that_stays_behind_is_seen(tmp_path, gpu, monkeypatch):
    manifest = small_manifest(tmp_path)
    learner, batch = SegmentationLearner(manifest, gpu), load_batch(manifest, gpu)
    monkeypatch.setattr(
        "synthgen.training.learner.build_mask_targets",
        lambda targets, _: build_mask_targets(targets, torch.device("cpu")),
    )
    with pytest.raises(RuntimeError, match="same device"):
        learner.compute_losses(batch, num_targets=1.0)


# --- evaluation and prediction ----------------------------------------------------------------------------------------


@pytest.fixture
def hung(tmp_path) -> Manifest:
    eval_dataset.write_eval_dataset(tmp_path, images=1)
    tasks = ("instance", "detection", "panoptic", "semantic", "referring", "foreground")
    sources = [EvalSource(shards=eval_dataset.LAYER, task=task, images=tmp_path / "photos") for task in tasks]
    return Manifest(name="toy", store=tmp_path / "store", eval=tuple(sources))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_is_measured_there_is_what_is_measured_here(hung, gpu, precision):
    here = evaluate.evaluate_network(eval_dataset.untrained_network(), hung, device=CPU, short=64, long=96)
    there = evaluate.evaluate_network(
        eval_dataset.untrained_network().to(gpu),
        hung,
        device=gpu,
        short=64,
        long=96,
        precision=precision,
        num_workers=0,
    )
    assert [(one.task, one.images) for one in there] == [(one.task, 1) for one in here]
    if precision == "fp32":
        for own, other in zip(there, here, strict=True):
            assert own.values == pytest.approx(other.values, abs=1)


def test_a_command_predicts_there_what_it_predicts_here(hung, gpu, tmp_path):
    path = eval_dataset.write_checkpoint(tmp_path / "best.pt")
    found = [
        predictor.predict_file(tmp_path / "photos" / "1.png", ("a red ball", "grass"), path, out=tmp_path / device,
                        device=device, short=64, threshold=0.3)
        for device in ("cpu", "auto")
    ]  # fmt: skip
    assert len(found[0].detections) == len(found[1].detections) > 3
    for own, other in zip(found[1].detections, found[0].detections, strict=True):
        assert own.score == pytest.approx(other.score, abs=1e-4)
        assert own.box_xyxy == pytest.approx(other.box_xyxy, abs=1e-2)


@pytest.mark.slow
@pytest.mark.usefixtures("gpu")
def test_a_run_is_kept_and_taken_up_again(tmp_path):
    """The command itself: losses, an average of the weights, pictures, checkpoints, what goes on from them."""
    small_manifest(tmp_path)
    text = """
        name: toy
        store: store
        mixture: [{shards: toy/train/human, task: instance, images: photos}]
        augment: {size: 64, scale: [0.5, 1.5]}
        model: {backbone: tiny, text_encoder: tiny, hidden_dim: 32, encoder_layers: 1, decoder_layers: 1,
                learnable_queries: 3, conditional_queries: 4}
        schedule: {batch_size: 2, accumulation_steps: 2, mask_points: 16, ema_decay: 0.9, checkpoint_every: 1,
          keep_checkpoints: 2, steps: 2,
                   warmup_steps: 0, precision: bf16}
        dataloader: {num_workers: 0}
    """
    (tmp_path / "m.yaml").write_text(text)
    run = tmp_path / "run"
    done = trainer.train(tmp_path / "m.yaml", out=run, device="cuda")
    whole = checkpoint.load_checkpoint(done.last_checkpoint).weights
    assert done.new_steps == 2 and all(type(one) is torch.Tensor and one.isfinite().all() for one in whole.values())
    done.last_checkpoint.unlink()
    again = trainer.train(tmp_path / "m.yaml", out=run, device="cuda")
    assert again.new_steps == 1
    kept = checkpoint.load_checkpoint(again.last_checkpoint).weights
    assert all(torch.equal(kept[name], value) for name, value in whole.items())


# --- captions and masks -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """Photographs and what was said of them, OFAs and SAMs of random weights."""
    folder = caption_dataset.write_caption_dataset(tmp_path_factory.mktemp("pretended") / "world", images=2)
    tiny_ofa.checkpoint(folder / "ofa")
    tiny_ofa.checkpoint(folder / "learning", tiny_ofa.random_weights(tiny_ofa.SPEAKING_NUMBERS))
    for name in ("sam_tiny", "hq_sam_tiny"):
        tiny_sam.checkpoint(folder, name)
    return folder


@pytest.mark.parametrize("more", [{}, {"precision": "bf16", "activation_checkpointing": True}], ids=str)
def test_a_captioner_learns_there_and_says_there_what_it_says_here(world, monkeypatch, more):
    said: list[list[Any]] = []
    monkeypatch.setattr(cider, "require_package", lambda: None)
    monkeypatch.setattr(
        cider, "scores", lambda every: said.append([one.stats for one in every]) or Scores({"CIDEr": 0.0}, {})
    )
    source = {"shards": caption_dataset.LAYER, "images": world / "photos", "task": "captioning"}
    manifest = Manifest(
        name="toy", store=world / "shards", mixture=(TrainSource(**source),),
        captioner=CaptionerConfig(
            weights=str(world / "learning"), train_embeddings=True, image_size=96, regions_per_image=4
        ),
        schedule=ScheduleConfig(batch_size=2, **more),
    )  # fmt: skip
    asked = manifest.model_copy(update={"mixture": (), "eval": (EvalSource(**source),)})
    found = []
    for place in (nullcontext(CPU), fake_gpu()):
        with place as device:
            learner = CaptionerLearner(manifest, device)
            measured = learner.evaluate(asked, DistributedContext(0, 1, device), num_workers=0, progress=NoProgress)
            assert [one.images for one in measured] == [2]
            found.append(training_step(learner, load_batch(manifest, device), manifest.schedule))
    here, there = found
    assert there["words"] == pytest.approx(here["words"], rel=1e-2 if more else 1e-4) and math.isfinite(there["norm"])
    if not more:
        assert there == pytest.approx(here, rel=1e-3) and said[0] == said[1] and len(said[0]) == 2


def drawn(height: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


IMAGES = [drawn(100, 150, 1), drawn(60, 60, 3)]
BOXES = [np.array([[10, 10, 60, 70], [3, 5, 20, 25]], np.float32), np.array([[0, 0, 50, 40]], np.float32)]


@pytest.mark.parametrize("name", ["sam", "hq_sam"])
@pytest.mark.parametrize(
    "options",
    [{"self_test": True}, {"multimask": True, "box_chunk": 2}, {"zoom": True}, {"precision": "bf16"}],
    ids=str,
)
def test_masks_are_drawn_there_as_here(world, gpu, name, options):
    own = {"checkpoint": str(world / f"{name}_tiny.pth"), "self_test": False, **options}
    here, there = (
        [
            p
            for one in plugins.build_plugin("generate.segmenters", name, {**own, "device": d}).segment(IMAGES, BOXES)
            for p in one
        ]
        for d in ("cpu", "cuda")
    )
    assert len(here) == len(there) == 3
    if "precision" not in options:
        for some, other in zip(there, here, strict=True):
            assert (decode_mask(some.rle) != decode_mask(other.rle)).mean() < 0.01
            assert some[1:] == pytest.approx(other[1:], abs=0.01)


@pytest.fixture(scope="module")
def florence2(tmp_path_factory) -> Path:
    pytest.importorskip("transformers")
    from fakes import tiny_florence2

    return tiny_florence2.write(tmp_path_factory.mktemp("pretended") / "florence2")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ofa", {}),
        ("ofa", {"groups": 5}),
        ("ofa", {"precision": "bf16"}),
        ("florence2", {}),
        ("florence2", {"precision": "bf16"}),
    ],
    ids=str,
)
def test_captions_are_said_there_as_here(world, florence2, gpu, name, options):
    own = {"max_length": 8, "checkpoint": str(florence2 if name == "florence2" else world / "ofa"), **options}
    if name == "ofa":
        own |= {"side": tiny_ofa.SIDE}
    names, nothing = [["a"] * len(boxes) for boxes in BOXES], [[], []]
    here, there = (
        [
            [[caption.text for caption in box] for box in image]
            for image in plugins.build_plugin("generate.captioners", name, {**own, "device": device}).caption(
                IMAGES, BOXES, names, nothing, 5
            )
        ]
        for device in ("cpu", gpu.type)
    )
    assert [len(image) for image in there] == [2, 1] and all(box for image in there for box in image)
    if "precision" not in options:
        assert there == here


@pytest.mark.parametrize(
    "part",
    [{"backbone": "resnet50"}, {"backbone": "swin_t"}, {"text_encoder": "minilm"}],
    ids=lambda part: next(iter(part.values())),
)
def test_published_parts_learn_there_too(tmp_path, gpu, part):
    if "text_encoder" in part:
        part = {**part, "train_text_encoder": True}
        if find_minilm() is None:
            pytest.skip("the text encoder minilm is not installed")
    else:
        part = {**part, "backbone_weights": "random"}
    manifest = small_manifest(tmp_path, precision="bf16", denoising_groups=1, **part)
    learner = SegmentationLearner(manifest, gpu)
    assert all(map(math.isfinite, training_step(learner, load_batch(manifest, gpu), manifest.schedule).values()))
