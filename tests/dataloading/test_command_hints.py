"""Commands that messages suggest for a layer: the reader that made it, no command that nobody knows."""

from __future__ import annotations

from pathlib import Path

from fakes import layer_kinds

from synthgen.dataloading import command_hints
from synthgen.dataloading.source_config import EvalSource
from synthgen.storage.shard_store import ShardStore


def test_the_reader_is_the_one_that_made_the_layer(tmp_path: Path) -> None:
    """Another name of a bundled dataset, a module of a user, a layer made before readers were written down."""
    store = ShardStore(tmp_path / "shards")
    made = {"refcoco-google": "refcoco", "ours": "my_reader", "old": None, "coco_panoptic": "coco_panoptic"}
    for name, reader in made.items():
        layer_kinds.write_layer(store, f"{name}/val/annotations", ["a/1"], layer_kinds.boxed)
        (shard,) = store.list_shards(name, "val", "annotations")
        recipe = {"stage": "ingest", **({"reader": reader} if reader else {})}
        store.commit(shard, list(store.read_samples(shard)), {"recipe": recipe, "fingerprint": "f", "categories": []})
    told = {
        name: command_hints.suggest_generate_command(
            store, EvalSource(shards=f"{name}/val/annotations", task="instance"), "masks"
        )
        for name in made
    }
    beginnings = {
        name: line.split(" --reads ")[0].removeprefix("`synthgen masks --dataset ") for name, line in told.items()
    }
    assert beginnings == {
        "refcoco-google": "refcoco --name refcoco-google --split val --images FOLDER",
        "ours": "PACKAGE.my_reader --name ours --split val --images FOLDER",
        "old": "coco-json --name old --split val --images FOLDER",
        "coco_panoptic": "coco-panoptic --split val",
    }


def test_a_layer_that_no_command_is_known_to_make_is_not_promised(tmp_path: Path) -> None:
    store = ShardStore(layer_kinds.write_store(tmp_path))
    known = ["/".join(layer) for layer in store.list_layers()]
    line = command_hints.describe_missing_layer(store, EvalSource(shards="vg/train/boxes", task="instance"), known)
    assert line.endswith("; name another (of these images there are vg/train/regions)")
