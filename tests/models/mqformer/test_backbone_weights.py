"""Weights of backbones: the original Swin's, torchvision's and Hugging Face's names, wrong files."""

from __future__ import annotations

import pytest
import torch
import torchvision
from fakes.backbone_inputs import all_close, random_images, randomize
from safetensors.torch import save_file
from torch import nn
from transformers import ResNetConfig, ResNetForImageClassification, SwinConfig, SwinForImageClassification

from synthgen.models.mqformer.backbone import SWIN_VARIANTS, build_backbone

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


def test_weights_in_the_names_of_the_original_swin(tmp_path):
    backbone = build_backbone("tiny").eval()
    randomize(backbone)
    weights = original(backbone.body.state_dict())
    assert "layers.3.blocks.1.attn.qkv.bias" in weights and not any("swin" in name for name in weights)
    torch.save({"model": weights}, tmp_path / "swin.pth")
    assert all_close(
        build_backbone("tiny", weights=tmp_path / "swin.pth").eval()(random_images(33, 200)),
        backbone(random_images(33, 200)),
    )
    for i in range(4):  # as the files of ImageNet are
        for part in ("weight", "bias"):
            del weights[f"norm{i}.{part}"]
    torch.save({"model": weights}, tmp_path / "swin.pth")
    fresh = build_backbone("tiny", weights=tmp_path / "swin.pth").eval()
    assert all(norm.weight.eq(1).all() and norm.bias.eq(0).all() for norm in fresh.body.hidden_states_norms.values())


def test_the_original_swin_is_torchvisions(tmp_path):
    """An implementation of others, at a size where it shifts its windows in every stage, as ours does."""
    theirs = torchvision.models.swin_t(weights=None).eval()
    randomize(theirs)
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
        wanted, x = [], random_images(256, 288)
        for i, layer in enumerate(theirs.features):
            x = layer(x)
            if i % 2:
                wanted.append(nn.functional.layer_norm(x, x.shape[-1:]).permute(0, 3, 1, 2))
        assert all_close(ours(random_images(256, 288)), wanted, atol=1e-4)


@pytest.mark.parametrize("with_counts", [True, False])
def test_weights_of_torchvisions_resnet(tmp_path, with_counts):
    theirs = torchvision.models.resnet50(weights=None).eval()
    randomize(theirs)
    weights = {n: t for n, t in theirs.state_dict().items() if with_counts or "num_batches" not in n}
    torch.save(weights, tmp_path / "resnet50.pth")
    ours = build_backbone("resnet50", weights=tmp_path / "resnet50.pth").eval()
    with torch.inference_mode():
        x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(random_images(70, 101)))))
        wanted = []
        for layer in (theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4):
            wanted.append(x := layer(x))
        found = ours(random_images(70, 101))
    scale = [w.abs().max() for w in wanted]
    assert all_close(
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
    randomize(theirs)
    if form == "safetensors":
        theirs.save_pretrained(tmp_path)  # in the names that are published
    else:
        torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    capfd.readouterr()
    ours = build_backbone("tiny", weights=tmp_path).eval()
    assert capfd.readouterr() == ("", "")
    options = {"always_partition": True, "output_hidden_states_before_downsampling": True, "output_hidden_states": True}
    found, wanted = (n.swin(random_images(64, 64), **options).reshaped_hidden_states for n in (ours.body, theirs))
    assert len(found) == 5
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_a_resnet_of_hugging_face(tmp_path):
    theirs = ResNetForImageClassification(ResNetConfig()).eval()
    randomize(theirs)
    theirs.save_pretrained(tmp_path)
    ours = build_backbone("resnet50", weights=tmp_path).eval()
    x = theirs.resnet.embedder(random_images(40, 40))
    for stage, found in zip(theirs.resnet.encoder.stages, ours(random_images(40, 40)), strict=True):
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
def test_wrong_weights_are_reported_in_one_sentence(tmp_path, change, told, capfd):
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
