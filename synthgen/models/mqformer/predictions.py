"""Predictions of one decoder layer: label logits, boxes, and masks in factored form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """Predictions of one layer for B images with Q queries each.

    Masks are stored as two factors. The full masks of all queries and layers would take most of the memory of a
    training step, and few are needed: matching uses points, losses the masks of matched queries, results the last
    layer.

    Attributes:
        logits: for each image float32 [Q, its texts], the similarity of each query and text.
        boxes: float [B, Q, 4] CXCYWH in [0, 1], relative to the unpadded image.
        mask_features: float [B, C, h, w], of the padded image.
        mask_embeddings: float [B, Q, C]; None = the features are the masks themselves (C = Q).
    """

    logits: Sequence[Tensor]
    boxes: Tensor
    mask_features: Tensor
    mask_embeddings: Tensor | None = None

    @property
    def mask_logits(self) -> Tensor:
        """[B, Q, h, w], of the padded image; computed on every access."""
        if self.mask_embeddings is None:
            return self.mask_features
        return torch.einsum("bqc,bchw->bqhw", self.mask_embeddings, self.mask_features)

    def select_mask_logits(self, image: int, queries: Tensor | slice, features: Tensor) -> Tensor:
        """Compute the logits of some masks of an image.

        Args:
            image: index of the image in the batch.
            queries: indices of queries, int64 [n], or a slice of n queries.
            features: float [C, ...] of that image: its `mask_features`, or samples of them at points.

        Returns:
            [n, ...].
        """
        if self.mask_embeddings is None:
            return features[queries]
        found = self.mask_embeddings[image, queries] @ features.flatten(1)
        return found.view(-1, *features.shape[1:])

    def select_queries(self, queries: slice) -> Predictions:
        """The predictions of some queries."""
        logits, boxes = [own[queries] for own in self.logits], self.boxes[:, queries]
        if self.mask_embeddings is None:
            return Predictions(logits, boxes, self.mask_features[:, queries])
        return Predictions(logits, boxes, self.mask_features, self.mask_embeddings[:, queries])
