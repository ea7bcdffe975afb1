"""A trained network that finds what prompts name in an image."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from synthgen.checkpoints.checkpoint import Checkpoint, load_network, resolve_sides
from synthgen.dataloading.augment import make_resize_transform
from synthgen.dataloading.collate import collate, unpack_batch
from synthgen.dataloading.mixture import StreamItem
from synthgen.dataloading.tasks import Target
from synthgen.dataloading.transforms import make_eval_example
from synthgen.devices import check_device_options, resolve_device
from synthgen.errors import ArgumentError, SynthgenError, shorten_value
from synthgen.evaluation import postprocess
from synthgen.evaluation.query_shares import query_kind
from synthgen.images.image_argument import ImageInput, as_rgb
from synthgen.models.mqformer.model import MQFormer
from synthgen.oom import OomBatcher
from synthgen.records.rle import decode_mask
from synthgen.records.sample import Rle
from synthgen.storage.disk import check_path, require_path

T = TypeVar("T")

#: Default minimum score.
DEFAULT_THRESHOLD = 0.25

#: Default number of images at once.
DEFAULT_BATCH_SIZE = 8


@dataclass(frozen=True, slots=True)
class Prediction:
    """One object that `Predictor` found.

    Attributes:
        text: the prompt.
        score: in [0, 1].
        box_xyxy: (x1, y1, x2, y2) in absolute pixels of the upright image, clipped to it.
        rle: the mask, of the image's size; None if the network has never learned masks.
        query: the kind of query that found it, "conditional" or "learnable".
    """

    text: str
    score: float
    box_xyxy: tuple[float, float, float, float]
    rle: Rle | None = field(repr=False)
    query: str

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
        self._batcher = OomBatcher(sys.maxsize, 1)

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
        texts = self._check_prompts(prompts)
        _check_threshold(threshold)
        return self._select(self.look(as_rgb(image), texts), texts, threshold)

    def predict_batch(
        self,
        images: Sequence[ImageInput],
        prompts: Sequence[str] = (),
        *,
        threshold: float = DEFAULT_THRESHOLD,
        batch_size: int = DEFAULT_BATCH_SIZE,
    ) -> list[list[Prediction]]:
        """Find what the prompts name in several images.

        Images for which the network's input has one size run through it together, so no image is padded to the size of
        another. The results are those of single images, up to rounding.

        Args:
            images: uint8 [H, W, 3] RGB each, images of Pillow, or paths.
            prompts: names or phrases; none = all names of categories that were learned.
            threshold: minimum score, in [0, 1].
            batch_size: the maximum number of images at once. It is halved if the device runs out of memory.

        Returns:
            For each image the objects, best first.

        Raises:
            ArgumentError: an image, a prompt, the threshold or the batch size is not valid.
            SynthgenError: there are no prompts, and the network has learned no names.
        """
        texts = self._check_prompts(prompts)
        _check_threshold(threshold)
        if type(batch_size) is not int or batch_size < 1:
            raise ArgumentError(f"batch_size={shorten_value(batch_size)} is not valid; give a number of images")
        if isinstance(images, str | os.PathLike | np.ndarray) or not isinstance(images, Iterable):
            raise ArgumentError(f"images={shorten_value(images)} is not valid; give a list of images")
        every = [as_rgb(image) for image in images]
        places: dict[tuple[int, int], list[int]] = {}
        for place, pixels in enumerate(every):
            places.setdefault(self.input_size((pixels.shape[0], pixels.shape[1])), []).append(place)
        results: dict[int, list[Prediction]] = {}
        for group in places.values():
            for start in range(0, len(group), batch_size):
                some = group[start : start + batch_size]
                found = self.map_batch(
                    lambda seen: self._select(seen, texts, threshold), [every[i] for i in some], texts
                )
                results.update(zip(some, found, strict=True))
        return [results[place] for place in range(len(every))]

    def input_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The size of the network's input for an image, without padding.

        Args:
            size: (height, width) of the image, in pixels.

        Returns:
            (height, width), in pixels.
        """
        short, long = self._sides
        return make_resize_transform(size, short_side=short, long_side=long).size

    def look(self, pixels: NDArray[np.uint8], texts: Sequence[str]) -> postprocess.RawPrediction:
        """Run the network on an image; `synthgen.evaluation.postprocess` makes objects of the result.

        Args:
            pixels: uint8 [H, W, 3] RGB.
            texts: the prompts.

        Returns:
            The outputs of the last layer: logits [Q, T] of Q queries for T texts, boxes, and logits of masks.
        """
        return self.look_batch([pixels], texts)[0]

    def look_batch(
        self,
        images: Sequence[NDArray[np.uint8]],
        texts: Sequence[str],
        *,
        is_category_name: bool | None = None,
        stuff_names: frozenset[str] = frozenset(),
    ) -> list[postprocess.RawPrediction]:
        """Run the network on images that have one `input_size`.

        Args:
            images: uint8 [H, W, 3] RGB each, at least one.
            texts: the prompts, for all images.
            is_category_name: whether the texts are names of categories rather than phrases; None = those that were
                learned as names.
            stuff_names: names that are stuff.

        Returns:
            For each image the outputs of the last layer.

        Raises:
            ValueError: the images have several input sizes.
        """
        return self.map_batch(
            lambda seen: seen, images, texts, is_category_name=is_category_name, stuff_names=stuff_names
        )

    def map_batch(
        self,
        postprocess_one: Callable[[postprocess.RawPrediction], T],
        images: Sequence[NDArray[np.uint8]],
        texts: Sequence[str],
        *,
        is_category_name: bool | None = None,
        stuff_names: frozenset[str] = frozenset(),
    ) -> list[T]:
        """Run the network on images that have one `input_size`, and a function on what it finds in each.

        If the device runs out of memory, also in the function, the images run in smaller batches, now and later. The
        function is called before the next batch runs, so that the device never holds the masks of two.

        Args:
            postprocess_one: makes objects of the outputs for an image; it may be called again for the same image.
            images: see `look_batch`.
            texts: see `look_batch`.
            is_category_name: see `look_batch`.
            stuff_names: see `look_batch`.

        Returns:
            For each image what the function returns.

        Raises:
            ValueError: the images have several input sizes.
        """
        if len({self.input_size((pixels.shape[0], pixels.shape[1])) for pixels in images}) > 1:
            raise ValueError("images of several input sizes in one batch")
        learned = set(self.checkpoint.category_names)
        # As in training, independent of the other prompts.
        names = [text in learned if is_category_name is None else is_category_name for text in texts]

        def forward(some: list[NDArray[np.uint8]]) -> list[T]:
            every = predict_images(
                self._network, some, texts, is_category_name=names, precision=self._precision, sides=self._sides,
                stuff_names=stuff_names,
            )  # fmt: skip
            return [postprocess_one(seen) for seen in every]

        results: list[T] = []
        while len(results) < len(images):
            chunk = list(images[len(results) :][: self._batcher.max_images])
            results += self._batcher.run(forward, chunk)
        return results

    def _check_prompts(self, prompts: Sequence[str]) -> tuple[str, ...]:
        """The texts of some prompts; without any, the learned names."""
        if isinstance(prompts, str):
            raise ArgumentError(f"prompts={shorten_value(prompts)} is one text; give a list of prompts")
        if not isinstance(prompts, Iterable):
            raise ArgumentError(f"prompts={shorten_value(prompts)} is not valid; give a list of prompts")
        given = tuple(prompts)  # an iterator gives them once
        if not all(isinstance(prompt, str) and prompt.strip() for prompt in given):
            raise ArgumentError(f"prompts={shorten_value(prompts)} has an entry that is not a text or is empty")
        texts = clean_prompts(given) or self.checkpoint.category_names
        if not texts:
            raise SynthgenError("the checkpoint has learned no names of categories, only phrases; give prompts")
        return texts

    def _select(self, seen: postprocess.RawPrediction, texts: Sequence[str], threshold: float) -> list[Prediction]:
        found = postprocess.instances(seen) if self.checkpoint.has_learned_masks else postprocess.boxes(seen)
        return [
            Prediction(texts[one.label], one.score, one.box_xyxy, one.mask, query_kind(one.query, seen.num_conditional))
            for one in found
            if one.score >= threshold
        ]


def _check_threshold(threshold: float) -> None:
    if isinstance(threshold, bool) or not isinstance(threshold, int | float | np.floating) or not 0 <= threshold <= 1:
        raise ArgumentError(f"threshold={shorten_value(threshold)} is not valid; give a number from 0 to 1")


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


def predict_images(
    network: MQFormer,
    images: Sequence[NDArray[np.uint8]],
    texts: Sequence[str],
    *,
    is_category_name: bool | Sequence[bool],
    precision: str,
    sides: tuple[int, int],
    stuff_names: frozenset[str] = frozenset(),
) -> list[postprocess.RawPrediction]:
    """Predict objects in some images, in one batch.

    Args:
        network: in evaluation mode.
        images: uint8 [H, W, 3] RGB each.
        texts: names or phrases, at least one.
        is_category_name: whether texts are category names rather than phrases, for all or for each.
        precision: fp32 or bf16, of activations.
        sides: shorter side of the network's input and maximum of the longer side, in pixels.
        stuff_names: names that are stuff.
    """
    nothing = Target(
        tuple(texts), np.zeros(0, np.int64), np.zeros((0, 4), np.float32), (), np.zeros(0, np.float32), None, ()
    )
    items = [
        StreamItem(make_eval_example(pixels, nothing, short_side=sides[0], long_side=sides[1]), 0, "")
        for pixels in images
    ]
    batch = unpack_batch(collate(items))
    return postprocess.predict_batch(
        network, batch, [texts] * len(images), [is_category_name] * len(images), precision=precision,
        stuff_names=stuff_names,
    )  # fmt: skip
