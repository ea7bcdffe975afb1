"""The image encoder: Swin or ResNet, images to features of strides 4, 8, 16 and 32.

Near the border they see padding, as the reference's do: windows and kernels reach over it. Behind them nothing does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import ResNetBackbone, ResNetConfig, SwinBackbone, SwinConfig

from synthgen.models.mqformer.backbone_weights import load_resnet, load_swin
from synthgen.models.mqformer.weights import read_pretrained

_OUT_FEATURES = ["stage1", "stage2", "stage3", "stage4"]


@dataclass(frozen=True, slots=True)
class SwinVariant:
    """What tells one Swin from another (Liu et al., arXiv 2103.14030): first channels, blocks, heads, window."""

    embed_dim: int
    depths: tuple[int, int, int, int]
    heads: tuple[int, int, int, int]
    window_size: int


#: As Mask2Former and Mask DINO have them: the larger two with the windows of their pre-training at 384 pixels.
SWIN_VARIANTS = {
    "tiny": SwinVariant(16, (2, 2, 2, 2), (1, 2, 4, 8), 4),  # for tests
    "swin_t": SwinVariant(96, (2, 2, 6, 2), (3, 6, 12, 24), 7),
    "swin_s": SwinVariant(96, (2, 2, 18, 2), (3, 6, 12, 24), 7),
    "swin_b": SwinVariant(128, (2, 2, 18, 2), (4, 8, 16, 32), 12),
    "swin_l": SwinVariant(192, (2, 2, 18, 2), (6, 12, 24, 48), 12),
}
RESNET_DEPTHS = {"resnet50": (3, 4, 6, 3)}
BACKBONES = (*SWIN_VARIANTS, *RESNET_DEPTHS)


def build_backbone(
    name: str, *, weights: Path | None = None, drop_path: float = 0.0, checkpointing: bool = False
) -> Swin | ResNet:
    """Make a backbone, with random weights or with those of ImageNet.

    Args:
        name: one of `BACKBONES`.
        weights: a folder in Hugging Face's form, the original's .pth of a Swin, or torchvision's of a ResNet-50.
        drop_path: chance that a branch of the last block is left out of an image's training (0.3 in Mask2Former; less
            in the blocks before). A ResNet has no such.
        checkpointing: compute the blocks a second time in the backward pass instead of keeping what they computed.

    Raises:
        ValueError: no such name or no such weights; one sentence without the path.
    """
    if name in SWIN_VARIANTS:
        numbers = SWIN_VARIANTS[name]
        config = SwinConfig(
            embed_dim=numbers.embed_dim, depths=list(numbers.depths), num_heads=list(numbers.heads),
            window_size=numbers.window_size, drop_path_rate=drop_path, out_features=_OUT_FEATURES,
        )  # fmt: skip
        if weights is None:
            swin = SwinBackbone(config)
            # transformers begins with biases of 0, so padding is 0 throughout, and every norm multiplies its gradient
            # by 300: after six of them nothing else is left of the gradient as a whole.
            swin.swin.embeddings.patch_embeddings.projection.reset_parameters()
        else:
            swin = load_swin(config, read_pretrained(weights))
        return Swin(swin, checkpointing=checkpointing)
    if name not in RESNET_DEPTHS:
        raise ValueError(f"there is no backbone {name[:40]!r}; there are {', '.join(BACKBONES)}")
    if drop_path:
        raise ValueError(f"{name} has no drop path; leave it 0, or take a Swin")
    resnet_config = ResNetConfig(depths=list(RESNET_DEPTHS[name]), out_features=_OUT_FEATURES)
    resnet = ResNetBackbone(resnet_config) if weights is None else load_resnet(resnet_config, read_pretrained(weights))
    return ResNet(resnet, checkpointing=checkpointing)


class Swin(nn.Module):
    """Windows that attend within, shifted by turns; each stage's features are normalised.

    Attributes:
        channels: of the four features.
    """

    def __init__(self, body: SwinBackbone, *, checkpointing: bool = False) -> None:
        super().__init__()
        self.body = body
        self.channels = tuple(body.channels)
        body.swin.layernorm = nn.Identity()  # of a classifier: nobody would hear it, and its weights never learn
        for stage in body.swin.encoder.layers:
            for block in stage.blocks:
                # transformers drops the path of a block's attention only, the original that of its MLP as well.
                block.mlp.drop_path = block.drop_path
                block.mlp.register_forward_hook(_drop_path_hook)
                block.gradient_checkpointing = checkpointing
                block._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """float32 [B, 3, H, W], normalised, of any size -> four [B, channels, ceil(H / stride), ceil(W / stride)]."""
        return list(self.body(images).feature_maps)


class ResNet(nn.Module):
    """Bottlenecks v1.5 (the 3x3 strides). Batch norms keep the statistics and scales of their weights (detectron2).

    Attributes:
        channels: of the four features.
    """

    def __init__(self, body: ResNetBackbone, *, checkpointing: bool = False) -> None:
        super().__init__()
        self.body, self.checkpointing = body, checkpointing
        self.channels = tuple(body.channels)
        for module in list(body.modules()):
            if isinstance(getattr(module, "normalization", None), nn.BatchNorm2d):
                module.normalization = FrozenBatchNorm(module.normalization)

    def forward(self, images: Tensor) -> list[Tensor]:
        """float32 [B, 3, H, W], normalised, of any size -> four [B, channels, ceil(H / stride), ceil(W / stride)]."""
        x, features = self.body.embedder(images), []
        for stage in self.body.encoder.stages:
            for block in stage.layers:
                again = self.checkpointing and self.training
                x = checkpoint(block, x, use_reentrant=False) if again else block(x)
            features.append(x)
        return features


class FrozenBatchNorm(nn.Module):
    """Batch normalisation by the statistics that came with the weights: batches here are small, and of many sources."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.eps = norm.eps
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, getattr(norm, name).detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, h, w] to the same."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale.to(x.dtype)[:, None, None] + shift.to(x.dtype)[:, None, None]


def _drop_path_hook(mlp: nn.Module, _: object, out: Tensor) -> Tensor:
    dropped: Tensor = mlp.get_submodule("drop_path")(out)
    return dropped
