"""Captioner: OFA (Wang et al., 2022), prompted with the whole image and a box, with beam search.

The image is encoded once for all its boxes. The prompt is that of OFA's pre-training, with the four bins of the box:
`what does the region describe? region:`. Beams of one box are similar. For captions that differ, use more `num_beams`
than captions, or `groups`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import sha256
from math import inf, isfinite
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synthgen.devices import PRECISIONS, check_device_options, free_memory_gib, resolve_device
from synthgen.errors import SynthgenError
from synthgen.generate.captioners import Captioner
from synthgen.generate.captioners._ofa_options import OfaOptions
from synthgen.models.checkpoint_reader import NonTensorContentError
from synthgen.models.ofa.beam import BeamSearchConfig, Hypothesis, generate_hypotheses
from synthgen.models.ofa.checkpoint_folder import (
    FETCH_TOKENIZER_COMMAND,
    TOKENIZER_FILES,
    WEIGHTS_FILES,
    find_weights_file,
    missing_tokenizer_files,
    read_image_size,
)
from synthgen.models.ofa.checkpoint_folder import read_checkpoint as read_checkpoint
from synthgen.models.ofa.model import Ofa, PositionBias, set_precision
from synthgen.models.ofa.position_bias import MAX_TEXT_TOKENS
from synthgen.models.ofa.preprocess import preprocess_images, quantize_boxes, resize_to_square
from synthgen.models.ofa.resnet import STRIDE
from synthgen.models.ofa.tokenizer import OfaTokenizer, normalize_caption
from synthgen.models.ofa.weights import build_from_weights, infer_config, size_name
from synthgen.oom import OomBatcher
from synthgen.records.sample import Caption
from synthgen.weights import cached_file_sha256

#: On CUDA: from so many GiB of free memory on, so many images at once, and boxes of `_REFERENCE_BEAMS` beams; of
#: more, fewer.
_AUTO_BATCH_SIZES = ((40, 32, 256), (14, 16, 96), (0, 4, 24))
_REFERENCE_BEAMS = 10

#: OFA's own, in pre-training.
_DEFAULT_SIDE = 384

#: More find nothing better, and cost memory for each box.
MAX_BEAMS = 128


def resolve_options(options: OfaOptions) -> OfaOptions:
    """See the plugin folder: `weights` becomes the SHA-256 of the digests of the checkpoint's files.

    Args:
        options: as the user gives them.

    Raises:
        SynthgenError: a value that cannot be, or a checkpoint that is none.
    """
    return _resolve_checkpoint(options)[0]


def build(options: OfaOptions) -> Captioner:
    """Make the captioner with `options`."""
    own, tokenizer, read = _resolve_checkpoint(options)
    try:
        network = build_from_weights(read)
    except ValueError as why:
        raise SynthgenError(f"{own.checkpoint}: {why}; name the folder of an OFA with --checkpoint") from None
    place = resolve_device(own.device)
    network.to(place)
    set_precision(network, PRECISIONS[own.precision])
    images, boxes = 1, 8
    if place.type == "cuda":
        images, boxes = next((i, b) for least, i, b in _AUTO_BATCH_SIZES if free_memory_gib(place) >= least)
    boxes = max(1, boxes * _REFERENCE_BEAMS // max(_REFERENCE_BEAMS, own.num_beams))
    portions = OomBatcher(
        images if own.batch_size == "auto" else int(own.batch_size), own.box_chunk if own.box_chunk > 0 else boxes
    )
    source = f"ofa {size_name(network.config)}"
    return OfaCaptioner(network, tokenizer, _beam_settings(own), source=source, side=own.side, oom_batcher=portions)


@dataclass(frozen=True, slots=True)
class OfaInput:
    """An image as the network gets it, uint8 [side, side, 3], and the bins of its boxes' corners, int64 [N, 4]."""

    resized_image: Tensor
    box_bins: Tensor


class OfaCaptioner:
    """See `Captioner`.

    Args:
        network: on its device, in its precision.
        tokenizer: the one of the network's vocabulary.
        settings: of the beam search.
        source: see `Captioner`.
        side: of the square that images are resized to, in pixels.
        oom_batcher: how many images and boxes go to the device at once.
    """

    def __init__(
        self,
        network: Ofa,
        tokenizer: OfaTokenizer,
        settings: BeamSearchConfig,
        *,
        source: str,
        side: int,
        oom_batcher: OomBatcher,
    ) -> None:
        self.network, self.tokenizer, self.settings = network, tokenizer, settings
        self.source, self.side, self.oom_batcher = source, side, oom_batcher
        self.positions: PositionBias | None = None
        self.resize_pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="resize")

    @property
    def batch_size(self) -> int:
        """See `Captioner`."""
        return self.oom_batcher.max_images

    def caption(
        self,
        images: Sequence[NDArray[np.uint8]],
        boxes_xyxy: Sequence[NDArray[np.float32]],
        categories: Sequence[Sequence[str]],  # noqa: ARG002  # it looks at pixels
        crowds: Sequence[Sequence[str]],  # noqa: ARG002
        top_k: int,
    ) -> Iterator[list[list[Caption]]]:
        """See `Captioner.caption`."""
        if top_k > self.settings.num_beams:
            raise SynthgenError(f"--num-beams {self.settings.num_beams} cannot give {top_k} captions; make it {top_k}")
        wanted = [i for i, boxes in enumerate(boxes_xyxy) if len(boxes)]
        small = self.resize_pool.map(lambda i: self._resize(images[i]), wanted)
        views = [
            OfaInput(
                own, quantize_boxes(torch.tensor(boxes_xyxy[i]), images[i].shape[0], images[i].shape[1], self.side)
            )
            for i, own in zip(wanted, small, strict=True)
        ]
        found = dict(zip(wanted, self.oom_batcher.run(self._forward, views) if views else [], strict=True))
        for i in range(len(images)):
            yield [self._decode_captions(hypotheses) for hypotheses in found.get(i, [])]

    def _resize(self, image: NDArray[np.uint8]) -> Tensor:
        small = resize_to_square(image, self.side)
        return small.pin_memory() if self.network.device.type == "cuda" else small

    @torch.inference_mode()
    def _forward(self, views: list[OfaInput]) -> list[list[list[Hypothesis]]]:
        image = self.network.extract_image_tokens(
            preprocess_images([view.resized_image for view in views], self.network.device)
        )
        owner = [i for i, view in enumerate(views) for _ in range(len(view.box_bins))]
        ids = [self.tokenizer.encode_region_prompt(corners) for view in views for corners in view.box_bins.tolist()]
        prompts = torch.tensor(ids, device=self.network.device)
        if self.positions is None:  # all images are squares of one side, all prompts of one length
            self.positions = self.network.compute_position_bias(image, prompts.shape[1])
        hypotheses_of: list[list[list[Hypothesis]]] = [[] for _ in views]
        generated = generate_hypotheses(
            self.network,
            image,
            owner,
            prompts,
            self.settings,
            chunk_size=self.oom_batcher.max_boxes,
            position_bias=self.positions,
        )
        for i, hypotheses in zip(owner, generated, strict=True):
            hypotheses_of[i].append(hypotheses)
        return hypotheses_of

    def _decode_captions(self, hypotheses: Sequence[Hypothesis]) -> list[Caption]:
        """The texts of a box, none twice: the search tells tokens apart, not what they read as.

        All of them, `top_k` and more: the stage merges what says the same, and keeps the first `top_k`.
        """
        texts: dict[str, float] = {}
        for hypothesis in hypotheses:
            text = normalize_caption(self.tokenizer.decode(hypothesis.tokens))
            if text:
                texts.setdefault(text, hypothesis.mean_log_probability)
        return [Caption(text, self.source, score) for text, score in texts.items()]


def _resolve_checkpoint(options: OfaOptions) -> tuple[OfaOptions, OfaTokenizer, dict[str, Tensor]]:
    """The options made definite, tokenizer and weights, once all are seen to go together; see `resolve_options`."""
    check_device_options(options.device, options.precision, options.batch_size)
    settings = _beam_settings(options)
    if settings.num_beams > MAX_BEAMS:
        raise SynthgenError(f"--num-beams {settings.num_beams} should be at most {MAX_BEAMS}")
    place, path = _locate_checkpoint(options.checkpoint)
    side = options.side or read_image_size(path) or _DEFAULT_SIDE
    setting = (
        f"-O side={side}" if options.side else f"the side of images for {path} is {side} unless -O side= is said; it"
    )
    if side < STRIDE or side % STRIDE:
        raise SynthgenError(f"{setting} should be a multiple of {STRIDE}, such as 384 or 512")
    try:
        read, tokenizer = read_checkpoint(path, path.parent)
    except NonTensorContentError as why:
        raise SynthgenError(str(why)) from None
    except ValueError as why:
        raise SynthgenError(f"{why}; name the folder of an OFA with --checkpoint") from None
    numbers = infer_config(read)
    if side > STRIDE * numbers.image_bucket_size:
        raise SynthgenError(f"{setting} is more than this OFA's {STRIDE * numbers.image_bucket_size} pixels")
    if settings.max_length >= min(numbers.max_positions, MAX_TEXT_TOKENS):
        raise SynthgenError(
            f"--max-length {settings.max_length} should be below {min(numbers.max_positions, MAX_TEXT_TOKENS)}"
        )
    digests = "\n".join(
        f"{file.name} {cached_file_sha256(file)}" for file in (*(path.parent / name for name in TOKENIZER_FILES), path)
    )
    weights = sha256(digests.encode()).hexdigest()
    if options.weights not in ("", weights):
        raise SynthgenError(f"-O weights={options.weights} asks for another checkpoint than {place} ({weights})")
    return replace(options, checkpoint=str(place), weights=weights, side=side), tokenizer, read


def _beam_settings(options: OfaOptions) -> BeamSearchConfig:
    if not isfinite(options.length_penalty) or not 0 <= options.diversity < inf:
        raise SynthgenError(
            f"-O length_penalty={options.length_penalty} and -O diversity={options.diversity} should be numbers, "
            "and diversity not below 0"
        )
    try:
        return BeamSearchConfig(
            num_beams=options.num_beams,
            num_beam_groups=options.groups,
            diversity_penalty=options.diversity,
            max_length=options.max_length,
            length_penalty=options.length_penalty,
            no_repeat_ngram_size=options.no_repeat_ngram,
        )
    except ValueError as why:
        raise SynthgenError(f"{why}; see --num-beams, --max-length, -O groups, -O no_repeat_ngram") from None


def _locate_checkpoint(checkpoint: str) -> tuple[Path, Path]:
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
    if lacking := missing_tokenizer_files(folder):
        raise SynthgenError(
            f"{folder} lacks {' and '.join(lacking)}; --checkpoint should name the folder of an OFA, and all have the "
            f"same words: `{FETCH_TOKENIZER_COMMAND} --local-dir {folder}` fetches them"
        )
    path = place if place.is_file() else find_weights_file(folder)
    if path is None:
        raise SynthgenError(
            f"{folder} has no weights by the name of {' or '.join(WEIGHTS_FILES)}; fetch the whole folder of an OFA, "
            "or give "
            "yours one of these names"
        )
    return place, path
