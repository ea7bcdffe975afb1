"""Networks of timm: names, packages with weights, and weights for the features of a network."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from synthgen.dataloading.config import ModelConfig
from synthgen.models import timm_networks
from synthgen.models.timm_networks import (
    architecture,
    find_packaged_weights,
    hub_repo,
    list_networks,
    load_features,
    read_timm_weights,
)

pytestmark = pytest.mark.usefixtures("one_thread")

Weights = dict[str, torch.Tensor]


def whole_weights(name: str, seed: int = 0) -> Weights:
    torch.manual_seed(seed)
    return {key: value.clone() for key, value in timm.create_model(name).state_dict().items()}


def features_of(name: str) -> torch.nn.Module:
    return timm.create_model(name, features_only=True)


def test_names_of_the_registry_with_and_without_tags() -> None:
    names = list_networks()
    assert {"resnet18", "resnet18.a1_in1k", "tf_efficientnet_lite0", "convnext_tiny"} <= set(names)
    assert not [name for name in names if ":" in name or "/" in name]
    assert all(ModelConfig(backbone=f"timm/{name}") for name in names), "a manifest can name each"
    assert architecture("resnet18.a1_in1k") == architecture("resnet18") == "resnet18"


def test_repositories_on_the_hub() -> None:
    assert hub_repo("resnet18") == hub_repo("resnet18.a1_in1k") == "timm/resnet18.a1_in1k"
    assert hub_repo("resnet18.tv_in1k") == "timm/resnet18.tv_in1k"
    assert hub_repo("selecsls42") is None, "its weights are not published"


def test_only_networks_with_a_package_have_packaged_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_packaged_weights("resnet18") is None
    monkeypatch.setattr(timm_networks, "PACKAGED_WEIGHTS", {})
    assert find_packaged_weights("tf_efficientnet_lite0") is None


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto"])
def test_weights_of_a_classifier_fit_its_features(tmp_path: Path, name: str) -> None:
    """timm renames some layers for the features: `stages.0` is `stages_0`."""
    weights, features = whole_weights(name), features_of(name)
    save_file(weights, tmp_path / "model.safetensors")
    load_features(features, name, read_timm_weights(name, tmp_path))
    found = {key.replace(".", "_"): value for key, value in features.state_dict().items()}
    given = {key.replace(".", "_"): value for key, value in weights.items()}
    assert found and all(torch.equal(value, given[key]) for key, value in found.items())


def test_weights_in_half_precision_and_with_another_head_are_read(tmp_path: Path) -> None:
    weights = {
        key: value.half() if value.is_floating_point() else value for key, value in whole_weights("resnet18").items()
    }
    weights["fc.weight"] = torch.zeros(5, 512)
    torch.save(weights, tmp_path / "resnet18.pth")
    features = features_of("resnet18")
    load_features(features, "resnet18", read_timm_weights("resnet18", tmp_path / "resnet18.pth"))
    assert features.state_dict()["conv1.weight"].dtype == torch.float32
    assert torch.equal(features.state_dict()["conv1.weight"], weights["conv1.weight"].float())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.pop("layer1.0.conv1.weight"), r"does not fit the network: lacks layer1\.0\.conv1\.weight"),
        (lambda w: w.update({"extra\n": torch.ones(1)}), r"has unknown extra\\n"),
        (lambda w: w.update({"conv1.weight": torch.ones(3)}), r"conv1\.weight is \[3\] instead of \[64, 3, 7, 7\]"),
        (lambda w: w.update({"bn1.weight": torch.full((64,), torch.nan)}), r"not finite: bn1\.weight"),
        (lambda w: w.update({"bn1.bias": torch.ones(64, dtype=torch.int64)}), r"bn1\.bias is \[64\] of torch\.int64"),
        (lambda w: w.update({"conv1_weight": w["conv1.weight"].clone()}), "has the weights conv1_weight twice"),
        (lambda w: w.update({"bn1.running_var": torch.zeros(()).expand(64)}), "without as many numbers"),
        (lambda w: w.update({"bn1.num_batches_tracked": torch.ones(9, dtype=torch.int64)}), None),
    ],
)  # fmt: skip
def test_wrong_weights_are_reported_in_one_sentence(change: Callable[[Weights], object], said: str | None) -> None:
    weights = whole_weights("resnet18")
    change(weights)
    if said is None:  # a counter that nothing uses
        return load_features(features_of("resnet18"), "resnet18", weights)
    with pytest.raises(ValueError, match=said) as refused:
        load_features(features_of("resnet18"), "resnet18", weights)
    assert str(refused.value).isprintable() and len(str(refused.value)) < 700
    return None


class Exploit:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("executed"),)


def test_a_file_that_executes_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({"conv1.weight": Exploit()}))
    torch.save({"conv1.weight": Exploit()}, tmp_path / "archive.pth")
    for name in ("resnet18", "tf_efficientnet_lite0"):
        for path in (tmp_path, tmp_path / "pytorch_model.bin", tmp_path / "archive.pth"):
            with pytest.raises(ValueError, match=re.compile("no PyTorch checkpoint|not executed here")):
                read_timm_weights(name, path)
    assert not (tmp_path / "executed").exists()


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    for name in ("resnet18", "tf_efficientnet_lite0"):
        with pytest.raises(ValueError, match=r"^it cannot be read \(No such file"):
            read_timm_weights(name, tmp_path / "none.pth")
