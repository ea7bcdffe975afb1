"""The captioner's learner: an OFA as a manifest describes it, and the loss of its tokens."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synthgen.checkpoints.captioner import KIND, build
from synthgen.dataloading.collate import Batch
from synthgen.dataloading.config import Captioner, Schedule
from synthgen.dataloading.manifest import Manifest
from synthgen.distributed import Ranks
from synthgen.evaluation.captioner_evaluator import bins, measure, pixels
from synthgen.evaluation.metrics import cider
from synthgen.evaluation.results import Measured
from synthgen.models.ofa import checkpoint_folder
from synthgen.models.ofa.position_bias import LONGEST
from synthgen.models.ofa.tokenizer import EOS, PAD, clean
from synthgen.models.ofa.training import prepare, smoothed_loss, teach
from synthgen.training.optimizer import parameter_groups

#: Phrases of which the tokens are kept.
_KEPT = 2**16


class Regions(NamedTuple):
    """The regions of a batch, n in all.

    Attributes:
        owner: for each the index of its image.
        prompts: int64 [n, t], what is asked of it.
        texts: int64 [n, s], what is to be said, `</s>` last, and padding after it.
    """

    owner: list[int]
    prompts: Tensor
    texts: Tensor


class Captioning:
    """An OFA as a manifest describes it; see `learner.Learner`.

    Attributes:
        tokenizer: its words. beside: their files, which are to lie beside its checkpoints.

    Raises:
        SynthgenError: weights or words are not where they should be, or are others; what measures is not installed.
    """

    kind = KIND
    masks = False

    def __init__(self, manifest: Manifest, device: torch.device) -> None:
        self._settings = manifest.captioner or Captioner()
        if manifest.eval:
            cider.need_package()
        network, self.tokenizer, words = build(self._settings)
        self.beside: tuple[Path, ...] = tuple(words / name for name in checkpoint_folder.WORDS)
        schedule = manifest.schedule
        prepare(network, words=self._settings.train_words, checkpointing=schedule.checkpointing)
        self.module = network.to(device)
        self._half = schedule.precision == "bf16"
        self._tokens = lru_cache(_KEPT)(self._encoded)

    def section(self) -> dict[str, Any]:
        """The manifest's `captioner`."""
        said = self._settings.model_dump(mode="json", exclude_unset=True)
        return {key: str(Path(one).absolute()) if "/" in str(one) else one for key, one in said.items()}

    def groups(self, schedule: Schedule) -> list[dict[str, Any]]:
        """The visual stem has the backbone's rate."""
        return parameter_groups(self.module, schedule, {"encoder.embed_images.": schedule.backbone_lr})

    def objects(self, batch: Batch) -> int:
        """Tokens that are to be said, ends among them."""
        return sum(len(tokens) for _, _, tokens in self._said(batch))

    def losses(self, batch: Batch, *, objects: float) -> dict[str, Tensor]:
        """Of each token, where those before it are given: "words"."""
        device = self.module.device
        regions = self.regions(batch)
        images, prompts, texts = (
            x.to(device, non_blocking=True) for x in (batch.images, regions.prompts, regions.texts)
        )
        with torch.autocast(device.type, torch.bfloat16, enabled=self._half):
            logits = teach(self.module, pixels(images), regions.owner, prompts, texts)
        return {"words": smoothed_loss(logits, texts[texts != PAD]) / objects}

    def pictures(self, batch: Batch) -> Iterator[NDArray[np.uint8]]:  # noqa: ARG002
        """None: what it says of an image is measured, not drawn."""
        return iter(())

    def measured(self, manifest: Manifest, here: Ranks, *, workers: int, bar: Any) -> list[Measured]:
        """See `measure`."""
        precision = manifest.schedule.precision
        return measure(self.module, self.tokenizer, manifest, here, workers=workers, precision=precision, bar=bar)

    def regions(self, batch: Batch) -> Regions:
        """What of a batch is learned: all regions whose phrase is more than marks.

        Where there is none, one of which nothing is to be said: all weights have a gradient then, of 0, for which other
        processes wait.
        """
        found = list(self._said(batch)) or [(0, [0] * 4, ())]
        longest = max(1, *(len(tokens) for _, _, tokens in found))
        texts = torch.tensor([[*tokens, *[PAD] * (longest - len(tokens))] for _, _, tokens in found])
        prompts = torch.tensor([self.tokenizer.region_prompt(corners) for _, corners, _ in found])
        return Regions([owner for owner, _, _ in found], prompts, texts)

    def _said(self, batch: Batch) -> Iterator[tuple[int, list[int], tuple[int, ...]]]:
        """Of each region its image, the bins of its corners, and the tokens of its phrase."""
        for i, target in enumerate(batch.targets):
            phrases = [target["texts"][label] for label in target["labels"].tolist()]
            for corners, phrase in zip(bins(target).tolist(), phrases, strict=True):
                if tokens := self._tokens(phrase):
                    yield i, corners, tokens

    def _encoded(self, phrase: str) -> tuple[int, ...]:
        text = clean(phrase, self._settings.max_words)
        most = min(self.module.numbers.positions, LONGEST) - 1
        return (*self.tokenizer.encode(f" {text}")[:most], EOS) if text else ()
