"""The transformer decoder of MQ-Former: refines conditional and learnable queries into labels, boxes and masks.

Conditional queries are proposals selected from the feature pyramid by their similarity to the image's texts. Learnable
queries are parameters. All queries share the heads and one matching. Parameter names and the order of operations follow
Mask DINO.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from synthgen.models.mqformer.box_initialization import BoxType, initial_boxes
from synthgen.models.mqformer.decoder_layer import DecoderLayer, ImageMemory
from synthgen.models.mqformer.deformable_attention import MSDeformAttn
from synthgen.models.mqformer.denoising import DenoisingOutput, add_noise
from synthgen.models.mqformer.pixel_decoder import FeaturePyramid
from synthgen.models.mqformer.position_encoding import (
    encode_box_positions,
    generate_proposals,
    inverse_sigmoid,
    valid_ratios,
)
from synthgen.models.mqformer.predictions import Predictions
from synthgen.models.mqformer.targets import MaskTarget

#: Initial probability of a label. Most labels are absent; without this prior their loss dominates the first steps.
LABEL_PRIOR = 0.01

#: Initial factor of the cosine similarity of queries and texts (as in CLIP). With OpenSeeD's value e and the prior
#: above, no label could exceed a probability of 0.13 in the first thousands of steps.
INITIAL_LOGIT_SCALE = 1 / 0.07


@dataclass(frozen=True, slots=True, eq=False)
class DecoderOutput:
    """Output of the decoder for B images.

    Attributes:
        layers: predictions from the proposals (of the conditional queries only, and absent if there are none), from the
            initial queries, and after each layer. The last are the result.
        num_conditional: the number of conditional queries; they come first.
        denoising_output: predictions for the noised objects, if any were given.
    """

    layers: tuple[Predictions, ...]
    num_conditional: int
    denoising_output: DenoisingOutput | None = None


class Mlp(nn.Module):
    """Linear layers with ReLU between them; `sizes` are the channels of the input and of each layer's output."""

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:], strict=False))

    def forward(self, x: Tensor) -> Tensor:
        """`x`, float [..., first size] -> [..., last size]."""
        for layer in self.layers[:-1]:
            x = functional.relu(layer(x))
        out: Tensor = self.layers[-1](x)
        return out


class Decoder(nn.Module):
    """The decoder; see the module docstring.

    Args:
        dim: channels of queries and memory.
        mask_dim: channels of the mask features.
        text_dim: channels of the text embeddings.
        conditional_queries: number of conditional queries; may be 0 if there are learnable ones.
        learnable_queries: number of learnable queries; may be 0 if there are conditional ones.
        levels: levels of the feature pyramid.
        num_layers: decoder layers.
        heads: attention heads; divides `dim`.
        points: sampling points per head and level.
        feedforward: hidden channels of the feedforward networks.
        exchange: see `DecoderLayer`; applies only if there are queries of both kinds.
        joint_self_attention: see `DecoderLayer`.
        initialize_box_type: where the boxes of conditional queries begin: around the masks predicted for the proposals,
            see `BoxType`; None = at the boxes predicted for them.
        denoising: the maximum number of denoising groups in training; see `denoising.add_noise`.
        checkpointing: activation checkpointing of the layers in training.

    Raises:
        ValueError: no queries of either kind, or `initialize_box_type` without conditional queries.
    """

    def __init__(
        self,
        *,
        dim: int = 256,
        mask_dim: int = 256,
        text_dim: int = 512,
        conditional_queries: int = 300,
        learnable_queries: int = 100,
        levels: int = 4,
        num_layers: int = 9,
        heads: int = 8,
        points: int = 4,
        feedforward: int = 2048,
        exchange: bool = True,
        joint_self_attention: bool = False,
        initialize_box_type: BoxType | None = None,
        denoising: int = 0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if conditional_queries + learnable_queries < 1:
            raise ValueError("a decoder needs queries")
        if initialize_box_type is not None and not conditional_queries:
            raise ValueError("initialize_box_type needs conditional queries; learnable queries have no proposals")
        self.dim, self.heads, self.conditional_queries = dim, heads, conditional_queries
        self.initialize_box_type: BoxType | None = initialize_box_type
        self.denoising, self.checkpointing = denoising, checkpointing
        if conditional_queries:
            self.enc_output = nn.Linear(dim, dim)
            self.enc_output_norm = nn.LayerNorm(dim)
        if learnable_queries:
            self.query_feat = nn.Parameter(torch.randn(learnable_queries, dim))
            self.query_embed = nn.Parameter(torch.randn(learnable_queries, 4))  # boxes, as logits
        if denoising:
            self.label_enc = nn.Linear(text_dim, dim, bias=False)
        both = conditional_queries > 0 and learnable_queries > 0
        self.layers = nn.ModuleList(
            DecoderLayer(
                dim, heads=heads, levels=levels, points=points, feedforward=feedforward,
                exchange=exchange and both, joint_self_attention=joint_self_attention,
            )
            for _ in range(num_layers)
        )  # fmt: skip
        self.norm = nn.LayerNorm(dim)
        self.decoder_norm = nn.LayerNorm(dim)
        self.ref_point_head = Mlp(2 * dim, dim, dim)
        self.bbox_embed = Mlp(dim, dim, dim, 4)
        self.mask_embed = Mlp(dim, dim, dim, mask_dim)
        self.class_embed = nn.Parameter(torch.empty(dim, text_dim))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(INITIAL_LOGIT_SCALE)))
        self.prior = nn.Parameter(torch.tensor(-math.log((1 - LABEL_PRIOR) / LABEL_PRIOR)))
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1 and not name.startswith("query_"):
                nn.init.xavier_uniform_(parameter)
        for module in self.modules():
            if isinstance(module, MSDeformAttn):
                module.reset_parameters()
        nn.init.normal_(self.class_embed, std=self.dim**-0.5)
        if self.denoising:
            nn.init.normal_(self.label_enc.weight)  # projects a unit-length text to the scale of the other queries
        for parameter in self.bbox_embed.layers[-1].parameters():  # initially, a box equals its proposal
            nn.init.zeros_(parameter)

    def forward(
        self,
        pyramid: FeaturePyramid,
        text_embeddings: Sequence[Tensor],
        denoising_targets: Sequence[MaskTarget] | None = None,
    ) -> DecoderOutput:
        """Predict the objects that the texts name.

        Args:
            pyramid: features of B images, from `PixelDecoder`.
            text_embeddings: for each image float32 [its texts, text_dim], unit length.
            denoising_targets: the objects of each image, for denoising queries. Used only in training and if
                `denoising` > 0.
        """
        content, boxes, count = self._select_queries(pyramid, text_embeddings)
        # The proposals have their own loss, as in Mask DINO. Learnable queries have no part in it: they get gradients
        # through the layers, so that it would only count their initial prediction twice, and in the matching they would
        # take objects from the proposals. OpenSeeD needs it for both kinds, because it detaches learnable queries, too.
        # docs/results.md compares both forms.
        predictions = []
        if count:
            proposals = content[:, :count], boxes[:, :count].sigmoid()
            predictions.append(self._predict(*proposals, pyramid, text_embeddings))
        # Gradients of the layers must not change the selection, hence detach().
        content = torch.cat([content[:, :count].detach(), content[:, count:]], dim=1)
        references = torch.cat([boxes[:, :count].detach(), boxes[:, count:]], dim=1).sigmoid()
        if self.initialize_box_type is not None:
            around_masks = initial_boxes(predictions[0], pyramid.padding_masks[0], self.initialize_box_type)
            references = torch.cat([around_masks, references[:, count:]], dim=1)
        extra, blocked = 0, None  # number of denoising queries; they come first
        if denoising_targets is not None and self.denoising and self.training:
            noise = add_noise(denoising_targets, [len(own) for own in text_embeddings], self.denoising)
            named = torch.stack([own[labels] for own, labels in zip(text_embeddings, noise.labels, strict=True)])
            content = torch.cat([self.label_enc(named), content], dim=1)
            references = torch.cat([noise.boxes, references], dim=1)
            extra = noise.labels.shape[1]
            blocked = noise.attention_mask(content.shape[1] - extra).repeat_interleave(self.heads, dim=0)
        predictions.append(self._predict(content, references, pyramid, text_embeddings))
        image = ImageMemory(
            pyramid.memory, pyramid.spatial_shapes, torch.cat([p.flatten(1) for p in pyramid.padding_masks], dim=1)
        )
        ratios = valid_ratios(pyramid.padding_masks).to(references.dtype).repeat(1, 1, 2)[:, None]  # [B, 1, levels, 4]
        before = references
        for layer in self.layers:
            around = references[:, :, None] * ratios
            # References are relative to the unpadded image. The reference code uses the padded finest level instead.
            place = self.ref_point_head(encode_box_positions(references, self.dim).to(content.dtype))
            if self.checkpointing and self.training:
                content = checkpoint(layer, content, place, around, image, count, extra, blocked, use_reentrant=False)
            else:
                content = layer(content, place, around, image, count, extra, blocked)
            after = (self.bbox_embed(content) + inverse_sigmoid(references)).sigmoid()
            normed = self.norm(content)
            # "Look forward twice" (DINO): the box loss of a layer also reaches the layer before it, where the gradient
            # stops.
            judged = (self.bbox_embed(normed) + inverse_sigmoid(before)).sigmoid()
            predictions.append(self._predict(normed, judged, pyramid, text_embeddings))
            before, references = after, after.detach()
        if not extra:
            return DecoderOutput(tuple(predictions), count)
        first = len(predictions) - len(self.layers) - 1  # predictions from the proposals, which come before the noise
        own = (*predictions[:first], *(layer.select_queries(slice(extra, None)) for layer in predictions[first:]))
        others = tuple(layer.select_queries(slice(extra)) for layer in predictions[first:])
        return DecoderOutput(own, count, DenoisingOutput(others, noise.matches, noise.num_groups))

    def _select_queries(self, pyramid: FeaturePyramid, text_embeddings: Sequence[Tensor]) -> tuple[Tensor, Tensor, int]:
        """Returns (content [B, Q, dim], box logits [B, Q, 4], number of conditional queries)."""
        batch = len(pyramid.memory)
        contents, boxes, count = [], [], 0
        if self.conditional_queries:
            memory, places, valid = generate_proposals(pyramid.memory, pyramid.padding_masks)
            found = self.enc_output_norm(self.enc_output(memory))
            with torch.no_grad():  # top-k selection has no gradient
                best = torch.stack([own.amax(-1) for own in self._class_logits(found, text_embeddings)])  # [B, S]
            count = min(self.conditional_queries, best.shape[1])
            chosen = best.masked_fill(~valid, -math.inf).topk(count, dim=1).indices[..., None]
            picked = found.gather(1, chosen.expand(-1, -1, self.dim))
            contents.append(picked)
            boxes.append(self.bbox_embed(picked) + places.to(found.dtype).gather(1, chosen.expand(-1, -1, 4)))
        if hasattr(self, "query_feat"):
            contents.append(self.query_feat.expand(batch, -1, -1))
            boxes.append(self.query_embed.expand(batch, -1, -1))
        return torch.cat(contents, dim=1), torch.cat(boxes, dim=1), count

    def _predict(
        self, content: Tensor, boxes: Tensor, pyramid: FeaturePyramid, text_embeddings: Sequence[Tensor]
    ) -> Predictions:
        normed = self.decoder_norm(content)
        return Predictions(
            self._class_logits(normed, text_embeddings), boxes, pyramid.mask_features, self.mask_embed(normed)
        )

    def _class_logits(self, content: Tensor, text_embeddings: Sequence[Tensor]) -> list[Tensor]:
        """For each image float32 [Q, its texts]: scaled cosine similarity of queries and texts.

        Always computed in float32, because proposals and results are ranked by it and the scale amplifies rounding
        errors.
        """
        with torch.autocast(content.device.type, enabled=False):
            seen = content.float() @ self.class_embed
            seen = seen / (seen.norm(dim=-1, keepdim=True) + 1e-7)
            scale = self.logit_scale.exp()
            return [scale * own @ text.T.float() + self.prior for own, text in zip(seen, text_embeddings, strict=True)]
