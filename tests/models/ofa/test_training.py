"""OFA in training: the logits of generation, and gradients of all parameters that texts depend on."""

from __future__ import annotations

import pytest
import torch
from fakes.tiny_ofa import NUMBERS, golden, network, network_with_golden_features

from synthgen.models.ofa.beam import PAD
from synthgen.models.ofa.model import Ofa
from synthgen.models.ofa.training import (
    LABEL_SMOOTHING,
    label_smoothed_loss,
    prepare_for_training,
    teacher_forced_logits,
)

CLOSE = 1e-4
IMAGES = torch.rand(2, 3, 64, 80, generator=torch.Generator().manual_seed(1)) * 2 - 1
OWNER = [1, 0, 0]


def apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max())


def words(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(4, NUMBERS.vocab_size, shape, generator=torch.Generator().manual_seed(seed))


PROMPTS = words(3, 9)


def texts() -> torch.Tensor:
    """Of three, five and one token, their end among them."""
    found = words(3, 5, seed=1)
    for row, length in enumerate((3, 5, 1)):
        found[row, length - 1], found[row, length:] = 2, PAD
    return found


def gradients(net: Ofa, images: torch.Tensor = IMAGES) -> dict[str, torch.Tensor | None]:
    net.zero_grad(set_to_none=True)
    said = texts()
    label_smoothed_loss(teacher_forced_logits(net, images, OWNER, PROMPTS, said), said[said != PAD]).backward()
    return {name: p.grad for name, p in net.named_parameters() if p.requires_grad}


def test_logits_are_the_originals():
    net, text = network_with_golden_features(), torch.from_numpy(golden()["in.input_ids"])
    said = torch.from_numpy(golden()["in.decoder_input_ids"])
    for row in range(2):
        prompt = text[row][text[row] != PAD][None]
        target = torch.cat([said[row, 1:], torch.tensor([2])])[None]
        ours = teacher_forced_logits(net, torch.zeros(2, 3, 64, 96), [row], prompt, target)
        assert apart(ours, torch.from_numpy(golden()["out.decoder_logits"][row])) < CLOSE


def test_the_loss_is_what_speaking_step_by_step_would_cost():
    net, said = network(), texts()
    image = net.extract_image_tokens(IMAGES)
    made = net.encode(image, OWNER, PROMPTS, net.compute_position_bias(image, 9))
    cost = torch.zeros(())
    for row in range(3):
        alone = type(made)(made.states[row : row + 1], made.position_embedding, None)
        cache, given = net.init_cache(alone, 6), torch.zeros(1, 1, 1, dtype=torch.int64)
        for token in said[row][said[row] != PAD]:
            logp = net.decode(given, cache)[0, 0, 0].log_softmax(0)
            others = torch.arange(len(logp)) != token
            cost -= (1 - LABEL_SMOOTHING) * logp[token] + LABEL_SMOOTHING * logp[others].mean()
            given = token.view(1, 1, 1)
    ours = label_smoothed_loss(teacher_forced_logits(net, IMAGES, OWNER, PROMPTS, said), said[said != PAD])
    assert apart(ours, cost) < CLOSE * float(cost)


def test_words_are_distinguished_in_half_precision_too():
    """bfloat16 has 8 bits: of a thousand words whose logits are alike it tells a few."""
    net = network()
    with torch.autocast("cpu", torch.bfloat16):
        logits = net.decoder.project_logits(net.decoder.embed_tokens(words(1, 3)))
        loss = label_smoothed_loss(teacher_forced_logits(net, IMAGES, OWNER, PROMPTS, texts()), texts()[texts() != PAD])
    assert logits.dtype == loss.dtype == torch.float32
    assert all(len(row.unique()) > 0.9 * NUMBERS.vocab_size for row in logits[0])


def test_padding_and_company_change_nothing():
    net, said = network(), texts()
    together = teacher_forced_logits(net, IMAGES, OWNER, PROMPTS, said)
    assert len(together) == 3 + 5 + 1
    longer = torch.cat([said, torch.full((3, 4), PAD)], dim=1)
    assert apart(teacher_forced_logits(net, IMAGES, OWNER, PROMPTS, longer), together) < CLOSE
    for row, part in enumerate(together.split([3, 5, 1])):
        alone = teacher_forced_logits(net, IMAGES[OWNER[row]][None], [0], PROMPTS[row : row + 1], said[row : row + 1])
        assert apart(alone, part) < CLOSE


@pytest.mark.parametrize(("owner", "said"), [([], texts()[:0]), ([0], torch.full((1, 2), PAD))])
def test_where_nothing_is_to_be_said_it_costs_nothing(owner, said):
    net = prepare_for_training(network(), train_token_embeddings=True)
    none = teacher_forced_logits(net, IMAGES, owner, PROMPTS[: len(owner)], said)
    assert none.shape == (0, NUMBERS.vocab_size)
    loss = label_smoothed_loss(none, torch.zeros(0, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0
    assert not any(p.grad is not None and p.grad.any() for p in net.parameters())


@pytest.mark.parametrize("with_words", [True, False])
def test_gradients_reach_all_that_texts_depend_on(with_words):
    net = prepare_for_training(network(), train_token_embeddings=with_words)
    found = gradients(net)
    assert all(gradient is not None and gradient.isfinite().all() for gradient in found.values())
    # A bias of all keys alike moves all scores of a query alike, and attention does not see that.
    still = {name for name, gradient in found.items() if not gradient.any()}
    assert not {name for name in still if not name.endswith(("k_proj.bias", "k_linear.bias"))}
    left = {name for name, p in net.named_parameters() if not p.requires_grad}
    assert ("encoder.embed_tokens.weight" in left) == (not with_words)
    assert {name.split(".")[1] for name in left - {"encoder.embed_tokens.weight"}} == {
        "embed_image_positions", "image_pos_ln", "code_layernorm_embedding", "image_rel_pos_table_list"
    }  # fmt: skip
    assert all(name.startswith("decoder.") for name in left - {"encoder.embed_tokens.weight"})


def test_a_gradient_is_the_slope():
    """Along a random direction of all weights at once, in double precision but for the logits."""
    net = prepare_for_training(network(), train_token_embeddings=True).double()
    said, images = texts(), IMAGES.double()

    def cost() -> torch.Tensor:
        return label_smoothed_loss(teacher_forced_logits(net, images, OWNER, PROMPTS, said), said[said != PAD])

    own = [p for p in net.parameters() if p.requires_grad]
    slopes = torch.autograd.grad(cost(), own)
    generator = torch.Generator().manual_seed(2)
    way = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in own]
    with torch.no_grad():
        ends = []
        for step in (1e-5, -2e-5):
            for p, d in zip(own, way, strict=True):
                p += step * d
            ends.append(float(cost()))
    measured = (ends[0] - ends[1]) / 2e-5
    expected = float(sum((g * d).sum() for g, d in zip(slopes, way, strict=True)))
    assert measured == pytest.approx(expected, rel=1e-2)


def test_what_is_computed_a_second_time_is_the_same():
    plain = gradients(prepare_for_training(network(), train_token_embeddings=True))
    again = gradients(prepare_for_training(network(), train_token_embeddings=True, checkpointing=True))
    assert all(torch.equal(plain[name], again[name]) for name in plain)
