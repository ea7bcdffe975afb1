"""Networks built from the `model` section of a manifest."""

from __future__ import annotations

from pathlib import Path

import pytest

from synthgen.checkpoints import build_network
from synthgen.dataloading.config import ModelConfig
from synthgen.errors import SynthgenError
from synthgen.models.box_segmenter.weights import TRAINED_WEIGHTS

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_text_encoder_that_learns_puts_a_name_into_one_sentence_at_a_time(tmp_path, monkeypatch):
    real, options = build_network.text_encoder, list[dict]()
    monkeypatch.setattr(
        real, "load_text_encoder", lambda _, **said: options.append(said) or real.build_tiny_text_encoder()
    )
    for learns in (False, True):
        model = ModelConfig(backbone="tiny", hidden_dim=32, text_encoder=f"{tmp_path}/clip", train_text_encoder=learns)
        (tmp_path / "clip").mkdir(exist_ok=True)
        build_network.build_from_config(model)
    assert options == [{"trainable": learns, "sample_template": learns} for learns in (False, True)]


@pytest.mark.parametrize("queries", ["mixed", "learnable", "conditional"])
def test_self_attention_and_the_beginning_of_boxes_are_as_the_manifest_says(queries):
    tiny = {"backbone": "tiny", "text_encoder": "tiny", "hidden_dim": 32, "encoder_layers": 1, "decoder_layers": 1}
    usual = build_network.build_from_config(ModelConfig(**tiny, queries=queries)).decoder
    assert usual.initialize_box_type is None and not usual.layers[0].joint_self_attention
    other = {"self_attention": "union"} if queries == "mixed" else {}
    other |= {"initialize_box_type": "mask2box"} if queries != "learnable" else {}
    model = ModelConfig(**tiny, queries=queries, **other)
    decoder = build_network.build_from_config(model).decoder
    assert decoder.initialize_box_type == other.get("initialize_box_type")
    assert decoder.layers[0].joint_self_attention is ("self_attention" in other)
    # A checkpoint says every key, also those that have no effect on its queries.
    assert ModelConfig.model_validate_json(model.model_dump_json()) == model


def test_the_large_network_with_a_base_size_text_encoder_has_nearly_the_papers_parameters(monkeypatch):
    """The paper states 286 M. Those of CLIP are known: 63.4 M of a base-size text encoder, 123.7 M of a large one."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    parameters = pytest.importorskip("parameters")
    counts = {
        text: parameters.count_parameters(ModelConfig(backbone="swin_l", text_encoder=text))
        for text in ("clip_b", "clip_l")
    }
    assert counts["clip_b"]["text_encoder"] == 63_428_096
    assert counts["clip_l"]["text_encoder"] == 123_650_304
    assert sum(counts["clip_b"].values()) / 1e6 == pytest.approx(286, rel=0.02)
    assert sum(counts["clip_l"].values()) / 1e6 == pytest.approx(347.8, abs=0.1)


def test_the_network_is_as_large_as_the_manifest_says():
    tiny = {"backbone": "tiny", "backbone_weights": "random", "text_encoder": "tiny", "hidden_dim": 32}
    built = build_network.build_from_config(
        ModelConfig(**tiny, num_feature_levels=5, encoder_dim_feedforward=96, encoder_layers=1, decoder_layers=1)
    )
    assert len(built.pixel_decoder.input_proj) == len(built.pixel_decoder.level_embed) == 5
    assert [layer.linear1.out_features for layer in built.pixel_decoder.layers] == [96]
    usual = build_network.build_from_config(ModelConfig(**tiny, encoder_layers=1, decoder_layers=1))
    assert len(usual.pixel_decoder.input_proj) == 4
    assert [layer.linear1.out_features for layer in usual.pixel_decoder.layers] == [128]


def timm_model(name: str, **said) -> ModelConfig:
    sizes = {"hidden_dim": 32, "encoder_layers": 1, "decoder_layers": 1, "text_encoder": "tiny"}
    return ModelConfig(backbone=f"timm/{name}", **{"backbone_weights": "random", **sizes, **said})


@pytest.mark.parametrize(
    ("name", "said", "message"),
    [
        ("convnext_atoo", {}, "timm has no network 'convnext_atoo'; did you mean 'convnext_atto'?; see model.backbone"),
        ("resnet18.a1_in2k", {}, "has no network 'resnet18.a1_in2k'; did you mean 'resnet18.a1_in1k'?"),
        ("vit_tiny_patch16_224", {}, "model.backbone timm/vit_tiny_patch16_224 has features of strides 16, and 4"),
        ("dla46_c", {"drop_path": 0.1}, "model.backbone timm/dla46_c has no drop path; take model.drop_path out"),
        ("resnet18", {"backbone_weights": "nowhere/x.pth"}, "nowhere/x.pth is not there; say where it is: model.backb"),
        ("resnet18", {"backbone_weights": "lite"}, "is no timm/resnet18: it is a box segmenter with tf_efficientnet_l"),
        ("resnet18", {"backbone_weights": "pretrained"}, "run: hf download timm/resnet18.a1_in1k --local-dir"),
    ],
)
def test_a_backbone_of_timm_that_cannot_be_built_is_one_sentence(tmp_path, monkeypatch, name, said, message):
    monkeypatch.setenv("SYNTHGEN_WEIGHTS", str(tmp_path))
    with pytest.raises(SynthgenError) as refused:
        build_network.build_from_config(timm_model(name, **said))
    assert message in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("backbone", "drop_path", "rate"), [("swin_t", None, 0.3), ("swin_t", 0.1, 0.1), ("resnet50", None, 0.0)]
)
def test_the_rate_of_drop_path(monkeypatch, backbone, drop_path, rate):
    said = []
    real = build_network.backbone
    monkeypatch.setattr(real, "build_backbone", lambda name, **options: said.append((name, options["drop_path"])))
    monkeypatch.setattr(build_network, "put_together", lambda *_, **__: None)
    build_network.build_from_config(
        ModelConfig(backbone=backbone, backbone_weights="random", text_encoder="tiny", drop_path=drop_path)
    )
    assert said == [(backbone, rate)]


def test_the_backbone_of_the_segmenter_that_comes_with_synthgen_needs_no_download():
    named = timm_model("tf_efficientnet_lite2", backbone_weights="lite")
    as_path = timm_model("tf_efficientnet_lite2", backbone_weights=str(TRAINED_WEIGHTS))
    first, second = (build_network.build_from_config(model).backbone.state_dict() for model in (named, as_path))
    assert all(value.equal(second[name]) for name, value in first.items())
    assert first["body.conv_stem.weight"].abs().max() > 0.1
