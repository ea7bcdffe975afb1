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

#: The table has no rows for detection; the boxes have the factors of their dataset's masks.
DETECTION = {"visual_genome/train/annotations": (9, 100), "objects365/train/annotations": (1, 1700)}

#: COCO without ADE20K has to teach the semantic task of the paper's six, with COCO's factor.
SEMANTIC_COCO = {"coco_panoptic/train2017/human": (3, 120)}

#: Recipe -> what it says of the paper: where the number stands, and the number to reproduce.
PAPER = {
    "ablations/queries_learnable.yaml": ("Table 2", "48.1 / 54.3 / 50.4 / 27.8"),
    "ablations/queries_conditional.yaml": ("Table 2", "49.8 / 56.5 / 43.2 / 29.4"),
    "ablations/queries_mixed.yaml": ("Table 2", "49.6 / 56.5 / 51.7 / 30.6"),
    "ablations/queries4_learnable.yaml": ("Table 2", "48.6 / 54.1 / 50.1 / 32.1"),
    "ablations/queries4_conditional.yaml": ("Table 2", "not legible"),
    "ablations/queries4_mixed.yaml": ("Table 2", "6.3 above"),
    "ablations/query_numbers_400.yaml": ("Table 9", "ADE20K mIoU 51.7, COCO mask AP 49.6, COCO box AP 54.9"),
    "ablations/query_numbers_1200.yaml": ("Table 9", "ADE20K mIoU 52.0, COCO mask AP 50.7, COCO box AP 57.4"),
    "ablations/text_encoder_trained.yaml": ("The paper does not say", "no number"),
    "ablations/masks_human.yaml": ("Table 7", "49.7 / 55.3"),
    "ablations/masks_synthetic.yaml": ("Table 7", "50.5 / 56.8"),
    "ablations/captions_human.yaml": ("Table 8", "RefCOCOg mIoU: 57.8."),
    "ablations/captions_synthetic.yaml": ("Table 8", "RefCOCOg mIoU: 58.8."),
    "ablations/captions_both.yaml": ("Table 8", "RefCOCOg mIoU: 62.6."),
    "ablations/refer_human.yaml": ("Figure 6, first graph, and Table 6", "RefCOCOg mIoU: 57.8."),
    "ablations/refer_coco.yaml": ("Figure 6, first graph, and Table 6", "RefCOCOg mIoU: 60.8."),
    "ablations/refer_coco_objects365.yaml": ("Figure 6, first graph, and Table 6", "RefCOCOg mIoU: 62.6."),
    "ablations/data_coco.yaml": ("Figure 6, second graph, and Table 6", "SeginW mask AP: 29.4."),
    "ablations/data_coco_ade.yaml": ("Figure 6, second graph, and Table 6", "SeginW mask AP: 30.0."),
    "ablations/data_coco_ade_objects365.yaml": ("Figure 6, second graph, and Table 6", "SeginW mask AP: 35.5."),
    "ablations/tasks_one.yaml": ("Figure 6, third graph, and Table 6", "SeginW mask AP: 29.6."),
    "ablations/tasks_two.yaml": ("Figure 6, third graph, and Table 6", "SeginW mask AP: 32.7."),
    "ablations/tasks_three.yaml": ("Figure 6, third graph, and Table 6", "SeginW mask AP: 35.2."),
    "ablations/scaling_0_1m.yaml": ("Figure 6, fourth and fifth graph", "RefCOCOg mIoU 63.4, SeginW mask AP 33.2."),
    "ablations/scaling_0_3m.yaml": ("Figure 6, fourth graph, and Table 6", "RefCOCOg mIoU 64.3."),
    "ablations/scaling_0_4m.yaml": ("Figure 6, fifth graph, and Table 6", "SeginW mask AP 37.2."),
    "ablations/scaling_1_0m.yaml": ("Figure 6, fifth graph, and Table 6", "SeginW mask AP 39.6."),
    "mqformer_full.yaml": ("Table 11", "RefCOCOg mIoU 67.2, SeginW mask AP 43.4"),
    "mqformer_open.yaml": ("Table 3", "43.4"),
    "human_only.yaml": ("The paper", "no number"),
    "captioner.yaml": ("gives no table", "no number"),
    "open_set.yaml": ("Table 3", "PQ 22.1, mask AP 17.3, mIoU 25.0"),
    "seginw.yaml": ("Table 3", "mean 43.4, median 43.0"),
}

COCO_PANOPTIC, ADE_SEMANTIC = ("coco_panoptic", "panoptic"), ("ade20k", "semantic")
GENOME, LVIS, OBJECTS365 = ("visual_genome", "instance"), ("lvis", "instance"), ("objects365", "instance")
REFER = frozenset((name, "referring") for name in ("refcoco", "refcoco_plus", "refcocog"))
COCO_CAPTIONS, OBJECTS365_CAPTIONS = ("coco", "referring"), ("objects365", "referring")
COCO_INSTANCE, ADE_INSTANCE = ("coco", "instance"), ("ade20k_instance", "instance")
ADE_PANOPTIC, FOREGROUND = ("ade20k_panoptic", "panoptic"), ("foreground", "foreground")

#: Of each ablation the sources (dataset, task): Tables 2, 7, 8 and 9, then Table 6 by subfigure.
MIXTURES: dict[str, frozenset[tuple[str, str]]] = {
    **dict.fromkeys(
        ("queries_mixed", "queries_learnable", "queries_conditional", "text_encoder_trained"),
        frozenset({COCO_PANOPTIC, ADE_SEMANTIC}),
    ),
    **dict.fromkeys(
        ("queries4_mixed", "queries4_learnable", "queries4_conditional"),
        frozenset({COCO_PANOPTIC, ADE_SEMANTIC, GENOME, *REFER}),
    ),
    "masks_human": frozenset({COCO_INSTANCE}),
    "masks_synthetic": frozenset({COCO_INSTANCE, OBJECTS365}),
    "captions_human": frozenset({("refcocog", "referring")}),
    "captions_synthetic": frozenset({COCO_CAPTIONS}),
    "captions_both": frozenset({("refcocog", "referring"), COCO_CAPTIONS}),
    **dict.fromkeys(("query_numbers_400", "query_numbers_1200"), frozenset({COCO_INSTANCE, ADE_SEMANTIC})),
    "refer_human": REFER,
    "refer_coco": frozenset({*REFER, COCO_CAPTIONS}),
    "refer_coco_objects365": frozenset({*REFER, COCO_CAPTIONS, OBJECTS365_CAPTIONS}),
    "data_coco": frozenset({COCO_INSTANCE}),
    "data_coco_ade": frozenset({COCO_INSTANCE, ADE_INSTANCE}),
    "data_coco_ade_objects365": frozenset({COCO_INSTANCE, ADE_INSTANCE, OBJECTS365}),
    "tasks_one": frozenset({COCO_PANOPTIC}),
    "tasks_two": frozenset({COCO_PANOPTIC, COCO_INSTANCE}),
    "tasks_three": frozenset({COCO_PANOPTIC, COCO_INSTANCE, COCO_CAPTIONS}),
    "scaling_0_1m": frozenset({COCO_PANOPTIC, COCO_CAPTIONS}),
    "scaling_0_3m": frozenset({COCO_PANOPTIC, ADE_PANOPTIC, *REFER, LVIS, GENOME, COCO_CAPTIONS}),
    "scaling_0_4m": frozenset({COCO_PANOPTIC, ADE_PANOPTIC, *REFER, GENOME, FOREGROUND}),
    "scaling_1_0m": frozenset({COCO_PANOPTIC, ADE_PANOPTIC, *REFER, GENOME, FOREGROUND, OBJECTS365_CAPTIONS}),
}

#: Table 6: thousands of photographs, and the tasks. COCO's are counted once.
TABLE_6 = {
    "refer_human": (60, {"referring"}), "refer_coco": (160, {"referring"}),
    "refer_coco_objects365": (670, {"referring"}),
    "data_coco": (100, {"instance"}), "data_coco_ade": (120, {"instance"}),
    "data_coco_ade_objects365": (630, {"instance"}),
    "tasks_one": (100, {"panoptic"}), "tasks_two": (100, {"panoptic", "instance"}),
    "tasks_three": (100, {"panoptic", "instance", "referring"}),
    "scaling_0_1m": (100, {"panoptic", "referring"}), "scaling_0_3m": (300, {"panoptic", "instance", "referring"}),
    "scaling_0_4m": (400, {"panoptic", "instance", "referring", "foreground"}),
    "scaling_1_0m": (1000, {"panoptic", "instance", "referring", "foreground"}),
}  # fmt: skip

#: The section of the paper says which networks, batches and lengths its tables have.
BASE, LARGE = ("swin_b", "clip_b", 32), ("swin_l", "clip_l", 128)


#: Numbers of COCO's photographs in the stand-in layers. They overlap as the real ones do.
COCO_NUMBERS: dict[str, tuple[int, ...]] = {
    **{"refcoco/val": (0, 1), "refcoco/testA": (2,), "refcoco/testB": (3,)},
    **{"refcoco_plus/val": (0,), "refcoco_plus/testA": (2,), "refcoco_plus/testB": (3,)},
    **{"refcocog/val": (4,), "refcocog/test": (5,), "coco/val2017": (100, 101), "coco_panoptic/val2017": (100, 101)},
    **{"coco/train2017": tuple(range(10)), "coco_panoptic/train2017": tuple(range(10)), "lvis/train": (1, 5, 6, 7)},
    **{"refcoco/train": (6, 100), "refcoco_plus/train": (6, 7), "refcocog/train": (8, 2, 101)},
}

#: The layers whose photographs an exclude list names.
LIST_LAYERS = {
    "coco_val2017.txt": [place for place in COCO_NUMBERS if place.endswith("val2017")],
    "refcoco_val_test.txt": [p for p in COCO_NUMBERS if p.startswith("ref") and not p.endswith("train")],
}

#: Datasets that a recipe has ingested under names of its own.
OWN_NAMES = {"coco128", "coco_tiny", "coco_mini"}


def sources(manifest: Manifest) -> list[tuple[str, str, str]]:
    return [source.parts for source in (*manifest.mixture, *manifest.eval)]


def test_all_are_there() -> None:
    assert {*PAPER, "toy.yaml", "lite_segmenter.yaml"} == set(SHIPPED)
    assert {f"ablations/{name}.yaml" for name in MIXTURES} == {name for name in SHIPPED if "/" in name}


@pytest.mark.parametrize("name", PAPER)
def test_a_recipe_names_its_table_its_number_and_its_cost(name: str) -> None:
    text = (ROOT / name).read_text()
    header = " ".join(text[: text.index("\nname:")].replace("\n#", "\n").split())
    place, number = PAPER[name]
    assert place in header
    assert number in header
    assert re.search(r"A100 GPUs?\b.*?(\d+ to \d+ hours|about (\d+ hours|an hour|half an hour)) \(estimated", header)
    assert ("Steps: " if load_manifest(ROOT / name).mixture else "no training steps") in header


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


def total_ratios(name: str) -> dict[tuple[str, str], float]:
    """Of each layer and task the ratio; RefCOCO/+/g together, as in the table."""
    ratios: dict[tuple[str, str], float] = {}
    for source in load_manifest(ROOT / name).mixture:
        key = ("ref" if source.shards.startswith("ref") else source.shards, source.task)
        ratios[key] = ratios.get(key, 0.0) + source.ratio
    return ratios


def table_ratios(table: dict[str, tuple[int, int]]) -> dict[str, float]:
    return {name: float(factor * thousands) for name, (factor, thousands) in table.items()}


def test_the_full_mixture_is_the_papers_table() -> None:
    ratios = total_ratios("mqformer_full.yaml")
    assert {task for _, task in ratios} == {
        "instance", "semantic", "panoptic", "referring", "foreground", "detection",
    }  # fmt: skip
    assert {layer: ratio for (layer, task), ratio in ratios.items() if task != "detection"} == table_ratios(TABLE)
    assert {layer: ratio for (layer, task), ratio in ratios.items() if task == "detection"} == table_ratios(DETECTION)


def test_the_zero_shot_model_learns_six_tasks_without_ade20k() -> None:
    full, found = total_ratios("mqformer_full.yaml"), total_ratios("mqformer_open.yaml")
    assert {task for _, task in found} == {task for _, task in full}
    left_out = ("ade20k/training/human", "semantic")
    added = {(layer, "semantic"): ratio for layer, ratio in table_ratios(SEMANTIC_COCO).items()}
    assert found == {key: ratio for key, ratio in full.items() if key != left_out} | added
    manifest = load_manifest(ROOT / "mqformer_open.yaml")
    assert not any("ade20k" in source.shards for source in (*manifest.mixture, *manifest.eval))
    for part in ("exclude", "augment", "model", "schedule"):
        assert getattr(manifest, part) == getattr(load_manifest(ROOT / "mqformer_full.yaml"), part)


def test_the_open_set_evaluation_is_the_papers() -> None:
    manifest = load_manifest(ROOT / "open_set.yaml")
    assert {(source.parts[0], source.task) for source in manifest.eval} == {
        ("ade20k_panoptic", "panoptic"), ("ade20k_instance", "instance"), ("ade20k_instance", "detection"),
        ("ade20k", "semantic"), ("pascal_context_59", "semantic"), ("pascal_context_459", "semantic"),
        ("bdd100k_panoptic", "panoptic"),
    }  # fmt: skip
    trained = {source.parts[0] for source in load_manifest(ROOT / "mqformer_open.yaml").mixture}
    assert not trained & {source.parts[0] for source in manifest.eval}


@pytest.mark.parametrize("name", SHIPPED)
def test_ade20k_is_measured_at_its_own_size(name: str) -> None:
    """Mask DINO's configuration: 512 pixels the shorter side, 2,048 at most the longer."""
    manifest = load_manifest(ROOT / name)
    for source in manifest.eval:
        if source.shards.startswith("ade20k"):
            assert source.size == (512, 2048)
    assert manifest.eval_size == (800, 1333)


@pytest.mark.parametrize("name", MIXTURES)
def test_an_ablation_learns_from_what_the_paper_names(name: str) -> None:
    manifest = load_manifest(ROOT / "ablations" / f"{name}.yaml")
    assert {(source.parts[0], source.task) for source in manifest.mixture} == MIXTURES[name]
    for source in manifest.mixture:
        assert source.share == (0.3 if source.shards.startswith("objects365") else 1.0)
    # RefCOCO/+/g has photographs of COCO val2017. What learns phrases leaves out those whose phrases are evaluated.
    phrases = any(task == "referring" for _, task in MIXTURES[name]) or name.startswith("tasks_")
    lists = ["coco_val2017.txt"] * bool(REFER & MIXTURES[name]) + ["refcoco_val_test.txt"] * phrases
    assert [path.name for path in manifest.exclude] == lists


@pytest.mark.parametrize("name", TABLE_6)
def test_a_point_of_figure_6_has_the_tasks_of_table_6(name: str) -> None:
    assert {task for _, task in MIXTURES[name]} == TABLE_6[name][1]


@pytest.mark.parametrize("name", TABLE_6)
def test_a_point_of_figure_6_has_the_photographs_of_table_6(name: str) -> None:
    """LVIS and RefCOCO/+/g have photographs of COCO, so LVIS is not counted. An eighth may differ."""
    thousands = {"coco": 100, "ade20k": 20, "visual_genome": 100, "foreground": 100, "objects365": 510, "ref": 60}
    named = {re.sub("_panoptic|_instance", "", dataset) for dataset, _ in MIXTURES[name]}
    groups = {"ref" if group.startswith("ref") else "coco" if group == "lvis" else group for group in named}
    found = sum(thousands[group] for group in groups)
    assert found == pytest.approx(TABLE_6[name][0], rel=0.12)


@pytest.mark.parametrize("name", MIXTURES)
def test_an_ablation_has_the_network_and_the_length_of_its_section(name: str) -> None:
    """Appendix A.2: Section 4.1 has base networks and batches of 32, Section 4.2 large ones and 128; 50 epochs."""
    manifest = load_manifest(ROOT / "ablations" / f"{name}.yaml")
    schedule, is_base = manifest.schedule, name.startswith(("queries", "query_numbers", "text_encoder", "masks_"))
    found = (manifest.model.backbone, manifest.model.text_encoder, schedule.batch_size)
    assert found == (BASE if is_base else LARGE)
    images = 4 * 50 * 118_000 if name.startswith("scaling_") else 50 * 118_000
    assert schedule.steps * schedule.batch_size == pytest.approx(images, abs=schedule.batch_size)


@pytest.mark.parametrize("name", PAPER)
def test_the_steps_of_a_recipe_make_what_its_lists_and_captions_need(name: str) -> None:
    text = (ROOT / name).read_text()
    header = text[: text.index("\nname:")]
    manifest = load_manifest(ROOT / name)
    if any(source.shards == "objects365/train/captions" for source in manifest.mixture):
        assert header.index("masks    --dataset objects365") < header.index("captions --dataset objects365")
    for path in manifest.exclude:
        for place in LIST_LAYERS[path.name]:
            dataset, split = place.split("/")
            spelt = dataset.replace("coco_pan", "coco-pan")
            assert re.search(rf"ingest +--dataset {spelt} .*\b{split}\b", header), place


def test_the_masks_of_the_mask_ablation_are_hq_sams() -> None:
    """Appendix A.1.3. All recipes share one layer, so all name them."""
    found = 0
    for name in SHIPPED:
        text = (ROOT / name).read_text()
        for line in re.findall(r"synthgen masks +--dataset (?:objects365|visual-genome) .*", text):
            assert "--segmenter hq_sam" in line
            found += 1
    assert found > 10


def test_human_only_is_the_rest_of_the_full_mixture() -> None:
    full, human = load_manifest(ROOT / "mqformer_full.yaml"), load_manifest(ROOT / "human_only.yaml")
    assert human.mixture == tuple(s for s in full.mixture if not s.shards.endswith(("/masks", "/captions")))
    for part in ("eval", "exclude", "augment", "model", "schedule"):
        assert getattr(full, part) == getattr(human, part)


@pytest.mark.parametrize(
    ("family", "differs"),
    [
        ("queries_*", "model"), ("queries4_*", "model"), ("query_numbers_*", "model"), ("masks_*", "mixture"),
        ("captions_*", "mixture"), ("refer_*", "mixture"), ("data_*", "mixture"), ("tasks_*", "mixture"),
        ("scaling_*", "mixture"),
    ],
)  # fmt: skip
def test_siblings_differ_in_one_thing(family: str, differs: str) -> None:
    first, *others = (load_manifest(path) for path in sorted((ROOT / "ablations").glob(f"{family}.yaml")))
    assert others
    for other in others:
        for key in Manifest.model_fields:
            if key != "exclude":  # follows from the mixture
                assert (getattr(first, key) == getattr(other, key)) == (key not in ("name", differs)), key


def test_queries_are_as_many_as_in_the_paper() -> None:
    for path in (ROOT / "ablations").glob("quer*.yaml"):
        model = load_manifest(path).model
        counts = {"learnable": model.learnable_queries, "conditional": model.conditional_queries}
        assert sum(n for kind, n in counts.items() if model.queries in ("mixed", kind)) == (
            1200 if path.stem.endswith("1200") else 400
        )


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


def copy_recipe(name: str, folder: Path) -> Path:
    """Copy a recipe, and write stand-ins of its layers into `folder/shards`: a few photographs each."""
    path = folder / "manifests" / name
    path.parent.mkdir(parents=True)
    path.write_text((ROOT / name).read_text())
    store = ShardStore(folder / "shards")
    keys = {place: layer_kinds.coco_keys(*numbers) for place, numbers in COCO_NUMBERS.items()}
    keys["visual_genome/train"] = [*layer_kinds.coco_keys(0, 101), "visual_genome/7"]
    by_layer = {
        "masks": layer_kinds.machine_masked,
        "captions": layer_kinds.captioned,
        "annotations": layer_kinds.boxed,
        "regions": layer_kinds.region,
    }
    by_task = {
        "panoptic": layer_kinds.panoptic, "referring": layer_kinds.referred, "captioning": layer_kinds.referred,
    }  # fmt: skip
    manifest = load_manifest(path)
    tasks: dict[str, str] = {}
    for source in (*manifest.mixture, *manifest.eval):
        tasks.setdefault(source.shards, source.task)
    for shards, task in tasks.items():
        place, _, layer = shards.rpartition("/")
        kind = by_layer.get(layer, by_task.get(task, layer_kinds.human))
        own = keys.get(place, [f"{place}/{i}" for i in range(5)])
        layer_kinds.write_layer(store, shards, own, kind, images=folder / "images" / place)
    return path


@pytest.mark.parametrize("name", PAPER)
def test_a_recipe_passes_check_on_small_stand_in_layers(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = copy_recipe(name, tmp_path)
    for target in load_manifest(path).exclude:
        target.parent.mkdir(exist_ok=True)
        numbers = sorted({number for place in LIST_LAYERS[target.name] for number in COCO_NUMBERS[place]})
        target.write_text("".join(f"{key}\n" for key in layer_kinds.coco_keys(*numbers)))
    found = check_manifest(path)
    assert found.warnings == ()
    mixture = load_manifest(ROOT / name).mixture
    total = sum(source.ratio for source in mixture)
    drawn = [row.draw_probability for row in found.sources if row.draw_probability]
    assert drawn == pytest.approx([source.ratio / total for source in mixture])


def test_the_full_mixture_from_missing_lists_to_ok(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = copy_recipe("mqformer_full.yaml", tmp_path)
    with pytest.raises(SynthgenError) as why:
        check_manifest(path)
    told = str(why.value).splitlines()[1:]
    assert len(told) == 2
    for line in told:  # each line names the command that makes the list
        command = re.search("`synthgen (.*)`", line)
        assert command is not None
        app(command[1].split(), standalone_mode=False)
    found = check_manifest(path)
    assert {row.source.shards: row.num_excluded for row in found.sources if row.num_excluded} == {
        "coco_panoptic/train2017/human": 6,
        "coco/train2017/captions": 6,
        "lvis/train/human": 2,
        "visual_genome/train/masks": 2,
        "visual_genome/train/annotations": 2,
        "refcoco/train/human": 1,
        "refcocog/train/human": 2,
    }
    assert found.warnings == ()
    assert round(sum(row.draw_probability or 0 for row in found.sources), 9) == 1
