"""The command line: exit codes, and one error message per mistake with the remedy."""

from __future__ import annotations

import hashlib
import json
import os
import re
import urllib.error
from pathlib import Path

import pytest
from fakes import coco_dataset, tiny_sam
from PIL import Image

from synthgen import weights
from synthgen.storage.shard_store import ShardStore


class Told:
    """What one command did: exit code, standard output, standard error."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def synthgen(typed):
    return lambda *words: Told(*typed(*words))


OWN = ("--dataset", "coco-json", "--annotations", "boxes.json", "--images", "photos")


def test_the_main_job_from_boxes_to_pictures(synthgen, tmp_path: Path) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=8)
    done = synthgen("masks", *OWN)
    assert done.code == 0, done.err
    assert "24 masks for 24 boxes on 8 images" in done.out
    assert (tmp_path / "shards/boxes/train/masks/00000-of-00001.parquet").exists()

    again = synthgen("masks", *OWN)
    assert again.code == 0
    assert "nothing to do" in again.out

    status = synthgen("status")
    assert status.code == 0
    assert "boxes/train/annotations" in status.out
    assert "boxes/train/masks" in status.out
    assert "1 of 1 (complete)" in status.out
    assert "made by  grabcut" in status.out

    shown = synthgen("show", "boxes/train/masks", "--n", "4", "--out", "pictures")
    assert shown.code == 0, shown.err
    pictures = sorted((tmp_path / "pictures").glob("*.png"))
    assert len(pictures) == 5
    for path in pictures:
        assert min(Image.open(path).size) > 200


def test_an_image_with_an_error_of_its_source_is_reported_where_its_boxes_get_no_masks(synthgen, tmp_path) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=8)
    content = json.loads((tmp_path / "boxes.json").read_text())
    content["annotations"].append({**content["annotations"][0], "id": 99_999, "image_id": 555_555})  # of no image
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    told = synthgen("masks", *OWN, "--segmenter", "box_fill")
    assert told.code == 0 and "24 masks for 25 boxes on 9 images" in told.out
    assert "passed over: 1 image that came with an error; `synthgen show boxes/train/masks` draws" in told.out


def test_an_overlay_shows_its_mask(synthgen, tmp_path: Path) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=1, objects=1)
    synthgen("masks", *OWN, "--segmenter", "box_fill")
    synthgen("show", "boxes/train/masks", "--out", "with")
    synthgen("show", "boxes/train/annotations", "--out", "without")
    with_mask, without = (Image.open(next((tmp_path / name).glob("1-*.png"))) for name in ("with", "without"))
    box = json.loads((tmp_path / "boxes.json").read_text())["annotations"][0]["bbox"]
    scale = 1024 / 96
    middle = (round((box[0] + box[2] / 2) * scale), round((box[1] + box[3] / 2) * scale))
    corner = (round(box[0] * scale) // 2, round((box[1] + box[3] * 0.5) * scale))
    assert with_mask.getpixel(middle) != without.getpixel(middle)
    assert with_mask.getpixel(corner) == without.getpixel(corner)


def test_a_dry_run_writes_no_masks(synthgen, tmp_path: Path) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=8)
    told = synthgen("masks", *OWN, "--dry-run")
    assert told.code == 0
    assert "would be made first, from boxes.json" in told.out
    assert not (tmp_path / "shards").exists()
    synthgen("ingest", *OWN)
    told = synthgen("masks", *OWN, "--dry-run")
    assert "1 of 1 shard to do, 8 images, 24 boxes, by grabcut" in told.out
    assert not list(tmp_path.rglob("masks/*"))


@pytest.mark.parametrize("layer", ["masks", "annotations", "annotations/_log"])
def test_leftovers_go_with_the_next_run_but_not_with_a_dry_one(synthgen, tmp_path: Path, layer: str) -> None:
    """Also in an input that is whole: another run may have finished it while the one that died was at it."""
    coco_dataset.write_coco_dataset(tmp_path, images=8)
    synthgen("ingest", *OWN)
    left = tmp_path / f"shards/boxes/train/{layer}/.scratch.0123456789abcdef.tmp"
    left.mkdir(parents=True)
    (left / "records").touch()
    assert synthgen("masks", *OWN, "--dry-run").code == 0
    assert left.exists()
    assert synthgen("masks", *OWN).code == 0
    assert not left.exists()


def test_the_size_of_shards_is_asked_for_once(synthgen, tmp_path: Path) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=40)
    assert synthgen("ingest", *OWN, "--shard-size", "7").code == 0
    folder = tmp_path / "shards/boxes/train/annotations"
    whole = {path.name: path.read_bytes() for path in folder.glob("*.parquet")}
    assert len(whole) == 6
    (folder / "00002-of-00006.parquet").unlink()
    told = synthgen("masks", *OWN, "--segmenter", "box_fill")
    assert told.code == 0, told.err
    assert {path.name: path.read_bytes() for path in folder.glob("*.parquet")} == whole
    assert "every shard was there" in synthgen("ingest", *OWN).out
    assert "was made with shard_size 7 (now 8)" in synthgen("ingest", *OWN, "--shard-size", "8").err


@pytest.mark.parametrize("folder", ["visual-genome", "visual_genome"])
def test_a_datasets_folder_may_be_spelt_as_its_option(synthgen, tmp_path: Path, folder: str) -> None:
    place = tmp_path / "data" / folder
    place.mkdir(parents=True)
    box = {"object_id": 1, "names": ["cat"], "x": 1, "y": 1, "w": 2, "h": 2}
    (place / "objects.json").write_text(json.dumps([{"image_id": 1, "objects": [box]}]))
    assert "1 image, 1 box;" in synthgen("ingest", "--dataset", "visual-genome").out
    assert (tmp_path / "shards/visual_genome/train/annotations").is_dir()


def test_limit_and_parts_make_some_shards(synthgen, tmp_path: Path) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=40)
    synthgen("ingest", *OWN, "--shard-size", "8")
    assert synthgen("masks", *OWN, "--segmenter", "box_fill", "--limit", "2").code == 0
    folder = tmp_path / "shards/boxes/train/masks"
    assert sorted(p.name for p in folder.glob("*.parquet")) == ["00000-of-00005.parquet", "00001-of-00005.parquet"]
    for part in range(3):
        assert synthgen("masks", *OWN, "--segmenter", "box_fill", "--part", f"{part}/3").code == 0
    assert len(list(folder.glob("*.parquet"))) == 5
    assert (folder / "_log/metrics-2-of-3.jsonl").exists()


def test_failed_shards_exit_1_and_are_named(synthgen, tmp_path: Path) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=40)
    synthgen("ingest", *OWN, "--shard-size", "8")
    (tmp_path / "photos/0010.png").write_bytes(b"")
    told = synthgen("masks", *OWN, "--segmenter", "box_fill")
    assert told.code == 1
    assert "boxes/train/masks/00001-of-00005" in told.out
    assert "0010.png" in told.out
    assert "same command again" in told.out
    assert "00001-of-00005" in synthgen("status", "--failures").out
    accepted = synthgen("masks", *OWN, "--segmenter", "box_fill", "--max-error-share", "0.2")
    assert accepted.code == 0, accepted.err
    assert "image 10 0010.png: cannot be decoded" in synthgen("status", "--failures").out


def test_retry_failed_repairs_what_can_be_repaired(synthgen, tmp_path: Path) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=8)
    good = (tmp_path / "photos/0003.png").read_bytes()
    (tmp_path / "photos/0003.png").write_bytes(good[:50])
    flags = (*OWN, "--segmenter", "box_fill", "--max-error-share", "0.5")
    assert synthgen("masks", *flags).code == 0
    assert "nothing to do" in synthgen("masks", *flags).out
    (tmp_path / "photos/0003.png").write_bytes(good)
    told = synthgen("masks", *flags, "--retry-failed")
    assert told.code == 0
    assert "24 masks for 24 boxes" in told.out
    assert "failed" not in synthgen("status").out


LONG = "x" * 300


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("masks", *OWN, "--name", LONG), r"'x+' cannot name a dataset, split or layer; use at most 200 letters"),
        (("masks", *OWN, "--layer", LONG), r"use at most 200 letters"),
        (("masks", *OWN, "--store", LONG), r"cannot use x+\S* \(File name too long\); choose a shorter name"),
        (("ingest", *OWN, "--store", LONG), r"x+\S* \(File name too long\)"),
        (("masks", "--dataset", "coco-json", "--annotations", LONG), r"cannot use x+ \(File name too long\)"),
        (("masks", *OWN[:4], "--images", LONG), r"cannot use x+ \(File name too long\)"),
        (("doctor", *OWN[:4], "--images", LONG), r"cannot use x+ \(File name too long\)"),
        (("status", "--store", LONG), r"cannot use x+ \(File name too long\)"),
        (("show", "boxes/train/masks", "--store", LONG), r"cannot use x+\S* \(File name too long\)"),
        (("show", f"boxes/train/{LONG}"), r"'x+' cannot name a dataset, split or layer"),
    ],
)
def test_names_too_long_for_any_file_system(synthgen, tmp_path: Path, words: tuple[str, ...], sentence: str) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=2)
    told = synthgen(*words)
    assert told.code == 2, (told.out, told.err)
    assert re.search(sentence, told.err), told.err
    assert len(told.err.strip().splitlines()) == 1, told.err


def test_an_annotation_file_of_the_longest_name(synthgen, tmp_path: Path) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=2)
    (tmp_path / "boxes.json").rename(tmp_path / f"{'y' * 250}.json")
    assert synthgen("ingest", "--dataset", "coco-json", "--annotations", f"{'y' * 250}.json").code == 0
    assert (tmp_path / "shards" / ("y" * 200)).is_dir()


@pytest.mark.parametrize("layer", ["annotations", "human"])
def test_half_a_surrogate_pair_in_a_name_is_a_question_mark(synthgen, tmp_path: Path, layer: str) -> None:
    """JSON allows it, and neither UTF-8 nor a column can hold it."""
    (tmp_path / "boxes.json").write_text(
        '{"images": [{"id": 1, "file_name": "\\ud800.png", "height": 9, "width": 9}], "annotations": [{"id": 1, '
        '"image_id": 1, "bbox": [1, 1, 5, 5], "category_id": 1}], '
        '"categories": [{"id": 1, "name": "a\\udfff"}, {"id": 2, "name": "\\ud83d\\ude00"}]}'
    )
    told = synthgen("ingest", *OWN[:4], "--layer", layer)
    assert told.code == 0, told.err
    store = ShardStore(tmp_path / "shards")
    (shard,) = store.list_shards("boxes", "train", layer)
    (sample,) = store.read_samples(shard)
    assert (sample.file_name, sample.annotations[0].category) == ("?.png", "a?")
    assert store.read_footer(shard)["categories"] == ["a?", "\U0001f600"]


def bad_file(folder: Path, text: str) -> None:
    (folder / "boxes.json").write_text(text)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("masks", "--dataset", "objcts365"), r"no dataset named 'objcts365'; did you mean 'objects365'\?"),
        (("masks", "--dataset", "coco-json"), r"coco-json needs --annotations"),
        (("masks", "--dataset", "coco-json", "--annotations", "nope.json"), r"no file nope.json"),
        (("masks", "--dataset", "coco", "--split", "train"), r"coco has no split 'train' \(have: train2017, val2017, "),
        (("masks", "--dataset", "coco"), r"no instances_train2017.json in data/coco"),
        (("masks", *OWN, "--segmenter", "grabcutt"), r"no segmenter named 'grabcutt'; did you mean 'grabcut'\?"),
        (("masks", *OWN, "--segmenter", "no.such.module"), r"no module 'no.such.module'"),
        (("masks", *OWN, "-O", "sharpness=3"), r"'grabcut' takes .*; got 'sharpness'"),
        (("masks", *OWN, "-O", "batch_size=many"), r"option 'batch_size' of 'grabcut' should be a whole number"),
        (("masks", *OWN, "-O", "side=0"), r"option 'side' of 'grabcut' should be from 8"),
        (("masks", *OWN, "-O", "margin=nan"), r"option 'margin' of 'grabcut' should be from 0 to 100"),
        (("masks", "--dataset", "os.path"), r"module 'os.path' has no SPLITS and is no dataset"),
        (("masks", *OWN, "-O", "batch_size"), r"-O batch_size should be KEY=VALUE"),
        (("masks", *OWN, "--part", "3/3"), r"--part 3/3 should be I/N"),
        (("masks", *OWN, "--part", "x"), r"--part x should be I/N"),
        (("masks", *OWN, "--workers", "2"), r"--workers 2 needs Ray"),
        (("masks", *OWN, "--layer", "../up"), r"'../up' cannot name a dataset, split or layer"),
        (("masks", *OWN, "--name", "a/b"), r"'a/b' cannot name"),
        (("masks", *OWN, "--layer", "annotations"), r"the layer 'annotations' is what the job reads"),
        (("masks", *OWN, "--layer", "human"), r"'human' is made from boxes's own files; .*, such as masks$"),
        (("masks", *OWN, "--reads", "masks"), r"'masks' is what the job reads; .*such as masks-2"),
        (("masks", *OWN, "--reads", "captions"), r"has no shards"),
        (("masks", *OWN[:4], "--images", "nowhere"), r"no folder nowhere .*--images"),
        (("ingest", *OWN, "--layer", "regions"), r"boxes has no layer 'regions' of its own"),
        (("show", "boxes/train/masks"), r"no layer 'boxes/train/masks' in shards"),
        (("show", "boxes"), r"name one as DATASET/SPLIT/LAYER"),
        (("doctor", *OWN, "--check-images", "some"), r"--check-images"),
    ],
)
def test_each_mistake_has_its_sentence(synthgen, tmp_path: Path, words: tuple[str, ...], sentence: str) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=2)
    told = synthgen(*words)
    assert told.code == 2, (told.out, told.err)
    assert re.search(sentence, told.err), told.err
    assert len(told.err.strip().splitlines()) == 1, told.err
    assert "Traceback" not in told.err
    assert not list(tmp_path.rglob("masks/*.parquet"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "boxes.json"),
        ("not json", "boxes.json"),
        ("[]", "boxes.json"),
        ('{"images": [', "boxes.json"),
        ('{"images": []}', "annotations"),
        ('{"images": [{"id": "x"}], "annotations": []}', "id"),
        ('{"images": [], "annotations": [], "categories": []}', "no images"),
    ],
)
@pytest.mark.parametrize("command", ["masks", "ingest", "doctor"])
def test_bad_files_have_a_sentence(synthgen, tmp_path: Path, command: str, text: str, sentence: str) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=2)
    bad_file(tmp_path, text)
    told = synthgen(command, *OWN)
    assert told.code == 2, (told.out, told.err)
    assert sentence in told.err
    assert len(told.err.strip().splitlines()) == 1, told.err
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_changed_annotation_file_is_noticed(synthgen, tmp_path: Path) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=8)
    assert synthgen("masks", *OWN).code == 0
    records = json.loads((tmp_path / "boxes.json").read_text())
    records["annotations"][0]["bbox"][2] += 1
    (tmp_path / "boxes.json").write_text(json.dumps(records))
    told = synthgen("masks", *OWN)
    assert told.code == 2
    assert "boxes.json" in told.err
    assert "--name" in told.err


def test_another_segmenter_needs_another_layer(synthgen, tmp_path: Path) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=8)
    assert synthgen("masks", *OWN).code == 0
    told = synthgen("masks", *OWN, "--segmenter", "box_fill")
    assert told.code == 2
    assert "this job says box_fill" in told.err
    assert "--layer" in told.err
    assert synthgen("masks", *OWN, "--segmenter", "box_fill", "--layer", "filled").code == 0
    assert [layer for _, _, layer in ShardStore(tmp_path / "shards").list_layers()] == [
        "annotations",
        "filled",
        "masks",
    ]


def test_version_and_help(synthgen) -> None:
    assert re.fullmatch(r"synthgen \d+\.\d+\.\d+\n", synthgen("--version").out)
    for command in ("ingest", "doctor", "masks", "captions", "status", "show", "demo"):
        told = synthgen(command, "--help")
        assert told.code == 0
        assert len(told.out) > 200
        assert r"\b" not in told.out  # click's mark is the character, not its spelling


def test_names_from_a_file_do_not_steer_the_terminal(synthgen, tmp_path: Path) -> None:
    evil = "\x1b[31mred\x07.png"
    image = {"id": 1, "file_name": evil, "height": 72, "width": 96}
    records = {"images": [image], "annotations": [], "categories": []}
    (tmp_path / "boxes.json").write_text(json.dumps(records))
    (tmp_path / "photos").mkdir()
    for words in (("masks", *OWN, "--max-error-share", "1"), ("masks", *OWN, "--layer", "b"), ("doctor", *OWN)):
        told = synthgen(*words)
        assert "\x1b" not in told.out + told.err
        assert "\x07" not in told.out + told.err
    told = synthgen("status", "--failures")
    assert "\\x1b[31mred\\x07.png" in told.out


def test_many_failed_shards_are_counted_not_recited(synthgen, tmp_path: Path) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=80)
    synthgen("ingest", *OWN, "--shard-size", "8")
    for number in range(1, 73):
        (tmp_path / f"photos/{number:04d}.png").unlink()
    told = synthgen("masks", *OWN, "--segmenter", "box_fill")
    assert told.code == 1
    assert told.err.count("failed:") == 5
    assert told.out.count("failed:") == 5
    assert "and 4 more shards; all are in boxes/train/masks/_log/failures.jsonl" in told.out
    log = tmp_path / "shards/boxes/train/masks/_log/failures.jsonl"
    assert len(log.read_text().splitlines()) == 9


# --- models with weights ---------------------------------------------------------------------------------------------


def test_masks_by_a_model_with_weights(synthgen, tmp_path: Path) -> None:
    """Tiny random weights, the whole way: what decides the bytes is the weights, not where they lie."""
    coco_dataset.write_coco_dataset(tmp_path, images=6)
    first, second = (tiny_sam.checkpoint(tmp_path / folder) for folder in ("here", "there"))
    sam = ("--segmenter", "sam", "--device", "cpu", "--checkpoint")
    done = synthgen("masks", *OWN, *sam, str(first))
    assert done.code == 0, done.err
    assert "for 18 boxes on 6 images" in done.out
    store = ShardStore(tmp_path / "shards")
    (shard,) = store.list_shards("boxes", "train", "masks")
    recipe = (store.read_footer(shard) or {})["recipe"]
    assert recipe["options"]["weights"] == hashlib.sha256(first.read_bytes()).hexdigest()
    assert str(tmp_path) not in json.dumps(recipe)
    drawn = [a for sample in store.read_samples(shard) for a in sample.annotations if a.segmentation]
    assert drawn
    assert {a.mask_source for a in drawn} == {"sam vit 64x4"}

    assert "nothing to do" in synthgen("masks", *OWN, *sam, str(second)).out
    other = synthgen("masks", *OWN, *sam, str(second), "--multimask")
    assert other.code == 2
    assert "choose another --layer" in other.err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--segmenter", "sam", "--checkpoint", "boxes.json"], "boxes.json: it is no PyTorch checkpoint"),
        (["--segmenter", "sam", "--precision", "fp8"], "--precision fp8 should be fp32 or bf16"),
        (["--precision", "bf16"], "'grabcut' takes side, margin, batch_size, threads; got 'precision'"),
        (["--segmenter", "sam", "--zoom", "-O", "zoom=no"], "zoom is given twice, the second time as -O zoom=no"),
    ],
)
def test_options_of_models_that_cannot_be(synthgen, tmp_path: Path, words: list[str], sentence: str) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=1)
    done = synthgen("masks", *OWN, *words)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert sentence in done.err
    assert not (tmp_path / "shards").exists(), "refused before any work"


def test_without_a_network_it_is_said_what_to_fetch(synthgen, tmp_path: Path, monkeypatch) -> None:
    def offline(*_: object) -> None:
        raise urllib.error.URLError("Network is unreachable")

    monkeypatch.setattr(weights, "_open_url", offline)
    monkeypatch.setenv("SYNTHGEN_WEIGHTS", str(tmp_path / "weights"))
    coco_dataset.write_coco_dataset(tmp_path, images=1)
    done = synthgen("masks", *OWN, "--segmenter", "hq_sam", "--variant", "vit_h")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "https://huggingface.co/lkeab/hq-sam/resolve/main/sam_hq_vit_h.pth" in done.err
    assert f"put it into {tmp_path / 'weights'} as sam_hq_vit_h.pth, or name the file with --checkpoint" in done.err


@pytest.mark.parametrize(("said", "waits"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_do_not_wait_busily(synthgen, monkeypatch, said, waits) -> None:
    """Beside any other process a step takes twenty times as long where they do."""
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if said:
        monkeypatch.setenv("OMP_WAIT_POLICY", said)
    synthgen("--version")
    assert os.environ["OMP_WAIT_POLICY"] == waits
