"""What a recipe costs: operations of its training, and hours on the GPUs that it names.

    python benchmarks/recipe_cost.py manifests/mqformer_full.yaml manifests/ablations/*.yaml [--gpus 8]

No weights and no data are needed. The network is built with fake tensors (no memory, no arithmetic), and
`torch.utils.flop_counter` counts its multiplications and additions for one image of each canvas. A draw costs the mean
over the sources of the mixture, by their ratios. A backward pass costs twice a forward pass; activation checkpointing
repeats the forward pass. Losses, matching, denoising queries, the text encoder, the sampling of deformable attention
and evaluations are not counted.

The hours assume that a GPU reaches `--use` of its peak: 10 to 20 % is what networks of this kind reach, as deformable
attention and matching wait for memory. They are estimates, not measurements.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from synthgen import plugins
from synthgen.checkpoints.build_network import build_from_config
from synthgen.dataloading.config import ModelConfig
from synthgen.dataloading.manifest import Manifest, load_manifest
from synthgen.dataloading.source_config import TASKS_PACKAGE
from synthgen.models.mqformer.text_encoder import build_tiny_text_encoder

#: Operations a second of an NVIDIA A100 in bfloat16, from its data sheet.
A100_PEAK = 312e12

_COUNTS: dict[tuple[str, int], float] = {}


def canvas_sides(manifest: Manifest) -> Iterator[tuple[float, int]]:
    """For each source its chance to be drawn, and the side of its canvas in pixels."""
    augment = manifest.augment
    sides = {
        "jitter": augment.size, "whole": augment.size,
        "semantic": augment.semantic_crop_size, "foreground": augment.foreground_size,
    }  # fmt: skip
    total = sum(source.ratio for source in manifest.mixture)
    for source in manifest.mixture:
        yield source.ratio / total, sides[plugins.load_plugin(TASKS_PACKAGE, source.task).AUGMENTATION]


def count_forward(model: ModelConfig, side: int) -> float:
    """Multiplications and additions of one forward pass.

    Args:
        model: the network; its weights and its text encoder are left out.
        side: side of a square image, in pixels.
    """
    bare = model.model_copy(
        update={"backbone_weights": "random", "text_encoder": "tiny", "weights": None, "denoising_groups": 0}
    )
    key = (bare.model_dump_json(), side)
    if key not in _COUNTS:
        encoder = build_tiny_text_encoder()
        with FakeTensorMode(allow_non_fake_inputs=True):
            network = build_from_config(bare, encoder=encoder).eval()
            counter = FlopCounterMode(display=False)
            with counter:
                network(
                    torch.zeros(1, 3, side, side), torch.zeros(1, side, side, dtype=torch.bool), [["thing"]], [True]
                )
        _COUNTS[key] = float(counter.get_total_flops())
    return _COUNTS[key]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifests", nargs="+", type=Path)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument(
        "--peak", type=float, default=A100_PEAK, help="operations a second of a GPU (%(default).3g: A100)"
    )
    parser.add_argument("--use", type=float, nargs=2, default=(0.2, 0.1), help="parts of the peak that are reached")
    options = parser.parse_args()
    print(f"{'recipe':<32} {'images':>11} {'TFLOP/image':>11}   hours on {options.gpus} GPUs")
    for path in options.manifests:
        manifest = load_manifest(path)
        schedule = manifest.schedule
        if not manifest.mixture or manifest.captioner is not None or manifest.box_segmenter is not None:
            print(f"{manifest.name:<32} trains no MQ-Former")
            continue
        passes = 4 if schedule.activation_checkpointing else 3
        each = sum(chance * passes * count_forward(manifest.model, side) for chance, side in canvas_sides(manifest))
        images = schedule.steps * schedule.batch_size
        hours = [images * each / (options.gpus * options.peak * part) / 3600 for part in options.use]
        print(f"{manifest.name:<32} {images:>11,} {each / 1e12:>11.2f}   {hours[0]:,.0f} to {hours[1]:,.0f}")


if __name__ == "__main__":
    main()
