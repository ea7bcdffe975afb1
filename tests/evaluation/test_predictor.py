"""`synthgen predict`: its files, image frames, and untrusted images and checkpoints."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import eval_dataset
from fakes.peak_memory import linux_only
from PIL import Image

from synthgen.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from synthgen.evaluation.predictor import PredictResult
from synthgen.models.mqformer.text_encoder import TextEncoder
from synthgen.records.rle import decode_mask
from synthgen.records.sample import Rle

OPTIONS = ("--checkpoint", "best.pt", "--device", "cpu", "--short", "64", "--threshold", "0.3")


@pytest.fixture
def synthgen(synthgen, tmp_path: Path):
    torch.set_num_threads(1)
    eval_dataset.write_eval_dataset(tmp_path, images=1)
    eval_dataset.write_checkpoint(tmp_path / "best.pt")
    return synthgen


def said(name: str) -> dict:
    return json.loads(Path("predictions", f"{name}.png.found.json").read_text())


def test_a_name_is_asked_for_as_it_was_learned_whatever_else_is(synthgen, monkeypatch):
    """A name goes into templates, a phrase does not; a phrase beside it changes nothing of it."""
    asked = []
    embed = TextEncoder.forward

    def noted(self, texts, names=False):
        asked.append(dict(zip(texts, names, strict=True)))
        return embed(self, texts, names)

    monkeypatch.setattr(TextEncoder, "forward", noted)
    for prompts in (eval_dataset.CATEGORIES[:2], (*eval_dataset.CATEGORIES[:2], "the left one"), ()):
        assert synthgen("predict", "photos/1.png", *prompts, *OPTIONS)[0] == 0
    known = dict.fromkeys(eval_dataset.CATEGORIES[:2], True)
    assert asked == [known, {**known, "the left one": False}, dict.fromkeys(eval_dataset.CATEGORIES, True)]


def test_prompts_are_found_drawn_and_written(synthgen):
    code, told = synthgen("predict", "photos/1.png", "a red ball", "  grass ", "a red ball", *OPTIONS)
    assert code == 0, told
    content = said("1")
    assert (content["image"], content["height"], content["width"]) == ("1.png", 72, 120)
    assert [one["text"] for one in content["asked"]] == ["a red ball", "grass"]
    assert len(content["found"]) > 3 and "best.pt" in content["checkpoint"] and content["step"] == 7
    scores = [one["score"] for one in content["found"]]
    assert scores == sorted(scores, reverse=True) and scores[-1] >= 0.3
    for one in content["found"]:
        mask = decode_mask(Rle(tuple(one["segmentation"]["size"]), one["segmentation"]["counts"].encode()))
        x, y, w, h = one["bbox"]
        assert one["query"] in ("conditional", "learnable")
        assert mask.shape == (72, 120) and mask.any() and 0 <= x <= x + w <= 120 and 0 <= y <= y + h <= 72
    for asked in content["asked"]:
        own = [one["score"] for one in content["found"] if one["text"] == asked["text"]]
        assert asked["best"] == max(own)
    picture = np.asarray(Image.open("predictions/1.png.found.png"))
    assert max(picture.shape[:2]) >= 1024 and "predictions/1.png.found.png" in told and "grass" in told
    before = {path.name: path.read_bytes() for path in Path("predictions").iterdir()}
    assert synthgen("predict", "photos/1.png", "a red ball", "grass", *OPTIONS)[0] == 0
    assert {path.name: path.read_bytes() for path in Path("predictions").iterdir()} == before, "the same each time"
    assert "/" not in json.dumps(content), "no paths of this machine"


def test_without_prompts_it_looks_for_what_it_learned(synthgen):
    assert synthgen("predict", "photos/1.png", *OPTIONS)[0] == 0
    assert [one["text"] for one in said("1")["asked"]] == list(eval_dataset.CATEGORIES)
    eval_dataset.write_checkpoint(Path("best.pt"), names=())
    code, told = synthgen("predict", "photos/1.png", *OPTIONS)
    assert code == 2 and "say what to look for" in told


def test_where_nothing_is_sure_that_is_said(synthgen):
    code, told = synthgen("predict", "photos/1.png", "horse", *OPTIONS[:-1], "1.0")
    assert code == 0 and "nothing reaches 1; the best is 0." in told and said("1")["found"] == []
    assert 0 < said("1")["asked"][0]["best"] < 1


def test_a_turned_photograph_is_seen_as_a_viewer_shows_it(synthgen):
    photo = Image.open("photos/1.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.transpose(Image.Transpose.ROTATE_90).save("photos/turned.png", exif=exif)
    for name in ("1", "turned"):
        assert synthgen("predict", f"photos/{name}.png", "ball", *OPTIONS)[0] == 0
    assert {**said("turned"), "image": "1.png"} == said("1")


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (700, 2), (33, 31)], ids=str)
def test_images_of_any_shape(synthgen, size):
    Image.new("RGB", size, (200, 30, 30)).save("odd.png")
    code, told = synthgen("predict", "odd.png", "ball", *OPTIONS)
    assert code == 0, told
    assert (said("odd")["width"], said("odd")["height"]) == size


def test_a_large_photograph_is_drawn_smaller_and_reported_in_its_own_frame(synthgen, monkeypatch):
    monkeypatch.setattr("synthgen.evaluation.prediction_pictures._MAX_DRAWN_SIDE", 60)
    code, told = synthgen("predict", "photos/1.png", "ball", *OPTIONS)
    assert code == 0, told
    assert said("1")["found"][0]["segmentation"]["size"] == [72, 120]


@pytest.mark.parametrize("prompt", ["x" * 100_000, "\x1b[31mred", "日本の犬", "\ud800", "-1.5", "<|endoftext|>"])
def test_any_text_is_a_prompt(synthgen, prompt):
    code, told = synthgen("predict", "photos/1.png", *OPTIONS, "--", prompt)
    assert code == 0 and "\x1b" not in told, told[:300]
    assert said("1")["asked"][0]["text"] == prompt


def test_what_cannot_be_used_is_reported_in_a_sentence(synthgen):
    Path("broken.png").write_bytes(Path("photos/1.png").read_bytes()[:300])
    Path("text.png").write_text("no image")
    Path("empty.pt").write_bytes(b"")
    os.mkfifo("pipe.png")
    for words, sentence in (
        (("broken.png", "x"), "image broken.png: cannot be decoded"),
        (("text.png", "x"), "image text.png"),
        (("none.png", "x"), "image none.png: no such file; name another"),
        (("pipe.png", "x"), "image pipe.png: no regular file, but a device or a pipe"),
        (("/dev/null", "x"), "image /dev/null: no regular file, but a device or a pipe"),
        (("https://a.org/b.jpg?c=1", "x"), "https://a.org/b.jpg?c=1 is an address, and predict reads files; download"),
        (("x" * 300, "x"), "its name cannot be used"),
        (("photos/1.png", " "), "a prompt is empty"),
        (("photos/1.png", "x", "--checkpoint", "empty.pt"), "empty.pt cannot be used as a checkpoint"),
        (("photos/1.png", "x", "--checkpoint", "photos"), "photos"),
        (("photos/1.png", "x", "--device", "tpu"), "tpu"),
        (("photos/1.png", "x", "--out", "photos/1.png"), "choose another --out"),
    ):
        code, told = synthgen("predict", words[0], *OPTIONS, *words[1:])
        assert code == 2 and sentence in told and "Traceback" not in told, told
        assert len(told.strip().splitlines()) == 1


def test_a_file_is_no_prompt_unless_a_blank_says_so(synthgen):
    Path("ball").write_text("a note of mine")
    code, told = synthgen("predict", "photos/1.png", "ball", *OPTIONS)
    assert code == 2 and "'ball' is a file without the suffix of an image" in told
    assert not Path("predictions").exists()
    assert synthgen("predict", "photos/1.png", " ball", *OPTIONS)[0] == 0, "as the sentence has it"
    assert said("1")["asked"][0]["text"] == "ball"


def test_where_no_mask_has_a_pixel_no_threshold_is_blamed(synthgen):
    """As of a network that has begun to learn; `best` says of each text how likely it is, found or not."""
    found = load_checkpoint(Path("best.pt"))
    last = {"pixel_decoder.mask_features": -1.0, "decoder.mask_embed.layers.2": 1.0}  # their product is negative
    empty = {
        name: torch.full_like(value, last[part] * kind.startswith("b")) if part in last else value
        for name, value in found.weights.items()
        for part, _, kind in [name.rpartition(".")]
    }
    save_checkpoint(Path("best.pt"), replace(found, weights=empty))
    for threshold in ("0.3", "0"):
        code, told = synthgen("predict", "photos/1.png", "a red ball", "grass", *OPTIONS[:-1], threshold)
        assert code == 0 and "no mask has a pixel, whatever --threshold" in told and "lower" not in told, told
        asked = said("1")["asked"]
        assert said("1")["found"] == [] and all(one["empty"] and 0 < one["best"] < 1 for one in asked)
        best = max(asked, key=lambda one: one["best"])
        assert f"the likeliest label is {best['best']:.2g}, {best['text']}" in told


def test_what_has_no_mask_is_not_what_a_lower_threshold_shows():
    """The likeliest text may be the one whose masks are empty."""
    done = PredictResult(("a", "b"), (), (0.9, 0.1234), (True, False), True, Path("p"), Path("j"))
    assert done.format_lines(0.5)[0] == "nothing reaches 0.5; the best is 0.12, b: lower --threshold to see it"


def test_long_prompts_are_cut_where_people_read_and_nowhere_else(synthgen, monkeypatch):
    prompt = "the dog that " + "barked " * 700
    drawn = []
    monkeypatch.setattr(
        "synthgen.evaluation.prediction_pictures.draw_overlay", lambda image, marks, *_: drawn.extend(marks) or image
    )
    code, told = synthgen("predict", "photos/1.png", prompt, *OPTIONS)
    assert code == 0 and len(said("1")["found"]) > 3 and said("1")["found"][0]["text"] == prompt.strip()
    assert max(map(len, told.splitlines())) < 100 and "  the dog that barked barked " in told
    assert {len(mark.label) for mark in drawn} == {len("the dog that barked ... .90")}
    code, told = synthgen("predict", "photos/1.png", prompt, *OPTIONS[:-1], "1")
    assert code == 0 and max(map(len, told.splitlines())) < 200


def test_another_prediction_is_not_replaced_without_a_word(synthgen):
    told = "replaced an earlier one that was different (another image of that name, say); --out FOLDER keeps both"
    Path("others").mkdir()
    Image.new("RGB", (120, 72), (200, 30, 30)).save("others/1.png")
    for image, prompt, out, is_told in (
        ("photos/1.png", "ball", "predictions", False),
        ("photos/1.png", "ball", "predictions", False),
        ("photos/1.png", "grass", "predictions", True),
        ("others/1.png", "grass", "predictions", True),
        ("others/1.png", "ball", "elsewhere", False),
    ):
        code, lines = synthgen("predict", image, prompt, *OPTIONS, "--out", out)
        assert code == 0 and (told in lines) == is_told, (image, prompt)


@pytest.mark.parametrize(
    ("sides", "sentence"),
    [
        (("--short", "800", "--long", "100"), "--short 800 is more than --long 100;"),
        (("--short", "64", "--long", "63"), "--short 64 is more than --long 63;"),
        (("--short", "4000"), "--short 4000 is more than --long 1333 (the default);"),
        (("--long", "100"), "--short 800 (the default) is more than --long 100;"),
    ],
    ids=str,
)
def test_a_shorter_side_is_not_the_longer_one(synthgen, sides, sentence):
    """As `eval_size` of manifests has it."""
    manifest = "name: m\nstore: store\neval: [{shards: gallery/val/human, task: instance, images: photos}]\n"
    Path("m.yaml").write_text(manifest)
    for words in (("predict", "photos/1.png", "x"), ("evaluate", "--manifest", "m.yaml", "--loader-workers", "0")):
        code, told = synthgen(*words, "--checkpoint", "best.pt", "--device", "cpu", *sides)
        assert code == 2 and sentence in told and len(told.strip().splitlines()) == 1, told


@pytest.mark.parametrize("side", ["--short", "--long"])
def test_a_side_that_no_memory_is_enough_for_is_refused(synthgen, side):
    """As in manifests, and in checkpoints."""
    code, told = synthgen("predict", "photos/1.png", "x", *OPTIONS, side, "100000")
    assert code == 2 and side in told and "8192" in told


class _Harm:
    def __reduce__(self):
        return os.system, ("touch harmed",)


def test_nothing_of_an_untrusted_checkpoint_is_executed(synthgen):
    torch.save({"about": "{}", "model": _Harm()}, "best.pt")
    code, told = synthgen("predict", "photos/1.png", "x", *OPTIONS)
    assert code == 2 and "best.pt" in told
    Path("best.pt").write_bytes(pickle.dumps(_Harm()))
    assert synthgen("predict", "photos/1.png", "x", *OPTIONS)[0] == 2
    assert not Path("harmed").exists()


_LARGE = """
import sys, torch
sys.path.insert(0, {tests!r})
from fakes.peak_memory import measure_rise
from synthgen.evaluation import postprocess
torch.set_num_threads(1)
rng = torch.Generator().manual_seed(0)
logits = torch.randn(400, 150, generator=rng)
logits[15:] -= 5
seen = postprocess.RawPrediction(
    logits, torch.rand(400, 4, generator=rng), torch.randn(400, 200, 268, generator=rng) * 3,
    (800, 1072), (800, 1067), (3000, 4000), 300,
)
with measure_rise() as rise:
    assert len({{one.query for one in postprocess.instances(seen, max_detections=25)}}) > 10
    shape = postprocess.panoptic(seen).segment_ids.shape
    assert shape == postprocess.foreground(seen).probabilities.shape == (3000, 4000)
print(rise.mib)
"""


@linux_only
@pytest.mark.slow
def test_a_large_photograph_needs_bounded_memory():
    """4,000 x 3,000 pixels under masks of noise, their worst case: the logits of fifteen alone would be 700 MB."""
    program = _LARGE.format(tests=str(Path(__file__).parents[1]))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 100 < float(done.stdout) < 500, "MiB"
