"""HQ-SAM: a fifth mask token and finer features on SAM's frozen decoder. Official checkpoints load without conversion.

Ke et al., "Segment Anything in High Quality", NeurIPS 2023. Building, loading, encoding and decoding are shared with
`sam`.

Note for filtering: HQ-SAM has no head that predicts the quality of its own masks. The IoU returned is that of SAM's
mask, which is only one summand of the mask returned (and none with `hq_token_only`).
"""

from __future__ import annotations

from segment_anything.modeling import Sam
from segment_anything.modeling.common import LayerNorm2d
from segment_anything.modeling.mask_decoder import MLP
from torch import Tensor, nn

from synthgen.models.sam import VARIANTS, ImageEmbeddings, MaskDecoder, SamConfig, build_sam


def build_hq_sam(variant: str | SamConfig, *, hq_token_only: bool = False) -> Sam:
    """Build an HQ-SAM with random weights; parameter names are those of `sam_hq_vit_{b,l,h}.pth`.

    Args:
        variant: a key of `sam.VARIANTS`, or sizes.
        hq_token_only: return the HQ mask alone instead of adding it to SAM's; three candidates are then identical.

    Raises:
        ValueError: unknown variant.
    """
    numbers = VARIANTS.get(variant) if isinstance(variant, str) else variant
    vit_dim = numbers.vit_dim if numbers else 0
    return build_sam(variant, HQMaskDecoder, vit_dim=vit_dim, hq_token_only=hq_token_only)


class HQMaskDecoder(MaskDecoder):
    """SAM's mask decoder with the HQ token and its features; `hf_*` are the names of the checkpoints.

    Args:
        vit_dim: channels of the image encoder's blocks, from which the early features come.
        hq_token_only: whether the masks are those of the HQ token alone, instead of their sum with SAM's masks.
        transformer_dim: channels of the decoder.
        **decoder_options: the other arguments of SAM's `MaskDecoder`.
    """

    def __init__(self, *, vit_dim: int, hq_token_only: bool, transformer_dim: int, **decoder_options: object) -> None:
        super().__init__(transformer_dim=transformer_dim, **decoder_options)
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

    def compute_hq_features(self, image: Tensor, early_features: Tensor) -> Tensor:
        """Fuse the final embedding with the early feature: [B, dim / 8, 4 * grid, 4 * grid].

        Args:
            image: [B, dim, grid, grid], in the network's float dtype.
            early_features: [B, grid, grid, vit_dim], in the same dtype; the output of the encoder's first global block.
        """
        fused: Tensor = self.embedding_encoder(image) + self.compress_vit_feat(early_features.permute(0, 3, 1, 2))
        return fused

    def decode(
        self, embeddings: ImageEmbeddings, image_pe: Tensor, sparse_embeddings: Tensor, multimask_output: bool
    ) -> tuple[Tensor, ...]:
        """See `MaskDecoder.decode`: the HQ mask is added to each of SAM's masks.

        With `multimask_output`, the reference returns only the mask of the best predicted IoU, with the HQ mask added.

        Args:
            embeddings: as in `MaskDecoder.decode`, with `hq_features`.
            image_pe: [1, dim, grid, grid], in the network's float dtype.
            sparse_embeddings: float32 [n, 2, dim], from the two corners of each box.
            multimask_output: return three masks per box instead of one.

        Returns:
            logits [n, 1 or 3, 4 * grid, 4 * grid], and the predicted IoU [n, 1 or 3] of SAM's masks (without the HQ
            mask).
        """
        own = [self.mask_tokens.weight, self.hf_token.weight]
        tokens, upscaled, iou = self._run_transformer(embeddings.image, image_pe, sparse_embeddings, own)
        wanted = range(1, self.num_mask_tokens) if multimask_output else range(1)
        finer = self.embedding_maskfeature(upscaled) + embeddings.hq_features
        masks = self._mask_logits(self.hf_mlp(tokens[:, -1:]), finer)
        if self.hq_token_only:
            masks = masks.expand(-1, len(wanted), -1, -1)
        else:
            masks = masks + self._mask_logits(self._mask_kernels(tokens, wanted), upscaled)
        return masks, iou[:, wanted.start : wanted.stop]
