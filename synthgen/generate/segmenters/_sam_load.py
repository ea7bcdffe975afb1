"""Loads SAM and HQ-SAM from options: weights, device, fast path, and a self-test of the result."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything.modeling import Sam

from synthgen.devices import PRECISIONS, check_choice, check_device_options, free_memory_gib, resolve_device
from synthgen.errors import SynthgenError
from synthgen.generate.segmenters._hq_sam_options import HqSamOptions
from synthgen.generate.segmenters._sam import SamSegmenter
from synthgen.generate.segmenters._sam_options import SamOptions
from synthgen.models.checkpoint_reader import load_state_dict
from synthgen.models.hq_sam import build_hq_sam
from synthgen.models.sam import build_sam, infer_config, is_hq_checkpoint, load_weights, set_precision, variant_name
from synthgen.models.sam_attention import use_sdpa
from synthgen.oom import OomBatcher
from synthgen.records.rle import rle_area, rle_iou
from synthgen.weights import PublishedFile, cached_file_sha256, fetch_weights

log = logging.getLogger(__name__)

AnySamOptions = TypeVar("AnySamOptions", bound=SamOptions)

#: On CUDA: from so many GiB of free memory on, so many images and boxes at once.
_AUTO_BATCH_SIZES = ((40, 16, 256), (14, 8, 64), (0, 2, 16))

#: A worker whose path agrees less with the plain one is of no use.
MIN_SELF_TEST_IOU = 0.99


def resolve_sam_options(plugin: str, published: Mapping[str, PublishedFile], options: AnySamOptions) -> AnySamOptions:
    """Options with `variant` and `weights` filled in, once they have been looked at; see `resolve_options` of the
    plugin folder.

    Published weights need not be here yet: it is known what they will be.

    Args:
        plugin: "sam" or "hq_sam".
        published: variant -> its published weights.
        options: as the user gives them.

    Raises:
        SynthgenError: a value that cannot be, a checkpoint that cannot be read or is another model's.
    """
    check_device_options(options.device, options.precision, options.batch_size)
    if options.checkpoint:
        path = Path(options.checkpoint).absolute()
        variant, weights = _load_checkpoint(plugin, path, options.variant)[0], cached_file_sha256(path)
    else:
        path, variant = Path(), options.variant or "vit_h"
        check_choice("--variant", variant, published)
        weights = published[variant].sha256
    if options.weights and options.weights != weights:
        raise SynthgenError(
            f"-O weights={options.weights} asks for another checkpoint than {path.name or variant} ({weights})"
        )
    checkpoint = str(path) if options.checkpoint else ""
    return replace(options, checkpoint=checkpoint, variant=variant, weights=weights)


def build_sam_segmenter(plugin: str, published: Mapping[str, PublishedFile], options: SamOptions) -> SamSegmenter:
    """Load, put on its device, choose the fast path, and test it.

    Args:
        plugin: "sam" or "hq_sam".
        published: variant -> its published weights.
        options: resolved or not.

    Raises:
        SynthgenError: the weights are not there or not those of the job; no such device; the path fails its test.
    """
    own = resolve_sam_options(plugin, published, options)
    path = Path(own.checkpoint) if own.checkpoint else fetch_weights(published[own.variant])
    variant, weights = _load_checkpoint(plugin, path, own.variant)
    numbers = infer_config(weights)
    with torch.device("meta"):
        if isinstance(own, HqSamOptions):
            network = build_hq_sam(numbers, hq_token_only=own.hq_token_only)
        else:
            network = build_sam(numbers)
    try:
        load_weights(network, weights)
    except ValueError as why:
        raise SynthgenError(f"{path}: {why}; is it the whole official file?") from None
    device = resolve_device(own.device)
    network.to(device)
    portions = _make_oom_batcher(device, own.batch_size, own.box_chunk)
    reference = _predict_test_scene(network) if own.self_test else None
    _enable_fast_path(network, PRECISIONS[own.precision], compiled=own.compile)
    if reference is not None:
        _run_self_test(reference, network, own)
    return SamSegmenter(
        network,
        source=f"{plugin} {variant}",
        scores_its_mask=plugin == "sam",
        multimask=own.multimask,
        zoom=own.zoom,
        oom_batcher=portions,
    )


def _load_checkpoint(plugin: str, path: Path, variant: str) -> tuple[str, dict[str, torch.Tensor]]:
    """Variant and weights of a checkpoint, after a check of the model and the requested variant."""
    try:
        weights = load_state_dict(path)
        numbers = infer_config(weights)
    except ValueError as why:
        raise SynthgenError(f"{path}: {why}; name the official file with --checkpoint, or leave it out") from None
    actual = "hq_sam" if is_hq_checkpoint(weights) else "sam"
    if actual != plugin:
        raise SynthgenError(f"{path} is a checkpoint of {actual}; say --segmenter {actual}")
    name = variant_name(numbers)
    if variant and name != variant:
        raise SynthgenError(
            f"{path} is a {name}, not the {variant} asked for; leave --variant out, or name another file"
        )
    return name, weights


def _make_oom_batcher(device: torch.device, batch_size: str, box_chunk: int) -> OomBatcher:
    """On a CPU, more than one image at a time gains nothing and costs memory."""
    images, boxes = 1, 16
    if device.type == "cuda":
        images, boxes = next((i, b) for least, i, b in _AUTO_BATCH_SIZES if free_memory_gib(device) >= least)
    return OomBatcher(images if batch_size == "auto" else int(batch_size), box_chunk if box_chunk > 0 else boxes)


def _enable_fast_path(network: Sam, dtype: torch.dtype, *, compiled: bool) -> None:
    """Fused attention, the precision asked for, and blocks compiled one by one: a few kinds, quickly compiled."""
    cuda = network.device.type == "cuda"
    if cuda and dtype == torch.float32:
        log.warning("float32 on a GPU: --precision bf16 is several times as fast")
    # Flash attention takes no mask, so on CUDA the positions are folded into queries and keys.
    use_sdpa(network.image_encoder, "folded" if cuda else "added")
    set_precision(network, dtype)
    if compiled:
        for block in network.image_encoder.blocks:
            block.compile()


def _run_self_test(reference: list[Any], network: Sam, options: SamOptions) -> None:
    """The self-test: the chosen path must draw what the plain network in float32 draws.

    Args:
        reference: masks of the test scene by the plain network in float32, as `Rle`.
        network: on the path that is tested.
        options: which path was chosen, for the message.

    Raises:
        SynthgenError: it does not; with the figure and the way out.
    """
    if not any(rle_area(mask) for mask in reference):
        raise SynthgenError(
            f"self-test failed: the weights {options.weights[:12]}... draw nothing at all on the test scene; is the "
            "checkpoint a trained one? (-O self_test=false goes on with it)"
        )
    how = f"--precision {options.precision}" + (" --compile" if options.compile else "")
    try:
        masks = _predict_test_scene(network)
    except SynthgenError:
        raise
    except Exception as why:
        raise SynthgenError(
            f"{how} does not run here ({type(why).__name__}: {(str(why).splitlines() or [''])[0][:200]}); "
            "try --precision fp32 without --compile"
        ) from why
    pairs = zip(masks, reference, strict=True)
    ious = [1.0 if a == b else float(rle_iou([a], [b])[0, 0]) for a, b in pairs]
    agreement = sum(ious) / len(ious)
    log.info("self-test of %s on %s: mean IoU with float32 %.4f", how, network.device, agreement)
    if agreement < MIN_SELF_TEST_IOU:
        raise SynthgenError(
            f"self-test failed: with {how} on {network.device} the masks agree with plain float32 to a mean IoU of "
            f"{agreement:.3f} only, {MIN_SELF_TEST_IOU} is asked; try --precision fp32 without --compile"
        )


def _predict_test_scene(network: Sam) -> list[Any]:
    """The masks of the test scene's boxes."""
    plain = SamSegmenter(
        network, source="", scores_its_mask=True, multimask=False, zoom=False, oom_batcher=OomBatcher(2, 3)
    )
    image, boxes = draw_test_scene()
    # Twice, the second time mirrored, and in chunks that hold boxes of both: a batch is part of the path.
    mirrored = np.stack([640 - boxes[:, 2], boxes[:, 1], 640 - boxes[:, 0], boxes[:, 3]], axis=1)
    try:
        predictions = [p for own in plain.segment([image, image[:, ::-1].copy()], [boxes, mirrored]) for p in own]
    except torch.OutOfMemoryError:
        raise SynthgenError(
            f"{network.device} has too little free memory for this model; try a smaller --variant, or --device cpu"
        ) from None
    return [prediction.rle for prediction in predictions]


def draw_test_scene() -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A drawn image, uint8 [480, 640, 3], of four plain objects on a grained ground, and their boxes XYXY."""
    y, x = np.mgrid[:480, :640].astype(np.float32)
    image = np.stack([90 + 0.1 * x, 120 + 0.1 * y, 160 - 0.1 * x], axis=2)
    objects = [
        ((x - 150) ** 2 + (y - 130) ** 2 < 90**2, (220, 60, 50)),
        ((abs(x - 470) < 120) & (abs(y - 120) < 70), (240, 220, 80)),
        (((x - 180) / 130) ** 2 + ((y - 360) / 70) ** 2 < 1, (40, 50, 70)),
        ((y > 280) & (y < 440) & (abs(x - 480) < (y - 280) * 0.6), (30, 160, 90)),
    ]
    boxes = []
    for shape, colour in objects:
        image[shape] = colour
        rows, columns = np.flatnonzero(shape.any(1)), np.flatnonzero(shape.any(0))
        boxes.append((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    grain = np.random.default_rng(0).normal(0, 6, image.shape)
    return np.clip(image + grain, 0, 255).astype(np.uint8), np.array(boxes, np.float32)
