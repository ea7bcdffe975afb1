"""OFA's visual stem: torchvision's ResNet without the last stage."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from synthgen.models.ofa.resnet import ResNetStem

CLOSE = 1e-4


def apart(ours: torch.Tensor, theirs: torch.Tensor | np.ndarray) -> float:
    assert tuple(ours.shape) == tuple(theirs.shape)
    return float((ours - torch.as_tensor(theirs)).abs().max())


@pytest.mark.parametrize(("blocks", "name"), [((3, 4, 6), "resnet50"), ((3, 4, 23), "resnet101")])
def test_the_visual_stem_is_torchvisions_without_the_last_stage(blocks, name):
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    theirs = models.get_model(name).eval()
    theirs.layer4, theirs.avgpool, theirs.fc = (torch.nn.Identity() for _ in range(3))
    for part in theirs.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(part.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(part.running_var, 0.9, 1.1)
    ours = ResNetStem(blocks)
    state = {name: tensor for name, tensor in theirs.state_dict().items() if "num_batches" not in name}
    ours.load_state_dict(state, strict=True)
    images = torch.randn(1, 3, 50, 70)
    with torch.no_grad():
        seen = ours(images)
        assert seen.shape == (1, 1024, 4, 5)
        assert apart(seen.flatten(1), theirs(images)) < CLOSE * float(seen.abs().max())
