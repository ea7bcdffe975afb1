"""Image backbones, Swin and ResNet: images to features of strides 4, 8, 16 and 32.

Windows and kernels at the image border see padding, as in the reference implementations.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import ResNetBackbone, ResNetConfig, SwinBackbone, SwinConfig

from synthgen import compat
from synthgen.models.mqformer.backbone_weights import load_resnet, load_swin
from synthgen.models.mqformer.weights import read_pretrained

_OUT_FEATURES = ["stage1", "stage2", "stage3", "stage4"]


@dataclass(frozen=True, slots=True)
class SwinVariant:
    """Sizes of a Swin variant (Liu et al., arXiv 2103.14030)."""

    embed_dim: int
    depths: tuple[int, int, int, int]
    heads: tuple[int, int, int, int]
    window_size: int


#: As in Mask2Former and Mask DINO. The two larger variants have the window size of pre-training at 384 pixels.
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
    """Build a backbone with random or ImageNet weights.

    Args:
        name: one of `BACKBONES`.
        weights: a folder in Hugging Face format, the original .pth file of a Swin, or torchvision's file of a
            ResNet-50.
        drop_path: probability of dropping a branch of the last block (0.3 in Mask2Former); earlier blocks use less. Not
            supported by ResNet.
        checkpointing: activation checkpointing: recompute the blocks in the backward pass instead of storing
            activations.

    Raises:
        ValueError: unknown name, or weights that do not fit. The message is one sentence without the path.
    """
    if name in SWIN_VARIANTS:
        numbers = SWIN_VARIANTS[name]
        config = SwinConfig(
            embed_dim=numbers.embed_dim, depths=list(numbers.depths), num_heads=list(numbers.heads),
            window_size=numbers.window_size, drop_path_rate=drop_path, out_features=_OUT_FEATURES,
        )  # fmt: skip
        if weights is None:
            swin = SwinBackbone(config)
            # transformers initializes the bias to 0. Padding then stays 0, and every norm multiplies its gradient by
            # about 300, so that after six norms it dominates the gradient norm.
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
    """Swin transformer with a layer norm on the features of each stage.

    Args:
        body: returns the features of all four stages; changed in place.
        checkpointing: activation checkpointing of the blocks.

    Attributes:
        channels: channels of the four features.
    """

    def __init__(self, body: SwinBackbone, *, checkpointing: bool = False) -> None:
        super().__init__()
        self.body = body
        self.channels = tuple(body.channels)
        body.swin.layernorm = nn.Identity()  # used only by a classifier; its weights would never be trained
        for stage in body.swin.encoder.layers:
            for block in stage.blocks:
                # transformers applies drop path to the attention of a block only; the original also applies it to the
                # MLP.
                block.mlp.drop_path = block.drop_path
                block.mlp.register_forward_hook(_drop_path_hook)
                compat.set_layer_checkpointing(block, partial(checkpoint, use_reentrant=False), enabled=checkpointing)

    def forward(self, images: Tensor) -> list[Tensor]:
        """`images`, float32 [B, 3, H, W], normalized, any size -> four [B, channels, ceil(H / stride), ceil(W /
        stride)].
        """
        return list(self.body(images).feature_maps)


class ResNet(nn.Module):
    """ResNet v1.5 (stride in the 3x3 convolution) with frozen batch norms (as in detectron2).

    Args:
        body: returns the features of all four stages; changed in place.
        checkpointing: activation checkpointing of the blocks in training.

    Attributes:
        channels: channels of the four features.
    """

    def __init__(self, body: ResNetBackbone, *, checkpointing: bool = False) -> None:
        super().__init__()
        self.body, self.checkpointing = body, checkpointing
        self.channels = tuple(body.channels)
        for module in list(body.modules()):
            if isinstance(getattr(module, "normalization", None), nn.BatchNorm2d):
                module.normalization = FrozenBatchNorm(module.normalization)

    def forward(self, images: Tensor) -> list[Tensor]:
        """`images`, float32 [B, 3, H, W], normalized, any size -> four [B, channels, ceil(H / stride), ceil(W /
        stride)].
        """
        x, features = self.body.embedder(images), []
        for stage in self.body.encoder.stages:
            for block in stage.layers:
                again = self.checkpointing and self.training
                x = checkpoint(block, x, use_reentrant=False) if again else block(x)
            features.append(x)
        return features


class FrozenBatchNorm(nn.Module):
    """Batch norm with fixed statistics and scales: batches are too small and too mixed to estimate them.

    The output has the dtype of the input. torchvision's `FrozenBatchNorm2d` gives float32 for bfloat16, which keeps 1.7
    times the activations of a ResNet-50 for the backward pass.

    `weight`, `bias`, `running_mean` and `running_var` are float32 [channels].
    """

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
        """`x`, float [B, channels, h, w] -> the same shape and dtype."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale.to(x.dtype)[:, None, None] + shift.to(x.dtype)[:, None, None]


def _drop_path_hook(mlp: nn.Module, _: object, out: Tensor) -> Tensor:
    dropped: Tensor = mlp.get_submodule("drop_path")(out)
    return dropped
