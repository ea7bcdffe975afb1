"""The published manifests load, name layers that synthgen makes, and run from end to end."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fakes import layer_kinds

from synthgen import plugins
from synthgen.cli.main import app
from synthgen.dataloading.manifest import Manifest, load_manifest
from synthgen.dataloading.manifest_check import check_manifest
from synthgen.demo.photographs import PREVIEW_MANIFEST
from synthgen.errors import SynthgenError
from synthgen.storage.shard_store import ShardStore

ROOT = Path(__file__).parents[1] / "manifests"
SHIPPED = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.yaml"))

SEGINW = """Airplane-Parts Bottles Brain-Tumor Chicken Cows Electric-Shaver Elephants Fruits Garbage Ginger-Garlic Hand
Hand-Metal House-Parts HouseHold-Items Nutterfly-Squireel Phones Poles Puppies Rail Salmon-Fillet Strawberry Tablets
Toolkits Trash Watermelon""".split()

#: The paper's table: upsampling factor, thousands of images (of sources that are read as several layers, together).
TABLE = {
    "coco_panoptic/train2017/human": (3, 120),
    "ade20k/training/human": (30, 20),
    "lvis/train/human": (3, 100),
    "visual_genome/train/masks": (9, 100),
    "objects365/train/masks": (1, 1700),
    "ref": (6, 54),
    "coco/train2017/captions": (3, 100),
    "objects365/train/captions": (1, 1700),
    "foreground/train/human": (9, 100),
}


#: Datasets that a recipe has ingested under names of its own.
OWN_NAMES = {"coco128", "coco_tiny", "coco_mini"}


def sources(manifest: Manifest) -> list[tuple[str, str, str]]:
    return [source.parts for source in (*manifest.mixture, *manifest.eval)]


def test_all_are_there() -> None:
    assert {
        *("mqformer_full.yaml", "human_only.yaml", "seginw.yaml", "captioner.yaml", "toy.yaml", "lite_segmenter.yaml"),
        *(f"ablations/queries_{kind}.yaml" for kind in ("mixed", "learnable", "conditional")),
        *(f"ablations/masks_{kind}.yaml" for kind in ("human", "synthetic")),
        *(f"ablations/captions_{kind}.yaml" for kind in ("human", "synthetic", "both")),
    } == set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_manifest_loads_and_names_layers_that_synthgen_makes(name: str) -> None:
    found = load_manifest(ROOT / name)
    assert found.name == Path(name).stem
    for dataset, split, layer in sources(found):
        if dataset.startswith("seginw_") or dataset == "demo":
            assert split in ("valid", "train")
            continue
        module = plugins.load_plugin("formats.readers", "coco_json" if dataset in OWN_NAMES else dataset)
        assert dataset in OWN_NAMES or split in module.SPLITS, f"{dataset} has no split {split}"
        assert layer in module.LAYERS or layer in ("masks", "captions"), f"{dataset} has no layer {layer}"


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_manifest_says_how_its_layers_are_made(name: str) -> None:
    text = (ROOT / name).read_text()
    header = text[: text.index("\nname:")].splitlines()
    assert len(header) > 3
    assert all(line.startswith("#") for line in header)
    commands = "\n".join(line for line in header if "synthgen" in line)
    for dataset, _, layer in sources(load_manifest(ROOT / name)):
        if dataset.startswith("seginw_") or dataset == "demo":
            continue
        if name == "human_only.yaml" and layer == "human":
            assert "those of mqformer_full.yaml" in text  # which says it
            continue
        verb = layer if layer in ("masks", "captions") else "ingest"
        spelt = f"({dataset}|{dataset.replace('_', '-')})"
        own = r"--layer " + layer if layer in ("human", "regions") else ""
        if dataset in OWN_NAMES:
            spelt, own = "coco-json", rf"--name {dataset} .*{own}"
        assert re.search(rf"synthgen {verb} +--dataset {spelt} .*{own}", commands), f"{dataset} {layer}"


def test_the_commands_that_they_name_are_commands() -> None:
    """Every `synthgen ...` in a header or in exclude/README is taken by the command line, as far as options go."""
    import typer

    known = {c.name or c.callback.__name__: c for c in app.registered_commands if c.callback is not None}
    options = {
        name: {
            option
            for p in typer.main.get_command_from_info(info, pretty_exceptions_short=True, rich_markup_mode=None).params
            for option in p.opts
        }
        for name, info in known.items()
    }
    seen = 0
    for path in [*(ROOT / name for name in SHIPPED), ROOT / "exclude/README"]:
        text = re.sub(r" \\\n#? *", " ", path.read_text())
        for command, rest in re.findall(r"synthgen (\w+) ([^\n`]*)", text):
            if command in options:
                seen += 1
                for option in re.findall(r"--[a-z-]+", rest):
                    assert option in options[command], f"{path.name}: synthgen {command} {option}"
    assert seen > 40


def test_examples_name_manifests_that_have_what_the_command_needs() -> None:
    """Of `--help` and of the README: a best checkpoint is there only where something was evaluated."""
    texts = [c.callback.__doc__ or "" for c in app.registered_commands if c.callback is not None]
    texts.append((ROOT.parent / "README.md").read_text())
    needs = {"train": {"mixture"}, "ablate": {"mixture", "eval"}, "evaluate": {"eval"}}
    found = []
    for command, rest in re.findall(r"synthgen (\w+) ([^\n`]*)", "\n".join(texts)):
        wanted = [(name, needs.get(command, set())) for name in re.findall(r"--manifest manifests/(\S+)\.yaml", rest)]
        wanted += [(name, {"mixture", "eval"}) for name in re.findall(r"runs/(\w+)/best\.pt", rest)]
        for name, keys in wanted:
            manifest = load_manifest(ROOT / f"{name}.yaml")
            found.append(name)
            assert all(getattr(manifest, key) for key in keys), f"synthgen {command} {rest}"
    assert len(found) > 12


def test_the_full_mixture_is_the_papers_table() -> None:
    ratios: dict[str, float] = {}
    for source in load_manifest(ROOT / "mqformer_full.yaml").mixture:
        ratios["ref" if source.shards.startswith("ref") else source.shards] = source.ratio + (
            ratios.get("ref", 0.0) if source.shards.startswith("ref") else 0.0
        )
    assert ratios == {name: factor * thousands for name, (factor, thousands) in TABLE.items()}


def test_human_only_is_the_rest_of_the_full_mixture() -> None:
    full, human = load_manifest(ROOT / "mqformer_full.yaml"), load_manifest(ROOT / "human_only.yaml")
    made = {source.shards: source for source in full.mixture}
    boxes = {"visual_genome/train/annotations", "objects365/train/annotations"}
    for source in human.mixture:
        if source.shards in boxes:
            assert source.task == "detection"
            assert source.ratio == made[source.shards.replace("annotations", "masks")].ratio
        else:
            assert source == made[source.shards]
    synthetic = {source.shards for source in full.mixture} - {source.shards for source in human.mixture}
    assert all(name.endswith(("/masks", "/captions")) for name in synthetic)
    for part in ("eval", "exclude", "augment", "model", "schedule"):
        assert getattr(full, part) == getattr(human, part)


@pytest.mark.parametrize(("family", "differs"), [("queries", "model"), ("masks", "mixture"), ("captions", "mixture")])
def test_siblings_differ_in_one_thing(family: str, differs: str) -> None:
    first, *others = (load_manifest(path) for path in sorted((ROOT / "ablations").glob(f"{family}_*.yaml")))
    for other in others:
        for key in Manifest.model_fields:
            assert (getattr(first, key) == getattr(other, key)) == (key not in ("name", differs)), key


def test_queries_are_four_hundred_each() -> None:
    for path in (ROOT / "ablations").glob("queries_*.yaml"):
        model = load_manifest(path).model
        counts = {"learnable": model.learnable_queries, "conditional": model.conditional_queries}
        assert sum(n for kind, n in counts.items() if model.queries in ("mixed", kind)) == 400


def test_the_synthetic_share_of_objects365_is_a_third_of_it() -> None:
    (_, synthetic) = load_manifest(ROOT / "ablations/masks_synthetic.yaml").mixture
    assert (synthetic.shards, synthetic.share) == ("objects365/train/masks", 0.3)


def test_segmentation_in_the_wild_has_its_25_sets() -> None:
    found = load_manifest(ROOT / "seginw.yaml")
    assert [source.shards for source in found.eval] == [f"seginw_{name}/valid/human" for name in SEGINW]
    assert len(SEGINW) == 25
    assert found.mixture == ()


def test_the_toy_is_the_demos() -> None:
    ours, demos = load_manifest(ROOT / "toy.yaml"), load_manifest(PREVIEW_MANIFEST)
    assert ours.model_copy(update={"store": None}) == demos.model_copy(update={"store": None})
    assert ours.store.resolve() == ROOT.parent / "demo/shards"


def test_the_full_mixture_from_missing_lists_to_ok(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a store with all of its layers, a few photographs each, which overlap as the real ones do."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "manifests").mkdir()
    path = tmp_path / "manifests" / "full.yaml"
    path.write_text((ROOT / "mqformer_full.yaml").read_text())
    store = ShardStore("shards")
    val = {
        **{"refcoco/val": [0, 1], "refcoco/testA": [2], "refcoco/testB": [3]},
        **{"refcoco_plus/val": [0], "refcoco_plus/testA": [2], "refcoco_plus/testB": [3]},
        **{"refcocog/val": [4], "refcocog/test": [5], "coco/val2017": [100, 101], "coco_panoptic/val2017": [100, 101]},
    }
    train = {
        **{"coco/train2017": range(10), "coco_panoptic/train2017": range(10), "lvis/train": [1, 5, 6, 7]},
        **{"refcoco/train": [6, 100], "refcoco_plus/train": [6, 7], "refcocog/train": [8, 2]},
    }
    keys = {place: layer_kinds.coco_keys(*numbers) for place, numbers in {**val, **train}.items()}
    keys["visual_genome/train"] = [*layer_kinds.coco_keys(0, 101), "visual_genome/7"]
    kinds = {"panoptic": layer_kinds.panoptic, "semantic": layer_kinds.human, "referring": layer_kinds.referred}
    for source in (*load_manifest(path).mixture, *load_manifest(path).eval):
        place, _, layer = source.shards.rpartition("/")
        own = keys.get(place, [f"{place}/{i}" for i in range(5)])
        kind = {"masks": layer_kinds.machine_masked, "captions": layer_kinds.captioned}.get(
            layer, kinds.get(source.task, layer_kinds.human)
        )
        layer_kinds.write_layer(store, source.shards, own, kind, images=tmp_path / "images" / place)

    with pytest.raises(SynthgenError) as why:
        check_manifest(path)
    told = str(why.value).splitlines()[1:]
    assert len(told) == 2
    for line in told:  # the sentences name the commands that make the lists
        command = re.search("`synthgen (.*)`", line)
        assert command is not None
        app(command[1].split(), standalone_mode=False)
    found = check_manifest(path)
    assert {row.source.shards: row.num_excluded for row in found.sources if row.num_excluded} == {
        "coco_panoptic/train2017/human": 6,
        "coco/train2017/captions": 6,
        "lvis/train/human": 2,
        "visual_genome/train/masks": 2,
        "refcoco/train/human": 1,
        "refcocog/train/human": 1,
    }
    assert found.warnings == ()
    assert round(sum(row.draw_probability or 0 for row in found.sources), 9) == 1
