"""Beam search: fairseq's results, a plain loop without a cache, and invariants."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import chain

import pytest
import torch
from fakes.tiny_ofa import (
    NUMBERS,
    SKIP_REASON,
    encoded,
    golden_beam_search,
    network,
    network_with_golden_features,
    settings,
    whole_golden,
    whole_weights,
)

from synthgen.models.ofa.beam import EOS, PAD, BeamSearchConfig, beam_search, generate_hypotheses
from synthgen.models.ofa.model import EncoderOutput, Ofa, set_precision

CLOSE = 1e-4


@pytest.mark.parametrize("name", ["plain", "ngram3", "lenpen2"])
def test_all_hypotheses_are_fairseqs(name):
    net = network_with_golden_features()
    check(beam_search(net, encoded(net), settings(name)), name)


@pytest.mark.skipif(SKIP_REASON is not None, reason=str(SKIP_REASON))
@pytest.mark.parametrize("name", ["plain", "ngram3", "lenpen2"])
def test_from_pixels_to_hypotheses_all_is_fairseqs(name):
    known, net = whole_golden(), network(whole_weights())
    image, text = net.extract_image_tokens(known["in.patch_images"]), known["in.input_ids"]
    check(
        list(generate_hypotheses(net, image, [0, 1], text, settings(name), chunk_size=2, padding_mask=text == PAD)),
        name,
    )


def check(found, name):
    known = golden_beam_search()["beam"][name]
    assert [len(of_box) for of_box in known] == [5, 5]
    assert [[h.tokens for h in of_box] for of_box in found] == [[h["tokens"] for h in of_box] for of_box in known]
    for ours, theirs in zip(chain(*found), chain(*known), strict=True):
        assert abs(ours.score - theirs["score"]) < CLOSE
        own = theirs["positional_scores"]
        assert abs(ours.mean_log_probability - sum(own) / len(own)) < CLOSE


# --- a plain loop ----------------------------------------------------------------------------------------------------


def plain_search(net: Ofa, made: EncoderOutput, s: BeamSearchConfig) -> list[tuple[list[int], float]]:
    """Beam search of one box as one writes it down: lists, one text at a time, the whole decoder for each token."""
    width = s.num_beams // s.num_beam_groups
    done: list[list[tuple[list[int], float]]] = [[] for _ in range(s.num_beam_groups)]
    going: list[list[tuple[list[int], float]]] = [[([], 0.0)] for _ in range(s.num_beam_groups)]
    for step in range(s.max_length + 1):
        taken: Counter[int] = Counter()
        for group in range(s.num_beam_groups):
            candidates = []
            for text, total in going[group]:
                logp = next_token(net, made, text)
                for token in range(NUMBERS.vocab_size):
                    if allowed(text, token, step, s):
                        value = total + logp[token]
                        candidates.append((value - s.diversity_penalty * taken[token], value, [*text, token]))
            candidates.sort(key=lambda candidate: -candidate[0])
            full = len(done[group]) == width
            going[group] = [(text, value) for _, value, text in candidates[: 2 * width] if text[-1] != EOS][:width]
            ended = [(text, value) for _, value, text in candidates[:width] if text[-1] == EOS]
            done[group] += ended[: width - len(done[group])]
            if not full and len(done[group]) < width:
                taken.update(text[-1] for text, _ in [*going[group], *ended])
        if all(len(of_group) == width for of_group in done):
            break
    ranked = [(text, value / len(text) ** s.length_penalty) for of_group in done for text, value in of_group]
    return sorted(ranked, key=lambda hypothesis: -hypothesis[1])


def next_token(net: Ofa, made: EncoderOutput, text: list[int]) -> list[float]:
    tokens = torch.tensor([[[0, *text]]])
    return net.decode(tokens, net.init_cache(made, len(text) + 1))[0, 0, -1].log_softmax(0).tolist()


def allowed(text: list[int], token: int, step: int, s: BeamSearchConfig) -> bool:
    if step >= s.max_length:
        return token == EOS
    if token == PAD or (token == EOS and step < s.min_length):
        return False
    n, whole = s.no_repeat_ngram_size, [0, *text, token]
    return not n or whole[-n:] not in [whole[i : i + n] for i in range(len(whole) - n)]


@pytest.mark.parametrize(
    "s",
    [
        BeamSearchConfig(num_beams=3, max_length=6),
        BeamSearchConfig(num_beams=1, max_length=5, no_repeat_ngram_size=1),
        BeamSearchConfig(num_beams=4, max_length=5, min_length=4, no_repeat_ngram_size=2, length_penalty=0.0),
        BeamSearchConfig(num_beams=6, max_length=6, num_beam_groups=3, diversity_penalty=1.5),
        BeamSearchConfig(num_beams=4, max_length=6, num_beam_groups=4, diversity_penalty=4.0, no_repeat_ngram_size=0),
        BeamSearchConfig(num_beams=4, max_length=6, num_beam_groups=2, diversity_penalty=0.0, min_length=0),
    ],
)
def test_search_is_as_a_plain_loop_does_it(s):
    net = network_with_golden_features()
    made = encoded(net)
    for box, found in enumerate(beam_search(net, made, s)):
        alone = EncoderOutput(made.states[box : box + 1], made.position_embedding, made.padding_mask[box : box + 1])
        known = plain_search(net, alone, s)
        assert [h.tokens for h in found] == [text for text, _ in known]
        assert all(abs(h.score - score) < CLOSE for h, (_, score) in zip(found, known, strict=True))


# --- laws ------------------------------------------------------------------------------------------------------------

PIXELS = torch.randn(3, 3, 48, 64, generator=torch.Generator().manual_seed(1))


def prompts(count: int) -> torch.Tensor:
    text = torch.randint(4, NUMBERS.vocab_size, (count, 7), generator=torch.Generator().manual_seed(0))
    text[:, 0], text[:, -1] = 0, 2
    return text


def same(ours, theirs) -> bool:
    return [h.tokens for h in ours] == [h.tokens for h in theirs] and all(
        abs(a.score - b.score) < CLOSE for a, b in zip(ours, theirs, strict=True)
    )


@pytest.mark.parametrize("s", [BeamSearchConfig(), BeamSearchConfig(num_beams=6, num_beam_groups=3, max_length=8)])
def test_boxes_in_batches_are_as_one_by_one(s):
    net, owner = network(), [1, 0, 2, 2, 1, 0, 0, 1]
    image, text = net.extract_image_tokens(PIXELS), prompts(8)
    together = list(generate_hypotheses(net, image, owner, text, s, chunk_size=8))
    for chunk in (1, 3):
        parts = generate_hypotheses(net, image, owner, text, s, chunk_size=chunk)
        assert all(same(a, b) for a, b in zip(parts, together, strict=True))
    assert len({tuple(h.tokens) for of_box in together for h in of_box}) > 8, "boxes that say the same prove nothing"


def test_a_box_that_is_done_leaves_the_others_as_they_were(monkeypatch):
    """Boxes end at different steps, and are dropped when half are done."""
    net = network()
    with torch.no_grad():
        net.encoder.embed_tokens.weight[EOS] *= 1.2  # texts that end, and not all at once
    image, text = net.extract_image_tokens(3 * PIXELS), prompts(12)
    s = BeamSearchConfig(num_beams=2, max_length=12, no_repeat_ngram_size=0)
    alone = [next(generate_hypotheses(net, image, [i % 3], text[i : i + 1], s, chunk_size=1)) for i in range(12)]
    assert len({max(len(h.tokens) for h in of_box) for of_box in alone}) > 1
    rows: list[int] = []
    whole = Ofa.decode

    def counting(self, tokens, cache):
        rows.append(len(tokens))
        return whole(self, tokens, cache)

    monkeypatch.setattr(Ofa, "decode", counting)
    together = list(generate_hypotheses(net, image, [0, 1, 2] * 4, text, s, chunk_size=12))
    assert all(same(a, b) for a, b in zip(together, alone, strict=True))
    assert rows[0] == 12
    assert rows[-1] <= 6


def test_five_hundred_boxes_of_one_image_are_as_dear_as_a_chunk(monkeypatch):
    net = network()
    image, text = net.extract_image_tokens(PIXELS[:1]), prompts(500)
    seen: list[int] = []
    whole = Ofa.encode

    def counting(self, image, owner, text, places, padding=None):
        seen.append(len(text))
        return whole(self, image, owner, text, places, padding)

    monkeypatch.setattr(Ofa, "encode", counting)
    found = list(
        generate_hypotheses(net, image, [0] * 500, text, BeamSearchConfig(num_beams=2, max_length=3), chunk_size=64)
    )
    assert len(found) == sum(seen) == 500
    assert max(seen) <= 64


def test_the_same_again_is_the_same():
    net = network()
    image, text = net.extract_image_tokens(PIXELS), prompts(4)
    s = BeamSearchConfig(num_beams=4, num_beam_groups=2)
    first, second = (list(generate_hypotheses(net, image, [0, 1, 2, 0], text, s, chunk_size=4)) for _ in range(2))
    assert first == second


def test_groups_that_must_differ_begin_differently():
    net = network()
    made = net.encode(image := net.extract_image_tokens(PIXELS), [0], prompts(1), net.compute_position_bias(image, 7))
    s = BeamSearchConfig(num_beams=5, num_beam_groups=5, diversity_penalty=100.0)
    (found,) = beam_search(net, made, s)
    assert len({h.tokens[0] for h in found}) == 5
    (alike,) = beam_search(net, made, replace(s, diversity_penalty=0.0))
    assert len({tuple(h.tokens) for h in alike}) == 1, "groups that need not differ do the same"
    for h in found:
        assert abs(h.score - total(net, made, h.tokens) / len(h.tokens)) < CLOSE, "what a choice costs is no score"


def total(net: Ofa, made: EncoderOutput, text: list[int]) -> float:
    logp = net.decode(torch.tensor([[[0, *text[:-1]]]]), net.init_cache(made, len(text)))[0, 0].log_softmax(1)
    return float(logp[range(len(text)), text].sum())


def test_hypotheses_are_best_first_and_end_once():
    net = network()
    image, text = net.extract_image_tokens(PIXELS), prompts(3)
    for s in (BeamSearchConfig(), BeamSearchConfig(num_beams=6, num_beam_groups=2, length_penalty=2.0, min_length=3)):
        for of_box in generate_hypotheses(net, image, [0, 1, 2], text, s, chunk_size=3):
            assert len(of_box) == s.num_beams
            assert [h.score for h in of_box] == sorted((h.score for h in of_box), reverse=True)
            for h in of_box:
                assert h.tokens.index(EOS) == len(h.tokens) - 1
                assert s.min_length < len(h.tokens) <= s.max_length + 1
                assert PAD not in h.tokens
                assert h.mean_log_probability <= 0
                assert abs(h.score * len(h.tokens) ** (s.length_penalty - 1) - h.mean_log_probability) < CLOSE


def test_low_precision_searches_too():
    net = network()
    set_precision(net, torch.bfloat16)
    found = list(
        generate_hypotheses(net, net.extract_image_tokens(PIXELS), [0, 2], prompts(2), BeamSearchConfig(), chunk_size=2)
    )
    assert [len(of_box) for of_box in found] == [5, 5]


def test_a_network_that_says_nothing_gives_no_hypothesis():
    """Weights that overflow; one box more or less must not end the job."""
    net = network()
    with torch.no_grad():
        net.decoder.layer_norm.bias.fill_(torch.nan)
    assert list(
        generate_hypotheses(net, net.extract_image_tokens(PIXELS), [0], prompts(1), BeamSearchConfig(), chunk_size=1)
    ) == [[]]


def test_no_boxes_no_hypotheses():
    net = network()
    assert (
        list(
            generate_hypotheses(
                net, net.extract_image_tokens(PIXELS), [], prompts(1)[:0], BeamSearchConfig(), chunk_size=4
            )
        )
        == []
    )
    made = net.encode(
        image := net.extract_image_tokens(PIXELS), [], prompts(1)[:0], net.compute_position_bias(image, 7)
    )
    assert beam_search(net, made, BeamSearchConfig()) == []


@pytest.mark.parametrize(
    ("given", "sentence"),
    [({"num_beams": 0}, "are no search"), ({"num_beams": 5, "num_beam_groups": 2}, "5 beams in 2 groups"),
     ({"num_beam_groups": 0}, "are no search"), ({"min_length": 17}, "min_length 17, max_length 16"),
     ({"no_repeat_ngram_size": -1}, "do not go together")],
)  # fmt: skip
def test_settings_that_are_no_search_are_reported(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        BeamSearchConfig(**given)


def test_searches_beyond_the_network_are_reported():
    net = network()
    image = net.extract_image_tokens(PIXELS)
    with pytest.raises(ValueError, match="300 beams are too many for 600 tokens"):
        list(generate_hypotheses(net, image, [0], prompts(1), BeamSearchConfig(num_beams=300), chunk_size=1))
    with pytest.raises(ValueError, match="a text of 49 tokens"):
        list(generate_hypotheses(net, image, [0], prompts(1), BeamSearchConfig(max_length=48), chunk_size=1))
    with pytest.raises(ValueError, match="1 owners, 2 prompts and chunks of 1 do not go together"):
        list(generate_hypotheses(net, image, [0], prompts(2), BeamSearchConfig(), chunk_size=1))


def test_places_may_be_kept():
    net, s = network(), BeamSearchConfig(max_length=4)
    image, text = net.extract_image_tokens(PIXELS), prompts(2)
    kept = net.compute_position_bias(image, 7)
    assert list(generate_hypotheses(net, image, [0, 1], text, s, chunk_size=2, position_bias=kept)) == list(
        generate_hypotheses(net, image, [0, 1], text, s, chunk_size=2)
    )
    with pytest.raises(ValueError, match=r"places of \(3, 4, 8\) do not go together"):
        list(
            generate_hypotheses(
                net, image, [0, 1], text, s, chunk_size=2, position_bias=net.compute_position_bias(image, 8)
            )
        )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gpu_finds_what_the_cpu_does(dtype):
    """In bfloat16 by its own measure: each hypothesis scores, in float32, about what it says."""
    cpu, gpu, s = network(), network().cuda(), BeamSearchConfig(max_length=8)
    set_precision(gpu, dtype)
    owner, text = [0, 1, 2, 2], prompts(4)
    image = cpu.extract_image_tokens(PIXELS)
    made = cpu.encode(image, owner, text, cpu.compute_position_bias(image, 7))
    found = list(generate_hypotheses(gpu, gpu.extract_image_tokens(PIXELS.cuda()), owner, text.cuda(), s, chunk_size=3))
    if dtype == torch.float32:
        assert all(same(a, b) for a, b in zip(found, beam_search(cpu, made, s), strict=True))
    for box, of_box in enumerate(found):
        alone = EncoderOutput(made.states[box : box + 1], made.position_embedding, None)
        assert len(of_box) == s.num_beams
        for h in of_box:
            assert abs(h.score - total(cpu, alone, h.tokens) / len(h.tokens)) < (
                0.05 if dtype == torch.bfloat16 else CLOSE
            )
