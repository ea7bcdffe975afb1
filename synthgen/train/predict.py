"""What a trained network finds in a photograph: drawn into it, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthgen.devices import check_options, device_of
from synthgen.errors import SynthgenError, printable
from synthgen.networks.mqformer.model import MQFormer
from synthgen.reading.batch import pack, unpack
from synthgen.reading.mixture import Drawn
from synthgen.reading.tasks import Target
from synthgen.reading.transforms import eval_view
from synthgen.records.drawing import Block, Mark, picture, save
from synthgen.records.files import new_file
from synthgen.records.geometry import decode_mask, encode_mask, xyxy_to_xywh
from synthgen.records.images import ImageError, load_rgb
from synthgen.records.resample import resize
from synthgen.records.sample import Rle
from synthgen.train import outputs
from synthgen.train.checkpoint import load_network
from synthgen.train.measured import printable_json
from synthgen.train.metrics import Found

#: What a score has to reach to be drawn, if nobody says what.
SURE = 0.25

#: Larger photographs are drawn smaller; the JSON keeps their frame.
_LONGEST = 2048

#: So many objects are told one by one.
_TOLD = 20


@dataclass(frozen=True, slots=True, eq=False)
class Predicted:
    """What came of one image.

    Attributes:
        texts: what was asked for.
        found: what was found of it, best first; labels are indices into `texts`.
        best: for each text the best score, of what was found or not.
        picture, json: what was written.
    """

    texts: tuple[str, ...]
    found: tuple[Found, ...]
    best: tuple[float, ...]
    picture: Path
    json: Path

    def lines(self, threshold: float) -> list[str]:
        """For a person."""
        lines = [f"{one.score:.2f}  {self.texts[one.label]}" for one in self.found[:_TOLD]]
        if len(self.found) > _TOLD:
            lines.append(f"... and {len(self.found) - _TOLD:,} more")
        if not self.found:
            score, text = max(zip(self.best, self.texts, strict=True))
            lines.append(f"nothing reaches {threshold:g}; the best is {score:.2f}, {text}: lower --threshold to see it")
        return [*lines, str(self.picture), str(self.json)]


def predict(
    image: Path,
    prompts: Sequence[str],
    checkpoint: Path,
    *,
    out: Path = Path("predictions"),
    threshold: float = SURE,
    text_encoder: str | None = None,
    device: str = "auto",
    precision: str = "fp32",
    short: int | None = None,
    long: int | None = None,
) -> Predicted:
    """Find what is asked for in an image file, and write NAME.found.png and NAME.found.json: photo.jpg.found.png.

    Args:
        prompts: names or phrases; none = all names that the checkpoint learned.
        out: folder of both files.
        threshold: scores below it are left out.
        text_encoder: instead of the one that the checkpoint names.
        device, precision: as `synthgen.devices` has them.
        short, long: sides of what the network sees, in pixels; None = as it was evaluated in training.

    Raises:
        SynthgenError: the image or the checkpoint cannot be read, or a file cannot be written; nothing was asked for.
    """
    check_options(device, precision, 1)
    asked = tuple(dict.fromkeys(" ".join(prompt.split()) for prompt in prompts))
    if "" in asked:
        raise SynthgenError("a prompt is empty; say what to look for, or give none for all names that were learned")
    pixels = _pixels(image)
    network, held = load_network(checkpoint, device=device_of(device), text_encoder=text_encoder)
    texts = asked or held.names
    if not texts:
        raise SynthgenError(f"{checkpoint} has learned no names of categories, only phrases; say what to look for")
    seen = look(
        network, pixels, texts, names=set(texts) <= set(held.names), precision=precision,
        short=short or held.eval_size[0], long=long or held.eval_size[1],
    )  # fmt: skip
    every = outputs.instances(seen, every_text=True)
    best = [0.0] * len(texts)
    for one in every:
        best[one.label] = max(best[one.label], one.score)
    found = tuple(one for one in every if one.score >= threshold)
    written = (out / f"{image.name}.found.{kind}" for kind in ("png", "json"))
    done = Predicted(texts, found, tuple(best), *written)
    save(done.picture, draw(pixels, found, texts, footer=_footer(image, done, held.step)))
    with new_file(done.json, remedy="choose another --out") as temporary:
        temporary.write_text(printable_json(_as_json(image, pixels, done, checkpoint, held.step)), encoding="utf-8")
    return done


def look(
    network: MQFormer,
    pixels: NDArray[np.uint8],
    texts: Sequence[str],
    *,
    names: bool,
    precision: str = "fp32",
    short: int = 800,
    long: int = 1333,
) -> outputs.Prediction:
    """What the network says of an image, uint8 [H, W, 3]; `names` = the texts are names of categories."""
    nothing = Target(
        tuple(texts), np.zeros(0, np.int64), np.zeros((0, 4), np.float32), (), np.zeros(0, np.float32), None, ()
    )
    batch = unpack(pack([Drawn(eval_view(pixels, nothing, short=short, long=long), 0, "")]))
    return outputs.look(network, batch, [texts], [names], precision=precision)[0]


def draw(
    pixels: NDArray[np.uint8], found: Sequence[Found], texts: Sequence[str], footer: str = ""
) -> NDArray[np.uint8]:
    """The image with what was found in it: uint8 [H', W', 3]."""
    height, width = pixels.shape[:2]
    scale = min(1.0, _LONGEST / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    marks = [
        Mark(
            (x1 * size[1] / width, y1 * size[0] / height, x2 * size[1] / width, y2 * size[0] / height),
            f"{texts[one.label]} {f'{one.score:.2f}'.removeprefix('0')}",
            None if one.mask is None else _shrunk(one.mask, size),
        )
        for one in found
        for x1, y1, x2, y2 in [one.box_xyxy]
    ]
    blocks = [
        Block(text, (), tuple(own))
        for i, text in enumerate(texts)
        if (own := [place for place, one in enumerate(found) if one.label == i])
    ]
    return picture(resize(pixels, size), marks, blocks, footer)


def _pixels(image: Path) -> NDArray[np.uint8]:
    try:
        if not image.is_file():  # a pipe would be waited for
            raise ImageError("no such file")
        return load_rgb(image)
    except (ImageError, OSError, ValueError) as why:  # ValueError: a null in its name
        told = why if isinstance(why, ImageError) else "its name cannot be used"
        raise SynthgenError(f"image {image}: {told}; name another") from None


def _shrunk(mask: Rle, size: tuple[int, int]) -> Rle:
    """The mask in a smaller image."""
    if tuple(mask.size) == size:
        return mask
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.int64) for new, old in zip(size, mask.size, strict=True)
    )
    return encode_mask(decode_mask(mask)[rows][:, columns])


def _footer(image: Path, done: Predicted, step: int) -> str:
    return f"{printable(image.name)}   {len(done.found)} found   after {step:,} steps"


def _as_json(image: Path, pixels: NDArray[np.uint8], done: Predicted, checkpoint: Path, step: int) -> dict[str, Any]:
    """As COCO's results have it, with names instead of numbers."""
    return {
        "image": image.name,
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "checkpoint": checkpoint.name,
        "step": step,
        "asked": [{"text": text, "best": best} for text, best in zip(done.texts, done.best, strict=True)],
        "found": [
            {
                "text": done.texts[one.label],
                "score": one.score,
                "bbox": xyxy_to_xywh(one.box_xyxy).tolist(),
                "segmentation": one.mask and {"size": list(one.mask.size), "counts": one.mask.counts.decode("ascii")},
            }
            for one in done.found
        ],
    }
