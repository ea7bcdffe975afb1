"""OFA (Wang et al., 2022) as a describer of regions: the whole image, the corners of a box as words, a beam search.

The image is seen once for all its boxes. What is asked is what OFA was pre-trained with, `what does the region
describe? region:` and the four bins of the box. Beams of one box are near one another; `num_beams` above the captions
wanted, and `groups`, are the two ways to captions that differ.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from math import inf, isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synthgen.devices import PRECISIONS, Portions, check_options, device_of, free_gib
from synthgen.errors import SynthgenError
from synthgen.generate.captioners import Captioner
from synthgen.models.checkpoint_reader import MoreThanWeightsError
from synthgen.models.ofa.beam import BeamSettings, Hypothesis, describe
from synthgen.models.ofa.checkpoint_folder import FETCH_WORDS, WEIGHTS, WORDS, lacking_words, side_of, weights_in
from synthgen.models.ofa.checkpoint_folder import read as read_checkpoint
from synthgen.models.ofa.model import Ofa, Places, set_precision
from synthgen.models.ofa.position_bias import LONGEST
from synthgen.models.ofa.preprocess import box_bins, resize, to_pixels
from synthgen.models.ofa.resnet import STRIDE
from synthgen.models.ofa.tokenizer import OfaTokenizer, clean
from synthgen.models.ofa.weights import from_weights, name_of, numbers_of
from synthgen.records.sample import Caption
from synthgen.weights import sha256_of

#: On CUDA: from so many GiB of free memory on, so many images at once, and boxes of `_BEAMS` beams; of more, fewer.
_AUTO = ((40, 32, 256), (14, 16, 96), (0, 4, 24))
_BEAMS = 10

#: OFA's own, in pre-training.
_SIDE = 384

#: More find nothing better, and cost memory for each box.
MOST_BEAMS = 128


def settle(**options: Any) -> dict[str, Any]:
    """See the shelf: `weights` becomes the SHA-256 of the digests of the checkpoint's files.

    Raises:
        SynthgenError: a value that cannot be, or a checkpoint that is none.
    """
    return _examined(options)[0]


def build(
    *,
    checkpoint: str = "",
    weights: str = "",
    precision: str = "fp32",
    side: int = 0,
    num_beams: int = 10,
    groups: int = 1,
    diversity: float = 0.5,
    max_length: int = 16,
    length_penalty: float = 1.0,
    no_repeat_ngram: int = 3,
    device: str = "auto",
    batch_size: str = "auto",
    box_chunk: int = 0,
) -> Captioner:
    """Make the captioner.

    Args:
        checkpoint: a folder with the weights (`model.safetensors` or `pytorch_model.bin`; names of Hugging Face or of
            fairseq), `vocab.json` and `merges.txt`, as of `OFA-Sys/ofa-base`; or a file of weights beside these two, as
            `synthgen train` writes them.
        weights: what `settle` says of it; "" = any.
        precision: fp32 or bf16.
        side: the image is resized to a square of this side; 384 in pre-training, 512 in RefCOCO's fine-tuning. 0 = as
            the checkpoint says, if `synthgen train` wrote it, else 384.
        num_beams: hypotheses that are followed; at least as many as captions are wanted.
        groups, diversity: diverse beam search, see `BeamSettings`.
        max_length: tokens of a caption.
        length_penalty, no_repeat_ngram: see `BeamSettings`.
        device, batch_size, box_chunk: as of `sam`.
    """
    options, tokenizer, read = _examined(locals())
    try:
        network = from_weights(read)
    except ValueError as why:
        raise SynthgenError(f"{options['checkpoint']}: {why}; name the folder of an OFA with --checkpoint") from None
    place = device_of(device)
    network.to(place)
    set_precision(network, PRECISIONS[precision])
    images, boxes = 1, 8
    if place.type == "cuda":
        images, boxes = next((i, b) for least, i, b in _AUTO if free_gib(place) >= least)
    boxes = box_chunk if box_chunk > 0 else max(1, boxes * _BEAMS // max(_BEAMS, num_beams))
    portions = Portions(images if batch_size == "auto" else int(batch_size), boxes)
    source = f"ofa {name_of(network.numbers)}"
    return OfaCaptioner(network, tokenizer, _settings(options), source=source, side=options["side"], portions=portions)


@dataclass(frozen=True, slots=True)
class View:
    """An image as the network gets it, uint8 [side, side, 3], and the bins of its boxes' corners, int64 [N, 4]."""

    resized: Tensor
    bins: Tensor


class OfaCaptioner:
    """See `Captioner`.

    Args:
        network, tokenizer: ready.
        settings: of the beam search.
        source: see `Captioner`.
        side: of the square that images are resized to, in pixels.
        portions: how many images and boxes go to the device at once.
    """

    def __init__(
        self,
        network: Ofa,
        tokenizer: OfaTokenizer,
        settings: BeamSettings,
        *,
        source: str,
        side: int,
        portions: Portions,
    ) -> None:
        self.network, self.tokenizer, self.settings = network, tokenizer, settings
        self.source, self.side, self.portions = source, side, portions
        self.places: Places | None = None
        self.threads = ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="resize")

    @property
    def batch_size(self) -> int:
        """See `Captioner`."""
        return self.portions.images

    def caption(
        self,
        images: Sequence[NDArray[np.uint8]],
        boxes_xyxy: Sequence[NDArray[np.float32]],
        categories: Sequence[Sequence[str]],  # noqa: ARG002  # it looks at pixels
        crowds: Sequence[Sequence[str]],  # noqa: ARG002
        top_k: int,
    ) -> Iterator[list[list[Caption]]]:
        if top_k > self.settings.beams:
            raise SynthgenError(f"--num-beams {self.settings.beams} cannot give {top_k} captions; make it {top_k}")
        wanted = [i for i, boxes in enumerate(boxes_xyxy) if len(boxes)]
        small = self.threads.map(lambda i: self._resized(images[i]), wanted)
        views = [
            View(own, box_bins(torch.tensor(boxes_xyxy[i]), images[i].shape[0], images[i].shape[1], self.side))
            for i, own in zip(wanted, small, strict=True)
        ]
        found = dict(zip(wanted, self.portions.serve(self._run, views) if views else [], strict=True))
        for i in range(len(images)):
            yield [self._captions(hypotheses) for hypotheses in found.get(i, [])]

    def _resized(self, image: NDArray[np.uint8]) -> Tensor:
        small = resize(image, self.side)
        return small.pin_memory() if self.network.device.type == "cuda" else small

    @torch.inference_mode()
    def _run(self, views: list[View]) -> list[list[list[Hypothesis]]]:
        image = self.network.stem(to_pixels([view.resized for view in views], self.network.device))
        owner = [i for i, view in enumerate(views) for _ in range(len(view.bins))]
        ids = [self.tokenizer.region_prompt(corners) for view in views for corners in view.bins.tolist()]
        prompts = torch.tensor(ids, device=self.network.device)
        if self.places is None:  # all images are squares of one side, all prompts of one length
            self.places = self.network.places(image, prompts.shape[1])
        told: list[list[list[Hypothesis]]] = [[] for _ in views]
        spoken = describe(
            self.network, image, owner, prompts, self.settings, chunk=self.portions.boxes, places=self.places
        )
        for i, hypotheses in zip(owner, spoken, strict=True):
            told[i].append(hypotheses)
        return told

    def _captions(self, hypotheses: Sequence[Hypothesis]) -> list[Caption]:
        """The texts of a box, none twice: the search tells tokens apart, not what they read as.

        All of them, `top_k` and more: the stage merges what says the same, and keeps the first `top_k`.
        """
        texts: dict[str, float] = {}
        for hypothesis in hypotheses:
            text = clean(self.tokenizer.decode(hypothesis.tokens))
            if text:
                texts.setdefault(text, hypothesis.mean_log_probability)
        return [Caption(text, self.source, score) for text, score in texts.items()]


def _examined(options: dict[str, Any]) -> tuple[dict[str, Any], OfaTokenizer, dict[str, Tensor]]:
    """The options made definite, tokenizer and weights, once all are seen to go together; see `settle`."""
    check_options(options["device"], options["precision"], options["batch_size"])
    settings = _settings(options)
    if settings.beams > MOST_BEAMS:
        raise SynthgenError(f"--num-beams {settings.beams} should be at most {MOST_BEAMS}")
    place, path = _place_of(options["checkpoint"])
    side = options["side"] or side_of(path) or _SIDE
    told = (
        f"-O side={side}" if options["side"] else f"the side of images for {path} is {side} unless -O side= is said; it"
    )
    if side < STRIDE or side % STRIDE:
        raise SynthgenError(f"{told} should be a multiple of {STRIDE}, such as 384 or 512")
    try:
        read, tokenizer = read_checkpoint(path, path.parent)
    except MoreThanWeightsError as why:
        raise SynthgenError(str(why)) from None
    except ValueError as why:
        raise SynthgenError(f"{why}; name the folder of an OFA with --checkpoint") from None
    numbers = numbers_of(read)
    if side > STRIDE * numbers.image_bucket:
        raise SynthgenError(f"{told} is more than this OFA's {STRIDE * numbers.image_bucket} pixels")
    if settings.max_length >= min(numbers.positions, LONGEST):
        raise SynthgenError(f"--max-length {settings.max_length} should be below {min(numbers.positions, LONGEST)}")
    digests = "\n".join(f"{file.name} {sha256_of(file)}" for file in (*(path.parent / name for name in WORDS), path))
    weights = sha256(digests.encode()).hexdigest()
    if options["weights"] not in ("", weights):
        raise SynthgenError(f"-O weights={options['weights']} asks for another checkpoint than {place} ({weights})")
    return {**options, "checkpoint": str(place), "weights": weights, "side": side}, tokenizer, read


def _settings(options: dict[str, Any]) -> BeamSettings:
    if not isfinite(options["length_penalty"]) or not 0 <= options["diversity"] < inf:
        raise SynthgenError(
            f"-O length_penalty={options['length_penalty']} and -O diversity={options['diversity']} should be numbers, "
            "and diversity not below 0"
        )
    try:
        return BeamSettings(
            beams=options["num_beams"],
            groups=options["groups"],
            diversity=options["diversity"],
            max_length=options["max_length"],
            length_penalty=options["length_penalty"],
            no_repeat_ngram=options["no_repeat_ngram"],
        )
    except ValueError as why:
        raise SynthgenError(f"{why}; see --num-beams, --max-length, -O groups, -O no_repeat_ngram") from None


def _place_of(checkpoint: str) -> tuple[Path, Path]:
    """What was named, as an absolute path, and the file of weights that it is or holds; words lie beside that."""
    if not checkpoint:
        raise SynthgenError(
            "the captioner ofa needs --checkpoint FOLDER; `hf download OFA-Sys/ofa-base --local-dir weights/ofa-base` "
            "fetches one"
        )
    place = Path(checkpoint).absolute()
    folder = place.parent if place.is_file() else place
    if not folder.is_dir():
        raise SynthgenError(f"no folder {folder}; --checkpoint should name the folder of an OFA")
    if lacking := lacking_words(folder):
        raise SynthgenError(
            f"{folder} lacks {' and '.join(lacking)}; --checkpoint should name the folder of an OFA, and all have the "
            f"same words: `{FETCH_WORDS} --local-dir {folder}` fetches them"
        )
    path = place if place.is_file() else weights_in(folder)
    if path is None:
        raise SynthgenError(
            f"{folder} has no weights by the name of {' or '.join(WEIGHTS)}; fetch the whole folder of an OFA, or give "
            "yours one of these names"
        )
    return place, path
