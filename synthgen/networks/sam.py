"""SAM on segment-anything's own modules: its three sizes, strict loading, and a forward that batches images and boxes.

In the order of use: `build_sam` and `load_weights`; then `resize` (host), `to_pixels`, `encode`, `to_model_frame`,
`decode`, `to_original_size` (device). Every step is the reference predictor's, for many images at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything.modeling import ImageEncoderViT, PromptEncoder, Sam, TwoWayTransformer
from segment_anything.modeling import MaskDecoder as OriginalMaskDecoder
from torch import Tensor, nn
from torchvision.transforms.functional import resize as resize_pil
from torchvision.transforms.functional import to_pil_image

MASK_THRESHOLD = 0.0  # of the logits


@dataclass(frozen=True, kw_only=True)
class SamNumbers:
    """The numbers that make a SAM; what the published three share is the default.

    Attributes:
        vit_dim, vit_depth, vit_heads: of the image encoder.
        global_blocks: indices of the blocks that attend to the whole image; all others attend within a window.
        image_size: side of the square that the encoder sees, in pixels.
        dim: channels of the image embedding, and of everything in the decoder.
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
    decoder_mlp: int = 2048
    iou_hidden: int = 256

    @property
    def grid(self) -> int:
        """Tokens along a side of the image embedding."""
        return self.image_size // self.patch_size


VARIANTS = {
    "vit_b": SamNumbers(vit_dim=768, vit_depth=12, vit_heads=12, global_blocks=(2, 5, 8, 11)),
    "vit_l": SamNumbers(vit_dim=1024, vit_depth=24, vit_heads=16, global_blocks=(5, 11, 17, 23)),
    "vit_h": SamNumbers(vit_dim=1280, vit_depth=32, vit_heads=16, global_blocks=(7, 15, 23, 31)),
}


class Embeddings(NamedTuple):
    """What is computed once for each of B images.

    Attributes:
        image: [B, dim, grid, grid], in the network's dtype.
        fine: HQ-SAM's features [B, dim / 8, 4 * grid, 4 * grid]; None for SAM.
    """

    image: Tensor
    fine: Tensor | None


class Decoded(NamedTuple):
    """The masks of one chunk of boxes.

    Attributes:
        image: for each of the n boxes, the index of its image; ascending.
        logits: float32 [n, masks, 4 * grid, 4 * grid], over the padded square that the model sees.
        iou: float32 [n, masks], predicted; of SAM's masks (see `hq_sam` for what that means there).
    """

    image: list[int]
    logits: Tensor
    iou: Tensor


class MaskDecoder(OriginalMaskDecoder):  # type: ignore[misc]  # segment-anything ships no types
    """The original, with a second way in for boxes of several images (its `forward` takes the boxes of one)."""

    def fine_features(self, image: Tensor, early: Tensor) -> Tensor | None:  # noqa: ARG002  # for HQ-SAM
        """What masks need beside the image embedding, once for each image: nothing."""
        return None

    def decode(self, embeddings: Embeddings, image_pe: Tensor, prompts: Tensor, multimask: bool) -> tuple[Tensor, ...]:
        """Predict the masks of n boxes.

        Args:
            embeddings: of the image of each box, [n, ...], the no-mask embedding added.
            image_pe: [1, dim, grid, grid].
            prompts: [n, 2, dim], the two corners of each box.

        Returns:
            logits [n, 1 or 3, 4 * grid, 4 * grid] and IoU [n, 1 or 3].
        """
        tokens, upscaled, iou = self._attend(embeddings.image, image_pe, prompts, [self.mask_tokens.weight])
        wanted = range(1, self.num_mask_tokens) if multimask else range(1)
        return self._masks(self._kernels(tokens, wanted), upscaled), iou[:, wanted.start : wanted.stop]

    def _attend(
        self, image: Tensor, image_pe: Tensor, prompts: Tensor, mask_tokens: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mask tokens [n, t, dim], upscaled image [n, dim / 8, 4 * grid, 4 * grid], IoU [n, original mask tokens]."""
        own = torch.cat([self.iou_token.weight, *mask_tokens])
        tokens = torch.cat([own.expand(len(prompts), -1, -1), prompts.to(own.dtype)], dim=1)
        out, attended = self.transformer(image, image_pe, tokens)
        upscaled = self.output_upscaling(attended.transpose(1, 2).reshape(image.shape))
        return out[:, 1 : len(own)], upscaled, self.iou_prediction_head(out[:, 0])

    def _kernels(self, tokens: Tensor, wanted: range) -> Tensor:
        """What the wanted mask tokens of [n, t, dim] look for in the upscaled image: [n, wanted, dim / 8]."""
        return torch.stack([self.output_hypernetworks_mlps[i](tokens[:, i]) for i in wanted], dim=1)

    @staticmethod
    def _masks(kernels: Tensor, features: Tensor) -> Tensor:
        """Logits [n, masks, h, w] of kernels [n, masks, c] over features [n, c, h, w]."""
        return (kernels @ features.flatten(2)).unflatten(2, features.shape[2:])


def build_sam(variant: str | SamNumbers, decoder: type[MaskDecoder] = MaskDecoder, **decoder_options: int | bool) -> Sam:
    """Make a SAM with random weights, for inference; under `torch.device("meta")` without any.

    Raises:
        ValueError: no such variant.
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
            image_embedding_size=(n.grid, n.grid),
            input_image_size=(n.image_size, n.image_size),
            mask_in_chans=16,
        ),
        mask_decoder=decoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(
                depth=2, embedding_dim=n.dim, mlp_dim=n.decoder_mlp, num_heads=n.decoder_heads
            ),
            transformer_dim=n.dim,
            iou_head_depth=3,
            iou_head_hidden_dim=n.iou_hidden,
            **decoder_options,
        ),
    )
    return network.eval().requires_grad_(False)


def identify(weights: Mapping[str, object]) -> tuple[str, str]:
    """Say by names and shapes what a state dict is: ("sam" or "hq_sam", "vit_b", "vit_l" or "vit_h").

    Raises:
        ValueError: it is neither; one sentence says what was seen.
    """
    shapes = {name: tuple(w.shape) for name, w in weights.items() if isinstance(w, Tensor)}
    position = shapes.get("image_encoder.pos_embed")
    if position is None or len(position) != 4:
        raise ValueError(
            f"these weights are not SAM's: none of the {len(weights)} names is image_encoder.pos_embed with four axes"
        )
    blocks = {name.split(".")[2] for name in shapes if name.startswith("image_encoder.blocks.")}
    for variant, n in VARIANTS.items():
        if position == (1, n.grid, n.grid, n.vit_dim) and len(blocks) == n.vit_depth:
            return "hq_sam" if "mask_decoder.hf_token.weight" in shapes else "sam", variant
    raise ValueError(
        f"these weights are of no SAM known here ({', '.join(VARIANTS)}): {len(blocks)} blocks of {position[3]} channels "
        f"on a grid of {position[1]} x {position[2]}"
    )


def load_weights(network: Sam, weights: Mapping[str, Tensor]) -> None:
    """Load a state dict with segment-anything's names, strictly; a network on the meta device takes the tensors as own.

    Raises:
        ValueError: names are missing or unknown, or shapes differ; one sentence names them. Nothing was loaded.
    """
    expected = network.state_dict()
    wrong = [
        f"{name} is {list(weights[name].shape)} instead of {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    faults = [
        _listed("lack", [name for name in expected if name not in weights]),
        _listed("have", [name for name in weights if name not in expected], " that this network has no place for"),
        _listed("differ in shape:", wrong),
    ]
    if any(faults):
        raise ValueError("the weights do not fit: they " + ", and ".join(fault for fault in faults if fault))
    meta = any(tensor.is_meta for tensor in expected.values())
    network.load_state_dict(dict(weights), strict=True, assign=meta)
    network.requires_grad_(False)
    if meta:  # the two that no checkpoint holds
        network.pixel_mean = torch.tensor([123.675, 116.28, 103.53]).view(-1, 1, 1)
        network.pixel_std = torch.tensor([58.395, 57.12, 57.375]).view(-1, 1, 1)


def _listed(verb: str, names: list[str], tail: str = "", most: int = 5) -> str:
    if not names:
        return ""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{verb} {', '.join(names[:most])}{more}{tail}"


def set_precision(network: Sam, dtype: torch.dtype) -> None:
    """Cast encoder and decoder; prompts and pixels stay float32.

    The position of a box passes through sines of up to some dozen turns: in bfloat16 nothing of it would be left.
    """
    network.image_encoder.to(dtype)
    network.mask_decoder.to(dtype)


def resized_size(height: int, width: int, side: int) -> tuple[int, int]:
    """(height, width) once the longer side is `side` pixels, rounded as the reference does; never 0, as it would."""
    scale = side / max(height, width)
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def resize(image: NDArray[np.uint8], side: int) -> Tensor:
    """Resize an image to uint8 [h, w, 3] as the reference does, by Pillow's bilinear filter; on the host, thread-safe.

    torchvision's filter for tensors is not a substitute: it differs by 1 in up to 1 % of the pixels.
    """
    small = resize_pil(to_pil_image(image), list(resized_size(*image.shape[:2], side)))
    return torch.from_numpy(np.array(small))


def to_pixels(network: Sam, resized: Sequence[Tensor]) -> Tensor:
    """Normalise images, uint8 [h, w, 3] RGB each as of `resize`, and pad them right and below.

    Returns:
        [B, 3, image_size, image_size] on the network's device, in the encoder's dtype; padding is 0.
    """
    images = [image.to(network.device, non_blocking=True).permute(2, 0, 1) for image in resized]
    dtype = network.image_encoder.pos_embed.dtype
    return torch.stack([network.preprocess(image).to(dtype) for image in images])


@torch.no_grad()
def encode(network: Sam, pixels: Tensor) -> Embeddings:
    """Embed B images: pixels [B, 3, image_size, image_size] as of `to_pixels`."""
    image, early = encode_image(network.image_encoder, pixels)
    return Embeddings(image, network.mask_decoder.fine_features(image, early))


def encode_image(encoder: ImageEncoderViT, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """The encoder's own forward, which also gives the output of its first global block.

    Returns:
        embedding [B, dim, grid, grid] and early feature [B, grid, grid, vit_dim].
    """
    x = encoder.patch_embed(pixels) + encoder.pos_embed
    early: Tensor | None = None
    for block in encoder.blocks:
        x = block(x)
        if early is None and block.window_size == 0:
            early = x
    if early is None:
        raise ValueError("the encoder has no global block; give one in global_blocks")
    return encoder.neck(x.permute(0, 3, 1, 2)), early


def to_model_frame(boxes_xyxy: Tensor, original: tuple[int, int], resized: tuple[int, int]) -> Tensor:
    """Scale boxes [N, 4], XYXY in pixels of the original image, to the resized one; sizes are (height, width)."""
    scale = torch.tensor([resized[1] / original[1], resized[0] / original[0]] * 2, dtype=torch.float64)
    return (boxes_xyxy.double() * scale.to(boxes_xyxy.device)).float()


@torch.no_grad()
def decode(
    network: Sam, embeddings: Embeddings, boxes_per_image: Sequence[Tensor], *, chunk: int, multimask: bool = False
) -> Iterator[Decoded]:
    """Predict the masks of all boxes of B images, `chunk` boxes at a time, whichever images they belong to.

    Memory is a chunk's: about 45 MB a box in float32 at 1024 pixels, half in bfloat16.

    Args:
        boxes_per_image: B tensors float32 [N, 4], as of `to_model_frame`; each N its own, 0 too.
        multimask: SAM's three candidates rather than its one mask for unambiguous prompts, which boxes are.
    """
    owner = [image for image, boxes in enumerate(boxes_per_image) for _ in range(len(boxes))]
    if not owner:
        return
    device, decoder, dtype = network.device, network.mask_decoder, embeddings.image.dtype
    # One transfer each; a chunk is then a slice of what lies on the device.
    boxes = torch.cat([boxes.float() for boxes in boxes_per_image]).to(device)
    index = torch.tensor(owner).to(device)
    image_pe = network.prompt_encoder.get_dense_pe().to(dtype)
    for start in range(0, len(owner), chunk):
        part = slice(start, start + chunk)
        prompts, no_mask = network.prompt_encoder(points=None, boxes=boxes[part], masks=None)
        fine = None if embeddings.fine is None else embeddings.fine[index[part]]
        chosen = Embeddings(embeddings.image[index[part]] + no_mask.to(dtype), fine)
        logits, iou = decoder.decode(chosen, image_pe, prompts, multimask)
        yield Decoded(owner[part], logits.float(), iou.float())


def to_original_size(network: Sam, logits: Tensor, resized: tuple[int, int], original: tuple[int, int]) -> Tensor:
    """Bring logits [n, masks, 4 * grid, 4 * grid] of one image to its size: [n, masks, height, width].

    Bilinear to the model's square, the padding cut off, bilinear to the original; the mask is where the result is
    above `MASK_THRESHOLD`. Memory: the square and the original, 4 bytes a pixel a mask each; give fewer if images are
    large.
    """
    scaled: Tensor = network.postprocess_masks(logits, resized, original)
    return scaled
