"""OFA as a captioner: captions depend on their own box, one encoding per image, refused options."""

from __future__ import annotations

import json
import logging
import pickle
import re
import shutil
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import coco_dataset, tiny_ofa

from synthgen import plugins
from synthgen.errors import BrokenWorkerError, SynthgenError
from synthgen.generate.captioners import ofa
from synthgen.generate.stages.captions import CaptionStage
from synthgen.models.ofa.beam import BeamSearchConfig, Hypothesis, generate_hypotheses
from synthgen.models.ofa.checkpoint_folder import read_image_size
from synthgen.models.ofa.model import Ofa, OfaEncoder
from synthgen.models.ofa.preprocess import preprocess_images
from synthgen.models.ofa.tokenizer import normalize_caption
from synthgen.records.sample import UNPROMPTED_FLAGS, Annotation, Sample
from synthgen.storage.shard_store import ShardStore

PLUGIN_PACKAGE = "generate.captioners"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny_ofa.checkpoint(tmp_path_factory.mktemp("weights") / "ofa")


def make(folder, **options):
    own = {"checkpoint": str(folder), "device": "cpu", "side": tiny_ofa.SIDE, "max_length": 8, **options}
    return plugins.build_plugin(PLUGIN_PACKAGE, "ofa", own)


def drawn(height, width, seed=0):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / rng.uniform(5, 30) + y / rng.uniform(5, 30) + rng.uniform(0, 6)) for _ in range(3)]
    return np.clip(128 + 90 * np.stack(waves, 2) + rng.normal(0, 8, (height, width, 3)), 0, 255).astype(np.uint8)


def some_boxes(height, width, count, seed=0):
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(0, 1, (count, 2, 2)), axis=1).reshape(count, 4)
    return (corners * np.array([width, height] * 2)).astype(np.float32)


IMAGES = [drawn(100, 150, 1), drawn(150, 90, 2), drawn(60, 60, 3)]
BOXES = [some_boxes(100, 150, 4, 1), some_boxes(150, 90, 0), some_boxes(60, 60, 7, 2)]


def told(captioner, images=IMAGES, boxes=BOXES, top_k=5):
    """All that it says: of each image, of each box, its captions."""
    names = [["thing"] * len(own) for own in boxes]
    return list(captioner.caption(images, boxes, names, [[]] * len(images), top_k))


def alike(some, others) -> bool:
    """The same texts in the same order, of scores that are equal but for rounding."""
    pairs = list(zip(some, others, strict=True))
    return all(
        [c.text for c in a] == [c.text for c in b]
        and [c.score for c in a] == pytest.approx([c.score for c in b], abs=1e-4)
        for a, b in pairs
    )


# --- what is said ----------------------------------------------------------------------------------------------------


def test_captions_of_a_box_depend_on_nothing_but_image_and_box(folder):
    whole = told(make(folder, batch_size="3", box_chunk=1000))
    assert [len(own) for own in whole] == [4, 0, 7]
    narrow = make(folder, box_chunk=3)
    for i, own in enumerate(whole):
        assert alike(own, told(narrow, IMAGES[i : i + 1], BOXES[i : i + 1])[0])
        for box, captions in zip(BOXES[i], own, strict=True):
            assert alike([captions], told(narrow, IMAGES[i : i + 1], [box[None]])[0])
    again = told(narrow, IMAGES[::-1], [boxes[::-1].copy() for boxes in BOXES[::-1]])
    assert all(alike(a, b[::-1]) for a, b in zip(whole, again[::-1], strict=True))


def test_another_box_or_another_image_is_another_caption(folder):
    boxes = [BOXES[0][:1], BOXES[0][1:2], BOXES[0][:1]]
    (first,), (second,), (third,) = told(make(folder), [IMAGES[0], IMAGES[0], IMAGES[1]], boxes)
    assert [c.text for c in first] != [c.text for c in second]
    assert [c.text for c in first] != [c.text for c in third]


def test_captions_are_the_searches_best_first_none_twice_and_score_their_tokens(folder):
    captioner = make(folder)
    hypotheses = [h for own in captioner._forward([view(captioner, 0)]) for h in own]
    found = told(captioner, IMAGES[:1], BOXES[:1])[0]
    assert captioner.source == "ofa 48x2+2"
    for captions, searched in zip(found, hypotheses, strict=True):
        assert len(searched) == 10
        assert {c.source for c in captions} == {"ofa 48x2+2"}
        texts = [c.text for c in captions]
        assert len(set(texts)) == len(texts) >= 5
        assert texts == [text.lower().strip() for text in texts]
        scores = [c.score for c in captions]
        assert scores == sorted(scores, reverse=True)
        assert max(scores) <= 0
        means = {h.mean_log_probability for h in searched}
        assert means >= set(scores)
        assert all(h.score == pytest.approx(h.mean_log_probability) for h in searched), "no penalty, no difference"


def view(captioner, i):
    bins = ofa.quantize_boxes(torch.tensor(BOXES[i]), *IMAGES[i].shape[:2], captioner.side)
    return ofa.OfaInput(captioner._resize(IMAGES[i]), bins)


def test_the_stage_keeps_the_best_that_differ(folder):
    boxes = [(10.0 * i, 5.0 * i, 40.0, 30.0) for i in range(5)]
    annotations = tuple(Annotation(i, box, "dog") for i, box in enumerate(boxes))
    given = Sample(1, "toy/1", "1.png", 100, 150, annotations)
    for top_k in (1, 3, 5):
        (done,) = CaptionStage(make(folder), top_k=top_k).process([given], IMAGES[:1])
        for annotation in done.annotations:
            assert 1 <= len(annotation.captions) <= top_k
            assert len({c.text for c in annotation.captions}) == len(annotation.captions)
            scores = [c.score for c in annotation.captions]
            assert scores == sorted(scores, reverse=True)
    assert any(len(annotation.captions) == 5 for annotation in done.annotations)


def test_groups_find_at_least_as_many_captions_as_plain_beams_and_other_beginnings(folder):
    plain, diverse = (
        [captions for own in told(make(folder, **options)) for captions in own]
        for options in ({}, {"groups": 5, "diversity": 3.0})
    )
    five = [sum(min(5, len(captions)) for captions in found) for found in (plain, diverse)]
    assert five[1] >= five[0]
    beginnings = [sum(len({c.text[:1] for c in captions[:5]}) for captions in found) for found in (plain, diverse)]
    assert beginnings[1] > beginnings[0]


@pytest.mark.parametrize("own", [{"length_penalty": 2.0, "no_repeat_ngram": 0}, {"no_repeat_ngram": 2, "groups": 2}])
def test_the_search_follows_its_settings_and_scores_are_means(folder, own):
    """Against the search itself, which the reference's goldens hold to; with other settings than these it says else."""
    captioner = make(folder, **own)
    names = {"no_repeat_ngram": "no_repeat_ngram_size", "groups": "num_beam_groups"}
    renamed = {names.get(key, key): value for key, value in own.items()}
    settings = BeamSearchConfig(num_beams=10, max_length=8, **{"diversity_penalty": 0.5, **renamed})
    network, (first,) = captioner.network, [view(captioner, 0)]
    image = network.extract_image_tokens(preprocess_images([first.resized_image], network.device))
    prompts = torch.tensor([captioner.tokenizer.encode_region_prompt(corners) for corners in first.box_bins.tolist()])
    expected = list(generate_hypotheses(network, image, [0] * len(prompts), prompts, settings, chunk_size=8))
    assert [h for own in captioner._forward([first]) for h in own] == expected
    assert expected != [h for own in make(folder)._forward([first]) for h in own]
    for captions, hypotheses in zip(told(captioner, IMAGES[:1], BOXES[:1])[0], expected, strict=True):
        means = {
            normalize_caption(captioner.tokenizer.decode(h.tokens)): h.mean_log_probability
            for h in reversed(hypotheses)
        }
        assert {c.text: c.score for c in captions} == {text: mean for text, mean in means.items() if text}
        if "length_penalty" in own:
            assert {c.score for c in captions}.isdisjoint(h.score for h in hypotheses)


def test_of_beams_that_say_the_same_the_stage_keeps_five_that_differ(folder, monkeypatch):
    """More beams than captions are of use only if none is cut before those that say the same are merged."""
    captioner = make(folder)
    said = [" cat", " a cat", " the cat", " a dog", " dog", " hen", " the dog", " cow", " pig", " ox"]
    hypotheses = [
        Hypothesis([*captioner.tokenizer.encode(text), 2], -0.1 * i, -0.1 * i) for i, text in enumerate(said, 1)
    ]
    monkeypatch.setattr(captioner, "_forward", lambda views: [[hypotheses] for _ in views])
    given = Sample(1, "toy/1", "1.png", 100, 150, (Annotation(1, (2, 2, 50, 50), "cat"),))
    (done,) = CaptionStage(captioner).process([given], IMAGES[:1])
    assert [c.text for c in done.annotations[0].captions] == ["cat", "a dog", "hen", "cow", "pig"]


def test_precision_is_that_of_the_network(folder):
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        network = make(folder, precision=precision).network
        assert network.encoder.embed_tokens.weight.dtype == network.decoder.layers[0].fc1.weight.dtype == dtype


@pytest.mark.parametrize(("options", "boxes"), [({}, 8), ({"num_beams": 5}, 8), ({"num_beams": 40}, 2)])
def test_more_beams_are_fewer_boxes_at_once(folder, options, boxes):
    assert make(folder, **options).oom_batcher.max_boxes == boxes
    assert make(folder, **options, box_chunk=7).oom_batcher.max_boxes == 7


def test_bfloat16_says_nearly_what_float32_says(folder):
    exact, rough = (told(make(folder, precision=precision)) for precision in ("fp32", "bf16"))
    pairs = [(a[0], b[0]) for own, others in zip(exact, rough, strict=True) for a, b in zip(own, others, strict=True)]
    assert all(b.score == pytest.approx(a.score, abs=0.4) for a, b in pairs)


def test_a_network_of_no_numbers_says_nothing_and_the_boxes_are_flagged(tmp_path):
    weights = dict(tiny_ofa.text_generating_weights())
    name = "decoder.layer_norm.weight"
    weights[name] = torch.full_like(weights[name], torch.nan)
    captioner = make(tiny_ofa.checkpoint(tmp_path / "nan", weights))
    assert told(captioner) == [[[]] * 4, [], [[]] * 7]
    given = Sample(1, "toy/1", "1.png", 100, 150, (Annotation(1, (2, 2, 50, 50), "dog"),))
    (done,) = CaptionStage(captioner).process([given], IMAGES[:1])
    assert done.annotations[0].flags == ("no_caption",)
    assert done.annotations[0].captions == ()


# --- what it costs ---------------------------------------------------------------------------------------------------


def counted(monkeypatch, owner, name):
    """Sizes of the batches that a method gets from now on."""
    seen: list[int] = []
    whole = getattr(owner, name)

    def counting(self, first, *rest, **more):
        seen.append(len(first.states if hasattr(first, "states") else first))
        return whole(self, first, *rest, **more)

    monkeypatch.setattr(owner, name, counting)
    return seen


def test_an_image_is_seen_once_however_many_boxes_it_has(folder, monkeypatch):
    captioner = make(folder, batch_size="3", box_chunk=2)
    seen = counted(monkeypatch, OfaEncoder, "extract_image_tokens")
    encoded = counted(monkeypatch, OfaEncoder, "forward")
    told(captioner)
    assert seen == [2], "the image without boxes is not looked at"
    assert encoded == [2] * 5 + [1]


def test_places_are_computed_once_for_all_images(folder, monkeypatch):
    captioner = make(folder)
    seen = []
    whole = OfaEncoder.compute_position_bias
    monkeypatch.setattr(
        OfaEncoder, "compute_position_bias", lambda self, *size: seen.append(size) or whole(self, *size)
    )
    told(captioner)
    told(captioner)
    side = tiny_ofa.SIDE // 16
    assert seen == [(side, side, len(captioner.tokenizer.encode_region_prompt([0, 0, 1, 1])))]


def test_many_boxes_cost_the_memory_of_a_chunk(folder, monkeypatch):
    captioner = make(folder, box_chunk=64, num_beams=2, max_length=3)
    encoded = counted(monkeypatch, OfaEncoder, "forward")
    started = counted(monkeypatch, Ofa, "init_cache")
    (found,) = told(captioner, IMAGES[:1], [some_boxes(100, 150, 500)], 2)
    assert len(found) == 500
    assert encoded == started == [64] * 7 + [52]


@pytest.mark.parametrize("images", [[], IMAGES[1:2], [IMAGES[1]] * 3])
def test_images_without_boxes_cost_nothing(folder, monkeypatch, images):
    seen = counted(monkeypatch, OfaEncoder, "extract_image_tokens")
    assert told(make(folder), images, [np.zeros((0, 4), np.float32)] * len(images)) == [[]] * len(images)
    assert seen == []


def test_fewer_images_where_memory_runs_out(folder, monkeypatch, caplog):
    captioner = make(folder, batch_size="3")
    expected = told(captioner)
    whole = OfaEncoder.extract_image_tokens

    def greedy(self, pixels):
        if len(pixels) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(self, pixels)

    monkeypatch.setattr(OfaEncoder, "extract_image_tokens", greedy)
    with caplog.at_level(logging.WARNING):
        found = told(captioner)
    assert all(alike(a, b) for a, b in zip(found, expected, strict=True))
    assert captioner.batch_size == 1
    assert "going on with 1 images at once" in caplog.text


def test_fewer_boxes_where_memory_runs_out(folder, monkeypatch):
    captioner = make(folder, box_chunk=64)
    (expected,) = told(captioner, IMAGES[2:], BOXES[2:])
    whole = Ofa.init_cache

    def greedy(self, encoded, steps):
        if len(encoded.states) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(self, encoded, steps)

    monkeypatch.setattr(Ofa, "init_cache", greedy)
    (found,) = told(captioner, IMAGES[2:], BOXES[2:])
    assert alike(found, expected)
    assert captioner.oom_batcher.max_boxes == 2

    def hopeless(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Ofa, "init_cache", hopeless)
    with pytest.raises(torch.OutOfMemoryError):
        told(captioner, IMAGES[2:], BOXES[2:])


def test_a_lost_device_ends_the_worker(folder, monkeypatch):
    captioner = make(folder)

    def lost(*_):
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nand more")

    monkeypatch.setattr(OfaEncoder, "extract_image_tokens", lost)
    with pytest.raises(BrokenWorkerError, match=r"^the GPU failed \(CUDA error: an illegal memory access was enc"):
        told(captioner)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_says_what_the_cpu_says(folder):
    here, there = (told(make(folder, device=device, batch_size="3")) for device in ("cpu", "cuda"))
    pairs = [(a[0], b[0]) for own, others in zip(here, there, strict=True) for a, b in zip(own, others, strict=True)]
    # TF32 in convolutions moves scores a little, and what is all but equal may change places.
    assert all(b.score == pytest.approx(a.score, abs=0.05) for a, b in pairs)
    assert sum(a.text == b.text for a, b in pairs) >= 0.8 * len(pairs)


# --- options and weights ---------------------------------------------------------------------------------------------


def settled(folder, **options):
    own = {"checkpoint": str(folder), "side": tiny_ofa.SIDE, **options}
    return plugins.resolve_options(PLUGIN_PACKAGE, "ofa", own)


def test_settled_options_say_which_weights_wherever_they_lie(folder, tmp_path):
    found = settled(folder)
    assert re.fullmatch(r"[0-9a-f]{64}", found["weights"])
    assert settled(**{**found, "folder": folder}) == found, "a worker settles again, and finds the same"
    elsewhere = tiny_ofa.checkpoint(tmp_path / "elsewhere")
    assert settled(elsewhere)["weights"] == found["weights"]
    words = tiny_ofa.vocabulary()
    words["at"] = words.pop("ca")
    (elsewhere / "vocab.json").write_text(json.dumps(words))
    (elsewhere / "merges.txt").write_text("a t\nĠ a\nc at\nĠ cat\nĠ Ġ\n")
    assert settled(elsewhere)["weights"] != found["weights"], "the tokenizer decides what is said"


@pytest.mark.parametrize(
    ("said", "side"),
    [
        ({"model": {"image_size": 96}}, 96),
        ({"model": {"image_size": 96.0}}, None),
        ({"model": {}}, None),  # the default, which is OFA's own
        ({"model": []}, None),
        ([], None),
        (None, None),
    ],
)
def test_the_side_is_what_a_checkpoint_learned_from_unless_it_is_said(folder, tmp_path, said, side):
    """A stranger's file may say anything, and nothing."""
    about = {} if said is None else {"about": json.dumps(said)}
    own = tiny_ofa.checkpoint(tmp_path / "own", {**about, "model": tiny_ofa.text_generating_weights(), "training": {}})
    assert read_image_size(own / "pytorch_model.bin") == side
    if side is None:
        with pytest.raises(
            SynthgenError, match=r"is 384 unless -O side= is said; it is more than this OFA's 112 pixels$"
        ):
            settled(own, side=0)
    else:
        assert settled(own, side=0)["side"] == side
        assert settled(own, side=64)["side"] == 64


def test_a_checkpoint_that_changed_since_the_job_began_is_reported(folder, tmp_path):
    options = settled(folder)
    other = tiny_ofa.checkpoint(
        tmp_path / "other", {k: v + 0.01 for k, v in tiny_ofa.text_generating_weights().items()}
    )
    with pytest.raises(SynthgenError, match=r"^-O weights=[0-9a-f]{64} asks for another checkpoint than .*other \("):
        plugins.build_plugin(PLUGIN_PACKAGE, "ofa", {**options, "checkpoint": str(other)})


def test_names_of_fairseq_and_safetensors_are_read_as_well(folder, tmp_path):
    from safetensors.torch import save_file

    theirs = tiny_ofa.fairseq_names(tiny_ofa.text_generating_weights())
    tiny_ofa.checkpoint(tmp_path / "fairseq", theirs)
    tiny_ofa.checkpoint(tmp_path / "training", {"args": None, "model": theirs, "extra_state": {"epoch": 1}})
    save_file(tiny_ofa.text_generating_weights(), tiny_ofa.write_vocabulary(tmp_path / "safe") / "model.safetensors")
    expected = told(make(folder), IMAGES[:1], BOXES[:1])
    assert told(make(tmp_path / "fairseq"), IMAGES[:1], BOXES[:1]) == expected
    assert told(make(tmp_path / "training"), IMAGES[:1], BOXES[:1]) == expected
    assert told(make(tmp_path / "safe"), IMAGES[:1], BOXES[:1]) == expected


def test_more_captions_than_beams_are_refused(folder):
    with pytest.raises(SynthgenError, match=r"^--num-beams 3 cannot give 5 captions"):
        told(make(folder, num_beams=3))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"precision": "fp61"}, r"^--precision fp61 should be fp32 or bf16"),
        ({"batch_size": "0"}, r"^--batch-size 0 should be a number of images, or auto"),
        ({"device": "gpu"}, r"^--device gpu should be auto, cpu, cuda"),
        ({"side": 100}, r"^-O side=100 should be a multiple of 16, such as 384 or 512$"),
        ({"side": -16}, r"^-O side=-16 should be a multiple of 16"),
        ({"side": 128}, r"^-O side=128 is more than this OFA's 112 pixels$"),
        ({"groups": 3}, r"^10 beams in 3 groups.*; see --num-beams"),
        ({"num_beams": 0}, r"^0 beams in 1 groups"),
        ({"num_beams": 129}, r"^--num-beams 129 should be at most 128$"),
        ({"max_length": 0}, r"of at most 0 tokens, are no search"),
        ({"max_length": 64}, r"^--max-length 64 should be below 64$"),
        ({"no_repeat_ngram": -1}, r"no_repeat_ngram -1 do not go together"),
        ({"diversity": float("nan")}, r"^-O length_penalty=1.0 and -O diversity=nan should be numbers"),
        ({"length_penalty": float("inf")}, r"^-O length_penalty=inf and"),
    ],
)
def test_options_that_cannot_be_used_are_reported(folder, options, sentence):
    with pytest.raises(SynthgenError, match=sentence) as why:
        settled(folder, **options)
    assert "\n" not in str(why.value)


# --- the command -----------------------------------------------------------------------------------------------------


WORLD = ("--dataset", "coco-json", "--annotations", "boxes.json", "--images", "photos")
OFA = ("--captioner", "ofa", "--device", "cpu", "--max-length", "8", "-O", f"side={tiny_ofa.SIDE}")


def shards(folder: Path, layer: str, dataset: str = "boxes") -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (folder / "shards" / dataset / "train" / layer).glob("*.parquet")}


def test_the_command_makes_the_same_bytes_again_and_keeps_the_digest_not_the_path(synthgen, tmp_path, folder):
    coco_dataset.write_coco_dataset(tmp_path, images=4)
    code, said = synthgen("captions", *WORLD, *OFA, "--checkpoint", str(folder))
    assert code == 0, said
    assert re.search(r"captions for 12 of 12 boxes on 4 images in 1 shard", said)
    store = ShardStore("shards")
    footer = store.read_footer(store.list_shards("boxes", "train", "captions")[0])
    assert footer["recipe"]["options"]["weights"] == settled(folder)["weights"]
    assert footer["recipe"]["options"]["num_beams"] == 10
    assert footer["recipe"]["options"]["max_length"] == 8
    assert str(folder) not in json.dumps(footer)
    assert "nothing to do" in synthgen("captions", *WORLD, *OFA, "--checkpoint", str(folder))[1]

    elsewhere = tiny_ofa.checkpoint(tmp_path / "elsewhere")
    faster = ("--checkpoint", "elsewhere", "--batch-size", "2", "-O", "box_chunk=5")
    assert "nothing to do" in synthgen("captions", *WORLD, *OFA, *faster)[1]
    before = shards(tmp_path, "captions")
    shutil.rmtree(tmp_path / "shards/boxes/train/captions")
    assert synthgen("captions", *WORLD, *OFA, "--checkpoint", str(elsewhere))[0] == 0
    assert shards(tmp_path, "captions") == before
    code, said = synthgen("captions", *WORLD, *OFA, "--checkpoint", str(folder), "--num-beams", "6")
    assert code == 2
    assert "num_beams" in said


class Evil:
    """Leaves a file behind where it is unpickled."""

    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


def _without(*names):
    return {k: v for k, v in tiny_ofa.text_generating_weights().items() if k not in names}


def _spoiled(kind: str, folder: Path) -> Path:
    """A folder that is no checkpoint in one way."""
    if kind == "no folder":
        return folder
    path = tiny_ofa.checkpoint(folder) / "pytorch_model.bin"
    if kind == "no weights":
        path.unlink()
    elif kind == "no vocabulary":
        (folder / "vocab.json").unlink()
        (folder / "merges.txt").unlink()
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:-5000])
    elif kind == "text":
        path.write_text("<html>404</html>")
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(Evil()))
    elif kind == "pickle in a checkpoint":
        torch.save({**tiny_ofa.text_generating_weights(), "encoder.extra": Evil()}, path)
    elif kind == "fairseq's own":
        torch.save({"cfg": Namespace(arch="ofa_tiny"), "model": tiny_ofa.text_generating_weights()}, path)
    elif kind == "another model":
        torch.save({"vision_tower.weight": torch.ones(3)}, path)
    elif kind == "keys are missing":
        torch.save(_without("decoder.layers.1.fc1.weight", "encoder.pos_ln.bias"), path)
    elif kind == "another size":
        torch.save({**tiny_ofa.text_generating_weights(), "encoder.layers.1.fc1.weight": torch.zeros(7, 48)}, path)
    elif kind == "another vocabulary":
        torch.save({**_without(), "encoder.embed_tokens.weight": torch.zeros(600, 48)}, path)
    elif kind == "damaged vocabulary":
        (folder / "vocab.json").write_text('["<s>"]')
    return folder


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("no folder", r"no folder .*ofa; --checkpoint should name the folder of an OFA"),
        ("no weights", r"has no weights by the name of model.safetensors or .*fetch the whole folder .*these names$"),
        (
            "no vocabulary",
            r"lacks vocab.json and merges.txt; .*`hf download OFA-Sys/ofa-base vocab.json merges.txt --l",
        ),
        ("fairseq's own", r"executed here: argparse.Namespace; if you trust who made it, `python -c .*weights alone$"),
        ("truncated", r"pytorch_model.bin: it is no PyTorch checkpoint.*; name the folder"),
        ("text", r"pytorch_model.bin: it is no PyTorch checkpoint.*; name the folder"),
        ("pickle", r"pytorch_model.bin: it .*; name the folder"),
        ("pickle in a checkpoint", r"pytorch_model.bin: it .*; name the folder"),
        ("another model", r"pytorch_model.bin: these weights are not OFA's: encoder.embed_tokens.weight is not"),
        ("keys are missing", r"they lack encoder.pos_ln.bias, decoder.layers.1.fc1.weight; name the folder"),
        ("another size", r"they differ: encoder.layers.1.fc1.weight is \[7, 48\] instead of \[96, 48\]; name"),
        ("another vocabulary", r"its vocabulary has 9458 words, its network 600; the files are of two models, fetch"),
        ("damaged vocabulary", r"ofa: vocab.json is not a JSON object of tokens and their ids; name the folder"),
    ],
)
def test_each_mistake_of_a_checkpoint_is_one_sentence(synthgen, tmp_path, kind, sentence):
    coco_dataset.write_coco_dataset(tmp_path, images=1)
    code, said = synthgen("captions", *WORLD, *OFA, "--checkpoint", str(_spoiled(kind, tmp_path / "ofa")))
    last = said.strip().splitlines()[-1]
    assert (code, bool(re.search(sentence, last))) == (2, True), said
    assert last.startswith("synthgen: ")
    assert "Traceback" not in said
    assert not Path("executed").exists()
    assert not shards(tmp_path, "captions")


def test_no_checkpoint_and_fewer_beams_than_captions_are_reported_before_the_job(synthgen, tmp_path, folder):
    coco_dataset.write_coco_dataset(tmp_path, images=1)
    code, said = synthgen("captions", *WORLD, *OFA, "--dry-run")
    assert code == 2
    assert re.search(r"^synthgen: the captioner ofa needs --checkpoint FOLDER; `hf download OFA-Sys/ofa-base ", said)
    few = ("--checkpoint", str(folder), "--dry-run", "--num-beams", "3")
    code, said = synthgen("captions", *WORLD, *OFA, *few)
    assert code == 2
    assert said == (
        "synthgen: --num-beams 3 cannot give 5 captions; make it 5 or more, or ask for fewer with --top-k\n"
    )
    assert synthgen("captions", *WORLD, *OFA, *few, "--top-k", "3")[0] == 0


# --- real data -------------------------------------------------------------------------------------------------------


def test_photographs_captioned(shared, synthgen, tmp_path, folder):
    data = shared("data/coco_tiny")
    coco = json.loads((data / "annotations/instances_val2017.json").read_text())
    crowded = [a["image_id"] for a in coco["annotations"] if a["iscrowd"]][:1]
    chosen = {*crowded, *[image["id"] for image in coco["images"]][:3]}
    coco["images"] = [image for image in coco["images"] if image["id"] in chosen]
    coco["annotations"] = [a for a in coco["annotations"] if a["image_id"] in chosen]
    assert crowded
    (tmp_path / "few.json").write_text(json.dumps(coco))
    own = ("--dataset", "coco-json", "--annotations", "few.json", "--images", str(data / "val2017"), *OFA)
    made = []
    for _ in range(2):
        shutil.rmtree(tmp_path / "shards/few/train/captions", ignore_errors=True)
        code, said = synthgen("captions", *own, "--checkpoint", str(folder))
        assert code == 0, said
        made.append(shards(tmp_path, "captions", "few"))
    assert made[0] and made[0] == made[1]

    store = ShardStore("shards")
    samples = [s for shard in store.list_shards("few", "train", "captions") for s in store.read_samples(shard)]
    flat = [a for s in samples for a in s.annotations]
    assert len(samples) == len(chosen)
    assert sorted(a.id for a in flat) == sorted(a["id"] for a in coco["annotations"])
    for annotation in flat:
        skipped = annotation.iscrowd or not UNPROMPTED_FLAGS.isdisjoint(annotation.flags)
        assert bool(annotation.captions) != skipped
        assert len(annotation.captions) <= 5
        assert len({c.text for c in annotation.captions}) == len(annotation.captions)
        scores = [c.score for c in annotation.captions]
        assert scores == sorted(scores, reverse=True)
        assert all(score <= 0 for score in scores)
    assert sum(a.iscrowd for a in flat) == sum(a["iscrowd"] for a in coco["annotations"]) > 0
