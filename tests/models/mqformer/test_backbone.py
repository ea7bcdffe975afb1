"""MQ-Former's backbones: published sizes, any size of image, and weights of three origins."""

from __future__ import annotations

import copy
import re

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from transformers import ResNetConfig, ResNetForImageClassification, SwinConfig, SwinForImageClassification

from synthgen.models.mqformer.backbone import BACKBONES, SWIN_VARIANTS, build_backbone

#: Of the networks without their classifiers, in millions: Swin's paper and code, torchvision's ResNet-50.
MILLIONS = {"swin_t": 27.52, "swin_s": 48.84, "swin_b": 86.88, "swin_l": 195.20, "resnet50": 23.45}
CHANNELS = {
    "tiny": (16, 32, 64, 128),
    "swin_t": (96, 192, 384, 768),
    "swin_s": (96, 192, 384, 768),
    "swin_b": (128, 256, 512, 1024),
    "swin_l": (192, 384, 768, 1536),
    "resnet50": (256, 512, 1024, 2048),
}

#: Parts of our names -> the original Swin's, written apart from the loader's.
ORIGINAL = {
    "swin.embeddings.patch_embeddings.projection": "patch_embed.proj",
    "swin.embeddings.norm": "patch_embed.norm",
    "swin.encoder.layers": "layers",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "attention.relative_position_bias.relative": "attn.relative",
    "attention.o_proj": "attn.proj",
    **{f"attention.{part}_proj": f"attn.{part}" for part in "qkv"},
    **{f"hidden_states_norms.stage{i + 1}": f"norm{i}" for i in range(4)},
}


def randomise(network: nn.Module, seed: int = 0) -> None:
    """Everything is random, biases and tables too: a name that is lost shows."""
    rng = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=rng)
            tensor.copy_(noise.abs() * 0.3 + 0.7 if "var" in name or tensor.dim() == 1 else noise * 0.08)


def original(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Ours in the original Swin's names, with what its files have beside."""
    named = {}
    for name, tensor in weights.items():
        for ours, theirs in ORIGINAL.items():
            name = name.replace(ours, theirs)
        named[name] = tensor
    for name in [name for name in named if ".attn.q." in name]:
        parts = [named.pop(name.replace(".q.", f".{part}.")) for part in "qkv"]
        named[name.replace(".q.", ".qkv.")] = torch.cat(parts)
    return {
        **named,
        "layers.0.blocks.0.attn.relative_position_index": torch.zeros(16, 16, dtype=torch.int64),
        "layers.0.blocks.1.attn_mask": torch.zeros(4, 16, 16),
        "norm.weight": torch.ones(128),
        "norm.bias": torch.ones(128),
        "head.weight": torch.ones(10, 128),
        "head.bias": torch.ones(10),
    }


def image(height: int, width: int, count: int = 1) -> torch.Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def same(a: list[torch.Tensor], b: list[torch.Tensor], atol: float = 0.0) -> bool:
    return len(a) == len(b) == 4 and all(torch.allclose(x, y, atol=atol, rtol=atol) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("name", BACKBONES)
def test_numbers_are_the_published(name):
    with torch.device("meta"):
        backbone = build_backbone(name)
    count = sum(p.numel() for p in backbone.parameters()) / 1e6
    assert backbone.channels == CHANNELS[name]
    assert count == pytest.approx(MILLIONS.get(name, count), abs=0.01)
    assert [tuple(f.shape) for f in backbone(torch.empty(1, 3, 64, 96, device="meta"))] == [
        (1, channels, 64 // stride, 96 // stride)
        for channels, stride in zip(CHANNELS[name], (4, 8, 16, 32), strict=True)
    ]


@pytest.mark.parametrize("name", ["tiny", "resnet50"])
@pytest.mark.parametrize(("height", "width"), [(33, 200), (1, 1), (64, 64), (31, 5)])
def test_any_size_of_image(name, height, width):
    features = build_backbone(name).eval()(image(height, width))
    assert [f.shape[2:] for f in features] == [(-(-height // s), -(-width // s)) for s in (4, 8, 16, 32)]
    assert all(f.isfinite().all() for f in features)


@pytest.mark.parametrize("name", ["tiny", "resnet50"])
def test_every_parameter_learns_with_and_without_checkpointing(name):
    torch.manual_seed(0)
    plain = build_backbone(name).train()
    again = build_backbone(name, checkpointing=True).train()
    again.load_state_dict(plain.state_dict())
    gradients = []
    for backbone in (plain, again, copy.deepcopy(again)):
        backbone.zero_grad()
        sum(f.square().mean() for f in backbone(image(70, 50))).backward()
        gradients.append({name: p.grad for name, p in backbone.named_parameters()})
    assert all(g is not None and g.isfinite().all() and g.any() for g in gradients[0].values())
    for other in gradients[1:]:
        assert all(torch.allclose(g, other[name], rtol=1e-4, atol=1e-6) for name, g in gradients[0].items())


@pytest.mark.parametrize("name", ["tiny", "resnet50"])
def test_an_image_is_seen_alone_and_in_half_precision(name):
    backbone = build_backbone(name).eval()
    images = image(40, 72, count=3)
    together = backbone(images)
    assert same([f[1:2] for f in together], backbone(images[1:2]), atol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = backbone(images)
    assert all((h.float() - t).abs().mean() < 0.05 * t.abs().mean() for h, t in zip(half, together, strict=True))


def test_batch_norms_are_frozen():
    backbone = build_backbone("resnet50").train()
    randomise(backbone)
    before = copy.deepcopy(backbone.state_dict())
    trained, seen = backbone(image(64, 64, 2)), backbone.eval()(image(64, 64, 2))
    assert same(trained, seen)
    assert all(torch.equal(tensor, backbone.state_dict()[name]) for name, tensor in before.items())
    assert not any("normalization" in name for name, _ in backbone.named_parameters())


def test_drop_path_leaves_branches_out_of_training_only():
    torch.manual_seed(0)
    backbone, plain = build_backbone("tiny", drop_path=0.9), build_backbone("tiny")
    plain.load_state_dict(backbone.state_dict())
    assert same(backbone.eval()(image(64, 64)), plain.eval()(image(64, 64)))
    last = backbone.train().body.swin.encoder.layers[3].blocks[1]
    out = [last.mlp(torch.ones(1, 4, 128)).abs().sum().item() for _ in range(60)]
    assert 35 < sum(value == 0 for value in out) < 60  # the second branch too, nine times of ten
    assert not same(backbone(image(64, 64)), backbone(image(64, 64)))


def test_weights_in_the_names_of_the_original_swin(tmp_path):
    backbone = build_backbone("tiny").eval()
    randomise(backbone)
    weights = original(backbone.body.state_dict())
    assert "layers.3.blocks.1.attn.qkv.bias" in weights and not any("swin" in name for name in weights)
    torch.save({"model": weights}, tmp_path / "swin.pth")
    assert same(build_backbone("tiny", weights=tmp_path / "swin.pth").eval()(image(33, 200)), backbone(image(33, 200)))
    for i in range(4):  # as the files of ImageNet are
        for part in ("weight", "bias"):
            del weights[f"norm{i}.{part}"]
    torch.save({"model": weights}, tmp_path / "swin.pth")
    fresh = build_backbone("tiny", weights=tmp_path / "swin.pth").eval()
    assert all(norm.weight.eq(1).all() and norm.bias.eq(0).all() for norm in fresh.body.hidden_states_norms.values())


def test_the_original_swin_is_torchvisions(tmp_path):
    """An implementation of others, at a size where it shifts its windows in every stage, as ours does."""
    theirs = torchvision.models.swin_t(weights=None).eval()
    randomise(theirs)
    names = {"features.0.0": "patch_embed.proj", "features.0.2": "patch_embed.norm", "mlp.0": "mlp.fc1"}
    names |= {f"features.{2 * i + 1}.": f"layers.{i}.blocks." for i in range(4)} | {"mlp.3": "mlp.fc2"}
    names |= {f"features.{2 * i + 2}.": f"layers.{i}.downsample." for i in range(3)}
    weights = {}
    for name, tensor in theirs.state_dict().items():
        for have, want in names.items():
            name = name.replace(have, want)
        weights[name] = tensor
    torch.save(weights, tmp_path / "swin.pth")
    ours = build_backbone("swin_t", weights=tmp_path / "swin.pth").eval()
    with torch.inference_mode():
        wanted, x = [], image(256, 288)
        for i, layer in enumerate(theirs.features):
            x = layer(x)
            if i % 2:
                wanted.append(nn.functional.layer_norm(x, x.shape[-1:]).permute(0, 3, 1, 2))
        assert same(ours(image(256, 288)), wanted, atol=1e-4)


@pytest.mark.parametrize("with_counts", [True, False])
def test_weights_of_torchvisions_resnet(tmp_path, with_counts):
    theirs = torchvision.models.resnet50(weights=None).eval()
    randomise(theirs)
    weights = {n: t for n, t in theirs.state_dict().items() if with_counts or "num_batches" not in n}
    torch.save(weights, tmp_path / "resnet50.pth")
    ours = build_backbone("resnet50", weights=tmp_path / "resnet50.pth").eval()
    with torch.inference_mode():
        x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(image(70, 101)))))
        wanted = []
        for layer in (theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4):
            wanted.append(x := layer(x))
        found = ours(image(70, 101))
    scale = [w.abs().max() for w in wanted]
    assert same(
        [f / s for f, s in zip(found, scale, strict=True)], [w / s for w, s in zip(wanted, scale, strict=True)], 1e-4
    )


@pytest.mark.parametrize("form", ["safetensors", "bin"])
def test_folders_of_hugging_face(tmp_path, form, capfd):
    tiny = SWIN_VARIANTS["tiny"]
    theirs = SwinForImageClassification(
        SwinConfig(
            embed_dim=tiny.embed_dim,
            depths=tiny.depths,
            num_heads=tiny.heads,
            window_size=tiny.window_size,
            num_labels=4,
        )
    ).eval()
    randomise(theirs)
    if form == "safetensors":
        theirs.save_pretrained(tmp_path)  # in the names that are published
    else:
        torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    capfd.readouterr()
    ours = build_backbone("tiny", weights=tmp_path).eval()
    assert capfd.readouterr() == ("", "")
    options = {"always_partition": True, "output_hidden_states_before_downsampling": True, "output_hidden_states": True}
    found, wanted = (n.swin(image(64, 64), **options).reshaped_hidden_states for n in (ours.body, theirs))
    assert len(found) == 5
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_a_resnet_of_hugging_face(tmp_path):
    theirs = ResNetForImageClassification(ResNetConfig()).eval()
    randomise(theirs)
    theirs.save_pretrained(tmp_path)
    ours = build_backbone("resnet50", weights=tmp_path).eval()
    x = theirs.resnet.embedder(image(40, 40))
    for stage, found in zip(theirs.resnet.encoder.stages, ours(image(40, 40)), strict=True):
        x = stage(x)
        assert torch.allclose(found / x.abs().max(), x / x.abs().max(), atol=1e-4)


def swin_weights() -> dict[str, torch.Tensor]:
    return original(build_backbone("tiny").body.state_dict())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda w: w.pop("layers.1.downsample.reduction.weight"), r"lack swin\.encoder\.layers\.1\.downsample\.reduct"),
        (lambda w: w.update(extra=torch.ones(1)), "have extra that this network has no place for"),
        (lambda w: w.update({"layers.0.blocks.0.mlp.fc1.bias": torch.ones(3)}), r"fc1.bias is \[3\] instead of \[64\]"),
        (lambda w: w.update({"patch_embed.proj.bias": torch.full((16,), torch.nan)}), "proj.* holds what is no number"),
        (lambda w: w.update({"patch_embed.proj.bias": torch.ones(16, dtype=torch.int64)}), "is of torch.int64"),
        (lambda w: w.update({"layers.0.blocks.0.attn.qkv.bias": torch.tensor(1.0)}), "attn.qkv.bias"),
    ],
)  # fmt: skip
def test_wrong_weights_are_told_in_one_sentence(tmp_path, change, told, capfd):
    weights = swin_weights()
    change(weights)
    torch.save(weights, tmp_path / "swin.pth")
    with pytest.raises(ValueError, match=told) as error:
        build_backbone("tiny", weights=tmp_path / "swin.pth")
    assert "\n" not in str(error.value) and len(str(error.value)) < 700 and str(tmp_path) not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_weights_of_another_network_or_none(tmp_path):
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "other.pth")
    for name in ("tiny", "resnet50"):
        with pytest.raises(ValueError, match="the weights do not fit: they lack"):
            build_backbone(name, weights=tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"cannot be read \(No such file"):
        build_backbone("tiny", weights=tmp_path / "none.pth")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"has no model.safetensors and no pytorch_model.bin"):
        build_backbone("tiny", weights=tmp_path / "empty")
    (tmp_path / "empty" / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(ValueError, match=r"model.safetensors: it is no safetensors file"):
        build_backbone("tiny", weights=tmp_path / "empty")
    two = tmp_path / "two"
    two.mkdir()
    for name in ("model-1.safetensors", "model-2.safetensors"):
        save_file({"a": torch.ones(1)}, two / name)
    with pytest.raises(ValueError, match="its files have a twice"):
        build_backbone("tiny", weights=two)


def test_unknown_names_and_options():
    with pytest.raises(ValueError, match=re.escape("no backbone 'vit'; there are tiny, swin_t")):
        build_backbone("vit")
    with pytest.raises(ValueError, match="resnet50 has no drop path"):
        build_backbone("resnet50", drop_path=0.3)
