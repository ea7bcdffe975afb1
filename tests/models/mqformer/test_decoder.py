"""The decoder: the reference's values where the computation is the same, and invariants of mixed queries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from synthgen.models.mqformer.box_initialization import initial_boxes
from synthgen.models.mqformer.decoder import LABEL_PRIOR, Decoder, DecoderOutput
from synthgen.models.mqformer.decoder_layer import DecoderLayer, ImageMemory
from synthgen.models.mqformer.pixel_decoder import FeaturePyramid
from synthgen.models.mqformer.position_encoding import inverse_sigmoid
from synthgen.models.mqformer.predictions import Predictions

#: Beginnings of the reference's names of weights -> ours; the others are the same.
NAMES = {"decoder.": "", "_bbox_embed.": "bbox_embed."}
OWN = {
    "class_embed": "class_embed",
    "lang_encoder.logit_scale": "logit_scale",
    "query_feat.weight": "query_feat",
    "query_embed.weight": "query_embed",
}


def ours(name: str) -> str:
    for theirs, own in NAMES.items():
        if name.startswith(theirs):
            return own + name.removeprefix(theirs)
    return name


@pytest.fixture(scope="module")
def reference(shared) -> tuple[dict[str, Tensor], dict[str, Tensor], FeaturePyramid]:
    """Outputs of two decoders on the same features: Mask DINO's with two stages, and OpenSeeD's with mixed queries."""
    safetensors = pytest.importorskip("safetensors.torch")
    base, mixed = (
        {name: t.float() for name, t in safetensors.load_file(shared(f"reference/maskdino/{file}.safetensors")).items()}
        for file in ("decoder_twostage", "decoder_mixed_queries")
    )
    levels = [base[f"in.feature{i}"] for i in (2, 1, 0)]  # there from coarse to fine
    pyramid = FeaturePyramid(
        torch.cat([level.flatten(2).transpose(1, 2) for level in levels], dim=1),
        tuple(torch.zeros(2, *level.shape[2:], dtype=torch.bool) for level in levels),
        base["in.mask_features"],
    )
    return base, mixed, pyramid


def reference_decoder(base: dict[str, Tensor], own: dict[str, Tensor], learnable: int, **options: object) -> Decoder:
    """A decoder with the weights of the reference, and `own` ones; conditional queries of which there are 12 or 20."""
    decoder = Decoder(
        text_dim=64,
        conditional_queries=12 if learnable else 20,
        learnable_queries=learnable,
        levels=3,
        num_layers=2,
        feedforward=128,
        exchange=False,
        joint_self_attention=True,
        **options,
    )
    theirs = {name.removeprefix("weights."): t for name, t in base.items() if name.startswith("weights.")}
    weights = {ours(name): t for name, t in theirs.items() if not name.startswith(("class_embed", "label_enc"))}
    decoder.load_state_dict(weights | {"prior": torch.tensor(0.0)} | own)
    return decoder.eval()


def assert_equal(found: Predictions, golden: dict[str, Tensor], name: str) -> None:
    assert torch.allclose(torch.stack(list(found.logits)), golden[f"{name}.pred_logits"], atol=1e-4), name
    assert torch.allclose(found.boxes, golden[f"{name}.pred_boxes"], atol=1e-4), name
    if f"{name}.pred_masks" in golden:  # kept in half precision
        assert torch.allclose(found.mask_logits, golden[f"{name}.pred_masks"], rtol=1e-3, atol=4e-3), name


def test_mixed_queries_without_exchange_are_the_reference(reference):
    """OpenSeeD's decoupled decoder: both kinds in one self-attention, text similarity, no exchange."""
    base, mixed, pyramid = reference
    decoder = reference_decoder(base, {own: mixed[f"weights_own.{name}"] for name, own in OWN.items()}, 5)
    out = decoder(pyramid, [mixed["text_embeddings"]] * 2)
    assert out.num_conditional == 12
    proposals, *layers = out.layers
    # The reference's first set holds the learnable queries a second time, as they are before the first layer.
    learnable = layers[0].select_queries(slice(12, None))
    both = Predictions(
        [torch.cat(own) for own in zip(proposals.logits, learnable.logits, strict=True)],
        torch.cat([proposals.boxes, learnable.boxes], dim=1),
        pyramid.mask_features,
        torch.cat([proposals.mask_embeddings, learnable.mask_embeddings], dim=1),
    )
    for found, name in zip((both, *layers), ("interm", "no.aux0", "no.aux1", "no"), strict=True):
        assert_equal(found, mixed, name)


@pytest.mark.parametrize("box_type", [None, "mask2box", "bitmask"])
def test_two_stages_are_the_reference_wherever_boxes_begin(reference, monkeypatch, box_type):
    """Mask DINO's decoder, whose labels are classes: a linear layer instead of the similarity to texts."""
    base, mixed, pyramid = reference
    weight, bias = base["weights.class_embed.weight"], base["weights.class_embed.bias"]
    monkeypatch.setattr(
        Decoder, "_class_logits", lambda _, content, __: list(nn.functional.linear(content, weight, bias))
    )
    own = {name: mixed[f"weights_own.{theirs}"] for theirs, name in OWN.items() if not name.startswith("query")}
    decoder = reference_decoder(base, own, 0, initialize_box_type=box_type)
    out = decoder(pyramid, [mixed["text_embeddings"]] * 2)
    name = box_type or "no"
    for found, theirs in zip(out.layers, ("interm", f"{name}.aux0", f"{name}.aux1", name), strict=True):
        assert_equal(found, base, theirs)


def test_boxes_of_mixed_queries_that_begin_around_masks_are_the_reference(reference):
    """OpenSeeD begins around the masks of learnable queries, too; here those are given as if they had been learned."""
    base, mixed, pyramid = reference
    weights = {own: mixed[f"weights_own.{name}"] for name, own in OWN.items()}
    decoder = reference_decoder(base, weights, 5, initialize_box_type="mask2box")
    for i in range(2):
        with torch.no_grad():
            before = decoder(one(pyramid, i), [mixed["text_embeddings"]]).layers[1]
            learnable = before.select_queries(slice(12, None))
            boxes = initial_boxes(learnable, pyramid.padding_masks[0][[i]], "mask2box")
            decoder.query_embed.copy_(inverse_sigmoid(boxes[0]))
        layers = decoder(one(pyramid, i), [mixed["text_embeddings"]]).layers
        for found, name in zip(layers[1:], ("aux0", "aux1", ""), strict=True):
            theirs = {key: value[[i]] for key, value in mixed.items() if key.startswith("mask2box.")}
            assert_equal(found, theirs, f"mask2box.{name}".rstrip("."))


def test_one_layer_is_the_reference():
    found = np.load(Path(__file__).parents[2] / "golden/mqformer_parts.npz")
    golden = {name.removeprefix("layers/"): torch.from_numpy(found[name]) for name in found.files if "layers/" in name}
    layer = DecoderLayer(32, heads=4, levels=3, points=4, feedforward=64, exchange=False, joint_self_attention=True)
    prefix = "dec.weights."
    layer.load_state_dict({name.removeprefix(prefix): t for name, t in golden.items() if name.startswith(prefix)})
    content, place, references, memory = (
        golden[f"dec.{name}"].transpose(0, 1) for name in ("tgt", "query_pos", "reference_points", "memory")
    )
    shapes = [(int(h), int(w)) for h, w in golden["spatial_shapes"]]
    image = ImageMemory(memory, shapes, golden["padding_mask"].bool())
    blocked = golden["dec.self_attn_mask"].bool().expand(4 * len(content), -1, -1)
    out = layer(content, place, references, image, 6, attention_mask=blocked)
    assert torch.allclose(out.transpose(0, 1), golden["dec.out"], atol=1e-5)


# --- laws -------------------------------------------------------------------------------------------------------------

SHAPES = ((8, 12), (4, 6))
KINDS = {"mixed": (6, 4), "conditional": (10, 0), "learnable": (0, 10)}


def small(kind: str = "mixed", seed: int = 0, **changes: object) -> Decoder:
    torch.manual_seed(seed)
    conditional, learnable = KINDS[kind]
    given = {"dim": 32, "mask_dim": 16, "text_dim": 24, "levels": 2, "num_layers": 2, "heads": 4, "feedforward": 48}
    decoder = Decoder(conditional_queries=conditional, learnable_queries=learnable, **{**given, **changes})
    for parameter in decoder.parameters():  # beginnings of zero would hide what depends on what
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return decoder


def scene(images: int = 2, seed: int = 0) -> FeaturePyramid:
    rng = torch.Generator().manual_seed(seed)
    return FeaturePyramid(
        torch.randn(images, sum(h * w for h, w in SHAPES), 32, generator=rng),
        tuple(torch.zeros(images, h, w, dtype=torch.bool) for h, w in SHAPES),
        torch.randn(images, 16, 16, 24, generator=rng),
    )


def words(*counts: int, seed: int = 0, dim: int = 24) -> list[Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return [torch.nn.functional.normalize(torch.randn(n, dim, generator=rng), dim=-1) for n in counts]


def one(pyramid: FeaturePyramid, i: int) -> FeaturePyramid:
    return FeaturePyramid(pyramid.memory[[i]], tuple(p[[i]] for p in pyramid.padding_masks), pyramid.mask_features[[i]])


def same(a: DecoderOutput, b: DecoderOutput, i: int) -> bool:
    """Image `i` of `a` is the only one of `b`."""
    return all(
        torch.allclose(x.logits[i], y.logits[0], atol=1e-4)
        and torch.allclose(x.boxes[i], y.boxes[0], atol=1e-4)
        and torch.allclose(x.mask_logits[i], y.mask_logits[0], atol=1e-3)
        for x, y in zip(a.layers, b.layers, strict=True)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_its_images_one_by_one(kind):
    decoder, pyramid, texts = small(kind).eval(), scene(), words(5, 2)
    together = decoder(pyramid, texts)
    assert [tuple(own.shape) for own in together.layers[-1].logits] == [(10, 5), (10, 2)]
    assert together.layers[-1].mask_logits.shape == (2, 10, 16, 24)
    assert [layer.boxes.shape[1] for layer in together.layers] == [
        *([KINDS[kind][0]] if KINDS[kind][0] else []),
        10,
        10,
        10,
    ]
    for i in (0, 1):
        assert same(together, decoder(one(pyramid, i), [texts[i]]), i)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_reach_every_parameter(kind, checkpointing):
    decoder = small(kind, checkpointing=checkpointing).train()
    out = decoder(scene(), words(3, 3))
    loss = sum(
        torch.stack(list(p.logits)).square().mean() + p.boxes.square().mean() + p.mask_logits.square().mean()
        for p in out.layers
    )
    loss.backward()
    without = [name for name, p in decoder.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # A bias added to all keys of an attention changes no weight of it.
    assert without == []


def test_what_layers_make_of_proposals_does_not_move_their_choice():
    """The choice is judged by what is said of proposals as such; losses of all the layers would pull it elsewhere."""
    decoder = small(num_layers=3).train()
    chosen, *others = decoder(scene(), words(3, 3)).layers

    def moved(layers: list[Predictions]) -> set[str]:
        loss = sum(torch.stack(list(p.logits)).sum() + p.boxes.sum() + p.mask_logits.sum() for p in layers)
        names = ["enc_output.weight", "enc_output_norm.weight", "query_feat", "query_embed"]
        own = [decoder.get_parameter(name) for name in names]
        found = torch.autograd.grad(loss, own, retain_graph=True, allow_unused=True)
        return {name for name, grad in zip(names, found, strict=True) if grad is not None and grad.any()}

    assert moved(others) == {"query_feat", "query_embed"}
    assert "enc_output.weight" in moved([chosen])


class Given(nn.Module):
    """A layer that makes the same of all it sees: a gradient that reaches another's came by boxes."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.content = nn.Parameter(torch.randn(shape))

    def forward(self, *_: object) -> Tensor:
        return self.content


def test_a_box_teaches_its_layer_and_the_one_before():
    """DINO's look forward twice: a layer learns to leave a box that the next can mend, and no gradient goes further."""
    decoder = small(num_layers=3)
    decoder.layers = nn.ModuleList(Given(2, 10, 32) for _ in range(3))
    contents = [layer.content for layer in decoder.layers]
    reached = []
    for after in decoder(scene(), words(3, 3)).layers[2:]:
        found = torch.autograd.grad(after.boxes.sum(), contents, retain_graph=True, allow_unused=True)
        reached.append([grad is not None and bool(grad.any()) for grad in found])
    assert reached == [[True, False, False], [True, True, False], [False, True, True]]


def reach(**options: object) -> tuple[bool, bool]:
    """Whether (conditional queries change with learnable ones, learnable ones with conditional ones)."""
    changes = []
    for which in ("query_feat", "enc_output_norm.bias"):
        decoder = small(**options).eval()
        before = decoder(scene(), words(3, 3)).layers
        with torch.no_grad():
            dict(decoder.named_parameters())[which].add_(torch.linspace(-1, 1, 32))
        after = decoder(scene(), words(3, 3)).layers
        own = slice(6, 10) if which == "enc_output_norm.bias" else slice(0, 6)
        changes.append(not torch.allclose(before[-1].mask_logits[:, own], after[-1].mask_logits[:, own], atol=1e-5))
    return changes[0], changes[1]


def test_only_the_exchange_lets_the_kinds_see_each_other():
    assert reach(exchange=True) == (True, True)
    assert reach(exchange=False) == (False, False)


def test_self_attention_over_the_union_lets_the_kinds_see_each_other_without_an_exchange():
    assert reach(exchange=False, joint_self_attention=True) == (True, True)


def test_one_kind_alone_has_no_exchange():
    assert all(layer.exchange is None for kind in ("conditional", "learnable") for layer in small(kind).layers)
    assert all(layer.exchange is not None for layer in small().layers)


def test_the_order_of_texts_is_the_order_of_logits():
    decoder, pyramid, (texts,) = small().eval(), scene(1), words(5)
    turn = torch.tensor([3, 0, 4, 1, 2])
    plain, turned = (decoder(pyramid, [own]).layers[-1] for own in (texts, texts[turn]))
    assert torch.allclose(plain.logits[0][:, turn], turned.logits[0], atol=1e-5)
    assert torch.allclose(plain.boxes, turned.boxes, atol=1e-5)


def test_conditional_queries_are_the_proposals_most_like_a_text():
    decoder, pyramid, texts = small("conditional").eval(), scene(1), words(4)
    found = decoder.enc_output_norm(decoder.enc_output(pyramid.memory))
    likeness = decoder._class_logits(found, texts)[0].amax(-1)
    lead = found[0, likeness.topk(10).indices]
    assert torch.allclose(decoder._select_queries(pyramid, texts)[0][0], lead, atol=1e-5)


def test_fewer_proposals_than_queries_are_still_numbers():
    decoder, pyramid = small("conditional"), scene(1)
    few = tuple(torch.ones_like(p) for p in pyramid.padding_masks)
    few[0][:, :2, :2] = False
    few[1][:, :1, :1] = False
    out = decoder(FeaturePyramid(pyramid.memory, few, pyramid.mask_features), words(4)).layers
    assert all(p.boxes.isfinite().all() and p.logits[0].isfinite().all() for p in out)
    sum(p.boxes.sum() + p.logits[0].sum() for p in out).backward()
    assert all(p.grad.isfinite().all() for p in decoder.parameters() if p.grad is not None)


def test_training_starts_calm():
    decoder = Decoder(
        dim=32, mask_dim=16, text_dim=512, conditional_queries=6, learnable_queries=4, levels=2, num_layers=1, heads=4
    )
    probability = decoder(scene(), words(30, 30, dim=512)).layers[-1].logits[0].sigmoid().detach()
    assert LABEL_PRIOR / 3 < probability.median() < 3 * LABEL_PRIOR
    assert probability.max() < 0.2


def test_every_probability_can_be_reached_from_the_first_step():
    decoder = Decoder(
        dim=32, mask_dim=16, text_dim=24, conditional_queries=6, learnable_queries=4, levels=2, num_layers=1, heads=4
    )
    assert torch.sigmoid(decoder.logit_scale.exp() + decoder.prior) > 0.99


def test_without_queries_there_is_no_decoder():
    with pytest.raises(ValueError, match="needs queries"):
        Decoder(conditional_queries=0, learnable_queries=0)


def test_without_proposals_no_box_begins_around_a_mask_of_one():
    with pytest.raises(ValueError, match="initialize_box_type needs conditional queries"):
        small("learnable", initialize_box_type="bitmask")


@pytest.mark.parametrize("kind", ["mixed", "conditional"])
def test_boxes_around_masks_are_where_conditional_queries_begin(kind):
    """The proposals, and where learnable queries begin, stay as they are; every parameter still learns."""
    plain, decoder = small(kind), small(kind, initialize_box_type="bitmask").train()
    count = KINDS[kind][0]
    pyramid, texts = scene(), words(3, 3)
    wanted, out = plain(pyramid, texts), decoder(pyramid, texts)
    assert torch.equal(out.layers[0].boxes, wanted.layers[0].boxes)
    assert torch.equal(out.layers[1].boxes[:, count:], wanted.layers[1].boxes[:, count:])
    around = initial_boxes(wanted.layers[0], pyramid.padding_masks[0], "bitmask")
    assert torch.equal(out.layers[1].boxes[:, :count], around)
    assert not torch.allclose(out.layers[-1].boxes, wanted.layers[-1].boxes, atol=1e-3)
    sum(
        torch.stack(list(p.logits)).square().mean() + p.boxes.mean() + p.mask_logits.mean() for p in out.layers
    ).backward()
    assert [name for name, p in decoder.named_parameters() if p.grad is None or not p.grad.any()] == []
