"""Train and val files of users in one folder of images: ingest, leakage check, `exclude`."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import coco_dataset

from synthgen.dataloading.leakage import image_keys
from synthgen.dataloading.manifest_check import check_manifest
from synthgen.errors import SynthgenError
from synthgen.storage.shard_store import ShardStore

Typed = Callable[..., tuple[int, str, str]]

LEAKS = """
name: own
mixture: [{shards: %s, task: instance}]
eval: [{shards: %s, task: instance}]
"""


def two_files(train: str = "", val: str = "", folder: Path = Path()) -> None:
    """`train_split.json` of photographs 1 to 6, `val_split.json` of 5 to 8, with masks; names begin as is said."""
    record = json.loads(coco_dataset.write_coco_dataset(folder).read_text())
    for one in record["annotations"]:
        x, y, w, h = one["bbox"]
        one["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    for name, prefix, numbers in (("train", train, range(1, 7)), ("val", val, range(5, 9))):
        images = [{**i, "file_name": prefix + i["file_name"]} for i in record["images"] if i["id"] in numbers]
        own = [a for a in record["annotations"] if a["image_id"] in numbers]
        Path(f"{name}_split.json").write_text(json.dumps({**record, "images": images, "annotations": own}))


def ingest(synthgen: Typed, split: str, *more: str, images: str = "photos") -> None:
    own = ("--dataset", "coco-json", "--annotations", f"{split}_split.json", "--images", images, "--layer", "human")
    assert synthgen("ingest", *own, *more)[0] == 0


def told(synthgen: Typed, text: str) -> str:
    """The only mistake of a manifest."""
    Path("m.yaml").write_text(text)
    code, out, err = synthgen("check", "m.yaml")
    assert (code, out) == (2, "")
    heading, line = err.splitlines()
    assert heading.endswith("m.yaml has a mistake")
    return line.strip()


def test_two_files_of_one_folder_leak_and_the_remedy_is_the_cure(synthgen: Typed, typed: Typed) -> None:
    """As a new user ingests them: each named after its file, so that no key is in both."""
    two_files()
    ingest(typed, "train")
    ingest(typed, "val")
    text = LEAKS % ("train_split/train/human", "val_split/train/human")
    assert told(typed, text) == (
        "mixture.0: 2 images of train_split/train/human are also in eval.0 val_split/train/human, "
        "e.g. train_split/0005.png, which is the file of val_split/0005.png; "
        "run `synthgen exclude val_split/train/human --out exclude/val_split_train.txt`, "
        "and add exclude/val_split_train.txt to exclude:"
    )
    code, out, _ = typed("exclude", "val_split/train/human", "--out", "exclude/val_split_train.txt")
    assert (code, out) == (0, "6 image keys in exclude/val_split_train.txt\n")
    listed = Path("exclude/val_split_train.txt").read_text()
    assert "#   the same files in train_split/train/human: 2 images\n" in listed
    assert "photos" not in listed
    Path("m.yaml").write_text(f"{text}exclude: [exclude/val_split_train.txt]")
    found = check_manifest(Path("m.yaml"))
    assert [row.num_excluded for row in found.sources] == [2, 0]
    assert found.num_unique_images == 4
    assert {"train_split/0005.png", "train_split/0006.png"} < found.excluded_keys


def test_training_refuses_it_too(typed: Typed) -> None:
    two_files()
    ingest(typed, "train")
    ingest(typed, "val")
    Path("m.yaml").write_text(LEAKS % ("train_split/train/human", "val_split/train/human"))
    code, _, err = typed("train", "--manifest", "m.yaml", "--out", "run")
    assert code == 2
    assert "2 images of train_split/train/human are also in eval.0" in err
    assert not list(Path("run").glob("step-*")) if Path("run").exists() else True


def test_under_one_name_the_keys_are_one(typed: Typed) -> None:
    two_files()
    for split in ("train", "val"):
        ingest(typed, split, "--name", "own", "--split", split)
    line = told(typed, LEAKS % ("own/train/human", "own/val/human"))
    assert "2 images of own/train/human are also in eval.0 own/val/human, e.g. own/0005.png; run " in line


WAYS = {
    "a folder in the other": ("photos/", "", ".", "photos"),
    "and the other way round": ("", "photos/", "photos", "."),
    "a link to the folder": ("", "", "photos", "link"),
    "a link in the folder": ("link/", "", ".", "photos"),
    "names in two spellings": ("./", "", "photos", "photos"),
    "a folder too deep": ("photos/", "", "photos", "photos"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("names", [(), ("--name", "own")])
def test_the_same_files_by_other_ways(typed: Typed, way: str, names: tuple[str, ...]) -> None:
    """Folders in each other, links, spellings; in one dataset as well."""
    train, val, of_train, of_val = WAYS[way]
    two_files(train, val)
    Path("link").symlink_to("photos")
    for split, images in (("train", of_train), ("val", of_val)):
        ingest(typed, split, *(*names, "--split", split) if names else (), images=images)
    layers = ("own/train/human", "own/val/human") if names else ("train_split/train/human", "val_split/train/human")
    text = LEAKS % layers
    if names and not train and not val:
        assert "2 images of" in told(typed, text)  # by their keys
        return
    line = told(typed, text)
    assert "mixture.0: 2 images of" in line
    assert "which is the file of" in line
    typed("exclude", layers[1], "--out", "exclude/x.txt")
    Path("m.yaml").write_text(f"{text}exclude: [exclude/x.txt]")
    assert typed("check", "m.yaml")[0] == 0


def test_the_same_names_in_other_folders_are_other_images(typed: Typed) -> None:
    two_files()
    Path("val").mkdir()
    for path in Path("photos").iterdir():
        (Path("val") / path.name).write_bytes(path.read_bytes())
    ingest(typed, "train")
    ingest(typed, "val", images="val")
    Path("m.yaml").write_text(LEAKS % ("train_split/train/human", "val_split/train/human"))
    assert typed("check", "m.yaml")[0] == 0
    assert typed("exclude", "val_split/train/human", "--out", "x.txt")[1] == "4 image keys in x.txt\n"


def test_where_nobody_knows_the_folder_keys_alone_are_compared(typed: Typed) -> None:
    two_files()
    ingest(typed, "train")
    ingest(typed, "val")
    Path("photos").rename("moved")
    text = LEAKS % ("train_split/train/human", "val_split/train/human")
    Path("m.yaml").write_text(text)
    code, _, err = typed("check", "m.yaml")
    assert code == 2
    assert err.count("where are the images of") == 2
    assert "also in" not in err
    assert typed("exclude", "val_split/train/human", "--out", "x.txt")[1] == "4 image keys in x.txt\n"
    assert image_keys.read_exclude_list(Path("x.txt")) == {f"val_split/000{i}.png" for i in range(5, 9)}


def test_where_the_manifest_alone_knows_the_folder_no_list_is_promised(typed: Typed) -> None:
    """`exclude` reads no manifest, so a list of its would not be the cure."""
    two_files()
    ingest(typed, "train")
    ingest(typed, "val")
    Path("photos").rename("moved")
    text = LEAKS % ("train_split/train/human", "val_split/train/human")
    line = told(typed, text.replace("instance}", "instance, images: moved}"))
    assert line.endswith("; take one of the two out, or ingest both under one --name, so that their keys are one")


def test_names_are_read_only_where_keys_may_hide_something(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    """A column less of millions of images, where they are of folders apart."""
    two_files()
    shutil.copytree("photos", "held")
    for split, images in (("train", "photos"), ("val", "held")):
        ingest(typed, split, "--name", "own", "--split", split, images=images)
    Path("m.yaml").write_text(LEAKS % ("own/train/human", "own/val/human"))
    real, read = ShardStore.read_columns, []

    def columns(self, shard, names):
        read.append(tuple(names))
        return real(self, shard, names)

    monkeypatch.setattr(ShardStore, "read_columns", columns)
    with pytest.raises(SynthgenError, match="2 images of own/train/human"):
        check_manifest(Path("m.yaml"))
    assert ("image_key",) in read
    assert ("image_key", "file_name") not in read


# --- commands that are told, typed as they stand there ---------------------------------------------------------------


def command(text: str) -> list[str]:
    """The words of the command that a sentence tells, behind `synthgen`."""
    found = re.search("`synthgen (.*?)`", text)
    assert found is not None, text
    return shlex.split(found[1])


def test_a_damaged_layer_hides_no_mistakes(typed: Typed) -> None:
    """What is hinted at is read off other layers of the dataset, whatever they are like."""
    two_files()
    ingest(typed, "train", "--name", "own", "--split", "train")
    for path in Path("shards/own/train/human").glob("*.parquet"):
        path.write_bytes(b"PAR1 no more")
    Path("m.yaml").write_text(LEAKS % ("own/train/masks", "own/val/human"))
    code, _, err = typed("check", "m.yaml")
    assert code == 2
    assert "mixture.0" in err and "eval.0" in err and "`synthgen masks --dataset coco-json --name own" in err


@pytest.mark.parametrize("store", ["shards", "elsewhere/my shards"])
@pytest.mark.parametrize("images", ["photos", "my photos"])
def test_suggested_commands_run_for_own_data(typed: Typed, images: str, store: str) -> None:
    coco_dataset.write_coco_dataset(Path())
    if images != "photos":
        Path("photos").rename(images)
    own = ("--dataset", "coco-json", "--annotations", "boxes.json", "--images", images, "--store", store)
    assert typed("ingest", *own, "--split", "val")[0] == 0
    asked = f"name: x\nstore: {store}\nmixture: [{{shards: boxes/val/%s, task: %s}}]\n"
    cases = [
        ("annotations", "semantic", "masks"),
        ("annotations", "referring", "captions"),
        ("sam-vit-h-masks", "instance", "masks"),
    ]
    for layer, task, stage in cases:
        words = command(told(typed, asked % (layer, task)))
        assert words[0] == stage
        code, out, err = typed(*words, "--dry-run")
        assert (code, err) == (0, ""), words
        assert "boxes/val/" in out
        assert typed(*words)[0] == 0
    assert all(
        ShardStore(store).list_shards("boxes", "val", layer) for layer in ("masks", "captions", "sam-vit-h-masks")
    )
    words = command(told(typed, asked % ("human", "instance")))
    assert words[0] == "ingest"
    assert typed(*["boxes.json" if word == "FILE" else word for word in words])[0] == 0


def test_what_nobody_can_know_is_said_in_capitals(typed: Typed) -> None:
    coco_dataset.write_coco_dataset(Path())
    typed("ingest", "--dataset", "coco-json", "--annotations", "boxes.json", "--images", "photos")
    text = "name: x\neval: [{shards: seginw_Cows/valid/human, task: instance}]"
    words = command(told(typed, text))
    assert shlex.join(words) == (
        "ingest --dataset coco-json --name seginw_Cows --split valid --annotations FILE --images FOLDER --layer human"
    )
    filled = {"FILE": "boxes.json", "FOLDER": "photos"}
    assert typed(*[filled.get(word, word) for word in words])[0] == 0
    assert ShardStore("shards").list_shards("seginw_Cows", "valid", "human")
