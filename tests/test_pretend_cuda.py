"""No tensor of the CPU meets one of a GPU: proved without one, by a GPU that is none."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from toys import layers
from toys.pretend_cuda import MixedDevicesError, Pretended, pretended

from synthgen.reading.batch import Batch
from synthgen.reading.loader import Loader
from synthgen.reading.manifest import Manifest
from synthgen.reading.settings import Model, Schedule
from synthgen.train.learner import Learner, Losses, Segmentation
from synthgen.train.truths import truths

CUDA = torch.device("cuda", 0)


@pytest.fixture
def gpu() -> Iterator[torch.device]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pretended() as device:
        yield device
    torch.set_num_threads(before)


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
    assert x.device == CUDA and x.is_cuda and x.cuda() is x and isinstance(x, Pretended)
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
        (functional.one_hot(x.long()[:2], 2).flatten(), [1, 0, 0, 1]),
        (torch.zeros(3, device=gpu).copy_(torch.ones(3)), [1, 1, 1]),
        (torch.stack(list(x)), [0, 1, 2]),
    ):
        assert one.device == CUDA and isinstance(one, Pretended) and one.tolist() == values
    x[1:] = torch.tensor([7.0, 8.0])  # a copy, as of a tensor to another
    x[x > 7] = 5
    back = x.cpu()
    assert type(back) is torch.Tensor and back.device.type == "cpu" and back.numpy().tolist() == [0, 7, 5]
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
    with pretended():
        assert torch.cuda.is_available()
        x = torch.ones(3, device="cuda")
    assert type(torch.zeros(1).to(torch.bfloat16)) is torch.Tensor
    with pytest.raises(MixedDevicesError):
        x + torch.ones(3)


# --- training ---------------------------------------------------------------------------------------------------------


def small(root: Path, *, schedule: dict[str, Any] | None = None, **model: Any) -> Manifest:
    said = {"captions": (layers.phrase("the cat"),)}
    layers.commit(root, [layers.row(i, layers.annotation(i, **said)) for i in range(4)])
    kinds = {"mixed": ("learnable", "conditional"), "learnable": ("learnable",), "conditional": ("conditional",)}
    counts = {f"{kind}_queries": 4 for kind in kinds[model.get("queries", "mixed")]}
    return layers.manifest(
        root, layers.source(root, task="panoptic"), layers.source(root, task="referring"),
        model=Model(backbone="tiny", text_encoder="tiny", dim=32, encoder_layers=1, decoder_layers=1, **counts, **model),
        schedule=Schedule(batch_size=2, mask_points=16, **(schedule or {})),
    )  # fmt: skip


def step(learner: Learner, batch: Batch, schedule: Schedule) -> dict[str, float]:
    """What the loop does of one step; the losses, and the sum of all weights after it."""
    optimiser = torch.optim.AdamW(learner.groups(schedule), eps=1e-2)
    torch.manual_seed(1)
    losses = Losses(learner)(batch, max(1, learner.objects(batch)))
    torch.stack(list(losses.values())).sum().backward()
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, 0.1)
    optimiser.step()
    left = sum(p.detach().abs().sum() for p in parameters)
    return {name: float(loss.detach()) for name, loss in {**losses, "norm": norm, "weights": left}.items()}


def loaded(manifest: Manifest, device: torch.device) -> Batch:
    """A batch; for a GPU by way of page-locked memory."""
    with Loader(manifest, batch_size=2, workers=0, pin_memory=device.type == "cuda") as loader:
        return next(loader)


@pytest.mark.parametrize("queries", ["mixed", "learnable", "conditional"])
@pytest.mark.parametrize("denoising", [0, 2])
def test_a_segmenter_learns_there_what_it_learns_here(tmp_path, queries, denoising):
    manifest = small(tmp_path, queries=queries, denoising=denoising)
    found = []
    for place in (nullcontext(torch.device("cpu")), pretended()):
        torch.manual_seed(0)
        with place as device:
            learner = Segmentation(manifest, device)
            assert {p.device.type for p in learner.module.parameters()} == {device.type}
            found.append(step(learner, loaded(manifest, device), manifest.schedule))
    assert found[1] == pytest.approx(found[0], rel=1e-3) and all(map(math.isfinite, found[1].values()))


def test_in_half_precision_and_with_activations_made_twice(tmp_path, gpu):
    manifest = small(tmp_path, denoising=2, schedule={"precision": "bf16", "checkpointing": True})
    learner = Segmentation(manifest, gpu)
    assert all(map(math.isfinite, step(learner, loaded(manifest, gpu), manifest.schedule).values()))


def test_a_target_that_stays_behind_is_seen(tmp_path, gpu, monkeypatch):
    manifest = small(tmp_path)
    learner, batch = Segmentation(manifest, gpu), loaded(manifest, gpu)
    monkeypatch.setattr("synthgen.train.learner.truths", lambda targets, _: truths(targets, torch.device("cpu")))
    with pytest.raises(RuntimeError, match="same device"):
        learner.losses(batch, objects=1.0)
