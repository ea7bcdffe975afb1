"""Image backbones, Swin, ResNet and networks of timm: images to features of strides 4, 8, 16 and 32.

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
from synthgen.models.checkpoint_reader import read_pretrained
from synthgen.models.mqformer.backbone_weights import load_resnet, load_swin
from synthgen.models.mqformer.frozen_batch_norm import freeze_batch_norms
from synthgen.models.mqformer.timm_backbone import TimmBackbone, UnsuitableNetworkError, build_timm_backbone

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

#: The names of backbones of timm begin with this.
TIMM_PREFIX = "timm/"


def build_backbone(
    name: str, *, weights: Path | None = None, drop_path: float = 0.0, checkpointing: bool = False
) -> Backbone:
    """Build a backbone with random or ImageNet weights.

    Args:
        name: one of `BACKBONES`, or `TIMM_PREFIX` and a name of timm.
        weights: a folder in Hugging Face format, the original .pth file of a Swin, or torchvision's file of a
            ResNet-50; for a network of timm see `build_timm_backbone`.
        drop_path: probability of dropping a branch of the last block (0.3 in Mask2Former); earlier blocks use less. Not
            supported by ResNet.
        checkpointing: activation checkpointing: recompute the blocks in the backward pass instead of storing
            activations.

    Raises:
        UnsuitableNetworkError: the network cannot be used, or does not know an option.
        ValueError: unknown name, or weights that do not fit. The message is one sentence without the path.
    """
    if name.startswith(TIMM_PREFIX):
        return build_timm_backbone(
            name.removeprefix(TIMM_PREFIX), weights=weights, drop_path=drop_path, checkpointing=checkpointing
        )
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
        raise UnsuitableNetworkError("has no drop path; take model.drop_path out, or choose a Swin")
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
        freeze_batch_norms(body)

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


def _drop_path_hook(mlp: nn.Module, _: object, out: Tensor) -> Tensor:
    dropped: Tensor = mlp.get_submodule("drop_path")(out)
    return dropped


#: Any of them: images to four features, and `channels`.
Backbone = Swin | ResNet | TimmBackbone
