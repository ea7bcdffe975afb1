"""What a trained network finds in a photograph: drawn into it, and as JSON."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthgen.checkpoints.checkpoint import NO_MASKS, load_network, sides
from synthgen.dataloading.collate import pack, unpack
from synthgen.dataloading.mixture import Drawn
from synthgen.dataloading.tasks import Target
from synthgen.dataloading.transforms import eval_view
from synthgen.devices import check_options, device_of
from synthgen.errors import SynthgenError, printable
from synthgen.evaluation import postprocess
from synthgen.evaluation.metrics import Found
from synthgen.evaluation.results import printable_json
from synthgen.images.decode import ImageError, load_rgb
from synthgen.images.resize import resize
from synthgen.models.mqformer.model import MQFormer
from synthgen.records.geometry import decode_mask, encode_mask, xyxy_to_xywh
from synthgen.records.sample import Rle
from synthgen.storage.atomic import new_file
from synthgen.visualize.drawing import Block, Mark, beginning, picture, save

#: What a score has to reach to be drawn, if nobody says what.
SURE = 0.25

#: Larger photographs are drawn smaller; the JSON keeps their frame.
_LONGEST = 2048

#: "https://..." as it is left of a path.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)

#: So many objects are told one by one, with so many letters of what they are; beside the picture with so many.
_TOLD, _LETTERS, _BESIDE = 20, 80, 240


@dataclass(frozen=True, slots=True, eq=False)
class Predicted:
    """What came of one image.

    Attributes:
        texts: what was asked for.
        found: what was found of it, best first; labels are indices into `texts`.
        best: for each text the best score, of what was found or not; of an empty one that of its label.
        empty: for each text whether no mask of what may be it has a pixel, so that no threshold finds it.
        masks: whether the network ever learned a mask; if not, boxes were found, and scores are their labels'.
        picture, json: what was written.
        replaced: whether another prediction lay in their place.
    """

    texts: tuple[str, ...]
    found: tuple[Found, ...]
    best: tuple[float, ...]
    empty: tuple[bool, ...]
    masks: bool
    picture: Path
    json: Path
    replaced: bool = False

    def lines(self, threshold: float) -> list[str]:
        """For a person."""
        lines = [f"{one.score:.2f}  {beginning(self.texts[one.label], _LETTERS)}" for one in self.found[:_TOLD]]
        if len(self.found) > _TOLD:
            lines.append(f"... and {len(self.found) - _TOLD:,} more")
        if not self.found:
            lines.append(self._nothing(threshold))
        if not self.masks:
            lines.append(NO_MASKS)
        if self.replaced:
            lines.append(
                "replaced an earlier one that was different (another image of that name, say); --out FOLDER keeps both"
            )
        return [*lines, str(self.picture), str(self.json)]

    def _nothing(self, threshold: float) -> str:
        """Why nothing was found, in a sentence."""
        all_empty = all(self.empty)
        score, text = max(
            (score, text)
            for score, text, empty in zip(self.best, self.texts, self.empty, strict=True)
            if empty == all_empty
        )
        what = f"{score:.2g}, {beginning(text, _LETTERS)}"
        if all_empty:
            return (
                f"no mask has a pixel, whatever --threshold; the likeliest label is {what}: the network is to learn on"
            )
        return f"nothing reaches {threshold:g}; the best is {what}: lower --threshold to see it"


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
        SynthgenError: the image or the checkpoint cannot be read, or a file cannot be written; nothing was asked for,
            or a file was; `short` is more than `long`.
    """
    check_options(device, precision, 1)
    asked = tuple(dict.fromkeys(" ".join(prompt.split()) for prompt in prompts))
    if "" in asked:
        raise SynthgenError("a prompt is empty; say what to look for, or give none for all names that were learned")
    if (file := next((prompt for prompt in prompts if os.path.isfile(prompt)), None)) is not None:  # noqa: PTH113 - where others raise, it does not
        raise SynthgenError(_one_by_one(image, file, checkpoint))
    pixels = _pixels(image)
    network, held = load_network(checkpoint, device=device_of(device), text_encoder=text_encoder)
    texts = asked or held.names
    if not texts:
        raise SynthgenError(f"{checkpoint} has learned no names of categories, only phrases; say what to look for")
    shorter, longer = sides(short, long, held.eval_size)
    learned = set(held.names)
    names = [text in learned for text in texts]  # each as it was learned, whatever else is asked for
    seen = look(network, pixels, texts, names=names, precision=precision, short=shorter, long=longer)
    likely = postprocess.boxes(seen, every_text=True)
    every = postprocess.instances(seen, every_text=True) if held.masks else likely
    best = {one.label: one.score for one in (*reversed(likely), *reversed(every))}  # of each text the last one stays
    there = {one.label for one in every}
    done = Predicted(
        texts=texts,
        found=tuple(one for one in every if one.score >= threshold),
        best=tuple(best[label] for label in range(len(texts))),
        empty=tuple(label not in there for label in range(len(texts))),
        masks=held.masks,
        picture=out / f"{image.name}.found.png",
        json=out / f"{image.name}.found.json",
    )
    drawn = draw(pixels, done.found, texts, footer=_footer(image, done, held.step))
    content = printable_json(_as_json(image, pixels, done, checkpoint, held.step))
    done = replace(done, replaced=_is_another(done.json, content))
    save(done.picture, drawn)
    with new_file(done.json, remedy="choose another --out") as temporary:
        temporary.write_text(content, encoding="utf-8")
    return done


def look(
    network: MQFormer,
    pixels: NDArray[np.uint8],
    texts: Sequence[str],
    *,
    names: bool | Sequence[bool],
    precision: str = "fp32",
    short: int = 800,
    long: int = 1333,
) -> postprocess.Prediction:
    """What the network says of an image, uint8 [H, W, 3]; `names`: see `MQFormer.forward`."""
    nothing = Target(
        tuple(texts), np.zeros(0, np.int64), np.zeros((0, 4), np.float32), (), np.zeros(0, np.float32), None, ()
    )
    batch = unpack(pack([Drawn(eval_view(pixels, nothing, short=short, long=long), 0, "")]))
    return postprocess.look(network, batch, [texts], [names], precision=precision)[0]


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
            f"{beginning(texts[one.label])} {f'{one.score:.2f}'.removeprefix('0')}",
            None if one.mask is None else _shrunk(one.mask, size),
        )
        for one in found
        for x1, y1, x2, y2 in [one.box_xyxy]
    ]
    blocks = [
        Block(beginning(text, _BESIDE), (), tuple(own))
        for i, text in enumerate(texts)
        if (own := [place for place, one in enumerate(found) if one.label == i])
    ]
    return picture(resize(pixels, size), marks, blocks, footer)


def _pixels(image: Path) -> NDArray[np.uint8]:
    try:
        if image.is_dir():
            raise SynthgenError(f"image {image} is a folder; name one of the images in it")
        if image.is_file():
            return load_rgb(image)
        told = "no regular file, but a device or a pipe" if image.exists() else "no such file"
    except (ImageError, OSError, ValueError) as why:  # ValueError: a null in its name
        told = str(why) if isinstance(why, ImageError) else "its name cannot be used"
    if address := _ADDRESS.fullmatch(str(image)):
        raise SynthgenError(f"{address[1]}://{address[2]} is an address, and predict reads files; download it first")
    raise SynthgenError(f"image {image}: {told}; name another")


def _one_by_one(image: Path, prompt: str, checkpoint: Path) -> str:
    """What is said to who gave several images: a sentence with a line for a shell."""
    images = f"{shlex.quote(str(image.parent))}/*{shlex.quote(image.suffix)}"
    return (
        f"prompt {beginning(prompt, _LETTERS)} is a file, and predict looks at one image at a time; for all of them: "
        f'for f in {images}; do synthgen predict "$f" --checkpoint {shlex.quote(str(checkpoint))}; done '
        "(or begin it with a blank, if it is a prompt)"
    )


def _is_another(path: Path, content: str) -> bool:
    """Whether a file is there that says something else."""
    try:
        return path.is_file() and path.read_bytes() != content.encode()
    except OSError:
        return True


def _shrunk(mask: Rle, size: tuple[int, int]) -> Rle:
    """The mask in a smaller image."""
    if tuple(mask.size) == size:
        return mask
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.int64) for new, old in zip(size, mask.size, strict=True)
    )
    return encode_mask(decode_mask(mask)[rows][:, columns])


def _footer(image: Path, done: Predicted, step: int) -> str:
    boxes = "" if done.masks else "   boxes alone: it has never learned a mask"
    return f"{printable(image.name)}   {len(done.found)} found   after {step:,} steps{boxes}"


def _as_json(image: Path, pixels: NDArray[np.uint8], done: Predicted, checkpoint: Path, step: int) -> dict[str, Any]:
    """As COCO's results have it, with names instead of numbers; without masks where the network learned none."""
    return {
        "image": image.name,
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "checkpoint": checkpoint.name,
        "step": step,
        "asked": [
            {"text": text, "best": best, "empty": empty}
            for text, best, empty in zip(done.texts, done.best, done.empty, strict=True)
        ],
        "found": [
            {
                "text": done.texts[one.label],
                "score": one.score,
                "bbox": xyxy_to_xywh(one.box_xyxy).tolist(),
                **_segmentation(one.mask),
            }
            for one in done.found
        ],
    }


def _segmentation(mask: Rle | None) -> dict[str, Any]:
    return {} if mask is None else {"segmentation": {"size": list(mask.size), "counts": mask.counts.decode("ascii")}}
