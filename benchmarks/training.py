"""A training step of MQ-Former against transformers' Mask2Former, the backbone alone, and the product's whole loop.

    python benchmarks/training.py --data COCO_TINY [--size 512 1024] [--batch-size 8] [--precision bf16] [--rounds 3]
    OMP_NUM_THREADS=1 python benchmarks/training.py --data COCO_TINY --size 256 --batch-size 1     # on a CPU

ours        forward, matching over all layers, losses, backward, clipping, AdamW
mask2former transformers' `Mask2FormerForUniversalSegmentation` with the same backbone, layers and widths, its own
            matching and losses (three levels, 100 queries, no boxes, no texts)
wide        the same with as many queries as ours
backbone    the backbone forward and backward: the limit
train       `synthgen train` itself, its readers included: which share of the time it waits for them (goal: below 5 %)

All have random weights and the same images and objects of `--data` (COCO's layout), seen through the product's reader
in large-scale jitter to `--size` pixels; those of the first four lie in memory, in canvases of size x size, `train`
takes batches as they come. Each way runs in a process of its own, by turns, in an order that changes from round to
round. Reported: medians of images/s, of CPU time an image, and of the most memory (tensors on a GPU; the process on a
CPU); ratios pair by pair; and, from further steps with a GPU waited for at each border, where a step's time goes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from _loader_content import prepare
from _training_ways import WARM, WAYS, Content, learn, train

from synthgen.devices import resolve_device
from synthgen.models.mqformer import text_encoder
from synthgen.models.mqformer.backbone import SWIN_VARIANTS


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, help="a folder of annotations/instances_train2017.json and train2017/")
    options.add_argument("--size", type=int, nargs="+", help="pixels; default: 512 and 1024, on a CPU 256")
    options.add_argument("--batch-size", type=int, help="default: 8, on a CPU 1")
    options.add_argument("--backbone", choices=sorted(SWIN_VARIANTS), default="swin_t")
    options.add_argument("--denoising", type=int, default=0, help="groups of noised objects, of ours")
    options.add_argument("--device", default="auto")
    options.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    options.add_argument("--checkpointing", action="store_true", help="of ours, train and backbone")
    options.add_argument("--compile", action="store_true", help="of ours and train: schedule.compile")
    options.add_argument("--steps", type=int, help="timed, each way in each round; default: 20, on a CPU 2")
    options.add_argument("--batches", type=int, default=2, help="different ones, which are taken by turns")
    options.add_argument("--workers", type=int, default=4, help="reader processes of `train`")
    options.add_argument("--repeat", type=int, default=5, help="how often each photograph is listed")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--ways", nargs="+", choices=[*WAYS, "train"], default=[*WAYS, "train"])
    options.add_argument("--folder", type=Path, help="where to put files; default: the system's")
    options.add_argument("--run", nargs=3, metavar=("WAY", "FOLDER", "SEED"), help=argparse.SUPPRESS)
    args = options.parse_args()
    if args.run:
        way, folder, seed = args.run
        content = Content(**json.loads(Path(folder, "content.json").read_text()))
        print(json.dumps(train(content, int(seed)) if way == "train" else learn(way, content, int(seed))))
        return
    if args.data is None:
        options.error("--data is needed: COCO's layout, such as an excerpt of COCO")
    cuda = resolve_device(args.device).type == "cuda"
    for size in args.size or ([512, 1024] if cuda else [256]):
        with tempfile.TemporaryDirectory(prefix="training-", dir=args.folder) as folder:
            compare(args, Path(folder).absolute(), size, cuda)


def compare(args: argparse.Namespace, folder: Path, size: int, cuda: bool) -> None:
    """All ways at one size."""
    batch_size, steps = args.batch_size or (8 if cuda else 1), args.steps or (20 if cuda else 2)
    prepare(folder, args.data, scale=0, repeat=args.repeat, tars=False)
    text = "minilm" if text_encoder.find_minilm() else "tiny"
    manifest = {
        "name": "training",
        "store": "shards",
        "mixture": [{"shards": "bench/train/human", "task": "instance"}],
        "augment": {"size": size},
        "model": {
            "backbone": args.backbone, "backbone_weights": "random", "text_encoder": text,
            "denoising_groups": args.denoising
        },
        "schedule": {
            "steps": steps + WARM, "batch_size": batch_size, "precision": args.precision, "warmup_steps": 0,
            "activation_checkpointing": args.checkpointing, "compile": args.compile,
        },
    }  # fmt: skip
    (folder / "training.yaml").write_text(json.dumps(manifest))  # which is YAML, too
    content = Content(str(folder), size, args.device, args.batches, steps, args.workers)
    (folder / "content.json").write_text(json.dumps(asdict(content)))
    chip = torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads"
    more = "".join(f", {word}" for word in ("checkpointing", "compile") if getattr(args, word))
    print(
        f"{args.backbone}, {size} pixels, batches of {batch_size}, {args.precision}{more}, {chip}, "
        f"torch {torch.__version__}; {args.rounds} rounds of {steps} steps; load before {os.getloadavg()[0]:.1f}"
    )
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in args.ways}
    for one in range(args.rounds):
        for way in args.ways[:: 1 if one % 2 else -1]:
            found[way].append(elsewhere(way, folder, one))
    tell(found)
    print(f"load after {os.getloadavg()[0]:.1f}\n")


def elsewhere(way: str, folder: Path, seed: int) -> dict[str, Any]:
    """Run a way in a process of its own."""
    command = [sys.executable, __file__, "--run", way, str(folder), str(seed)]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found


def tell(found: dict[str, list[dict[str, Any]]]) -> None:
    """The table, ratios, and where the time goes."""
    print(f"{'':12}{'images/s':>10}{'CPU':>17}{'memory':>14}{'learn':>11}{'objects':>9}")
    for way, rounds in found.items():
        middle = {what: statistics.median(one[what] for one in rounds) for what in rounds[0] if what != "parts"}
        line = f"{way:12}{middle['rate']:>10.3g}"
        if way == "train":
            print(f"{line}{'':17}{middle['memory']:>10.0f} MiB   waiting for batches: {middle['waiting']:.1%}")
        else:
            print(
                f"{line}{middle['cpu']:>11.0f} ms/im{middle['memory']:>10.0f} MiB{middle['weights']:>9.1f} M"
                f"{middle['objects']:>9.1f}"
            )
    for way in found:
        if way not in ("ours", "train") and "ours" in found:
            told = {}
            for what in ("rate", "cpu", "memory"):
                ratios = [a[what] / b[what] for a, b in zip(found["ours"], found[way], strict=True)]
                told[what] = f"{statistics.median(ratios):.3g} ({min(ratios):.3g} to {max(ratios):.3g})"
            print(f"ours/{way}: images/s {told['rate']}, CPU {told['cpu']}, memory {told['memory']}")
    for way, rounds in found.items():
        if way == "train":
            continue
        parts = {name: statistics.median(one["parts"][name] for one in rounds) for name in rounds[0]["parts"]}
        whole = sum(parts.values())
        told_parts = [f"{name} {value:.0f} ({value / whole:.1%})" for name, value in parts.items()]
        print(f"{way}, ms an image: {', '.join(told_parts)}; in all {whole:.0f}")


if __name__ == "__main__":
    main()
