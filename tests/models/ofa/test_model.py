"""OFA: hidden states and logits of the original, cached decoding, batches, low precision."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from fakes.tiny_ofa import (
    NUMBERS,
    SKIP_REASON,
    encoded,
    golden,
    network,
    network_with_golden_features,
    whole_golden,
    whole_weights,
)

from synthgen.models.ofa.model import SIZES, Ofa, build_ofa, set_precision

CLOSE = 1e-4


def apart(ours: torch.Tensor, theirs: torch.Tensor | np.ndarray) -> float:
    assert tuple(ours.shape) == tuple(theirs.shape)
    return float((ours - torch.as_tensor(theirs)).abs().max())


def hidden_states(net: Ofa, half: str) -> list[torch.Tensor]:
    """Filled, as the network runs, with what goes into the first layer and comes out of each."""
    seen: list[torch.Tensor] = []
    layers = getattr(net, half).layers
    layers[0].register_forward_pre_hook(lambda _, given: seen.append(given[0].clone()))
    for layer in layers:
        layer.register_forward_hook(lambda _, given, out: seen.append(out))
    return seen


def check_against(net: Ofa, images: torch.Tensor, known: dict) -> None:
    """The whole way from what the stem saw to logits."""
    known = {name: torch.as_tensor(values) for name, values in known.items() if name.startswith(("in.", "out."))}
    of_encoder, of_decoder = hidden_states(net, "encoder"), hidden_states(net, "decoder")
    image, text = net.extract_image_tokens(images), known["in.input_ids"]
    made = net.encode(image, [0, 1], text, net.compute_position_bias(image, text.shape[1]), text == 1)
    assert made.padding_mask is not None
    assert torch.equal(made.padding_mask, known["out.encoder_padding_mask"].bool())
    assert made.padding_mask.any(), "a text that is padded proves the mask"
    assert apart(made.position_embedding.expand(2, -1, -1), known["out.encoder_position_embedding"]) < CLOSE
    tokens = ~made.padding_mask  # what stands at padding means nothing
    assert apart(made.states[tokens], known["out.encoder_last_hidden_state"][tokens]) < CLOSE
    logits = net.decode(known["in.decoder_input_ids"][:, None], net.init_cache(made, 5))
    assert apart(logits[:, 0], known["out.decoder_logits"]) < CLOSE
    assert len(of_encoder) == len(of_decoder) == 3
    for number, (states, texts) in enumerate(zip(of_encoder, of_decoder, strict=True)):
        assert apart(states[tokens], known[f"out.encoder_hidden_{number}"][tokens]) < CLOSE
        assert apart(texts[:, 0], known[f"out.decoder_hidden_{number}"]) < CLOSE


def test_hidden_states_and_logits_are_the_originals():
    check_against(network_with_golden_features(), torch.zeros(2, 3, 64, 96), golden())


@pytest.mark.skipif(SKIP_REASON is not None, reason=str(SKIP_REASON))
def test_from_pixels_to_logits_all_is_the_originals():
    known = whole_golden()
    net = network(whole_weights())
    with torch.no_grad():
        assert apart(net.encoder.embed_images(known["in.patch_images"]), known["out.embed_images"]) < CLOSE
    check_against(net, known["in.patch_images"], known)


@pytest.mark.parametrize(
    ("size", "parameters"),
    [("tiny", 33_488_336), ("medium", 92_892_000), ("base", 182_238_536), ("large", 472_977_152),
     ("huge", 929_486_848)],
)  # fmt: skip
def test_parameters_are_as_many_as_published(size, parameters):
    with torch.device("meta"):
        net = build_ofa(size)
    assert sum(parameter.numel() for parameter in net.parameters()) == parameters
    assert not any(parameter.requires_grad for parameter in net.parameters())


def test_no_such_size():
    with pytest.raises(ValueError, match="no OFA of size 'small'; there are tiny, medium, base, large, huge"):
        build_ofa("small")


#: Of images of another shape than the table of places.
PIXELS = torch.randn(3, 3, 48, 80, generator=torch.Generator().manual_seed(1))


def prompts(count: int, length: int = 9) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    text = torch.randint(4, NUMBERS.vocab_size, (count, length), generator=generator)
    text[:, 0], text[:, -1] = 0, 2
    return text


def test_decoding_that_remembers_is_decoding_anew():
    net = network_with_golden_features()
    made, tokens = encoded(net), prompts(2, 12)[:, None]
    whole = net.decode(tokens, net.init_cache(made, 12))
    for cuts in ([1] * 12, [5, 1, 6], [11, 1]):
        cache = net.init_cache(made, 20)
        parts = [net.decode(part, cache) for part in tokens.split(cuts, dim=2)]
        assert apart(torch.cat(parts, dim=2), whole) < CLOSE
    assert apart(net.decode(tokens[:, :, :7], net.init_cache(made, 7)), whole[:, :, :7]) < CLOSE, "nothing looks ahead"


def test_beams_of_a_box_are_as_boxes_of_their_own():
    """They share what the decoder makes of the image, and after each step go on from other beams."""
    net = network_with_golden_features()
    made = encoded(net)
    texts = prompts(6, 5).view(2, 3, 5)
    cache = net.init_cache(made, 5)
    first = net.decode(texts[:, :1, :1], cache)
    cache.reorder(torch.zeros(2, 3, dtype=torch.int64))
    second = net.decode(texts[:, :, 1:3], cache)
    parents = torch.tensor([[2, 0, 0], [1, 1, 2]])
    cache.reorder(parents)
    third = net.decode(texts[:, :, 3:], cache)
    assert {keys.shape[0] for keys, _ in cache.cross_kv} == {2}, "keys and values of an image are not repeated"
    for box in range(2):
        alone = type(made)(made.states[box : box + 1], made.position_embedding, made.padding_mask[box : box + 1])
        for beam, parent in enumerate(parents[box].tolist()):
            text = torch.cat([texts[box, 0, :1], texts[box, parent, 1:3], texts[box, beam, 3:]])
            logits = net.decode(text[None, None], net.init_cache(alone, 5))[0, 0]
            assert apart(third[box, beam], logits[3:]) < CLOSE
            assert apart(second[box, parent], logits[1:3]) < CLOSE
            assert apart(first[box, 0], logits[:1]) < CLOSE


def test_boxes_that_are_left_go_on_as_if_alone():
    net = network_with_golden_features()
    made, texts = encoded(net), prompts(4, 4).view(2, 2, 4)
    cache = net.init_cache(made, 4)
    cache.reorder(torch.zeros(2, 2, dtype=torch.int64))
    whole = torch.cat([net.decode(texts[:, :, :2], cache), net.decode(texts[:, :, 2:], cache)], dim=2)
    cache = net.init_cache(made, 4)
    cache.reorder(torch.zeros(2, 2, dtype=torch.int64))
    net.decode(texts[:, :, :2], cache)
    cache.select_boxes(torch.tensor([1]))
    assert apart(net.decode(texts[1:, :, 2:], cache), whole[1:, :, 2:]) < CLOSE


def test_images_and_boxes_in_batches_are_as_one_by_one():
    net, text, owner = network(), prompts(7), [2, 0, 0, 2, 1, 0, 2]
    runs = []
    net.encoder.embed_images.register_forward_hook(lambda _, given, out: runs.append(len(out)))
    image = net.extract_image_tokens(PIXELS)
    places = net.compute_position_bias(image, text.shape[1])
    together = net.encode(image, owner, text, places)
    assert runs == [3], "an image is seen once, however many boxes it has"
    for place, (of, own) in enumerate(zip(owner, text, strict=True)):
        seen = net.extract_image_tokens(PIXELS[of : of + 1])
        alone = net.encode(seen, [0], own[None], net.compute_position_bias(seen, len(own)))
        assert apart(together.states[place], alone.states[0]) < CLOSE


def test_a_text_with_padding_is_as_without():
    net = network()
    image, text = net.extract_image_tokens(PIXELS[:1]), prompts(1)
    made = net.encode(image, [0], text, net.compute_position_bias(image, 9))
    longer = torch.cat([text, torch.ones(1, 3, dtype=torch.int64)], dim=1)
    padded = net.encode(image, [0], longer, net.compute_position_bias(image, 12), longer == 1)
    assert apart(padded.states[:, :-3], made.states) < CLOSE
    tokens = prompts(1, 4)[:, None]
    assert apart(net.decode(tokens, net.init_cache(padded, 4)), net.decode(tokens, net.init_cache(made, 4))) < CLOSE


def test_low_precision_keeps_the_places():
    net, text = network(), prompts(2)
    image = net.extract_image_tokens(PIXELS)
    made = net.encode(image, [0, 1], text, net.compute_position_bias(image, 9))
    exact = net.decode(prompts(2, 6)[:, None], net.init_cache(made, 6))
    set_precision(net, torch.bfloat16)
    image = net.extract_image_tokens(PIXELS)
    places = net.compute_position_bias(image, 9)
    assert torch.equal(places.embedding, made.position_embedding), "in float32, whatever the rest is in"
    made = net.encode(image, [0, 1], text, places)
    rough = net.decode(prompts(2, 6)[:, None], net.init_cache(made, 6))
    assert {image.tokens.dtype, places.layer_biases[0].dtype, made.states.dtype} == {torch.bfloat16}
    assert rough.dtype == torch.float32
    assert float((rough - exact).abs().mean() / exact.abs().mean()) < 0.04


def test_the_bias_lies_as_fused_attention_reads_it():
    """Or CUDA copies it, once a layer and a batch."""
    net = network()
    for bias in net.compute_position_bias(net.extract_image_tokens(PIXELS), 9).layer_biases:
        assert bias.shape == (1, 4, 24, 24)
        assert all(stride % 16 == 0 for stride in bias.stride()[1:3])


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda net: net.extract_image_tokens(torch.zeros(1, 3, 113, 64)), "of at most 112 pixels a side"),
        (lambda net: net.extract_image_tokens(torch.zeros(3, 64, 64)), r"images of \[3, 64, 64\] are not"),
        (
            lambda net: net.compute_position_bias(net.extract_image_tokens(PIXELS), 49),
            "a text of 49 tokens is not one of 1 to 48",
        ),
        (lambda net: net.init_cache(encoded(net), 49), "a text of 49 tokens is not one of 1 to 48"),
        (
            lambda net: net.decode(prompts(2, 6)[:, None], net.init_cache(encoded(net), 5)),
            "do not go on from 0 of 5 steps",
        ),
        (lambda net: net.decode(prompts(2, 1)[None], net.init_cache(encoded(net), 5)), "of 2 texts in beams of 1"),
    ],
)
def test_what_does_not_go_together_is_reported(wrong, sentence):
    net = network()
    with pytest.raises(ValueError, match=sentence):
        wrong(net)


@pytest.mark.parametrize(
    ("owner", "length", "sentence"),
    [([0, 3], 9, "there are 3 images"), ([-1, 0], 9, "there are 3 images"), ([0], 9, "do not go together"),
     ([0, 1], 8, r"places of \(3, 5, 8\) do not go together")],
)  # fmt: skip
def test_boxes_that_no_image_has_are_reported(owner, length, sentence):
    """On a GPU an index too far would end the process."""
    net = network()
    image = net.extract_image_tokens(PIXELS)
    with pytest.raises(ValueError, match=sentence):
        net.encode(image, owner, prompts(2), net.compute_position_bias(image, length))


def test_no_boxes_at_all_are_no_work():
    net = network()
    image = net.extract_image_tokens(PIXELS)
    assert net.encode(image, [], prompts(1)[:0], net.compute_position_bias(image, 9)).states.shape == (0, 24, 48)


def test_other_numbers_are_another_network():
    with torch.device("meta"):
        deep = build_ofa(replace(SIZES["tiny"], encoder_layers=1, decoder_layers=3, resnet_blocks=(1, 2, 3)))
    assert [len(deep.encoder.layers), len(deep.decoder.layers), len(deep.encoder.embed_images.layer3)] == [1, 3, 3]
