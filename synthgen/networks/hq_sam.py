"""HQ-SAM: a fifth mask token and finer features on SAM's frozen decoder; the official checkpoints load as they are.

Ke et al., "Segment Anything in High Quality", NeurIPS 2023. Building, loading, encoding and decoding are `sam`'s.

A warning for those who filter: HQ-SAM was trained without a head for the quality of its own masks. The IoU that comes
out scores SAM's mask, which is one summand of the mask returned (none with `hq_token_only`), and so says little of it.
"""

from __future__ import annotations

from segment_anything.modeling import Sam
from segment_anything.modeling.common import LayerNorm2d
from segment_anything.modeling.mask_decoder import MLP
from torch import Tensor, nn

from synthgen.networks.sam import VARIANTS, Embeddings, MaskDecoder, SamNumbers, build_sam


def build_hq_sam(variant: str | SamNumbers, *, hq_token_only: bool = False) -> Sam:
    """Make an HQ-SAM with random weights; its names are those of `sam_hq_vit_{b,l,h}.pth`.

    Args:
        hq_token_only: return the HQ mask alone rather than added to SAM's.

    Raises:
        ValueError: no such variant.
    """
    numbers = VARIANTS.get(variant) if isinstance(variant, str) else variant
    vit_dim = numbers.vit_dim if numbers else 0
    return build_sam(variant, HQMaskDecoder, vit_dim=vit_dim, hq_token_only=hq_token_only)


class HQMaskDecoder(MaskDecoder):
    """SAM's mask decoder, the HQ token and its features; `hf_*` are the checkpoints' names."""

    def __init__(self, *, vit_dim: int, hq_token_only: bool, transformer_dim: int, **numbers: object) -> None:
        super().__init__(transformer_dim=transformer_dim, **numbers)
        self.hq_token_only = hq_token_only
        dim = transformer_dim
        self.hf_token = nn.Embedding(1, dim)
        self.hf_mlp = MLP(dim, dim, dim // 8, 3)
        self.compress_vit_feat = nn.Sequential(
            nn.ConvTranspose2d(vit_dim, dim, kernel_size=2, stride=2),
            LayerNorm2d(dim),
            nn.GELU(),
            nn.ConvTranspose2d(dim, dim // 8, kernel_size=2, stride=2),
        )
        self.embedding_encoder = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, kernel_size=2, stride=2),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 4, dim // 8, kernel_size=2, stride=2),
        )
        self.embedding_maskfeature = nn.Sequential(
            nn.Conv2d(dim // 8, dim // 4, kernel_size=3, padding=1),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            nn.Conv2d(dim // 4, dim // 8, kernel_size=3, padding=1),
        )

    def fine_features(self, image: Tensor, early: Tensor) -> Tensor:
        """Fuse the final embedding [B, dim, g, g] with the early feature [B, g, g, vit_dim]: [B, dim / 8, 4g, 4g]."""
        fused: Tensor = self.embedding_encoder(image) + self.compress_vit_feat(early.permute(0, 3, 1, 2))
        return fused

    def decode(self, embeddings: Embeddings, image_pe: Tensor, prompts: Tensor, multimask: bool) -> tuple[Tensor, ...]:
        """See `MaskDecoder.decode`; always one mask a box.

        Args:
            multimask: the HQ mask is added to the one of SAM's three candidates that has the best predicted IoU, rather
                than to SAM's single mask.

        Returns:
            logits [n, 1, 4 * grid, 4 * grid] and the predicted IoU [n, 1] of SAM's mask, not of the one returned.
        """
        own = [self.mask_tokens.weight, self.hf_token.weight]
        tokens, upscaled, iou = self._attend(embeddings.image, image_pe, prompts, own)
        if multimask:
            best = iou[:, 1:].argmax(1, keepdim=True)
            kernels = self._kernels(tokens, range(1, self.num_mask_tokens)).take_along_dim(best[..., None], dim=1)
            iou = iou[:, 1:].take_along_dim(best, dim=1)
        else:
            kernels, iou = self._kernels(tokens, range(1)), iou[:, :1]
        finer = self.embedding_maskfeature(upscaled) + embeddings.fine
        masks = self._masks(self.hf_mlp(tokens[:, -1:]), finer)
        if not self.hq_token_only:
            masks = self._masks(kernels, upscaled) + masks
        return masks, iou
