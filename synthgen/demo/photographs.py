"""Lays out the demo's dataset as a person's own would lie: a folder of photographs, one COCO JSON of boxes, a manifest.

The photographs are not in this package. They come out of scikit-image's wheel, which is installed anyway, so the demo
downloads nothing; the folder is found without importing scikit-image.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

from synthgen.errors import SynthgenError

BOXES = Path(__file__).with_name("boxes.json")
MANIFEST = Path(__file__).with_name("toy.yaml")


def lay_out(folder: Path) -> tuple[Path, Path, Path]:
    """Copy the photographs, their boxes and the manifest below `folder`, which is made if it is not there.

    Returns:
        The COCO JSON, the folder of images and the manifest, whose store is `shards` beside it. What lies there under
        the same names is overwritten, except the manifest, which people edit.

    Raises:
        SynthgenError: a photograph is missing from the installed scikit-image, or `folder` cannot be written.
    """
    source = _photographs()
    annotations, images, manifest = folder / BOXES.name, folder / "images", folder / MANIFEST.name
    names = [image["file_name"] for image in json.loads(BOXES.read_text(encoding="utf-8"))["images"]]
    if missing := [name for name in names if not (source / name).is_file()]:
        raise SynthgenError(f"{source} has no {missing[0]}; install scikit-image anew: pip install -U scikit-image")
    try:
        images.mkdir(parents=True, exist_ok=True)
        for name in names:
            shutil.copyfile(source / name, images / name)
        shutil.copyfile(BOXES, annotations)
        if not manifest.exists():
            shutil.copyfile(MANIFEST, manifest)
    except OSError as why:
        raise SynthgenError(f"cannot write the demo into {folder} ({why.strerror}); choose another folder") from None
    return annotations, images, manifest


def _photographs() -> Path:
    found = importlib.util.find_spec("skimage")
    if found is None or found.origin is None:
        raise SynthgenError("the demo's photographs come with scikit-image; install it: pip install scikit-image")
    return Path(found.origin).parent / "data"
