"""Commands that error messages suggest, with the options of the ingested dataset, its images and its store.

Unknown values appear in capitals: FILE, FOLDER.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from synthgen import plugins
from synthgen.dataloading.source_config import LayerSource
from synthgen.errors import SynthgenError, did_you_mean
from synthgen.storage.disk import default_store
from synthgen.storage.image_folder import find_image_folder
from synthgen.storage.shard_store import ShardStore

#: Names of the layers that ingest makes.
_INGESTED_LAYERS = ("annotations", "human", "regions")

#: The reader of users' own files, which have no default path and no default name.
_GENERIC_READER = "coco_json"


def store_option(root: Path) -> str:
    """The option that names the store at `root`, after a space; "" for the default store."""
    return "" if os.path.abspath(root) == os.path.abspath(default_store()) else f" --store {shlex.quote(str(root))}"  # noqa: PTH100


def suggest_generate_command(store: ShardStore, source: LayerSource, stage: str) -> str:
    """The command that adds masks or captions to the layer of a source.

    Args:
        store: where the layer is.
        source: names the layer that the command reads.
        stage: "masks" or "captions".
    """
    layer = source.parts[2]
    another = f" --layer {stage}-2" if layer == stage else ""
    options = _dataset_options(store, source, needs_annotations=False)
    return f"`synthgen {stage} {options} --reads {layer}{another}{store_option(store.root)}`"


def describe_missing_layer(store: ShardStore, source: LayerSource, known_layers: Sequence[str]) -> str:
    """The error message for a layer that the store lacks.

    Args:
        store: where the layer was looked for.
        source: names the missing layer.
        known_layers: the layers of the store, in the form DATASET/SPLIT/LAYER.
    """
    dataset, split, layer = source.parts
    what = f"no layer {source.shards} in {store.root}"
    for name in known_layers:
        differ = [pair for pair in zip(source.parts, name.split("/"), strict=True) if pair[0] != pair[1]]
        if len(differ) == 1 and did_you_mean(differ[0][0], [differ[0][1]]):
            return f"{what}; did you mean '{name}'?"
    stage = next((word for word in ("captions", "masks") if word in layer), None)
    if stage is None and layer not in _INGESTED_LAYERS:
        others = [name for name in known_layers if name.startswith(f"{dataset}/{split}/")]
        return f"{what}; name another (of these images there are {', '.join(others) or 'none'})"
    options = _dataset_options(
        store, source, needs_annotations=stage is None or not store.list_shards(dataset, split, "annotations")
    )
    option = "" if layer == stage else f" --layer {layer}"
    return f"{what}; make it: `synthgen {stage or 'ingest'} {options}{option}{store_option(store.root)}`"


def _dataset_options(store: ShardStore, source: LayerSource, *, needs_annotations: bool) -> str:
    """The options that name a source's dataset.

    Args:
        store: where the layers of the dataset are.
        source: names a layer of the dataset, and perhaps its image folder.
        needs_annotations: whether the command reads the annotation files; else only the images.
    """
    name, split, layer = source.parts
    reader = _find_reader(store, name, split)
    on_shelf = reader in plugins.list_plugins("formats.readers")
    own = name != reader or reader == _GENERIC_READER
    words = ["--dataset", reader.replace("_", "-") if on_shelf else f"PACKAGE.{reader}"]
    words += ["--name", name] if own else []
    words += ["--split", split]
    words += ["--annotations", "FILE"] if own and needs_annotations else []
    images = source.images or find_image_folder(store, name, split, layer)
    if own or not needs_annotations:
        words += ["--images", str(images) if images else "FOLDER"] if own or images else []
    return shlex.join(words)


def _find_reader(store: ShardStore, dataset: str, split: str) -> str:
    """The name of the dataset reader of a dataset, built-in or of the user, from the footers of its layers."""
    layers = [layer for layer in store.list_layers() if layer[0] == dataset]
    for layer in sorted(layers, key=lambda layer: layer[1] != split):
        try:
            footer = next((store.read_footer(shard) for shard in store.list_shards(*layer)), None)
        except SynthgenError:  # damaged: irrelevant for the suggestion
            continue
        recipe = (footer or {}).get("recipe")
        reader = recipe.get("reader") if isinstance(recipe, dict) and recipe.get("stage") == "ingest" else None
        if isinstance(reader, str) and reader.isidentifier():
            return reader
    return dataset if dataset in plugins.list_plugins("formats.readers") else _GENERIC_READER
