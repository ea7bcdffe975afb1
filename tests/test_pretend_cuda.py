"""No tensor of the CPU meets one of a GPU: proved without one, by a GPU that is none."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from toys.pretend_cuda import MixedDevicesError, Pretended, pretended

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


def test_the_gpu_is_gone_behind_it():
    with pretended():
        x = torch.ones(3, device="cuda")
    assert not torch.is_tensor(None) and torch.zeros(1).device.type == "cpu"
    with pytest.raises(MixedDevicesError):
        x + torch.ones(3)
