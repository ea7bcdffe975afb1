"""SAM's forward pass for a batch of images, equivalent to the reference predictor.

Call order: `resize_longest_side` on the host; then `preprocess_images`, `encode_images`, `scale_boxes`, `decode_masks`
and `postprocess_logits` on the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything.modeling import ImageEncoderViT, Sam
from torch import Tensor
from torchvision.transforms.functional import resize as resize_pil
from torchvision.transforms.functional import to_pil_image

from synthgen.models.sam import ImageEmbeddings


class MaskChunk(NamedTuple):
    """The masks of one chunk of boxes.

    Attributes:
        image_indices: for each of the n boxes, the index of its image; ascending.
        logits: float32 [n, masks, 4 * grid, 4 * grid], over the padded square input.
        iou: float32 [n, masks], predicted for SAM's masks (see `hq_sam` for its meaning there).
    """

    image_indices: list[int]
    logits: Tensor
    iou: Tensor


def resized_size(height: int, width: int, longest_side: int) -> tuple[int, int]:
    """(height, width) after resizing the longer side to `longest_side` pixels, rounded as in the reference, but at
    least 1.
    """
    scale = longest_side / max(height, width)
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def resize_longest_side(image: NDArray[np.uint8], longest_side: int) -> Tensor:
    """Resize an image with Pillow's bilinear filter, as in the reference: uint8 [h, w, 3]; on the host, thread-safe.

    torchvision's filter for tensors is not equivalent: it differs by 1 in up to 1 % of the pixels.

    Args:
        image: uint8 [H, W, 3], RGB.
        longest_side: length of the longer side after resizing, in pixels.
    """
    height, width = image.shape[:2]
    small = resize_pil(to_pil_image(image), list(resized_size(height, width, longest_side)))
    return torch.from_numpy(np.array(small))


def preprocess_images(network: Sam, resized: Sequence[Tensor]) -> Tensor:
    """Normalize images, and pad them at the right and the bottom.

    Args:
        network: gives mean, standard deviation, input size, device and dtype.
        resized: B images, uint8 [h, w, 3] RGB, from `resize_longest_side`.

    Returns:
        [B, 3, image_size, image_size] on the network's device, in the encoder's dtype; padding is 0.
    """
    images = [image.to(network.device, non_blocking=True).permute(2, 0, 1) for image in resized]
    dtype = network.image_encoder.pos_embed.dtype
    return torch.stack([network.preprocess(image).to(dtype) for image in images])


@torch.no_grad()
def encode_images(network: Sam, pixels: Tensor) -> ImageEmbeddings:
    """Embed B images.

    Args:
        network: a SAM or HQ-SAM.
        pixels: [B, 3, image_size, image_size], in the encoder's float dtype; from `preprocess_images`.
    """
    image, early = encode_with_early_features(network.image_encoder, pixels)
    return ImageEmbeddings(image, network.mask_decoder.compute_hq_features(image, early))


def encode_with_early_features(encoder: ImageEncoderViT, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """The encoder's forward pass, which also returns the output of its first global block.

    Args:
        encoder: segment-anything's image encoder; blocks with window size 0 are global.
        pixels: [B, 3, image_size, image_size], in the encoder's float dtype; from `preprocess_images`.

    Returns:
        embedding [B, dim, grid, grid] and early feature [B, grid, grid, vit_dim].

    Raises:
        ValueError: the encoder has no global block.
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


def scale_boxes(boxes_xyxy: Tensor, original_size: tuple[int, int], input_size: tuple[int, int]) -> Tensor:
    """Scale boxes to the resized image: float32 [N, 4], XYXY in its pixels.

    Args:
        boxes_xyxy: float [N, 4], XYXY in pixels of the original image.
        original_size: (height, width) of the original image.
        input_size: (height, width) of the resized image, before padding.
    """
    scale = torch.tensor([input_size[1] / original_size[1], input_size[0] / original_size[0]] * 2, dtype=torch.float64)
    return (boxes_xyxy.double() * scale.to(boxes_xyxy.device)).float()


@torch.no_grad()
def decode_masks(
    network: Sam,
    embeddings: ImageEmbeddings,
    boxes_per_image: Sequence[Tensor],
    *,
    chunk_size: int,
    multimask_output: bool = False,
) -> Iterator[MaskChunk]:
    """Predict the masks of all boxes of B images, in chunks of `chunk_size` boxes across images.

    Memory per box in float32 at 1024 pixels: about 25 MB, or 90 MB with HQ-SAM; half in bfloat16.

    Args:
        network: a SAM or HQ-SAM.
        embeddings: of B images, from `encode_images`.
        boxes_per_image: B tensors float32 [N, 4] from `scale_boxes`, XYXY in pixels of the resized image; N may differ
            and may be 0.
        chunk_size: the maximum number of boxes decoded at once.
        multimask_output: return SAM's three candidates instead of its mask for unambiguous prompts such as boxes.

    Raises:
        ValueError: the numbers of images and box tensors differ, or the chunk size is 0.
    """
    if len(boxes_per_image) != len(embeddings.image) or chunk_size < 1:
        raise ValueError(
            f"{len(embeddings.image)} images, boxes of {len(boxes_per_image)} and chunks of {chunk_size} do not go "
            "together"
        )
    owner = [image for image, boxes in enumerate(boxes_per_image) for _ in range(len(boxes))]
    if not owner:
        return
    dtype = embeddings.image.dtype
    # One transfer for all boxes (2 kB per box); chunks are slices on the device.
    boxes = torch.cat([boxes.float() for boxes in boxes_per_image]).to(network.device)
    index = torch.tensor(owner).to(network.device)
    prompts, no_mask = network.prompt_encoder(points=None, boxes=boxes, masks=None)
    image, fine = embeddings.image + no_mask[:1].to(dtype), embeddings.hq_features
    image_pe = network.prompt_encoder.get_dense_pe().to(dtype)
    for start in range(0, len(owner), chunk_size):
        part = slice(start, start + chunk_size)
        own = owner[part]
        # Boxes of one image share its embedding, so that the decoder computes the part that depends only on the image
        # once.
        which = slice(own[0], own[0] + 1) if own[0] == own[-1] else index[part]
        chosen = ImageEmbeddings(image[which], None if fine is None else fine[which])
        logits, iou = network.mask_decoder.decode(chosen, image_pe, prompts[part], multimask_output)
        yield MaskChunk(own, logits.float(), iou.float())


def postprocess_logits(
    network: Sam, logits: Tensor, input_size: tuple[int, int], original_size: tuple[int, int]
) -> Tensor:
    """Upsample the logits of one image to its size: float32 [n, masks, height, width].

    Bilinear to the model's square, crop of the padding, bilinear to the original size; the mask is where the result
    exceeds `MASK_THRESHOLD`. Memory: square and original, 4 bytes per pixel and mask each; use fewer masks for large
    images.

    Args:
        network: gives the side of its square input.
        logits: float32 [n, masks, 4 * grid, 4 * grid], from `decode_masks`.
        input_size: (height, width) of the resized image, before padding.
        original_size: (height, width) of the original image.
    """
    scaled: Tensor = network.postprocess_masks(logits, input_size, original_size)
    return scaled
