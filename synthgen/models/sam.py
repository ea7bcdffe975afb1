"""SAM, built from segment-anything's modules: sizes, a decoder for boxes of several images, and strict loading."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from segment_anything.modeling import ImageEncoderViT, PromptEncoder, Sam, TwoWayTransformer
from segment_anything.modeling import MaskDecoder as OriginalMaskDecoder
from torch import Tensor, nn

from synthgen.models.state_dict import describe_tensor, format_names

#: Logits above it are mask.
MASK_THRESHOLD = 0.0

#: Upper limit on tensor sides (the MLP of ViT-H has 5,120 channels), which bounds what a file can make us allocate.
MAX_TENSOR_SIDE = 2**14


@dataclass(frozen=True, kw_only=True)
class SamConfig:
    """Sizes of a SAM; the defaults are common to the three published models.

    Attributes:
        vit_dim, vit_depth, vit_heads: of the image encoder.
        global_blocks: indices of the blocks with global attention; the others use windows.
        image_size: side of the encoder's square input, in pixels.
        dim: channels of the image embedding and of the decoder.
    """

    vit_dim: int
    vit_depth: int
    vit_heads: int
    global_blocks: tuple[int, ...]
    image_size: int = 1024
    patch_size: int = 16
    window_size: int = 14
    dim: int = 256
    decoder_heads: int = 8
    decoder_mlp_dim: int = 2048
    iou_head_hidden_dim: int = 256

    @property
    def grid_size(self) -> int:
        """Tokens along a side of the image embedding."""
        return self.image_size // self.patch_size


VARIANTS = {
    "vit_b": SamConfig(vit_dim=768, vit_depth=12, vit_heads=12, global_blocks=(2, 5, 8, 11)),
    "vit_l": SamConfig(vit_dim=1024, vit_depth=24, vit_heads=16, global_blocks=(5, 11, 17, 23)),
    "vit_h": SamConfig(vit_dim=1280, vit_depth=32, vit_heads=16, global_blocks=(7, 15, 23, 31)),
}


class ImageEmbeddings(NamedTuple):
    """Image features, computed once for each of B images.

    Attributes:
        image: [B, dim, grid, grid], in the network's float dtype.
        hq_features: HQ-SAM's features [B, dim / 8, 4 * grid, 4 * grid], in the same dtype; None for SAM.
    """

    image: Tensor
    hq_features: Tensor | None


class MaskDecoder(OriginalMaskDecoder):  # type: ignore[misc]  # segment-anything ships no types
    """The original decoder with an additional method for boxes of several images (its `forward` handles one image)."""

    def compute_hq_features(self, image: Tensor, early_features: Tensor) -> Tensor | None:  # noqa: ARG002  # for HQ-SAM
        """Additional image features of the decoder; none for SAM.

        Args:
            image: [B, dim, grid, grid], in the network's float dtype; the encoder's final embedding.
            early_features: [B, grid, grid, vit_dim], in the same dtype; the output of the encoder's first global block.
        """
        return None

    def decode(
        self, embeddings: ImageEmbeddings, image_pe: Tensor, sparse_embeddings: Tensor, multimask_output: bool
    ) -> tuple[Tensor, ...]:
        """Predict the masks of n boxes.

        Args:
            embeddings: of the image of each box, [n, ...], or of one image for all boxes, [1, ...], with the no-mask
                embedding added.
            image_pe: [1, dim, grid, grid], in the network's float dtype; position encoding of the image tokens.
            sparse_embeddings: float32 [n, 2, dim], from the two corners of each box.
            multimask_output: return the three masks for ambiguous prompts instead of the one for boxes.

        Returns:
            logits [n, 1 or 3, 4 * grid, 4 * grid] and IoU [n, 1 or 3].
        """
        tokens, upscaled, iou = self._run_transformer(
            embeddings.image, image_pe, sparse_embeddings, [self.mask_tokens.weight]
        )
        wanted = range(1, self.num_mask_tokens) if multimask_output else range(1)
        return self._mask_logits(self._mask_kernels(tokens, wanted), upscaled), iou[:, wanted.start : wanted.stop]

    def _run_transformer(
        self, image: Tensor, image_pe: Tensor, sparse_embeddings: Tensor, mask_tokens: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mask tokens [n, t, dim], upscaled image [n, dim / 8, 4 * grid, 4 * grid], IoU [n, original mask tokens]."""
        own = torch.cat([self.iou_token.weight, *mask_tokens])
        tokens = torch.cat([own.expand(len(sparse_embeddings), -1, -1), sparse_embeddings.to(own.dtype)], dim=1)
        out, attended = self.transformer(image, image_pe, tokens)
        upscaled = self.output_upscaling(attended.transpose(1, 2).unflatten(2, image.shape[2:]))
        return out[:, 1 : len(own)], upscaled, self.iou_prediction_head(out[:, 0])

    def _mask_kernels(self, tokens: Tensor, token_indices: range) -> Tensor:
        """The hypernetwork outputs of the selected mask tokens of [n, t, dim]: [n, selected, dim / 8]."""
        return torch.stack([self.output_hypernetworks_mlps[i](tokens[:, i]) for i in token_indices], dim=1)

    @staticmethod
    def _mask_logits(kernels: Tensor, features: Tensor) -> Tensor:
        """Logits [n, masks, h, w] of kernels [n, masks, c] over features [n, c, h, w]."""
        return (kernels @ features.flatten(2)).view(*kernels.shape[:2], *features.shape[2:])


def build_sam(variant: str | SamConfig, decoder: type[MaskDecoder] = MaskDecoder, **decoder_options: int | bool) -> Sam:
    """Build a SAM with random weights for inference; under `torch.device("meta")` without weights.

    Args:
        variant: a key of `VARIANTS`, or sizes.
        decoder: class of the mask decoder; `HQMaskDecoder` makes it an HQ-SAM.
        **decoder_options: further arguments of `decoder`.

    Raises:
        ValueError: unknown variant.
    """
    if isinstance(variant, str):
        if variant not in VARIANTS:
            raise ValueError(f"no SAM variant named {variant!r}; there are {', '.join(VARIANTS)}")
        variant = VARIANTS[variant]
    n = variant
    network = Sam(
        image_encoder=ImageEncoderViT(
            img_size=n.image_size,
            patch_size=n.patch_size,
            embed_dim=n.vit_dim,
            depth=n.vit_depth,
            num_heads=n.vit_heads,
            mlp_ratio=4,
            out_chans=n.dim,
            qkv_bias=True,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=n.window_size,
            global_attn_indexes=n.global_blocks,
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=n.dim,
            image_embedding_size=(n.grid_size, n.grid_size),
            input_image_size=(n.image_size, n.image_size),
            mask_in_chans=16,
        ),
        mask_decoder=decoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(
                depth=2, embedding_dim=n.dim, mlp_dim=n.decoder_mlp_dim, num_heads=n.decoder_heads
            ),
            transformer_dim=n.dim,
            iou_head_depth=3,
            iou_head_hidden_dim=n.iou_head_hidden_dim,
            **decoder_options,
        ),
    )
    return network.eval().requires_grad_(False)


def is_hq_checkpoint(weights: Mapping[str, object]) -> bool:
    """Whether a state dict, `weights`, is HQ-SAM's rather than SAM's."""
    return "mask_decoder.hf_token.weight" in weights


def variant_name(config: SamConfig) -> str:
    """The name of the size `config`: "vit_b", "vit_l" or "vit_h", or else channels and blocks: "vit 64x4"."""
    known = (name for name, published in VARIANTS.items() if published == config)
    return next(known, f"vit {config.vit_dim}x{config.vit_depth}")


def infer_config(weights: Mapping[str, object]) -> SamConfig:
    """Infer the configuration from the names and shapes of a state dict. Shapes do not show the decoder's heads: always
    8.

    Args:
        weights: names and tensors; only names and shapes are read.

    Raises:
        ValueError: not SAM's weights; one sentence names what is missing.
    """

    def shape(name: str, axes: int) -> tuple[int, ...]:
        found = weights.get(name)
        if not isinstance(found, Tensor) or found.dim() != axes or 0 in found.shape:
            raise ValueError(
                f"these weights are not SAM's: {name} is not among the {len(weights)} names, or has no {axes} axes"
            )
        if max(found.shape) > MAX_TENSOR_SIDE:
            raise ValueError(f"these weights are of no SAM: {name} is {list(found.shape)}")
        return tuple(found.shape)

    _, grid, _, vit_dim = shape("image_encoder.pos_embed", 4)
    patch_size = shape("image_encoder.patch_embed.proj.weight", 4)[2]
    blocks = {name.split(".")[2] for name in weights if str(name).startswith("image_encoder.blocks.")}
    reach = [shape(f"image_encoder.blocks.{i}.attn.rel_pos_h", 2) for i in range(len(blocks))]
    if not reach:
        raise ValueError("these weights are not SAM's: they have no image_encoder.blocks")
    windows = [rows for rows, _ in reach if rows != 2 * grid - 1]
    head, dim = reach[0][1], shape("image_encoder.neck.0.weight", 4)[0]
    if vit_dim % head or dim % 16 or len(windows) == len(reach):
        raise ValueError(
            f"these weights are of no SAM: {vit_dim} channels in heads of {head}, {dim} in the decoder, and "
            f"{len(reach) - len(windows)} global blocks do not go together"
        )
    return SamConfig(
        vit_dim=vit_dim,
        vit_depth=len(blocks),
        vit_heads=vit_dim // head,
        global_blocks=tuple(i for i, (rows, _) in enumerate(reach) if rows == 2 * grid - 1),
        image_size=grid * patch_size,
        patch_size=patch_size,
        window_size=(windows[0] + 1) // 2 if windows else 14,
        dim=dim,
        decoder_mlp_dim=shape("mask_decoder.transformer.layers.0.mlp.lin1.weight", 2)[0],
        iou_head_hidden_dim=shape("mask_decoder.iou_prediction_head.layers.0.weight", 2)[0],
    )


def load_weights(network: Sam, weights: Mapping[str, Tensor]) -> None:
    """Load a state dict with segment-anything's names, strictly; a network on the meta device takes ownership of the
    tensors.

    Args:
        network: a SAM or HQ-SAM of the checkpoint's sizes.
        weights: float tensors of any precision, with the names and shapes of `network`'s state dict.

    Raises:
        ValueError: missing or unknown names, different shapes, or a value that is not a plain float tensor. One
            sentence names them. Nothing was loaded.
    """
    expected = network.state_dict()
    wrong = [
        f"{name} is {found} instead of {describe_tensor(tensor)}"
        for name, tensor in expected.items()
        if name in weights and (found := describe_tensor(weights[name])) != describe_tensor(tensor)
    ]
    faults = [
        format_names("lack", [name for name in expected if name not in weights]),
        format_names(
            "have", [str(name)[:80] for name in weights if name not in expected], " that this network has no place for"
        ),
        format_names("differ:", wrong),
    ]
    if any(faults):
        raise ValueError("the weights do not fit: they " + ", and ".join(fault for fault in faults if fault))
    meta = any(tensor.is_meta for tensor in expected.values())
    # Copied, because memory-mapped tensors are invalid after the file is closed.
    own = {name: weights[name].to(tensor.dtype, copy=True) for name, tensor in expected.items()}
    network.load_state_dict(own, strict=True, assign=meta)
    network.requires_grad_(False)
    if meta:  # the two buffers that no checkpoint contains
        network.pixel_mean = torch.tensor([123.675, 116.28, 103.53]).view(-1, 1, 1)
        network.pixel_std = torch.tensor([58.395, 57.12, 57.375]).view(-1, 1, 1)


def set_precision(network: Sam, dtype: torch.dtype) -> None:
    """Cast encoder and decoder; prompts and pixels stay float32.

    Box positions are encoded as sines with up to a few dozen periods, for which bfloat16 is too coarse.

    Args:
        network: the network to change in place.
        dtype: the dtype of the weights of encoder and decoder.
    """
    network.image_encoder.to(dtype)
    network.mask_decoder.to(dtype)
