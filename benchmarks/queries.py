"""Queries of three kinds on a problem of things and stuff: mixed, learnable only, conditional only (MQ-Former's claim).

    python benchmarks/queries.py --out QUERIES [--data scenes|names] [--budget cpu|gpu] [--seeds 0 1 2]
    python benchmarks/queries.py --out QUERIES --data camvid+coco --root DATA --budget gpu

`scenes` are drawn (`_scenes.py`), learned as panoptic segmentation, and measured as instance, panoptic and semantic
segmentation; `names` are the same with 64 names instead of ten. `camvid+coco` are photographs, below `--root` in the
folders camvid, coco_tiny, coco_mini and coco128: CamVid's label maps (every fourth is held out) and COCO's instances,
learned by turns as in the paper's "2 datasets, 2 tasks"; there is no panoptic truth. All strategies have as many
queries, the same layers, the same steps on the same batches, and for each seed the same scenes in the same order; mixed
ones are a quarter learnable ones, as in the paper. Manifests, reading, training and evaluation are the product's own.

Reported: mean and spread (standard deviation over seeds) of mask AP, PQ and mIoU in percent, mIoU also by Mask DINO's
rule of semantic maps, which sharpens the probabilities of texts (`mIoU_sharpened`); which share of the things and of
the stuff that were found the conditional queries found; seconds of training. A strategy and seed that is finished stays
in `--out` and is not trained again; one that was broken off goes on. One thread of a CPU is fastest: OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import _scenes
import torch
from torch.nn import functional

from synthgen.checkpoints import checkpoint
from synthgen.dataloading.manifest import load_manifest
from synthgen.dataloading.source_config import EvalSource
from synthgen.devices import resolve_device
from synthgen.evaluation import postprocess
from synthgen.evaluation.evaluate import evaluate_network
from synthgen.evaluation.metrics import SemanticMap
from synthgen.evaluation.results import EvalResult
from synthgen.formats.readers import coco, semantic_folder
from synthgen.ingest import ingest
from synthgen.storage.atomic import write_text_atomic
from synthgen.storage.disk import create_folder
from synthgen.storage.shard_store import ShardStore
from synthgen.training import trainer

STRATEGIES = ("mixed", "learnable", "conditional")
METRICS = ("AP", "PQ", "PQ_things", "PQ_stuff", "mIoU", "mIoU_sharpened")


@dataclass(frozen=True, slots=True)
class Budget:
    """How much is learned, and by how large a network."""

    steps: int
    batch_size: int
    side: int
    scenes: int
    held_out: int
    queries: int
    dim: int
    encoder_layers: int
    decoder_layers: int
    backbone: str
    lr: float
    backbone_lr: float
    mask_points: int


#: For nine runs: an hour of one core, and a quarter of an hour of a GPU.
BUDGETS = {
    "cpu": Budget(
        steps=1100, batch_size=8, side=96, scenes=3000, held_out=200, queries=20, dim=64, encoder_layers=1,
        decoder_layers=2, backbone="tiny", lr=1e-3, backbone_lr=1e-3, mask_points=256,
    ),
    "gpu": Budget(
        steps=2000, batch_size=16, side=128, scenes=20_000, held_out=500, queries=20, dim=128, encoder_layers=2,
        decoder_layers=3, backbone="tiny", lr=5e-4, backbone_lr=5e-4, mask_points=512,
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Problem:
    """What is learned and measured.

    Attributes:
        mixture: as a manifest has it.
        scale: of its augmentation: drawn scenes are of all sizes as they are.
    """

    mixture: Sequence[dict[str, Any]]
    measured: tuple[EvalSource, ...]
    scale: tuple[float, float]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, required=True, help="where data, runs and results are kept")
    options.add_argument("--data", choices=list(DATA), default="scenes")
    options.add_argument("--root", type=Path, help="of `camvid+coco`: the folder of camvid and of COCO's excerpts")
    options.add_argument("--budget", choices=list(BUDGETS), default="cpu")
    for key in ("steps", "batch_size", "side", "scenes", "queries"):
        options.add_argument(f"--{key.replace('_', '-')}", type=int, help="instead of the budget's")
    options.add_argument("--backbone", help="instead of the budget's; of `swin_t` the weights of ImageNet are taken")
    options.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=STRATEGIES)
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options.add_argument("--device", default="auto")
    options.add_argument("--workers", type=int, default=0, help="processes that read")
    args = options.parse_args()
    said = {key: getattr(args, key) for key in ("steps", "batch_size", "side", "scenes", "queries", "backbone")}
    budget = replace(BUDGETS[args.budget], **{key: value for key, value in said.items() if value is not None})
    if args.data != "scenes" and args.root is None:
        options.error("--root is needed: the folder that holds camvid, coco_tiny, coco_mini and coco128")
    about, content = args.out / f"{args.data}.budget.json", json.dumps(asdict(budget), indent=1) + "\n"
    if about.exists() and about.read_text() != content:
        options.error(f"{args.out} holds what was made with another budget ({about.name}); choose another --out")
    create_folder(args.out, remedy="choose another --out")
    write_text_atomic(about, content)
    problem = DATA[args.data](args.out, budget, args.root)
    results: dict[str, list[dict[str, Any]]] = {strategy: [] for strategy in args.strategies}
    for seed in args.seeds:  # all strategies of a seed, then the next, so that what is finished can be compared
        for strategy in args.strategies:
            found = run(args.out, args.data, budget, strategy, seed, problem, args.device, args.workers)
            results[strategy].append(found)
            print(f"{strategy} {seed}: {shown(found)}", flush=True)
        table(results)
        summary = {
            "data": args.data,
            "torch": torch.__version__,
            "budget": asdict(budget),
            "seeds": args.seeds,
            "results": results,
        }
        write_text_atomic(args.out / f"{args.data}.json", json.dumps(summary, indent=1) + "\n")


def run(
    out: Path, data: str, budget: Budget, strategy: str, seed: int, problem: Problem, device: str, workers: int
) -> dict[str, Any]:  # fmt: skip
    """What one strategy comes to from one seed; of an earlier call, if that came so far."""
    kept = out / f"{data}-{strategy}-{seed}.json"
    if kept.exists():
        return dict(json.loads(kept.read_text()))
    path, folder = kept.with_suffix(".yaml"), out / "runs" / kept.stem
    write_text_atomic(path, json.dumps(manifest(budget, strategy, seed, problem), indent=1))  # JSON is YAML
    trainer.train(path, out=folder, device=device, num_workers=workers)
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    seconds = sum(budget.batch_size / line["images_per_s"] for line in log if line["of"] == "train")
    at = resolve_device(device)
    network, _ = checkpoint.load_network(folder / f"step-{budget.steps:08}.pt", device=at)
    began, sharpened = time.monotonic(), tuple(one for one in problem.measured if one.task == "semantic")

    def measure(sources: tuple[EvalSource, ...]) -> dict[str, Any]:
        own = load_manifest(path).model_copy(update={"eval": sources})
        found = evaluate_network(
            network, own, device=at, num_workers=workers, batch_size=8, short=budget.side, long=2 * budget.side
        )
        return summed_up(found)

    told = measure(problem.measured)
    with mock.patch.object(postprocess, "semantic", partial(sharpened_semantic, postprocess.semantic)):
        told["mIoU_sharpened"] = measure(sharpened)["mIoU"]
    told |= {"seconds": seconds, "evaluation_seconds": time.monotonic() - began}
    write_text_atomic(kept, json.dumps(told, indent=1) + "\n")
    return told


def sharpened_semantic(
    rule: Callable[[postprocess.RawPrediction], SemanticMap], prediction: postprocess.RawPrediction
) -> SemanticMap:
    """Mask DINO's rule: the same as `rule`, Mask2Former's, with softmax(probabilities / temperature) of the texts."""
    likely = functional.softmax(prediction.logits.sigmoid() / postprocess.PANOPTIC_TEMPERATURE, dim=-1)
    return rule(replace(prediction, logits=likely.logit()))


def manifest(budget: Budget, strategy: str, seed: int, problem: Problem) -> dict[str, Any]:
    """A strategy has all queries of its kind; mixed ones are a quarter learnable."""
    own = {f"{strategy}_queries": budget.queries}
    if strategy == "mixed":
        own = {"learnable_queries": budget.queries // 4, "conditional_queries": budget.queries - budget.queries // 4}
    pretrained = budget.backbone != "tiny"
    return {
        "name": f"queries-{strategy}-{seed}",
        "seed": seed,
        "store": "shards",
        "mixture": list(problem.mixture),
        "augment": {
            "size": budget.side, "scale": problem.scale, "semantic_crop_size": budget.side,
            "semantic_scale": problem.scale,
        },
        "model": {
            "backbone": budget.backbone, "backbone_weights": "pretrained" if pretrained else "random",
            "queries": strategy, **own, "hidden_dim": budget.dim, "encoder_layers": budget.encoder_layers,
            "decoder_layers": budget.decoder_layers, "text_encoder": "tiny",
        },
        "schedule": {
            "steps": budget.steps, "batch_size": budget.batch_size, "lr": budget.lr,
            "backbone_lr": budget.lr / 10 if pretrained else budget.backbone_lr,
            "warmup_steps": min(50, budget.steps // 10), "max_grad_norm": 1.0, "mask_points": budget.mask_points,
            "checkpoint_every": 200, "keep_checkpoints": 1,
        },
        "dataloader": {"cache_mib": 256},
    }  # fmt: skip


def scenes(
    out: Path, budget: Budget, _: Path | None, vocabulary: _scenes.Vocabulary = _scenes.FEW
) -> Problem:  # fmt: skip
    """Drawn scenes, made once."""
    for split, count in (("train", budget.scenes), ("val", budget.held_out)):
        _scenes.write(out, split, count, side=budget.side, vocabulary=vocabulary)
    tasks = ("instance", "panoptic", "semantic")
    measured = tuple(EvalSource(shards="scenes/val/human", task=task) for task in tasks)
    return Problem([{"shards": "scenes/train/human", "task": "panoptic"}], measured, (1.0, 1.0))


#: COCO's excerpts that are learned; they have no image in common with the one that is held out.
_COCO = {"coco_tiny": "train2017", "coco_mini": "train2017", "coco128": "train2017"}


def photographs(out: Path, _: Budget, root: Path | None) -> Problem:
    """CamVid and COCO, ingested once."""
    assert root is not None
    store = ShardStore(out / "shards")
    for split, wanted in (("train", False), ("val", True)):
        for kind in ("", "annot"):
            into = out / "camvid" / f"{split}{kind}"
            into.mkdir(parents=True, exist_ok=True)
            for i, file in enumerate(sorted((root / "camvid" / f"train{kind}").glob("*.png"))):
                if (i % 4 == 3) is wanted and not (into / file.name).exists():
                    shutil.copyfile(file, into / file.name)
        shutil.copyfile(root / "camvid" / "class_names.json", out / "camvid" / "class_names.json")
        found = semantic_folder.files(out / "camvid", split, None)
        ingest.ingest(store, semantic_folder, found, name="camvid", split=split, layer="human")
    for name, split in {**_COCO, "held_out": "val2017"}.items():
        found = coco.files(root / ("coco_tiny" if name == "held_out" else name), split, None)
        ingest.ingest(store, coco, found, name=name, split=split, layer="human")
    learned = [{"shards": f"{name}/{split}/human", "task": "instance"} for name, split in _COCO.items()]
    measured = (
        EvalSource(shards="held_out/val2017/human", task="instance"),
        EvalSource(shards="camvid/val/human", task="semantic"),
    )
    mixture = [{"shards": "camvid/train/human", "task": "semantic", "ratio": len(_COCO)}, *learned]
    return Problem(mixture, measured, (0.75, 1.5))


DATA: dict[str, Callable[[Path, Budget, Path | None], Problem]] = {
    "scenes": scenes,
    "names": partial(scenes, vocabulary=_scenes.MANY),
    "camvid+coco": photographs,
}


def summed_up(found: Sequence[EvalResult]) -> dict[str, Any]:
    """Of what was measured the values that are told, and the shares of query kinds by task."""
    told: dict[str, Any] = {"shares": {}}
    for one in found:
        told |= {name: one.values[name] for name in METRICS if name in one.values}
        told["shares"][one.task] = one.by_kind
    return told


def shown(found: dict[str, Any]) -> str:
    values = [f"{name} {found[name]:.1f}" for name in METRICS if name in found]
    return f"{', '.join(values)}, {found['seconds']:.0f} s + {found['evaluation_seconds']:.0f} s of evaluation"


def table(results: dict[str, list[dict[str, Any]]]) -> None:
    """Mean and spread over seeds, a row a strategy; how mixed ones differ, seed by seed; who found what."""
    names = [name for name in METRICS if all(name in one for found in results.values() for one in found)]
    print(f"\n{'queries':12}" + "".join(f"{name:>16}" for name in names) + f"{'seconds':>10}")
    for strategy, found in results.items():
        cells = [spread([one[name] for one in found]) for name in names]
        print(f"{strategy:12}" + "".join(f"{cell:>16}" for cell in cells), end="")
        print(f"{statistics.fmean(one['seconds'] for one in found):>10.0f}")
    for other in [name for name in results if name != "mixed" and "mixed" in results]:
        pairs = list(zip(results["mixed"], results[other], strict=True))
        cells = [spread([own[name] - theirs[name] for own, theirs in pairs]) for name in names]
        print(f"- {other:10}" + "".join(f"{cell:>16}" for cell in cells))
    for task in ("instance", "panoptic", "semantic"):
        for kind in ("things", "stuff"):
            shares = [one["shares"].get(task, {}).get(kind) for one in results.get("mixed", ())]
            if shares and all(shares):
                cell = spread([share["conditional"] for share in shares])
                print(f"mixed, {task}: of {kind} found, conditional queries found {cell} %")


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation."""
    return f"{statistics.fmean(values):.1f} ± {statistics.stdev(values) if len(values) > 1 else 0:.1f}"


if __name__ == "__main__":
    main()
