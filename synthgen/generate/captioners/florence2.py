"""Captioner: Florence-2 (Xiao et al., 2023) through transformers, prompted with a box, with beam search.

The image is encoded once for all its boxes; its tokens are inserted into each prompt. The prompt is that of
`<REGION_TO_DESCRIPTION>`. All prompts have the same length, so there is no padding.

Scores are mean token log-probabilities of the tokens that the network chose. The start token and the forced `<s>` do
not count; the end token counts. If `max_length` cuts a caption, no end token is forced: it would cost nothing (log 1 =
0), increase the length, and so rank cut captions above complete ones.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import (
    DynamicCache,
    EncoderDecoderCache,
    Florence2ForConditionalGeneration,
    Florence2Processor,
    GenerationConfig,
)

from synthgen.devices import PRECISIONS, check_device_options, free_memory_gib, resolve_device
from synthgen.errors import SynthgenError
from synthgen.generate.captioners import Captioner
from synthgen.generate.captioners._florence2_folder import hash_checkpoint, load_florence2, resolve_checkpoint_folder
from synthgen.generate.captioners._florence2_options import Florence2Options
from synthgen.oom import OomBatcher
from synthgen.records.sample import Caption
from synthgen.text.phrases import clean_text, comparison_key

#: As in the authors' own examples.
NO_REPEAT_NGRAM = 3

#: On CUDA: from so many GiB of free memory on, so many images at once.
_AUTO_BATCH_SIZES = ((40, 16), (14, 8), (0, 2))

#: GiB that boxes may take at once on a CPU; of a GPU, this share of what is free.
_CPU_BUDGET_GIB, _GPU_MEMORY_SHARE = 2.0, 0.4

#: Scores of beams that never were.
_UNUSED_BEAM_SCORE = -1e6


def resolve_options(options: Florence2Options) -> Florence2Options:
    """See the plugin folder: `weights` becomes the SHA-256 of the names and digests of the checkpoint's files.

    Args:
        options: as the user gives them.

    Raises:
        SynthgenError: a value that cannot be, or a checkpoint that is none.
    """
    _check_options(options)
    folder = resolve_checkpoint_folder(options.checkpoint)
    places = load_florence2(folder, validate_only=True).network.config.text_config.max_position_embeddings
    if options.max_length + 2 > places:
        raise SynthgenError(f"--max-length {options.max_length} is more than this network's {places - 2}")
    weights = hash_checkpoint(folder)
    if options.weights not in ("", weights):
        raise SynthgenError(f"-O weights={options.weights} asks for another checkpoint than {folder} ({weights})")
    return replace(options, checkpoint=str(folder), weights=weights)


def build(options: Florence2Options) -> Captioner:
    """Make the captioner with `options`."""
    own = resolve_options(options)
    found = load_florence2(resolve_checkpoint_folder(own.checkpoint))
    place = resolve_device(own.device)
    network = found.network.to(place, PRECISIONS[own.precision])
    free = free_memory_gib(place)
    images = next(count for least, count in _AUTO_BATCH_SIZES if free >= least) if place.type == "cuda" else 1
    budget = (free * _GPU_MEMORY_SHARE if place.type == "cuda" else _CPU_BUDGET_GIB) * 2**30
    boxes = int(budget / estimate_box_bytes(network, found.processor.num_image_tokens, own.num_beams, own.max_length))
    return Florence2Captioner(
        network,
        found.processor,
        source=f"florence2 {found.name}",
        num_beams=own.num_beams,
        max_length=own.max_length,
        oom_batcher=OomBatcher(
            images if own.batch_size == "auto" else int(own.batch_size),
            own.box_chunk if own.box_chunk > 0 else min(max(1, boxes), 256),
        ),
    )


def estimate_box_bytes(
    network: Florence2ForConditionalGeneration, image_tokens: int, beams: int, max_length: int
) -> int:
    """About what one box takes while it is searched: keys and values of the image, and scores of all words, by beam.

    Args:
        network: its configuration and its dtype are read.
        image_tokens: tokens that stand for an image.
        beams: width of the beam search.
        max_length: of a caption, in tokens.
    """
    text = network.config.text_config
    cache: int = (2 * text.decoder_layers + 2) * image_tokens * text.d_model * network.dtype.itemsize
    scores: int = (max_length + 6) * text.vocab_size * 4  # `generate` keeps those of each step
    return beams * (cache + scores)


@dataclass(frozen=True, slots=True)
class Florence2Input:
    """An image as the network gets it, float32 [3, h, w], and its boxes' words, int64 [N, 4]."""

    pixels: Tensor
    box_tokens: Tensor


#: Of one box, best first: the tokens of a caption and its score.
Hypotheses = list[tuple[list[int], float]]


class Florence2Captioner:
    """See `Captioner`.

    Args:
        network: ready: on its device, in its precision.
        processor: of its words and images.
        source: see `Captioner`.
        num_beams: see `Florence2Options`.
        max_length: see `Florence2Options`.
        oom_batcher: how many images and boxes go to the device at once; boxes at `num_beams` beams.
    """

    def __init__(
        self,
        network: Florence2ForConditionalGeneration,
        processor: Florence2Processor,
        *,
        source: str,
        num_beams: int,
        max_length: int,
        oom_batcher: OomBatcher,
    ) -> None:
        self.network, self.processor, self.source = network, processor, source
        self.num_beams, self.max_length, self.oom_batcher = num_beams, max_length, oom_batcher
        self.resize_pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="resize")
        tokenizer = processor.tokenizer
        self.location_token_ids = torch.tensor(tokenizer.convert_tokens_to_ids([f"<loc_{i}>" for i in range(1000)]))
        self.non_text_token_ids = {*tokenizer.get_added_vocab().values(), *tokenizer.all_special_ids}
        prompt = self._build_prompt()
        self.is_image_token, self.is_box_token = (
            prompt == processor.image_token_id,
            prompt == self.location_token_ids[0],
        )
        # What stands in the image's places is replaced; its own token may be beyond the embedding.
        self.prompt = prompt.masked_fill(self.is_image_token, tokenizer.pad_token_id).to(network.device)
        # On purpose not the checkpoint's own: it must not change what is said without being in a recipe.
        network.generation_config = self._generation_config(num_beams)

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
        wanted = [i for i, boxes in enumerate(boxes_xyxy) if len(boxes)]
        views = list(self.resize_pool.map(lambda i: self._prepare_input(images[i], boxes_xyxy[i]), wanted))
        run = partial(self._forward, beams=max(self.num_beams, top_k))
        found = dict(zip(wanted, self.oom_batcher.run(run, views) if views else [], strict=True))
        for i in range(len(images)):
            yield [self._decode_captions(hypotheses, top_k) for hypotheses in found.get(i, [])]

    def _prepare_input(self, image: NDArray[np.uint8], boxes_xyxy: NDArray[np.float32]) -> Florence2Input:
        # Said, since an image of 3 rows might be taken for one of 3 channels.
        made = self.processor.image_processor(
            torch.tensor(image), return_tensors="pt", input_data_format="channels_last"
        )
        pixels: Tensor = made["pixel_values"][0]
        # From pinned memory the copy to a GPU runs beside its work.
        pixels = pixels.pin_memory() if self.network.device.type == "cuda" else pixels
        return Florence2Input(pixels, self.encode_boxes(boxes_xyxy, *image.shape[:2]))

    def encode_boxes(self, boxes_xyxy: NDArray[np.float32], height: int, width: int) -> Tensor:
        """Boxes as tokens, int64 [N, 4]: thousandths of the image's sides, cut off.

        Args:
            boxes_xyxy: float32 [N, 4], absolute pixels.
            height: of the image, in pixels.
            width: of the image, in pixels.
        """
        bins: Tensor = self.processor.post_processor.quantize(torch.tensor(boxes_xyxy), (width, height))
        return self.location_token_ids[bins.long()]

    def _build_prompt(self) -> Tensor:
        """What the processor makes of the task for an image and a box in its first corner: int64 [L]."""
        text, black = f"<REGION_TO_DESCRIPTION>{'<loc_0>' * 4}", np.zeros((2, 2, 3), np.uint8)
        made = self.processor(text=[text], images=[black], input_data_format="channels_last", return_tensors="pt")
        prompt: Tensor = made["input_ids"][0]
        return prompt

    def _generation_config(self, beams: int) -> GenerationConfig:
        text = self.network.config.text_config
        return GenerationConfig(
            num_beams=beams,
            num_return_sequences=beams,
            max_new_tokens=self.max_length,
            no_repeat_ngram_size=NO_REPEAT_NGRAM,
            length_penalty=1.0,  # so that scores are means
            early_stopping=True,
            do_sample=False,
            return_dict_in_generate=True,
            output_scores=True,
            bos_token_id=text.bos_token_id,
            eos_token_id=text.eos_token_id,
            pad_token_id=text.pad_token_id,
            decoder_start_token_id=text.decoder_start_token_id,
        )

    @torch.inference_mode()
    def _forward(self, views: list[Florence2Input], *, beams: int) -> list[list[Hypotheses]]:
        pixels = torch.stack([view.pixels.to(self.network.device, non_blocking=True) for view in views])
        images = self.network.get_image_features(pixels.to(self.network.dtype)).pooler_output
        owner = [i for i, view in enumerate(views) for _ in range(len(view.box_tokens))]
        words = torch.cat([view.box_tokens for view in views]).to(self.network.device)
        chunk = max(1, self.oom_batcher.max_boxes * self.num_beams // beams)
        hypotheses_of: list[list[Hypotheses]] = [[] for _ in views]
        for start in range(0, len(owner), chunk):
            some = owner[start : start + chunk]
            generated = self._generate(images[some], words[start : start + chunk], beams)
            for i, hypotheses in zip(some, generated, strict=True):
                hypotheses_of[i].append(hypotheses)
        return hypotheses_of

    def _generate(self, images: Tensor, words: Tensor, beams: int) -> list[Hypotheses]:
        """Search captions for boxes: images [N, T, C] as the network has seen them, one a box; boxes' words [N, 4]."""
        network, search = self.network, self._generation_config(beams)
        ids = self.prompt.repeat(len(words), 1)
        ids[:, self.is_box_token] = words
        embedded = network.get_input_embeddings()(ids)
        embedded[:, self.is_image_token] = images
        mask = torch.ones_like(ids)
        start = torch.tensor([[search.decoder_start_token_id, search.bos_token_id]], device=ids.device)
        found = network.generate(
            encoder_outputs=network.get_encoder()(inputs_embeds=embedded, attention_mask=mask),
            attention_mask=mask,
            decoder_input_ids=start.repeat(len(ids), 1),
            past_key_values=_SharedImageCache(DynamicCache(), DynamicCache()),
            generation_config=search,
        )
        tokens = found.sequences[:, start.shape[1] :].tolist()
        pairs = list(zip(tokens, found.sequences_scores.tolist(), strict=True))
        return [pairs[i : i + beams] for i in range(0, len(pairs), beams)]

    def _decode_captions(self, hypotheses: Hypotheses, top_k: int) -> list[Caption]:
        """The best texts of a box. Beams that read the same but for articles, case and punctuation are one caption."""
        texts: dict[str, Caption] = {}
        for tokens, score in hypotheses:
            own = [token for token in tokens if token not in self.non_text_token_ids]
            text = clean_text(self.processor.tokenizer.decode(own, clean_up_tokenization_spaces=False).lower())
            if text and score > _UNUSED_BEAM_SCORE:
                texts.setdefault(comparison_key(text), Caption(text, self.source, score))
        return list(texts.values())[:top_k]


class _SharedImageCache(EncoderDecoderCache):  # type: ignore[misc]  # of no known type to mypy
    """All beams of a box look at the same image: what they see of it stays in its place when they are sorted anew."""

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.self_attention_cache.reorder_cache(beam_idx)


def _check_options(options: Florence2Options) -> None:
    check_device_options(options.device, options.precision, options.batch_size)
    for flag, value, least, most in (
        ("--num-beams", options.num_beams, 2, 128),
        ("--max-length", options.max_length, 2, 4096),
    ):
        if not least <= value <= most:
            raise SynthgenError(f"{flag} {value} should be from {least} to {most}")
