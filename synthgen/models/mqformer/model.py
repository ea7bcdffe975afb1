"""MQ-Former as a whole: images and candidate texts to labels, boxes and masks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from synthgen.models.mqformer.backbone import Backbone
from synthgen.models.mqformer.box_initialization import BoxType
from synthgen.models.mqformer.decoder import Decoder, DecoderOutput
from synthgen.models.mqformer.pixel_decoder import PixelDecoder
from synthgen.models.mqformer.targets import MaskTarget
from synthgen.models.mqformer.text_encoder import TextEncoder


class MQFormer(nn.Module):
    """Backbone, pixel decoder, text encoder and decoder.

    Args:
        backbone: gives four feature maps of an image.
        pixel_decoder: makes the pyramid and the mask features of the feature maps.
        decoder: makes the predictions of the queries.
        text_encoder: embeds the names and phrases that are asked for.
    """

    def __init__(
        self, backbone: Backbone, pixel_decoder: PixelDecoder, decoder: Decoder, text_encoder: TextEncoder
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pixel_decoder = pixel_decoder
        self.decoder = decoder
        self.text_encoder = text_encoder

    def forward(
        self,
        images: Tensor,
        padding_mask: Tensor,
        texts: Sequence[Sequence[str]],
        is_category_name: Sequence[bool | Sequence[bool]],
        denoising_targets: Sequence[MaskTarget] | None = None,
    ) -> DecoderOutput:
        """Predict the objects that the texts name.

        Args:
            images: float32 [B, 3, H, W], normalized; zero on padding.
            padding_mask: bool [B, H, W], True on padding, which is at the right and the bottom.
            texts: the label space of each image, at least one text.
            is_category_name: whether texts are category names rather than phrases, for each image or each text.
            denoising_targets: see `Decoder.forward`.
        """
        pyramid = self.pixel_decoder(self.backbone(images), padding_mask)
        return self.decoder(pyramid, self._embed_texts(texts, is_category_name), denoising_targets)  # type: ignore[no-any-return]

    def _embed_texts(
        self, texts: Sequence[Sequence[str]], is_category_name: Sequence[bool | Sequence[bool]]
    ) -> list[Tensor]:
        """For each image [its texts, text_dim]. A text shared by several images is encoded once."""
        each = [
            [name] * len(own) if isinstance(name, bool) else name
            for own, name in zip(texts, is_category_name, strict=True)
        ]
        wanted = [list(zip(own, name, strict=True)) for own, name in zip(texts, each, strict=True)]
        place = {asked: i for i, asked in enumerate(dict.fromkeys(asked for own in wanted for asked in own))}
        found = self.text_encoder([text for text, _ in place], [name for _, name in place])
        places = torch.tensor([place[asked] for own in wanted for asked in own])
        every = found[places.to(found.device, non_blocking=True)]  # indexing with a list would synchronize with the GPU
        return list(torch.split(every, [len(own) for own in wanted]))


def build_mqformer(
    backbone: Backbone,
    text_encoder: TextEncoder,
    *,
    conditional_queries: int = 300,
    learnable_queries: int = 100,
    dim: int = 256,
    levels: int = 4,
    encoder_dim_feedforward: int | None = None,
    encoder_layers: int = 6,
    decoder_layers: int = 9,
    heads: int = 8,
    exchange: bool = True,
    joint_self_attention: bool = False,
    initialize_box_type: BoxType | None = None,
    denoising: int = 0,
    checkpointing: bool = False,
) -> MQFormer:
    """Build the network around a backbone and a text encoder. The defaults are those of Mask DINO and MQ-Former.

    Args:
        backbone: image backbone with features of strides 4 to 32.
        text_encoder: encodes the label space; the size of its embeddings is `text_dim` of the decoder.
        conditional_queries: proposals per image, selected by their similarity to the texts.
        learnable_queries: queries that are parameters.
        dim: channels of pyramid, queries and mask features; a multiple of 32 and of `heads`.
        levels: pyramid levels. 3: the backbone's strides 8 to 32. 4: also stride 64. 5: also stride 4 (Mask DINO with
            Swin-L), which then makes up three quarters of all positions.
        encoder_dim_feedforward: hidden channels of the pixel decoder's feedforward networks; None = 4 * dim.
        encoder_layers: layers of the pixel decoder.
        decoder_layers: layers of the decoder.
        heads: attention heads of both decoders.
        exchange: dual-query cross-attention; see `DecoderLayer`.
        joint_self_attention: self-attention over the union of both kinds; see `DecoderLayer`.
        initialize_box_type: where the boxes of conditional queries begin; see `Decoder`.
        denoising: the maximum number of denoising groups in training; see `denoising.add_noise`.
        checkpointing: activation checkpointing of the layers of both decoders.
    """
    return MQFormer(
        backbone,
        PixelDecoder(
            backbone.channels, dim=dim, mask_dim=dim, levels=levels, num_layers=encoder_layers, heads=heads,
            feedforward=encoder_dim_feedforward or 4 * dim, start_level=0 if levels == 5 else 1,
            checkpointing=checkpointing,
        ),
        Decoder(
            dim=dim, mask_dim=dim, text_dim=text_encoder.dim, conditional_queries=conditional_queries,
            learnable_queries=learnable_queries,
            levels=levels, num_layers=decoder_layers, heads=heads, feedforward=8 * dim, exchange=exchange,
            joint_self_attention=joint_self_attention, initialize_box_type=initialize_box_type, denoising=denoising,
            checkpointing=checkpointing,
        ),
        text_encoder,
    )  # fmt: skip
