"""The size and speed of MQ-Former at inference (table 10 of the paper): parameters by part, images/s at batch 1.

    python benchmarks/inference.py --backbone swin_l --precision bf16            # on a GPU
    python benchmarks/inference.py --manifest manifests/mqformer_full.yaml --text-encoder minilm
    OMP_NUM_THREADS=1 python benchmarks/inference.py --size 256 320 --images 3 --rounds 3      # on a CPU

network     the forward pass of the network, on a batch that lies on the device
objects     the network, and its 100 best objects with masks of the image's size as run lengths
predictor   `Predictor`: the resize of the image, the batch and its way to the device as well

Each way runs with 1 and with `--batch-size` images at once, by turns, in an order that changes from round to round.
The network is that of a manifest's `model:` with other weights: random ones, which cost the same. Images are random as
well, of `--size` (height, width), and the network sees them at that size. `--texts` names are asked for; a frozen text
encoder embeds them once, so its time is not in these figures, as in a service that looks for the same names.
With `--params-only` the network is only counted; it then needs no memory.

Reported: parameters in millions; per image the median, the least and the most milliseconds of rounds, and CPU time;
images/s; the most memory of the device; ratios round by round.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from synthgen.checkpoints import build_network
from synthgen.checkpoints.checkpoint import Checkpoint
from synthgen.dataloading.collate import Batch, collate, unpack_batch
from synthgen.dataloading.config import ModelConfig
from synthgen.dataloading.manifest import load_manifest
from synthgen.dataloading.mixture import StreamItem
from synthgen.dataloading.tasks import Target
from synthgen.dataloading.transforms import make_eval_example
from synthgen.devices import resolve_device
from synthgen.evaluation import postprocess
from synthgen.evaluation.network_predictor import Predictor
from synthgen.models.mqformer.backbone import BACKBONES
from synthgen.models.mqformer.model import MQFormer

WAYS = ("network", "objects", "predictor")

#: What the paper's table 10 says of its large model: parameters in millions, images/s on an A100 at batch 1.
PAPER = (286, 5.1)


@dataclass(frozen=True, slots=True)
class Round:
    """What one way took in one round: seconds and CPU seconds an image."""

    seconds: float
    cpu: float


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--manifest", type=Path, help="its `model:` is measured, with random weights")
    options.add_argument("--backbone", choices=BACKBONES, help="instead of the manifest's; default: swin_t")
    options.add_argument("--text-encoder", help="instead of the manifest's: tiny, minilm or a folder; default: tiny")
    options.add_argument("--size", type=int, nargs=2, default=(800, 1333), metavar=("HEIGHT", "WIDTH"))
    options.add_argument("--texts", type=int, default=80, help="names that are asked for; COCO has 80")
    options.add_argument("--batch-size", type=int, default=8, help="the larger of the two batches")
    options.add_argument("--images", type=int, default=32, help="timed for each way in each round, at least")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--warm-up", type=int, default=2, help="batches before the first round")
    options.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    options.add_argument("--device", default="auto")
    options.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    options.add_argument("--params-only", action="store_true")
    args = options.parse_args()
    model = choose_model(args.manifest, args.backbone, args.text_encoder)
    device = resolve_device(args.device)
    torch.manual_seed(0)
    network = build_network.build_from_config(model, device="meta" if args.params_only else "cpu")
    tell_parameters(network, model)
    if args.params_only:
        return
    network = network.to(device).eval()
    chip = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    height, width = args.size
    print(
        f"{height} x {width} pixels, {args.texts} names, {args.precision}, {chip}, torch {torch.__version__}; "
        f"{args.rounds} rounds of {args.images} images; load before {os.getloadavg()[0]:.1f}"
    )
    texts = [f"name {number}" for number in range(args.texts)]
    sizes = (1, args.batch_size) if args.batch_size > 1 else (1,)
    runs = {
        (way, count): make_way(way, network, model, texts, (height, width), count, args.precision)
        for way in args.ways
        for count in sizes
    }
    for run in runs.values():
        for _ in range(args.warm_up):
            run()
    synchronize(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    found: dict[tuple[str, int], list[Round]] = {key: [] for key in runs}
    for number in range(args.rounds):
        for key in list(runs)[:: 1 if number % 2 else -1]:
            found[key].append(measure(runs[key], key[1], args.images, device))
    tell_speed(found)
    if device.type == "cuda":
        print(f"most memory of the device: {torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB")
    print(f"load after {os.getloadavg()[0]:.1f}")


def choose_model(manifest: Path | None, backbone: str | None, text_encoder: str | None) -> ModelConfig:
    """The network of a manifest, or the default one, with random weights."""
    given = load_manifest(manifest).model if manifest is not None else ModelConfig(text_encoder="tiny")
    assert given is not None
    changes = {"backbone": backbone, "text_encoder": text_encoder}
    said = {key: value for key, value in changes.items() if value is not None}
    return given.model_copy(update={"backbone_weights": "random", "weights": None, **said})


def tell_parameters(network: MQFormer, model: ModelConfig) -> None:
    """Parameters by part, in millions."""
    parts = {name.replace("_", " "): count_parameters(part) for name, part in network.named_children()}
    whole = count_parameters(network)
    told = ", ".join(f"{name} {count / 1e6:.1f}" for name, count in parts.items())
    print(f"{model.backbone}, text encoder {Path(model.text_encoder).name}: {whole / 1e6:.1f} M parameters ({told})")
    print(f"the paper's large model: {PAPER[0]} M, {PAPER[1]} images/s on an A100 at batch 1")


def count_parameters(part: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in part.parameters())


def make_way(
    way: str, network: MQFormer, model: ModelConfig, texts: list[str], size: tuple[int, int], count: int, precision: str
) -> Callable[[], None]:
    """A function that runs one batch of `count` images."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*size, 3), np.uint8) for _ in range(count)]
    sides = (min(size), max(size))
    if way == "predictor":
        held = Checkpoint("mqformer", 0, model.model_dump(mode="json"), tuple(texts), {})
        predictor = Predictor(network, held, precision=precision, sides=sides)
        return lambda: void(predictor.predict_batch(images, threshold=0.0, batch_size=count))
    batch = on_device(images, sides, next(network.parameters()).device)

    def run() -> None:
        seen = postprocess.predict_batch(network, batch, [texts] * count, [True] * count, precision=precision)
        for one in seen if way == "objects" else ():
            postprocess.instances(one)

    return run


def void(_: object) -> None:
    """Drop a result."""


def on_device(images: Sequence[NDArray[np.uint8]], sides: tuple[int, int], device: torch.device) -> Batch:
    """The batch of some images, as the predictor makes it."""
    nothing = Target((), np.zeros(0, np.int64), np.zeros((0, 4), np.float32), (), np.zeros(0, np.float32), None, ())
    examples = [make_eval_example(pixels, nothing, short_side=sides[0], long_side=sides[1]) for pixels in images]
    batch = unpack_batch(collate([StreamItem(example, 0, "") for example in examples]))
    return batch._replace(images=batch.images.to(device), padding_mask=batch.padding_mask.to(device))


def measure(run: Callable[[], None], count: int, least: int, device: torch.device) -> Round:
    """One round: batches until `least` images are done."""
    batches = -(-least // count)
    synchronize(device)
    began, cpu = time.perf_counter(), time.process_time()
    for _ in range(batches):
        run()
    synchronize(device)
    images = batches * count
    return Round((time.perf_counter() - began) / images, (time.process_time() - cpu) / images)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def tell_speed(found: dict[tuple[str, int], list[Round]]) -> None:
    """A row for each way and batch size, and ratios."""
    print(f"{'':12}{'batch':>6}{'ms an image':>26}{'CPU ms':>10}{'images/s':>10}")
    for (way, count), rounds in found.items():
        times = [1000 * one.seconds for one in rounds]
        spread = f"{statistics.median(times):.1f} ({min(times):.1f} to {max(times):.1f})"
        cpu = 1000 * statistics.median(one.cpu for one in rounds)
        print(f"{way:12}{count:>6}{spread:>26}{cpu:>10.1f}{1000 / statistics.median(times):>10.3g}")
    sizes = sorted({count for _, count in found})
    for way in dict.fromkeys(way for way, _ in found):
        if len(sizes) > 1:
            tell_ratio(f"{way}: images/s at batch {sizes[1]} / at batch 1", found[way, 1], found[way, sizes[1]])
    for count in sizes:
        for way in ("objects", "predictor"):
            if ("network", count) in found and (way, count) in found:
                tell_ratio(f"batch {count}: images/s of {way} / network", found["network", count], found[way, count])


def tell_ratio(what: str, base: Sequence[Round], other: Sequence[Round]) -> None:
    for name, ratios in (
        ("wall", [one.seconds / two.seconds for one, two in zip(base, other, strict=True)]),
        ("CPU", [one.cpu / two.cpu for one, two in zip(base, other, strict=True)]),
    ):
        print(f"{what}, {name}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
