"""A trained network that finds what prompts name in an image."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from synthgen.checkpoints.checkpoint import Checkpoint, load_network, resolve_sides
from synthgen.dataloading.collate import collate, unpack_batch
from synthgen.dataloading.mixture import StreamItem
from synthgen.dataloading.tasks import Target
from synthgen.dataloading.transforms import make_eval_example
from synthgen.devices import check_device_options, resolve_device
from synthgen.errors import ArgumentError, SynthgenError, shorten_value
from synthgen.evaluation import postprocess
from synthgen.images.image_argument import ImageInput, as_rgb
from synthgen.models.mqformer.model import MQFormer
from synthgen.records.rle import decode_mask
from synthgen.records.sample import Rle
from synthgen.storage.disk import check_path, require_path

#: Default minimum score.
DEFAULT_THRESHOLD = 0.25


@dataclass(frozen=True, slots=True)
class Prediction:
    """One object that `Predictor` found.

    Attributes:
        text: the prompt.
        score: in [0, 1].
        box_xyxy: (x1, y1, x2, y2) in absolute pixels of the upright image, clipped to it.
        rle: the mask, of the image's size; None if the network has never learned masks.
    """

    text: str
    score: float
    box_xyxy: tuple[float, float, float, float]
    rle: Rle | None = field(repr=False)

    @property
    def mask(self) -> NDArray[np.bool_] | None:
        """The pixels of the mask: bool [H, W], decoded anew at each access; None if there is none."""
        return None if self.rle is None else decode_mask(self.rle)


class Predictor:
    """A trained network that finds what prompts name. `Predictor.from_checkpoint` loads one.

    Attributes:
        checkpoint: its step, its category names, and whether it has learned masks.

    Args:
        network: on the device where it is used.
        checkpoint: where the network comes from; gives the names that it has learned.
        precision: "fp32" or "bf16", of activations.
        sides: shorter side of the network's input and maximum of the longer side, in pixels.
    """

    def __init__(
        self, network: MQFormer, checkpoint: Checkpoint, *, precision: str = "fp32", sides: tuple[int, int]
    ) -> None:
        self.checkpoint = checkpoint
        self._network, self._precision, self._sides = network, precision, sides

    def __repr__(self) -> str:
        return f"<Predictor, step {self.checkpoint.step:,}, {len(self.checkpoint.category_names)} learned names>"

    @classmethod
    def from_checkpoint(
        cls,
        path: str | os.PathLike[str],
        *,
        text_encoder: str | os.PathLike[str] | None = None,
        device: str = "auto",
        precision: str = "fp32",
        short: int | None = None,
        long: int | None = None,
    ) -> Self:
        """Load the network of a checkpoint.

        Args:
            path: a file that training wrote.
            text_encoder: name or folder of the text encoder, if it is not where it was in training.
            device: "auto", "cpu", "cuda", "cuda:1", ... or "mps".
            precision: "fp32" or "bf16", of activations.
            short: shorter side of the network's input, in pixels; None = that of the evaluation in training.
            long: maximum of the longer side, in pixels; None = that of the evaluation in training.

        Raises:
            SynthgenError: the file is not a checkpoint of synthgen, or an option is not valid.
        """
        check_device_options(device, precision, 1)
        file = require_path("path", path)
        for argument, side in (("short", short), ("long", long)):
            if side is not None and (type(side) is not int or side < 1):
                raise ArgumentError(f"{argument}={shorten_value(side)} is not valid; give a number of pixels")
        encoder = name_text_encoder(text_encoder)
        network, held = load_network(file, device=resolve_device(device), text_encoder=encoder)
        return cls(network, held, precision=precision, sides=resolve_sides(short, long, held.eval_size))

    def __call__(
        self, image: ImageInput, prompts: Sequence[str] = (), *, threshold: float = DEFAULT_THRESHOLD
    ) -> list[Prediction]:
        """Find what the prompts name.

        Args:
            image: uint8 [H, W, 3] RGB, an image of Pillow, or a path.
            prompts: names or phrases; none = all names of categories that were learned.
            threshold: minimum score, in [0, 1].

        Returns:
            The objects, best first.

        Raises:
            ArgumentError: the image, a prompt or the threshold is not valid.
            SynthgenError: there are no prompts, and the network has learned no names.
        """
        if isinstance(prompts, str):
            raise ArgumentError(f"prompts={shorten_value(prompts)} is one text; give a list of prompts")
        if not isinstance(prompts, Iterable):
            raise ArgumentError(f"prompts={shorten_value(prompts)} is not valid; give a list of prompts")
        given = tuple(prompts)  # an iterator gives them once
        if not all(isinstance(prompt, str) and prompt.strip() for prompt in given):
            raise ArgumentError(f"prompts={shorten_value(prompts)} has an entry that is not a text or is empty")
        if (
            isinstance(threshold, bool)
            or not isinstance(threshold, int | float | np.floating)
            or not 0 <= threshold <= 1
        ):
            raise ArgumentError(f"threshold={shorten_value(threshold)} is not valid; give a number from 0 to 1")
        texts = clean_prompts(given) or self.checkpoint.category_names
        if not texts:
            raise SynthgenError("the checkpoint has learned no names of categories, only phrases; give prompts")
        seen = self.look(as_rgb(image), texts)
        found = postprocess.instances(seen) if self.checkpoint.has_learned_masks else postprocess.boxes(seen)
        return [
            Prediction(texts[one.label], one.score, one.box_xyxy, one.mask) for one in found if one.score >= threshold
        ]

    def look(self, pixels: NDArray[np.uint8], texts: Sequence[str]) -> postprocess.RawPrediction:
        """Run the network on an image; `synthgen.evaluation.postprocess` makes objects of the result.

        Args:
            pixels: uint8 [H, W, 3] RGB.
            texts: the prompts.

        Returns:
            The outputs of the last layer: logits [Q, T] of Q queries for T texts, boxes, and logits of masks.
        """
        learned = set(self.checkpoint.category_names)
        names = [text in learned for text in texts]  # as in training, independent of the other prompts
        short, long = self._sides
        return predict_image(
            self._network, pixels, texts, is_category_name=names, precision=self._precision, short=short, long=long
        )


def name_text_encoder(text_encoder: str | os.PathLike[str] | None) -> str | None:
    """The text encoder as checkpoints name it: a name, or a folder with a slash in it.

    Args:
        text_encoder: what a user of the Python API gave; None = that of the checkpoint.

    Raises:
        ArgumentError: it is not a text or a path.
    """
    folder = check_path("text_encoder", text_encoder)
    if folder is None or isinstance(text_encoder, str):
        return text_encoder if isinstance(text_encoder, str) else None
    return str(folder.absolute())


def clean_prompts(prompts: Sequence[str]) -> tuple[str, ...]:
    """The prompts with single spaces, each once."""
    return tuple(dict.fromkeys(" ".join(prompt.split()) for prompt in prompts))


def predict_image(
    network: MQFormer,
    pixels: NDArray[np.uint8],
    texts: Sequence[str],
    *,
    is_category_name: bool | Sequence[bool],
    precision: str = "fp32",
    short: int = 800,
    long: int = 1333,
) -> postprocess.RawPrediction:
    """Predict objects in an image.

    Args:
        network: in evaluation mode.
        pixels: uint8 [H, W, 3], RGB.
        texts: names or phrases, at least one.
        is_category_name: whether texts are category names rather than phrases, for all or for each.
        precision: fp32 or bf16, of activations.
        short: shorter side of the network's input, in pixels.
        long: maximum of the longer side, in pixels.
    """
    nothing = Target(
        tuple(texts), np.zeros(0, np.int64), np.zeros((0, 4), np.float32), (), np.zeros(0, np.float32), None, ()
    )
    batch = unpack_batch(
        collate([StreamItem(make_eval_example(pixels, nothing, short_side=short, long_side=long), 0, "")])
    )
    return postprocess.predict_batch(network, batch, [texts], [is_category_name], precision=precision)[0]
