"""`generate_masks` and `generate_captions`: the bytes of the commands, resumed calls, results, argument errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fakes import coco_dataset
from PIL import Image

import synthgen as sg
from synthgen.errors import ArgumentError, FailedRunError, SynthgenError
from synthgen.progress import NoProgress

SHARD = "00000-of-00001.parquet"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `boxes.json` and `photos/`, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    for variable in ("SYNTHGEN_DATA", "SYNTHGEN_STORE", "SYNTHGEN_WEIGHTS"):
        monkeypatch.delenv(variable, raising=False)
    coco_dataset.write_coco_dataset(tmp_path, images=8)
    return tmp_path


def shard_bytes(store: Path) -> dict[str, bytes]:
    """All shards of a store, by their path."""
    found = {path.relative_to(store).as_posix(): path.read_bytes() for path in store.rglob("*.parquet")}
    assert found
    return found


# --- the same bytes as the commands -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("here")
def test_masks_and_captions_are_the_bytes_of_the_commands(synthgen: Any, tmp_path: Path) -> None:
    where = ("boxes.json", "--images", "photos", "--store", "typed")
    assert synthgen("masks", *where, "--segmenter", "grabcut", "-O", "margin=1")[0] == 0
    flags = ("--captioner", "attributes", "--top-k", "2", "--forbidden", "coin", "--min-score", "-3")
    assert synthgen("captions", *where, *flags)[0] == 0
    made = sg.generate_masks("boxes.json", images="photos", store="called", segmenter="grabcut", margin=1)
    sg.generate_captions(
        Path("boxes.json"), images=Path("photos"), store=Path("called"), captioner="attributes", top_k=2,
        forbidden="coin", min_score=-3,
    )  # fmt: skip
    assert shard_bytes(tmp_path / "called") == shard_bytes(tmp_path / "typed")
    assert len(shard_bytes(tmp_path / "called")) == 3, "annotations, masks, captions"
    assert made.layer == "boxes/train/masks"


@pytest.mark.usefixtures("here")
def test_a_layer_may_be_named_instead_of_the_dataset(synthgen: Any, tmp_path: Path) -> None:
    """Its images are those of the runs on it, and its annotation files need not be there."""
    where = ("boxes.json", "--images", "photos")
    assert synthgen("masks", *where, "--segmenter", "box_fill", "--store", "typed")[0] == 0
    assert synthgen("captions", *where, "--captioner", "attributes", "--store", "typed")[0] == 0
    sg.generate_masks("boxes.json", images="photos", store="called", segmenter="box_fill")
    (tmp_path / "boxes.json").unlink()
    done = sg.generate_captions("boxes/train/masks", store="called", captioner="attributes")
    assert shard_bytes(tmp_path / "called") == shard_bytes(tmp_path / "typed")
    assert done.layer == "boxes/train/captions" and done.captions > 0
    again = sg.generate_masks("boxes/train/annotations", store="called", segmenter="box_fill", layer="more")
    assert (again.layer, again.masks) == ("boxes/train/more", 24)


@pytest.mark.usefixtures("here")
def test_the_store_of_the_environment_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNTHGEN_STORE", "named")
    sg.generate_masks("boxes.json", images="photos", segmenter="box_fill")
    assert (tmp_path / "named/boxes/train/masks" / SHARD).is_file()


@pytest.mark.usefixtures("here")
def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    sg.generate_masks("boxes.json", images="photos", segmenter="box_fill")
    sg.generate_captions("boxes/train/masks", captioner="attributes")
    assert capfd.readouterr() == ("", "")


# --- results ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("here")
def test_the_result_counts_the_layer_whoever_made_its_shards() -> None:
    first = sg.generate_masks("boxes.json", images="photos", segmenter="box_fill")
    second = sg.generate_masks("boxes.json", images="photos", segmenter="box_fill")
    for done, new in ((first, 1), (second, 0)):
        (layer,) = done.layers
        assert (layer.shards, layer.num_shards, layer.new_shards, layer.plugin) == (1, 1, new, "box_fill")
        assert (done.images, done.boxes, done.masks, done.captions) == (8, 24, 24, 0)
        assert done.is_complete and done.failed_shards == () and done.failed_images == 0 and done.skipped == {}
        assert [sample.image_id for sample in done.load()] == list(range(1, 9))
    with pytest.raises(AttributeError):
        first.layers = ()  # type: ignore[misc]


def test_boxes_without_a_mask_are_counted_with_the_reason(here: Path) -> None:
    path = here / "photos/0003.png"
    image = Image.open(path)
    image.putpixel((0, 0), (255, 0, 0))
    image.save(path)
    (here / "photos/0004.png").write_bytes(b"no image")
    done = sg.generate_masks("boxes.json", images="photos", segmenter="fakes.failing_segmenter", max_error_share=1)
    assert done.skipped == {"segmenter_failed": 3}
    assert done.masks == 18 and done.boxes == 24 and done.failed_images == 1
    assert done.is_complete and not done.failed_shards


def test_a_failed_shard_is_reported_and_raised_on_request(here: Path) -> None:
    path = here / "photos/0003.png"
    broken, content = b"no image", path.read_bytes()
    sg.ingest_dataset("boxes.json", images="photos", shard_size=4)
    path.write_bytes(broken)
    done = sg.generate_masks("boxes.json", images="photos", segmenter="box_fill")
    (message,) = done.failed_shards
    assert "boxes/train/masks/00000-of-00002" in message
    assert not done.is_complete and done.images == 4
    with pytest.raises(FailedRunError, match=r"boxes/train/masks/00000-of-00002"):
        sg.generate_masks("boxes.json", images="photos", segmenter="box_fill", raise_failed=True)
    sg.ingest_dataset("boxes.json", images="photos", store="other", shard_size=4)
    with pytest.raises(FailedRunError, match=r"^1 shard failed; .*boxes/train/masks/00000-of-00002"):
        sg.generate_masks("boxes.json", images="photos", store="other", segmenter="box_fill", raise_failed=True)
    path.write_bytes(content)
    done = sg.generate_masks("boxes.json", images="photos", segmenter="box_fill", raise_failed=True)
    assert done.is_complete and done.masks == 24


def test_several_splits_give_several_layers(here: Path) -> None:
    for split in ("train", "val"):
        (here / "yolo/images" / split).mkdir(parents=True)
        (here / "yolo/labels" / split).mkdir(parents=True)
        (here / "yolo/images" / split / "a.png").write_bytes((here / "photos/0001.png").read_bytes())
        (here / "yolo/labels" / split / "a.txt").write_text("0 0.5 0.5 0.4 0.4\n")
    (here / "yolo/data.yaml").write_text("names: [ball]\ntrain: images/train\nval: images/val\n")
    done = sg.generate_masks("yolo", segmenter="box_fill")
    assert [layer.layer for layer in done.layers] == ["yolo/train/masks", "yolo/val/masks"]
    assert done.masks == 2 and done.is_complete
    for use in (lambda: done.layer, done.load):
        with pytest.raises(SynthgenError, match=r"there are 2 layers \(yolo/train/masks, yolo/val/masks\)"):
            use()
    assert len(done.layers[1].load()) == 1
    only = sg.generate_masks("yolo", segmenter="box_fill", split="val")
    assert only.layer == "yolo/val/masks"


# --- interruptions ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("here")
def test_ctrl_c_leaves_what_is_committed_and_the_call_continues(tmp_path: Path) -> None:
    class Interrupted(NoProgress):
        seen = 0

        def advance(self, count: int, note: str | None = None) -> None:
            Interrupted.seen += count
            if Interrupted.seen >= 5:
                raise KeyboardInterrupt

    for store in ("calm", "stopped"):
        sg.ingest_dataset("boxes.json", images="photos", store=store, shard_size=2)
    sg.generate_masks("boxes.json", images="photos", store="calm", segmenter="box_fill")

    def open_progress(description: str, total: int, unit: str) -> NoProgress:
        return Interrupted(description, total, unit) if unit == "images" else NoProgress(description, total, unit)

    with pytest.raises(KeyboardInterrupt):
        sg.generate_masks("boxes.json", images="photos", store="stopped", segmenter="box_fill", progress=open_progress)
    committed = {path.name for path in (tmp_path / "stopped/boxes/train/masks").glob("*.parquet")}
    assert 0 < len(committed) < 4
    done = sg.generate_masks("boxes.json", images="photos", store="stopped", segmenter="box_fill")
    assert done.layers[0].new_shards == 4 - len(committed)
    assert shard_bytes(tmp_path / "stopped") == shard_bytes(tmp_path / "calm")


@pytest.mark.usefixtures("here")
def test_parts_and_limits_leave_the_rest_to_other_calls() -> None:
    sg.ingest_dataset("boxes.json", images="photos", shard_size=2)
    own = {"images": "photos", "segmenter": "box_fill"}
    assert sg.generate_masks("boxes.json", part=(1, 2), **own).layers[0].shards == 2
    done = sg.generate_masks("boxes.json", limit=1, **own)
    assert (done.layers[0].shards, done.is_complete) == (3, False)
    assert sg.generate_masks("boxes.json", **own).is_complete


# --- arguments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"engine": "cluster"}, r"engine='cluster' is not valid; give 'local' or 'ray'"),
        ({"limit": 0}, r"limit=0 is not valid; give a whole number of at least 1"),
        ({"limit": "3"}, r"limit='3' is not valid; give a whole number of at least 1"),
        ({"max_error_share": 1.5}, r"max_error_share=1\.5 is not valid; give a number from 0 to 1"),
        ({"max_error_share": float("nan")}, r"max_error_share=nan is not valid"),
        ({"timeout": -1}, r"timeout=-1 is not valid"),
        ({"part": (2, 2)}, r"part=\(2, 2\) is not valid; give \(i, n\) with i from 0 to n - 1"),
        ({"part": "0/2"}, r"part='0/2' is not valid"),
        ({"workers": 0}, r"workers=0 is not valid"),
        ({"layer": None}, r"layer=None is not a text"),
        ({"segmenter": 3}, r"segmenter=3 is not a text"),
        ({"images": 3}, r"images=3 is not a path; give a text or a pathlib\.Path"),
        ({"images": "a\0b"}, r"images='a\\x00b' is not a path"),
        ({"name": 3}, r"name=3 is not a name"),
        ({"name": ""}, r"name='' is not a name; give one, or None"),
        ({"images": ""}, r"images='' is empty"),
        ({"max_error_share": None}, r"max_error_share=None is not valid"),
        ({"match_names": "no"}, r"match_names='no' is not valid; give True or False"),
        ({"retry_failed": "no"}, r"retry_failed='no' is not valid"),
        ({"raise_failed": 1}, r"raise_failed=1 is not valid"),
        ({"progress": "yes"}, r"progress='yes' is not valid; give True, False or a function"),
    ],
)
@pytest.mark.usefixtures("here")
def test_each_wrong_argument_has_its_sentence(tmp_path: Path, arguments: dict[str, Any], sentence: str) -> None:
    given = {"images": "photos", "segmenter": "box_fill", **arguments}
    with pytest.raises(ArgumentError, match=sentence):
        sg.generate_masks("boxes.json", **given)
    assert not (tmp_path / "shards").exists(), "nothing was started"


@pytest.mark.parametrize(
    ("path", "arguments", "sentence"),
    [
        ("boxes.json", {"segmenter": "grabct"}, r"no segmenter named 'grabct'; did you mean 'grabcut'\?"),
        ("boxes.json", {"segmenter": "grabcut", "sid": 3}, r"'grabcut' takes side.*; got 'sid'; did you mean 'side'\?"),
        ("boxes.json", {"segmenter": "box_fill", "variant": "vit_b"}, r"got 'variant'; it is an option of sam"),
        ("boxes.json", {"images": "nowhere", "segmenter": "box_fill"}, r"no folder nowhere with the images"),
        ("boxes.json", {"layer": "annotations"}, r"the layer 'annotations' is what the job reads"),
        ("boxes.json", {"workers": 2, "segmenter": "box_fill"}, r"needs Ray"),
        ("box.json", {}, r"no file or folder box\.json"),
        ("x" * 5000, {}, r"path='x{70,}\.\.\. is too long for a path; shorten it"),
        ("boxes/train/mask", {}, r"no file, folder or layer of shards is named boxes/train/mask"),
        ("s3://bucket/boxes.json", {}, r"s3://bucket/boxes\.json is a URL"),
        (None, {}, r"no dataset is named"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("here")
def test_each_wrong_input_has_its_sentence(path: str | None, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SynthgenError, match=sentence):
        sg.generate_masks(path, **{"images": "photos", **arguments})


@pytest.mark.usefixtures("here")
def test_a_layer_needs_no_dataset_beside_it(tmp_path: Path) -> None:
    sg.generate_masks("boxes.json", images="photos", segmenter="box_fill")
    with pytest.raises(ArgumentError, match=r"boxes/train/masks is a layer, which needs no split=; leave it out"):
        sg.generate_captions("boxes/train/masks", split="train", captioner="attributes")
    (tmp_path / "photos").rename(tmp_path / "moved")
    with pytest.raises(SynthgenError, match=r"the image folder of boxes/train/masks is not known"):
        sg.generate_captions("boxes/train/masks", captioner="attributes")
    done = sg.generate_captions("boxes/train/masks", images="moved", captioner="attributes", top_k=1)
    assert done.captions == 24
    with pytest.raises(SynthgenError, match=r"min_score=0\.5 is not valid; give a number of at most 0"):
        sg.generate_captions("boxes/train/masks", images="moved", captioner="attributes", min_score=0.5, layer="x")


@pytest.mark.parametrize("segmenter", ["grabcut", "auto"])
@pytest.mark.usefixtures("here")
def test_a_misspelt_argument_is_not_an_option_of_the_plugin(segmenter: str) -> None:
    with pytest.raises(ArgumentError, match=r"^there is no argument or option image=; did you mean images=\?$"):
        sg.generate_masks("boxes.json", image="photos", segmenter=segmenter)
    with pytest.raises(ArgumentError, match=r"option topk=; did you mean top_k=\?$"):
        sg.generate_captions("boxes.json", images="photos", captioner="attributes", topk=3)
    with pytest.raises(SynthgenError, match=r"got 'sides'; did you mean 'side'"):
        sg.generate_masks("boxes.json", images="photos", segmenter="grabcut", sides=64)


@pytest.mark.usefixtures("here")
def test_arguments_that_a_layer_does_not_use_are_refused() -> None:
    sg.generate_masks("boxes.json", images="photos", segmenter="box_fill")
    arguments: list[tuple[str, Any]] = [("reads", "annotations"), ("match_names", True), ("crowds_as_objects", True)]
    for name, value in arguments:
        with pytest.raises(ArgumentError, match=rf"boxes/train/masks is a layer, which needs no {name}=; leave it out"):
            sg.generate_captions("boxes/train/masks", captioner="attributes", **{name: value})
    with pytest.raises(ArgumentError, match=r"needs no reads="):
        sg.generate_masks("boxes/train/annotations", segmenter="box_fill", layer="more", reads="masks")
    assert sg.generate_captions("boxes/train/masks", captioner="attributes", reads="masks").is_complete


def test_a_layer_may_be_named_in_the_folder_of_the_store(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There, the name is that of a folder, too."""
    sg.generate_masks("boxes.json", images=here / "photos", segmenter="box_fill")
    monkeypatch.chdir(here / "shards")
    done = sg.generate_captions("boxes/train/masks", store=".", captioner="attributes")
    assert done.captions > 0
