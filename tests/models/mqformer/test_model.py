"""MQ-Former as a whole: batches, padding, texts, and a short training."""

from __future__ import annotations

import pytest
import torch

from synthgen.models.mqformer import backbone, text_encoder
from synthgen.models.mqformer.losses import PointSampling, compute_losses
from synthgen.models.mqformer.matcher import LossWeights
from synthgen.models.mqformer.model import MQFormer, build_mqformer
from synthgen.models.mqformer.targets import MaskTarget


def small(conditional: int = 12, learnable: int = 4, seed: int = 0) -> MQFormer:
    torch.manual_seed(seed)
    return build_mqformer(
        backbone.build_backbone("tiny"), text_encoder.build_tiny_text_encoder(), conditional_queries=conditional,
        learnable_queries=learnable,
        dim=64, encoder_layers=1, decoder_layers=2, heads=4,
    )  # fmt: skip


def pictures(count: int = 2, height: int = 64, width: int = 96) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, height, width, generator=rng), torch.zeros(count, height, width, dtype=torch.bool)


def test_each_image_has_its_own_texts():
    network = small().eval()
    images, padding = pictures()
    texts = [["dog", "cat", "sky"], ["the left dog", "dog"]]
    out = network(images, padding, texts, [True, False])
    last = out.layers[-1]
    assert [tuple(own.shape) for own in last.logits] == [(16, 3), (16, 2)]
    assert last.boxes.shape == (2, 16, 4)
    assert last.mask_logits.shape == (2, 16, 16, 24)
    alone = network(images[1:], padding[1:], texts[1:], [False]).layers[-1]
    assert torch.allclose(alone.logits[0], last.logits[1], atol=1e-4)
    assert torch.allclose(alone.mask_logits[0], last.mask_logits[1], atol=1e-3)


def test_a_text_of_several_images_is_encoded_once(monkeypatch):
    network = small().eval()
    asked = []
    whole = network.text_encoder.forward
    monkeypatch.setattr(
        network.text_encoder, "forward", lambda texts, names: asked.append((texts, names)) or whole(texts, names)
    )
    network(*pictures(), [["dog", "cat"], ["dog", "cow"]], [True, True])
    network(*pictures(), [["dog"], ["dog"]], [True, False])
    assert asked == [(["dog", "cat", "cow"], [True] * 3), (["dog", "dog"], [True, False])]


@pytest.mark.slow
@pytest.mark.parametrize(("conditional", "learnable"), [(12, 4), (16, 0), (0, 16)], ids=["mixed", "cond", "learn"])
def test_every_kind_of_query_learns_an_image(conditional, learnable):
    """A red disc and a blue square on grey: the losses fall to a fraction, and the masks are found."""
    image = torch.zeros(1, 3, 64, 64)
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    disc, square = (x - 18) ** 2 + (y - 20) ** 2 < 120, (x > 36) & (x < 56) & (y > 34) & (y < 54)
    image[0, 0, disc], image[0, 2, square] = 2.0, 2.0
    masks = torch.stack([disc, square])
    boxes = [
        [(m.any(0).nonzero().min() + m.any(0).nonzero().max() + 1) / 2, 0, m.any(0).sum(), m.any(1).sum()]
        for m in masks
    ]
    found = torch.tensor(boxes, dtype=torch.float32) / 64
    found[:, 1] = torch.tensor([(m.any(1).nonzero().min() + m.any(1).nonzero().max() + 1) / 128 for m in masks])
    truth = MaskTarget(
        labels=torch.tensor([0, 1]), boxes=found, has_mask=torch.ones(2, dtype=torch.bool), masks=masks,
        mask_weights=torch.ones(2), ignore_mask=torch.zeros(64, 64, dtype=torch.bool),
    )  # fmt: skip
    network = small(conditional, learnable).train()
    optimiser = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-3)
    rng, weights = torch.Generator().manual_seed(0), LossWeights()
    padding, texts, history = torch.zeros(1, 64, 64, dtype=torch.bool), [["disc", "square", "star"]], []
    for _ in range(60):
        out = network(image, padding, texts, [True])
        parts = compute_losses(
            out.layers, [truth], num_objects=2, weights=weights, sampling=PointSampling(num_points=512), generator=rng
        )
        total = sum(getattr(weights, name) * loss for name, loss in parts.items())
        optimiser.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        history.append(float(total.detach()))
    assert sum(history[-5:]) < 0.35 * sum(history[:5]), (history[:5], history[-5:])
    last = network.eval()(image, padding, texts, [True]).layers[-1]
    for label, mask in enumerate(masks):
        query = last.logits[0][:, label].argmax()
        guess = torch.nn.functional.interpolate(last.mask_logits[:, [query]], size=(64, 64), mode="bilinear")[0, 0] > 0
        assert (guess & mask).sum() / (guess | mask).sum() > 0.7
