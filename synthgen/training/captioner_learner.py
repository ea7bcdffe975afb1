"""The learner of the captioner: an OFA network and its token loss."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synthgen.checkpoints.captioner import KIND, build_captioner
from synthgen.dataloading.collate import Batch
from synthgen.dataloading.config import CaptionerConfig, ScheduleConfig
from synthgen.dataloading.manifest import Manifest
from synthgen.distributed import DistributedContext
from synthgen.evaluation.captioner_evaluator import evaluate_captioner, normalize_images, target_box_bins
from synthgen.evaluation.metrics import cider
from synthgen.evaluation.results import EvalResult
from synthgen.models.ofa import checkpoint_folder
from synthgen.models.ofa.position_bias import MAX_TEXT_TOKENS
from synthgen.models.ofa.tokenizer import EOS, PAD, normalize_caption
from synthgen.models.ofa.training import label_smoothed_loss, prepare_for_training, teacher_forced_logits
from synthgen.training.optimizer import parameter_groups

#: Size of the cache of tokenized phrases.
_TOKEN_CACHE_SIZE = 2**16


class RegionBatch(NamedTuple):
    """The n regions of a batch.

    Attributes:
        image_indices: for each region the index of its image.
        prompt_tokens: int64 [n, t], ids of the prompts, which hold the box corners.
        target_tokens: int64 [n, s], ids of the phrases, `</s>` last, followed by padding.
    """

    image_indices: list[int]
    prompt_tokens: Tensor
    target_tokens: Tensor


class CaptionerLearner:
    """An OFA as configured by a manifest; see `learner.Learner`.

    Args:
        manifest: gives the network's settings and the schedule.
        device: where the network is trained.

    Attributes:
        tokenizer: the tokenizer.
        sidecar_files: the tokenizer files, copied to the folder of the checkpoints.

    Raises:
        SynthgenError: weights or tokenizer files are missing or do not fit, or the package for CIDEr is not installed.
    """

    kind = KIND
    has_learned_masks = False

    def __init__(self, manifest: Manifest, device: torch.device) -> None:
        self._settings = manifest.captioner or CaptionerConfig()
        if manifest.eval:
            cider.require_package()
        network, self.tokenizer, words = build_captioner(self._settings)
        self.sidecar_files: tuple[Path, ...] = tuple(words / name for name in checkpoint_folder.TOKENIZER_FILES)
        schedule = manifest.schedule
        prepare_for_training(
            network,
            train_token_embeddings=self._settings.train_embeddings,
            checkpointing=schedule.activation_checkpointing,
        )
        self.module = network.to(device)
        self._uses_bf16 = schedule.precision == "bf16"
        self._cached_tokens = lru_cache(_TOKEN_CACHE_SIZE)(self._encode_phrase)

    def model_config(self) -> dict[str, Any]:
        """The manifest's `captioner` section."""
        settings = self._settings.model_dump(mode="json", exclude_unset=True)
        return {key: str(Path(one).absolute()) if "/" in str(one) else one for key, one in settings.items()}

    def param_groups(self, schedule: ScheduleConfig) -> list[dict[str, Any]]:
        """Parameter groups for AdamW. By `schedule`, the visual stem uses the learning rate of backbones."""
        return parameter_groups(self.module, schedule, {"encoder.embed_images.": schedule.backbone_lr})

    def count_targets(self, batch: Batch) -> int:
        """The number of target tokens in `batch`, including end tokens."""
        return sum(len(tokens) for _, _, tokens in self._iter_regions(batch))

    def compute_losses(self, batch: Batch, *, num_targets: float) -> dict[str, Tensor]:
        """The token loss with teacher forcing, named "words".

        Args:
            batch: as in `Learner.compute_losses`.
            num_targets: as in `Learner.compute_losses`; targets are tokens.
        """
        device = self.module.device
        regions = self.build_regions(batch)
        images, prompts, texts = (
            x.to(device, non_blocking=True) for x in (batch.images, regions.prompt_tokens, regions.target_tokens)
        )
        with torch.autocast(device.type, torch.bfloat16, enabled=self._uses_bf16):
            logits = teacher_forced_logits(self.module, normalize_images(images), regions.image_indices, prompts, texts)
        return {"words": label_smoothed_loss(logits, texts[texts != PAD]) / num_targets}

    def draw_predictions(self, batch: Batch) -> Iterator[NDArray[np.uint8]]:  # noqa: ARG002
        """Nothing of `batch`: captions are evaluated but not drawn."""
        return iter(())

    def evaluate(
        self, manifest: Manifest, context: DistributedContext, *, num_workers: int, progress: Any
    ) -> list[EvalResult]:
        """See `evaluate_captioner`."""
        precision = manifest.schedule.precision
        return evaluate_captioner(
            self.module,
            self.tokenizer,
            manifest,
            context,
            num_workers=num_workers,
            precision=precision,
            progress=progress,
        )

    def build_regions(self, batch: Batch) -> RegionBatch:
        """The regions of a batch to train on: all with a phrase of more than punctuation.

        If there is none, one region with an empty target is returned, so that all weights have a gradient of 0. Other
        processes wait for these gradients.
        """
        found = list(self._iter_regions(batch)) or [(0, [0] * 4, ())]
        longest = max(1, *(len(tokens) for _, _, tokens in found))
        texts = torch.tensor([[*tokens, *[PAD] * (longest - len(tokens))] for _, _, tokens in found])
        prompts = torch.tensor([self.tokenizer.encode_region_prompt(corners) for _, corners, _ in found])
        return RegionBatch([owner for owner, _, _ in found], prompts, texts)

    def _iter_regions(self, batch: Batch) -> Iterator[tuple[int, list[int], tuple[int, ...]]]:
        """The image, box corner bins and phrase tokens of each region."""
        for i, target in enumerate(batch.targets):
            phrases = [target["texts"][label] for label in target["labels"].tolist()]
            for corners, phrase in zip(target_box_bins(target).tolist(), phrases, strict=True):
                if tokens := self._cached_tokens(phrase):
                    yield i, corners, tokens

    def _encode_phrase(self, phrase: str) -> tuple[int, ...]:
        text = normalize_caption(phrase, self._settings.max_words)
        most = min(self.module.config.max_positions, MAX_TEXT_TOKENS) - 1
        return (*self.tokenizer.encode(f" {text}")[:most], EOS) if text else ()
