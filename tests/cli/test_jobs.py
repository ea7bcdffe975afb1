"""`synthgen masks` and `synthgen captions`: input layers, output, resumed runs, error messages."""

from __future__ import annotations

import hashlib
import json
import re
import urllib.error
from pathlib import Path

import pytest
from fakes import coco_dataset, kill_rounds, tiny_sam
from fakes.command_result import CommandResult
from PIL import Image

from synthgen import weights
from synthgen.records.sample import Sample
from synthgen.storage.shard_store import ShardStore

OWN = ("--dataset", "coco-json", "--annotations", "boxes.json", "--images", "photos")


@pytest.fixture
def synthgen(typed):
    return lambda *words: CommandResult(*typed(*words))


@pytest.fixture
def eight_images(tmp_path: Path) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=8)


def samples(folder: Path, layer: str) -> list[Sample]:
    store = ShardStore(folder / "shards")
    return [s for shard in store.list_shards("boxes", "train", layer) for s in store.read_samples(shard)]


def parent(folder: Path, layer: str) -> str:
    store = ShardStore(folder / "shards")
    return store.read_footer(store.list_shards("boxes", "train", layer)[0])["parent"]["layer"]


@pytest.mark.usefixtures("eight_images")
def test_from_boxes_to_captions_and_pictures(synthgen, tmp_path):
    told = synthgen("captions", *OWN)
    assert told.code == 0, told.text
    assert re.search(r"\d+ captions for 24 of 24 boxes on 8 images in 1 shard", told.text)
    assert re.search(r"^  \d+% of those that the captioner described have 5 that differ$", told.text, re.MULTILINE)
    assert parent(tmp_path, "captions") == "annotations"
    assert all(0 < len(a.captions) <= 5 for s in samples(tmp_path, "captions") for a in s.annotations)
    assert "nothing to do" in synthgen("captions", *OWN).out
    status = synthgen("status").out
    assert "made by  attributes top_k=5" in status
    assert re.search(r"captions \d+ for 24 boxes, \d+% of those described with as many as were asked for", status)
    told = synthgen("show", "boxes/train/captions", "--n", "2", "--out", "pictures")
    assert told.code == 0, told.text
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 3


@pytest.mark.usefixtures("eight_images")
def test_masks_are_read_where_they_are_and_a_layer_goes_on_from_what_it_was_begun_with(synthgen, tmp_path):
    assert synthgen("captions", *OWN, "--layer", "early").code == 0
    assert synthgen("masks", *OWN, "--segmenter", "box_fill").code == 0
    assert synthgen("captions", *OWN).code == 0
    assert parent(tmp_path, "captions") == "masks"
    assert all(a.segmentation is not None for s in samples(tmp_path, "captions") for a in s.annotations)
    told = synthgen("captions", *OWN, "--layer", "early")
    assert told.code == 0 and "nothing to do" in told.out
    assert parent(tmp_path, "early") == "annotations"
    assert synthgen("captions", *OWN, "--reads", "annotations", "--layer", "plain").code == 0
    assert parent(tmp_path, "plain") == "annotations"
    assert synthgen("masks", *OWN, "--segmenter", "box_fill", "--reads", "plain", "--layer", "last").code == 0
    assert samples(tmp_path, "last") == samples(tmp_path, "captions")


@pytest.mark.usefixtures("eight_images")
def test_options_of_the_stage_are_of_the_recipe(synthgen, tmp_path):
    (tmp_path / "words.txt").write_text("Ball\ncoin\n")
    flags = ("--top-k", "2", "--min-score", "-1.5", "--forbidden", "words.txt")
    assert synthgen("captions", *OWN, *flags).code == 0
    made = [c for s in samples(tmp_path, "captions") for a in s.annotations for c in a.captions]
    assert all("no_score" in c.reasons for c in made), "the minimum is not met, nor missed, and that is told"
    assert all(("forbidden_word" in c.reasons) == bool(re.search(r"\b(ball|coin)\b", c.text)) for c in made)
    assert any("forbidden_word" in c.reasons for c in made)
    (tmp_path / "words.txt").unlink()
    assert "nothing to do" in synthgen("captions", *OWN, *flags[:4], "--forbidden", "coin, ball").out
    told = synthgen("captions", *OWN, "--top-k", "3")
    assert told.code == 2
    assert (
        "made with attributes forbidden=ball,coin min_score=-1.5 top_k=2; this job says attributes top_k=3" in told.text
    )


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
@pytest.mark.usefixtures("eight_images")
def test_each_mistake_in_captions_has_its_sentence(synthgen, tmp_path, words, sentence):
    told = synthgen("captions", *OWN, *words)
    assert told.code == 2, told.text
    assert re.search(sentence, told.text), told.text
    assert "Traceback" not in told.text
    assert not list(tmp_path.rglob("captions/*.parquet"))


@pytest.mark.usefixtures("eight_images")
def test_help_promises_no_more_than_captioners_take(synthgen):
    told = synthgen("captions", "--help")
    assert told.code == 0
    text = " ".join(told.out.split())
    assert re.search(
        r"--checkpoint PATH florence2: Folder of the weights, required .*; ofa: Folder of the weights", text
    )
    assert "(default: 32 with florence2, 16 with ofa)" in text
    assert "--compile" not in text
    assert "downloaded once" not in text
    assert "--compile" in synthgen("masks", "--help").out


@pytest.mark.usefixtures("eight_images")
def test_the_share_is_of_what_was_asked_for(synthgen):
    told = synthgen("captions", *OWN, "--top-k", "1")
    assert told.code == 0, told.text
    assert "  100% of those that the captioner described have one\n" in told.text
    assert "100% of those described with as many as were asked for" in synthgen("status").out


@pytest.mark.usefixtures("eight_images")
def test_a_captioner_that_fails_on_an_image_flags_its_boxes_and_may_be_retried(synthgen, tmp_path):
    path = tmp_path / "photos/0003.png"
    image = Image.open(path)
    image.putpixel((0, 0), (255, 0, 0))
    image.save(path)
    flags = ("--captioner", "fakes.failing_captioner", "-O", "recovery_file=recovered", "--max-error-share", "1")
    told = synthgen("captions", *OWN, *flags)
    assert told.code == 0, told.text
    assert "1 image failed" in told.text
    failed = [a for s in samples(tmp_path, "captions") for a in s.annotations if "captioner_failed" in a.flags]
    assert len(failed) == 3
    assert not any(a.captions for a in failed)
    told = synthgen("status", "--failures")
    assert "no caption 00000 image 3 0003.png, annotation 7" in told.text
    assert "fakes.failing_captioner failed (RuntimeError: the image has a red corner)" in told.text
    (tmp_path / "recovered").touch()
    assert synthgen("captions", *OWN, *flags, "--retry-failed").code == 0
    assert all(a.captions and not a.flags for s in samples(tmp_path, "captions") for a in s.annotations)


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
    assert "made by  lite" in status.out

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


def test_a_dry_run_writes_no_masks(synthgen, tmp_path: Path) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=8)
    told = synthgen("masks", *OWN, "--dry-run")
    assert told.code == 0
    assert "would be made first, from boxes.json" in told.out
    assert not (tmp_path / "shards").exists()
    synthgen("ingest", *OWN)
    told = synthgen("masks", *OWN, "--dry-run")
    assert "1 of 1 shard to do, 8 images, 24 boxes, by lite" in told.out
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


@pytest.mark.slow
def test_kills_change_nothing_that_a_retry_makes(tmp_path: Path) -> None:
    kill_rounds.assert_kills_change_nothing("retry-failed", tmp_path)


def test_a_wrong_part_is_refused_before_the_ingest(synthgen, tmp_path: Path) -> None:
    coco_dataset.write_coco_dataset(tmp_path, images=2)
    assert synthgen("masks", *OWN, "--part", "3/3").code == 2
    assert not (tmp_path / "shards").exists()


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
        (["--segmenter", "grabcut", "--precision", "bf16"], "'grabcut' takes side, margin, batch_size, threads; got"),
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


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """A Roboflow export of two splits, and a third without a box."""
    (tmp_path / "export").mkdir()
    for split, images in (("train", 4), ("valid", 2)):
        path = coco_dataset.write_coco_dataset(tmp_path / split, images=images)
        (tmp_path / split / "photos").rename(tmp_path / "export" / split)
        path.rename(tmp_path / "export" / split / "_annotations.coco.json")
    (tmp_path / "export/test").mkdir()
    record = {"id": 1, "file_name": "a.png", "width": 8, "height": 8}
    Image.new("RGB", (8, 8)).save(tmp_path / "export/test/a.png")
    (tmp_path / "export/test/_annotations.coco.json").write_text(
        json.dumps({"images": [record], "annotations": [], "categories": []})
    )
    return tmp_path / "export"


def test_one_command_makes_the_masks_of_all_splits(synthgen, export):
    told = synthgen("masks", "export", "--segmenter", "box_fill")
    assert told.code == 0, told.text
    assert "export: COCO JSON, 3 splits (train, valid, test), 7 images, 18 boxes" in told.out
    assert "export/train/masks: 12 masks for 12 boxes on 4 images" in told.out
    assert "export/valid/masks: 6 masks for 6 boxes on 2 images" in told.out
    again = synthgen("masks", "export", "--segmenter", "box_fill")
    assert (again.code, again.out.count("nothing to do")) == (0, 3)
    assert synthgen("captions", "export").code == 0


def test_a_split_alone_has_the_bytes_of_the_whole(synthgen, export, tmp_path):
    assert synthgen("masks", "export", "--segmenter", "box_fill").code == 0
    assert synthgen("masks", "export/valid", "--segmenter", "box_fill", "--store", "other").code == 0
    (one,) = (tmp_path / "shards/export/valid/masks").glob("*.parquet")
    assert (tmp_path / "other/export/valid/masks" / one.name).read_bytes() == one.read_bytes()


def test_no_box_in_any_split_is_exit_code_1(synthgen, export):
    for split in ("train", "valid"):
        path = export / split / "_annotations.coco.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"annotations": []}))
    told = synthgen("masks", "export", "--segmenter", "box_fill")
    assert told.code == 1
    assert told.out.count("no box got a mask") == 3
    assert synthgen("ingest", "export", "--name", "other").code == 1


def test_a_second_split_that_cannot_be_read_is_exit_code_1_once_the_first_is_there(synthgen, export, tmp_path):
    (export / "valid/_annotations.coco.json").write_text('{"images": [')
    told = synthgen("masks", "export", "--segmenter", "box_fill")
    assert told.code == 1
    assert list((tmp_path / "shards/export").rglob("*.parquet"))
    assert synthgen("masks", "export", "--segmenter", "box_fill", "--split", "valid", "--store", "other").code == 2


def test_doctor_of_one_split_names_it_in_the_next_command(synthgen, export):
    told = synthgen("doctor", "export", "--split", "valid")
    assert told.code == 0 and told.out.splitlines()[-1] == "next: synthgen masks export --split valid"
    assert synthgen("doctor", "export").out.splitlines()[-1] == "next: synthgen masks export"


def test_a_dry_run_names_what_each_split_would_read(synthgen, export, tmp_path):
    told = synthgen("masks", "export", "--dry-run")
    assert told.code == 0
    for split in ("train", "valid", "test"):
        assert f"export/{split}/annotations is not there yet and would be made first" in told.out
    assert not (tmp_path / "shards").exists()


def test_a_second_split_under_one_name_is_refused_with_the_folder(synthgen, export):
    own = ("--dataset", "coco-json", "--segmenter", "box_fill")
    for split, code in (("train", 0), ("valid", 2)):
        place = f"export/{split}"
        told = synthgen("masks", *own, "--annotations", f"{place}/_annotations.coco.json", "--images", place)
        assert told.code == code, told.text
    assert f"or give the folder {export}, of which all splits are read" in told.err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--variant", "vit_b"), "got 'variant'; it is an option of sam and hq_sam: add --segmenter sam"),
        (("--segmenter", "my_own"), "a module of your own needs a dot in its name: package.my_own (have"),
        (("--images", "s3://bucket/x"), "s3://bucket/x is a URL"),
    ],
)
def test_common_slips_get_a_hint(synthgen, export, monkeypatch, words, sentence):
    (export.parent / "my_own.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(export.parent))
    told = synthgen("masks", "export", *words)
    assert (told.code, sentence in told.err) == (2, True), told.text


def change_one_box(path: Path) -> None:
    content = json.loads(path.read_text())
    content["annotations"][0]["bbox"][2] -= 3
    path.write_text(json.dumps(content))


@pytest.mark.usefixtures("eight_images")
def test_a_dry_run_tells_what_a_changed_file_causes(synthgen, tmp_path):
    masks = ("masks", *OWN, "--segmenter", "box_fill")
    assert synthgen("ingest", *OWN, "--shard-size", "4").code == synthgen(*masks).code == 0
    assert synthgen(*masks, "--dry-run").out == "boxes/train/masks: nothing to do, every shard is committed\n"
    change_one_box(tmp_path / "boxes.json")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "shards").rglob("*")}
    for words in (masks, (*masks, "--dry-run"), ("ingest", *OWN), ("ingest", *OWN, "--dry-run")):
        told = synthgen(*words)
        assert told.code == 2
        assert "boxes.json is not what boxes/train/annotations was made from" in told.err
        assert "(0 images added, 1 changed, 0 removed, 7 unchanged); add --update" in told.err
    assert synthgen(*masks, "--update", "--dry-run").out.splitlines() == [
        "boxes/train/annotations: 0 images added, 1 changed, 0 removed, 7 unchanged; 1 of 2 shards would be written "
        "again first",
        "boxes/train/masks: 1 shards to do, 1 of them again; 1 images to process, 3 keep their results",
    ]
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "shards").rglob("*")}
    told = synthgen("ingest", *OWN, "--update")
    assert "updated: 0 images added, 1 changed, 0 removed, 7 unchanged" in told.out
    told = synthgen(*masks, "--dry-run")
    assert told.code == 2 and "1 of 2 shards of boxes/train/masks were made from another version" in told.err
    assert (
        "  1 shards to do, 1 of them again; 1 images to process, 3 keep"
        in synthgen(*masks, "--update", "--dry-run").out
    )
    told = synthgen(*masks, "--update")
    assert told.code == 0 and "3 images of shards that were made again keep their results" in told.out
    assert synthgen(*masks, "--update").out.startswith("boxes/train/masks: nothing to do")


@pytest.mark.usefixtures("eight_images")
def test_captions_follow_masks_that_followed_the_boxes(synthgen, tmp_path, caplog):
    layers = ("masks", *OWN, "--segmenter", "box_fill"), ("captions", *OWN)
    assert [synthgen(*words).code for words in layers] == [0, 0]
    change_one_box(tmp_path / "boxes.json")
    assert synthgen(*layers[1]).code == 0
    assert "boxes/train/masks: the annotation files have changed since annotations was made from them" in caplog.text
    assert synthgen("ingest", *OWN, "--update").code == synthgen(*layers[1]).code == 0
    assert "boxes/train/masks: 1 of 1 shards were made from rows that have changed since" in caplog.text
    told = synthgen(*layers[0], "--update")
    assert told.code == 0 and "1 shard again: the layer annotations has changed since" in told.out
    told = synthgen(*layers[1])
    assert told.code == 2 and "1 of 1 shards of boxes/train/captions were made from another version" in told.err
    told = synthgen(*layers[1], "--update")
    assert told.code == 0 and "7 images of shards that were made again keep their results" in told.out


@pytest.mark.parametrize(
    "words",
    [
        ("ingest", "broken.json"),
        ("ingest", "none.json"),
        ("masks", "broken.json", "--images", "photos", "--segmenter", "box_fill"),
        ("masks", *OWN, "--segmenter", "lite", "--device", "cuda:99"),
        ("evaluate", "--manifest", "m.yaml", "--checkpoint", "boxes.json", "--out", "runs/x/results.json"),
    ],
)
@pytest.mark.usefixtures("eight_images")
def test_a_command_that_fails_leaves_no_empty_folder(synthgen, tmp_path, words):
    (tmp_path / "broken.json").write_bytes((tmp_path / "boxes.json").read_bytes()[:900])
    (tmp_path / "none.json").write_text('{"images": [], "annotations": [], "categories": []}')
    (tmp_path / "m.yaml").write_text(
        "name: m\nstore: shards\neval: [{shards: boxes/train/annotations, task: detection}]\n"
    )
    assert synthgen(*words).code != 0
    folders = [path for path in tmp_path.rglob("*") if path.is_dir()]
    assert all(any(folder.iterdir()) for folder in folders)
    assert not (tmp_path / "shards/boxes/train/masks").exists() and not (tmp_path / "runs").exists()
