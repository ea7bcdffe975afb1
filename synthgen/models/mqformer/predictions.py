"""What one layer says of the images: labels, boxes and masks; masks as the two factors that they are products of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """What one layer says of B images with Q queries each.

    Masks of all queries and layers would be most of the memory of a training step, and few of them are ever looked at:
    matching looks at points, losses at the masks of matched queries, results at the last layer.

    Attributes:
        logits: for each image [Q, its texts]; how well each query fits each text.
        boxes: [B, Q, 4] CXCYWH in [0, 1], in parts of the unpadded image.
        mask_features: [B, C, h, w], of the padded image.
        mask_embeddings: [B, Q, C]; None = the features are the masks themselves, one of each query (C = Q).
    """

    logits: Sequence[Tensor]
    boxes: Tensor
    mask_features: Tensor
    mask_embeddings: Tensor | None = None

    @property
    def mask_logits(self) -> Tensor:
        """[B, Q, h, w], of the padded image; computed whenever it is asked for."""
        if self.mask_embeddings is None:
            return self.mask_features
        return torch.einsum("bqc,bchw->bqhw", self.mask_embeddings, self.mask_features)

    def select_mask_logits(self, image: int, queries: Tensor | slice, features: Tensor) -> Tensor:
        """The logits of some masks of an image.

        Args:
            queries: int64 [n], or a slice of so many.
            features: [C, ...] of that image; `mask_features` of it, or what lies at some points of these.

        Returns:
            [n, ...].
        """
        if self.mask_embeddings is None:
            return features[queries]
        found = self.mask_embeddings[image, queries] @ features.flatten(1)
        return found.view(-1, *features.shape[1:])

    def select_queries(self, queries: slice) -> Predictions:
        """What is said of some of the queries."""
        logits, boxes = [own[queries] for own in self.logits], self.boxes[:, queries]
        if self.mask_embeddings is None:
            return Predictions(logits, boxes, self.mask_features[:, queries])
        return Predictions(logits, boxes, self.mask_features, self.mask_embeddings[:, queries])
