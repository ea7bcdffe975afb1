"""Invariants of MQ-Former: padding, batches, order, ignored regions, gradients, precision, compilation."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from synthgen.models.mqformer import backbone, text_encoder
from synthgen.models.mqformer.criterion import SetCriterion
from synthgen.models.mqformer.decoder import DecoderOutput
from synthgen.models.mqformer.losses import PointSampling
from synthgen.models.mqformer.matcher import LossWeights
from synthgen.models.mqformer.model import MQFormer, build_mqformer
from synthgen.models.mqformer.targets import MaskTarget

pytestmark = pytest.mark.usefixtures("one_thread")

KINDS = {"mixed": (8, 5), "conditional": (13, 0), "learnable": (0, 13)}
SIZE = (64, 96)
TEXTS = ["dog", "cat", "sky"]


def small(
    kind: str = "mixed",
    *,
    body: nn.Module | None = None,
    checkpointing: bool = False,
    trainable: bool = False,
    **changes: object,
) -> MQFormer:
    torch.manual_seed(0)
    conditional, learnable = KINDS[kind]
    given = {"dim": 32, "encoder_layers": 1, "decoder_layers": 2, "heads": 4}
    network = build_mqformer(
        body or backbone.build_backbone("tiny", checkpointing=checkpointing),
        text_encoder.build_tiny_text_encoder(32, trainable=trainable),
        conditional_queries=conditional, learnable_queries=learnable, checkpointing=checkpointing, **{**given,
        **changes},
    )  # fmt: skip
    for parameter in network.parameters():  # beginnings of zero would hide what depends on what
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return network


def pictures(count: int = 2, size: tuple[int, int] = SIZE, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def canvas(image: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """An image [1, 3, h, w] in the corner of a larger one, with where that is padding."""
    height, width = image.shape[2:]
    whole, padding = torch.zeros(1, 3, *size), torch.ones(1, *size, dtype=torch.bool)
    whole[:, :, :height, :width], padding[:, :height, :width] = image, False
    return whole, padding


def objects(count: int, seed: int = 0) -> MaskTarget:
    rng = torch.Generator().manual_seed(seed)
    return MaskTarget(
        labels=torch.randint(len(TEXTS), (count,), generator=rng),
        boxes=torch.rand(count, 4, generator=rng) * 0.5 + 0.25,
        has_mask=torch.ones(count, dtype=torch.bool),
        masks=torch.rand(count, *SIZE, generator=rng) > 0.5,
        mask_weights=torch.ones(count),
        ignore_mask=torch.zeros(*SIZE, dtype=torch.bool),
    )


def seen(network: MQFormer, images: Tensor, padding: Tensor | None = None, **more: object) -> DecoderOutput:
    if padding is None:
        padding = torch.zeros(len(images), *images.shape[2:], dtype=torch.bool)
    return network(images, padding, [TEXTS] * len(images), [True] * len(images), **more)


def totals(network: MQFormer, images: Tensor, truths: list[MaskTarget], **more: object) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(0)
    return SetCriterion(LossWeights(), PointSampling(num_points=128))(
        seen(network, images, denoising_targets=truths, **more), truths, num_objects=max(1,
        sum(len(t["labels"]) for t in truths)),
        generator=rng,
    )  # fmt: skip


def gradients(network: MQFormer, images: Tensor, truths: list[MaskTarget]) -> dict[str, Tensor]:
    network.zero_grad(set_to_none=True)
    torch.manual_seed(7)  # of the noise
    sum(totals(network, images, truths).values()).backward()
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


def differ(a: Tensor, b: Tensor) -> float:
    """How far they are apart, as a part of how far `a` is from its mean."""
    return float((a - b).square().mean().sqrt() / a.std())


# --- padding, batches, order ------------------------------------------------------------------------------------------


class Patches(nn.Module):
    """A backbone that looks at nothing but what a pixel of its features covers, so that padding cannot leak in it."""

    def __init__(self) -> None:
        super().__init__()
        self.channels = (8, 16, 24, 32)
        sides = zip(self.channels, (4, 8, 16, 32), strict=True)
        self.each = nn.ModuleList(nn.Conv2d(3, count, side, stride=side) for count, side in sides)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [patches(images) for patches in self.each]


@pytest.mark.parametrize(("kind", "levels"), [*((kind, 4) for kind in KINDS), ("mixed", 3), ("mixed", 5)])
@pytest.mark.parametrize(("size", "least"), [((64, 96), (64, 96)), ((50, 90), (64, 96)), ((20, 64), (32, 64))])
def test_behind_the_backbone_padding_changes_nothing(kind, levels, size, least):
    network = small(kind, body=Patches(), levels=levels).eval()
    assert len(network.pixel_decoder.input_proj) == levels
    image = pictures(1, size)
    height, width = size[0] // 4, size[1] // 4
    with torch.no_grad():
        alone, within = (seen(network, *canvas(image, whole)) for whole in (least, (160, 128)))
    for a, b in zip(alone.layers, within.layers, strict=True):
        assert torch.allclose(a.logits[0], b.logits[0], atol=1e-4)
        assert torch.allclose(a.boxes, b.boxes, atol=1e-4)
        assert torch.allclose(
            a.mask_logits[..., :height, :width], b.mask_logits[..., :height, :width], rtol=1e-4, atol=1e-3
        )


def test_a_window_sees_padding_only_near_the_border():
    """A Swin looks into padding, as the reference does, but not far: 6 pixels of a stage for each pair of blocks.

    The windows of this one are of 4: a block sees 3 pixels of its stage, the next, shifted, 3 more.
    """
    torch.manual_seed(0)
    body, image = backbone.build_backbone("tiny").eval(), pictures(1, (128, 384))
    with torch.no_grad():
        alone, within = (body(canvas(image, (128, width))[0]) for width in (384, 512))
    reach = 0
    for stride, a, b in zip((4, 8, 16), alone, within, strict=False):
        reach += 6 * stride
        kept = (384 - reach) // stride - 1
        width = 384 // stride
        assert torch.allclose(a[..., :kept], b[..., :kept], atol=1e-5), stride
        assert 1e-5 < differ(a, b[..., :width]) < 0.1, "it leaks, and not much"


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_its_images_one_by_one(kind):
    network, images = small(kind).eval(), pictures(3)
    with torch.no_grad():
        together = seen(network, images)
        for i in range(3):
            alone = seen(network, images[[i]])
            for a, b in zip(together.layers, alone.layers, strict=True):
                assert torch.allclose(a.logits[i], b.logits[0], atol=1e-4)
                assert torch.allclose(a.boxes[i], b.boxes[0], atol=1e-4)
                assert torch.allclose(a.mask_logits[i], b.mask_logits[0], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_behind_the_backbone_padding_changes_no_loss(kind):
    """Masks are compared where the image is, as many points as without padding; but for the last pixel before it."""
    network, image, truth = small(kind, body=Patches(), denoising=2).eval(), pictures(1), objects(4)
    found = []
    for size in (SIZE, (160, 256)):
        whole, padding = canvas(image, size)
        pads = (0, size[1] - SIZE[1], 0, size[0] - SIZE[0])
        laid = {name: functional.pad(truth[name], pads) for name in ("masks", "ignore_mask")}
        ratio = torch.tensor([SIZE[1] / size[1], SIZE[0] / size[0]])
        one = MaskTarget(**{**truth, **laid, "valid_ratio": ratio})
        with torch.no_grad():
            found.append({n: v.item() for n, v in totals(network, whole, [one], padding=padding).items()})
    assert found[0] == pytest.approx(found[1], rel=0.02)


def test_the_order_of_objects_changes_nothing():
    network, images, truth = small().eval(), pictures(1), objects(5)
    order = [3, 0, 4, 2, 1]
    turned = MaskTarget(
        **{**truth, **{name: truth[name][order] for name in ("labels", "boxes", "masks", "mask_weights")}}
    )
    with torch.no_grad():
        plain, other = (totals(network, images, [one]) for one in (truth, turned))
    assert {n: v.item() for n, v in plain.items()} == pytest.approx({n: v.item() for n, v in other.items()}, rel=1e-4)


def test_what_masks_say_in_ignored_regions_changes_no_loss():
    network, images, truth = small(denoising=2).train(), pictures(1), objects(3)
    truth["ignore_mask"][:, 50:] = True
    flipped = MaskTarget(**{**truth, "masks": truth["masks"] ^ truth["ignore_mask"]})
    everywhere = MaskTarget(**{**truth, "masks": ~truth["masks"]})
    found = []
    with torch.no_grad():
        for one in (truth, flipped, everywhere):
            torch.manual_seed(1)
            found.append({name: value.item() for name, value in totals(network, images, [one]).items()})
    assert found[0] == found[1]
    assert found[0] != found[2]


# --- gradients --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("denoising", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_every_parameter(kind, denoising):
    network = small(kind, denoising=denoising, trainable=True, encoder_layers=2).train()
    found = gradients(network, pictures(), [objects(3), objects(2, 1)])
    names = [name for name, p in network.named_parameters() if name not in found or not found[name].any()]
    assert names == []
    assert all(grad.isfinite().all() for grad in found.values())


@pytest.mark.parametrize("denoising", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_images_without_objects_train(kind, denoising):
    """Every parameter has a gradient, of zeros maybe: processes that have objects wait for those of all others."""
    network = small(kind, denoising=denoising).train()
    found = gradients(network, pictures(), [objects(0), objects(0)])
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    assert found.keys() == trained
    assert all(grad.isfinite().all() for grad in found.values())
    assert found["decoder.class_embed"].any()
    assert found["pixel_decoder.level_embed"].any()


def test_only_the_exchange_lets_the_kinds_see_each_other():
    for exchange in (True, False):
        network = small(exchange=exchange).eval()
        last = seen(network, pictures(1)).layers[-1].mask_logits
        own, theirs = (
            torch.autograd.grad(last[:, part].square().sum(), network.decoder.query_feat, retain_graph=True)[0]
            for part in (slice(8, None), slice(8))
        )
        assert own.any()
        assert bool(theirs.any()) == exchange


def test_computing_activations_again_gives_the_same_gradients():
    truths = [objects(3), objects(2, 1)]
    plain, again = (gradients(small(denoising=2, checkpointing=on).train(), pictures(), truths) for on in (False, True))
    assert plain.keys() == again.keys()
    for name, grad in plain.items():
        assert torch.allclose(grad, again[name], rtol=1e-4, atol=1e-6 * float(grad.abs().max()) + 1e-9), name


# --- precision and compilation ----------------------------------------------------------------------------------------


def test_half_precision_stays_near():
    """Of learnable queries: which proposals are conditional ones may change with the last digit of a likeness."""
    network, images, truths = small("learnable").train(), pictures(), [objects(3), objects(2, 1)]
    whole = seen(network, images).layers[-1]
    with torch.autocast("cpu", torch.bfloat16):
        half = seen(network, images).layers[-1]
    for i in range(2):
        assert (whole.logits[i] - half.logits[i]).abs().max() < 0.1
    assert (whole.boxes - half.boxes).abs().max() < 0.01
    assert differ(whole.mask_logits, half.mask_logits) < 0.05
    plain = gradients(network, images, truths)
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(network, images, truths)
    assert all(grad.dtype == torch.float32 and grad.isfinite().all() for grad in found.values())
    flat, near = (torch.cat([grads[name].flatten() for name in plain]) for grads in (plain, found))
    assert torch.cosine_similarity(flat, near, dim=0) > 0.9


@pytest.mark.parametrize("kind", ["mixed", "conditional"])
def test_half_precision_trains_every_kind(kind):
    network = small(kind, denoising=2).train()
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(network, pictures(), [objects(3), objects(0)])
    assert all(grad.isfinite().all() for grad in found.values())


COMPILER = pytest.mark.skipif(
    shutil.which("c++") is None and shutil.which("g++") is None, reason="there is no C++ compiler"
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "by"), [("backbone", "aot_eager"), pytest.param("pixel_decoder", "inductor", marks=COMPILER)]
)
def test_compiled_parts_say_the_same(part, by):
    network, images = small().eval(), pictures()
    with torch.no_grad():
        plain = seen(network, images).layers[-1]
        network.get_submodule(part).compile(backend=by)
        found = seen(network, images).layers[-1]
    assert torch.allclose(plain.boxes, found.boxes, atol=1e-4)
    assert torch.allclose(plain.mask_logits, found.mask_logits, rtol=1e-3, atol=1e-3)


# --- the ends of what there may be ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (33, 1)])
def test_images_of_any_size(size):
    network = small().eval()
    with torch.no_grad():
        out = seen(network, *canvas(pictures(1, size), tuple(-(-side // 32) * 32 for side in size))).layers[-1]
        bare = seen(network, pictures(1, size)).layers[-1]
    for last in (out, bare):
        assert last.boxes.isfinite().all()
        assert last.mask_logits.isfinite().all()
        assert last.logits[0].isfinite().all()


@pytest.mark.parametrize(("conditional", "learnable"), [(1, 0), (0, 1), (1, 1)])
def test_one_query_of_a_kind_trains(conditional, learnable):
    torch.manual_seed(0)
    network = build_mqformer(
        backbone.build_backbone("tiny"), text_encoder.build_tiny_text_encoder(32), conditional_queries=conditional,
        learnable_queries=learnable, dim=32,
        encoder_layers=1, decoder_layers=1, heads=4, denoising=2,
    ).train()  # fmt: skip
    found = gradients(network, pictures(1), [objects(3)])
    assert all(grad.isfinite().all() for grad in found.values())


def test_many_texts():
    network, many = small().eval(), [f"thing {i}" for i in range(1203)]
    with torch.no_grad():
        out = network(pictures(1), torch.zeros(1, *SIZE, dtype=torch.bool), [many], [True]).layers[-1]
    assert out.logits[0].shape == (13, 1203)
