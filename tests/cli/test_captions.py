"""`synthgen captions`: input layers, output, resumed runs, error messages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fakes import coco_dataset

from synthgen.records.sample import Sample
from synthgen.storage.shard_store import ShardStore

OWN = ("--dataset", "coco-json", "--annotations", "boxes.json", "--images", "photos")


@pytest.fixture
def synthgen(synthgen, tmp_path: Path):
    coco_dataset.write_coco_dataset(tmp_path, images=8)
    return synthgen


def samples(folder: Path, layer: str) -> list[Sample]:
    store = ShardStore(folder / "shards")
    return [s for shard in store.list_shards("boxes", "train", layer) for s in store.read_samples(shard)]


def parent(folder: Path, layer: str) -> str:
    store = ShardStore(folder / "shards")
    return store.read_footer(store.list_shards("boxes", "train", layer)[0])["parent"]["layer"]


def test_from_boxes_to_captions_and_pictures(synthgen, tmp_path):
    code, told = synthgen("captions", *OWN)
    assert code == 0, told
    assert re.search(r"\d+ captions for 24 of 24 boxes on 8 images in 1 shard", told)
    assert re.search(r"^  \d+% of those that the captioner described have 5 that differ$", told, re.MULTILINE)
    assert parent(tmp_path, "captions") == "annotations"
    assert all(0 < len(a.captions) <= 5 for s in samples(tmp_path, "captions") for a in s.annotations)
    assert "nothing to do" in synthgen("captions", *OWN)[1]
    status = synthgen("status")[1]
    assert "made by  attributes top_k=5" in status
    assert re.search(r"captions \d+ for 24 boxes, \d+% of those described with as many as were asked for", status)
    code, told = synthgen("show", "boxes/train/captions", "--n", "2", "--out", "pictures")
    assert code == 0, told
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 3


def test_masks_are_read_where_they_are_and_a_layer_goes_on_from_what_it_was_begun_with(synthgen, tmp_path):
    assert synthgen("captions", *OWN, "--layer", "early")[0] == 0
    assert synthgen("masks", *OWN, "--segmenter", "box_fill")[0] == 0
    assert synthgen("captions", *OWN)[0] == 0
    assert parent(tmp_path, "captions") == "masks"
    assert all(a.segmentation is not None for s in samples(tmp_path, "captions") for a in s.annotations)
    code, told = synthgen("captions", *OWN, "--layer", "early")
    assert (code, "nothing to do" in told) == (0, True)
    assert parent(tmp_path, "early") == "annotations"
    assert synthgen("captions", *OWN, "--reads", "annotations", "--layer", "plain")[0] == 0
    assert parent(tmp_path, "plain") == "annotations"
    assert synthgen("masks", *OWN, "--segmenter", "box_fill", "--reads", "plain", "--layer", "last")[0] == 0
    assert samples(tmp_path, "last") == samples(tmp_path, "captions")


def test_options_of_the_stage_are_of_the_recipe(synthgen, tmp_path):
    (tmp_path / "words.txt").write_text("Ball\ncoin\n")
    flags = ("--top-k", "2", "--min-score", "-1.5", "--forbidden", "words.txt")
    assert synthgen("captions", *OWN, *flags)[0] == 0
    made = [c for s in samples(tmp_path, "captions") for a in s.annotations for c in a.captions]
    assert all("no_score" in c.reasons for c in made), "the minimum is not met, nor missed, and that is told"
    assert all(("forbidden_word" in c.reasons) == bool(re.search(r"\b(ball|coin)\b", c.text)) for c in made)
    assert any("forbidden_word" in c.reasons for c in made)
    (tmp_path / "words.txt").unlink()
    assert "nothing to do" in synthgen("captions", *OWN, *flags[:4], "--forbidden", "coin, ball")[1]
    code, told = synthgen("captions", *OWN, "--top-k", "3")
    assert code == 2
    assert "made with attributes forbidden=ball,coin min_score=-1.5 top_k=2; this job says attributes top_k=3" in told


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--captioner", "atributes"), r"no captioner named 'atributes'; did you mean 'attributes'\?"),
        (("--captioner", "no.such"), r"no module 'no.such' to take a captioner from"),
        (("--num-beams", "5"), r"'attributes' takes batch_size; got 'num_beams'"),
        (("--checkpoint", "x"), r"'attributes' takes batch_size; got 'checkpoint'"),
        (("--forbidden", "none.txt"), r"no file none.txt; --forbidden takes"),
        (("--min-score", "nan"), r"--min-score nan should be a number"),
        (("--min-score", "0.5"), r"--min-score 0.5 is what no caption reaches"),
        (("--compile",), r"No such option.*--compile"),
        (("--reads", "masks"), r"boxes/train/masks has no shards"),
        (("--reads", "captions"), r"'captions' is what the job reads; .*such as captions-2"),
        (("--layer", "annotations"), r"'annotations' is what the job reads; .*such as captions"),
        (("--layer", "human"), r"made from boxes's own files; .*such as captions"),
        (("--workers", "2"), r"--workers 2 needs Ray; add `--engine ray`, or without it start 2 commands"),
        (("--gpus-per-worker", "1"), r"--gpus-per-worker needs Ray; add `--engine ray`"),
    ],
)
def test_each_mistake_has_its_sentence(synthgen, tmp_path, words, sentence):
    code, told = synthgen("captions", *OWN, *words)
    assert code == 2, told
    assert re.search(sentence, told), told
    assert "Traceback" not in told
    assert not list(tmp_path.rglob("captions/*.parquet"))


def test_help_promises_no_more_than_captioners_take(synthgen):
    code, told = synthgen("captions", "--help")
    told = " ".join(told.split())
    assert code == 0
    assert re.search(
        r"--checkpoint PATH florence2: Folder of the weights, required .*; ofa: Folder of the weights", told
    )
    assert "(default: 32 with florence2, 16 with ofa)" in told
    assert "--compile" not in told
    assert "downloaded once" not in told
    assert "--compile" in synthgen("masks", "--help")[1]


def test_the_share_is_of_what_was_asked_for(synthgen):
    code, told = synthgen("captions", *OWN, "--top-k", "1")
    assert code == 0, told
    assert "  100% of those that the captioner described have one\n" in told
    assert "100% of those described with as many as were asked for" in synthgen("status")[1]


def test_a_captioner_that_fails_on_an_image_flags_its_boxes_and_may_be_retried(synthgen, tmp_path):
    from PIL import Image

    path = tmp_path / "photos/0003.png"
    image = Image.open(path)
    image.putpixel((0, 0), (255, 0, 0))
    image.save(path)
    flags = ("--captioner", "fakes.failing_captioner", "-O", "recovery_file=recovered", "--max-error-share", "1")
    code, told = synthgen("captions", *OWN, *flags)
    assert code == 0, told
    assert "1 image failed" in told
    failed = [a for s in samples(tmp_path, "captions") for a in s.annotations if "captioner_failed" in a.flags]
    assert len(failed) == 3
    assert not any(a.captions for a in failed)
    told = synthgen("status", "--failures")[1]
    assert "no caption 00000 image 3 0003.png, annotation 7" in told
    assert "fakes.failing_captioner failed (RuntimeError: the image has a red corner)" in told
    (tmp_path / "recovered").touch()
    assert synthgen("captions", *OWN, *flags, "--retry-failed")[0] == 0
    assert all(a.captions and not a.flags for s in samples(tmp_path, "captions") for a in s.annotations)


@pytest.mark.slow
def test_the_demo_ends_with_captions_and_a_network_that_learned_them(synthgen, tmp_path):
    code, told = synthgen("demo", "--folder", "demo")
    assert code == 0, told
    store = ShardStore(tmp_path / "demo/shards")
    assert [layer for _, _, layer in store.list_layers()] == ["annotations", "captions", "masks"]
    (shard,) = store.list_shards("demo", "train", "captions")
    flat = [a for s in store.read_samples(shard) for a in s.annotations]
    assert sum(bool(a.captions and a.segmentation) for a in flat) == len(flat) - 1  # a crowd
    galaxies = [c.text for a in flat if a.category == "galaxy" for c in a.captions]
    assert galaxies
    assert not any(text.startswith("the ") for text in galaxies)  # there are more of them than are boxed
    assert (tmp_path / "demo/pictures/sheet.png").exists()
    assert len(list((tmp_path / "demo/training").glob("*.png"))) == 13
    for task in ("instance", "referring", "detection", "foreground"):  # what the model saw
        assert re.search(rf"demo/train/\w+ {task} +\d+\.\d\d %", told), told
    assert re.search(r"masks refused: \d+ stability_score", told)
    assert "150 steps learned; the network is demo/run/step-00000150.pt" in told
    assert float(re.search(r"AP50 +(\d+\.\d+)", told)[1]) > 30  # of what it learned by heart
    assert (tmp_path / "demo/predictions/coffee.jpg.found.png").exists()
    assert "Look at demo/training/sheet.png" in told
    assert "\n  synthgen show  demo/toy.yaml\n" in told
