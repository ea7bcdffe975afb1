"""Masks of a trained network: their place in the image, batches, scores."""

from __future__ import annotations

import pytest
import torch
from fakes.tiny_lite import TINY, build_network
from torch import Tensor, nn

from synthgen.models.box_segmenter.inference import BoxMask, predict_masks

pytestmark = pytest.mark.usefixtures("one_thread")


class LeftHalf(nn.Module):
    """Finds the left half of each box, with the given logits inside and outside."""

    config = TINY

    def __init__(self, inside: float = 8.0, outside: float = -8.0) -> None:
        super().__init__()
        self.inside, self.outside = inside, outside

    def forward(self, crops: Tensor, boxes: Tensor) -> Tensor:
        side = crops.shape[-1] // 2
        centers = (torch.arange(side) + 0.5) / side
        x1, y1, x2, y2 = boxes[:, :, None].unbind(1)
        across = (centers > x1) & (centers < (x1 + x2) / 2)
        down = (centers > y1) & (centers < y2)
        found = down[:, :, None] & across[:, None, :]
        return torch.where(found, self.inside, self.outside)


def predict(network: nn.Module, size: tuple[int, int], *boxes: tuple[float, ...]) -> list[BoxMask]:
    image = torch.zeros(3, *size, dtype=torch.uint8)
    [found] = predict_masks(network, [image], [torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)], batch_size=4)
    return found


@pytest.mark.parametrize("box", [(20, 10, 60, 50), (0, 0, 40, 30), (70, 40, 100, 80), (3, 5, 97, 75), (50, 20, 58, 70)])
def test_a_mask_lies_where_the_network_saw_it(box: tuple[int, ...]) -> None:
    (mask,) = predict(LeftHalf(), (80, 100), box)
    x1, y1, x2, y2 = box
    assert (mask.left, mask.top) == (x1, y1) and mask.window.shape == (y2 - y1, x2 - x1)
    expected = torch.zeros_like(mask.window)
    expected[:, : (x2 - x1) // 2] = True
    overlap, union = (mask.window & expected).sum(), (mask.window | expected).sum()
    pixel = max(x2 - x1, y2 - y1) * 1.5 / 32  # of the logits
    assert overlap / union > 1 - 2 * pixel / min(x2 - x1, y2 - y1)


def test_a_mask_never_leaves_its_box() -> None:
    (mask,) = predict(LeftHalf(inside=5.0, outside=5.0), (80, 100), (20.5, 10.2, 60.1, 49.9))
    assert (mask.left, mask.top) == (20, 10) and mask.window.shape == (40, 41) and mask.window.all()


def test_where_nothing_is_likely_the_most_likely_pixels_are_the_mask() -> None:
    (mask,) = predict(LeftHalf(inside=-2.0, outside=-9.0), (80, 100), (20, 10, 60, 50))
    assert 0 < mask.window.sum() < mask.window.numel()
    assert mask.soft_iou < 0.2 and mask.stability_score <= 1


def test_an_unsure_network_in_half_precision_finds_the_most_likely_pixels_too() -> None:
    network = build_network()
    torch.nn.init.constant_(network.head.bias, -5)
    image = torch.randint(256, (3, 60, 80), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[5.0, 5, 40, 40], [10, 2, 60, 45], [50, 30, 79, 59]])
    [found] = predict_masks(network, [image], [boxes], batch_size=4, dtype=torch.bfloat16)
    assert all(mask.window.any() for mask in found)


def test_scores_of_sure_and_unsure_masks() -> None:
    (sure,) = predict(LeftHalf(), (80, 100), (20, 10, 60, 50))
    (unsure,) = predict(LeftHalf(inside=0.2, outside=-0.2), (80, 100), (20, 10, 60, 50))
    assert sure.soft_iou > 0.9 > 0.6 > unsure.soft_iou
    assert sure.stability_score > 0.9 > 0.5 > unsure.stability_score


def test_masks_do_not_depend_on_the_batch() -> None:
    network = build_network()
    torch.manual_seed(1)
    images = [torch.randint(256, (3, *size), dtype=torch.uint8) for size in ((50, 70), (90, 40), (33, 33))]
    boxes = [torch.tensor([[5.0, 5, 40, 40], [10, 2, 60, 45]]), torch.zeros(0, 4), torch.tensor([[1.0, 1, 30, 20]] * 3)]
    together = list(predict_masks(network, images, boxes, batch_size=4))
    assert [len(own) for own in together] == [2, 0, 3]
    for image, own, masks in zip(images, boxes, together, strict=True):
        for box, mask in zip(own, masks, strict=True):
            [[alone]] = predict_masks(network, [image], [box[None]], batch_size=1)
            assert torch.equal(alone.window, mask.window)
            assert alone.soft_iou == pytest.approx(mask.soft_iou, abs=1e-5)


def test_with_mirror_images_a_mirrored_photograph_has_the_mirrored_mask() -> None:
    network = build_network().eval()
    torch.manual_seed(0)
    image = torch.randint(0, 256, (3, 60, 80), dtype=torch.uint8)
    box = torch.tensor([[20.0, 10.0, 56.0, 50.0]])
    mirrored_box = torch.tensor([[80 - 56.0, 10.0, 80 - 20.0, 50.0]])

    def masks(mirror: bool) -> tuple[Tensor, Tensor]:
        [[one]] = predict_masks(network, [image], [box], batch_size=1, mirror=mirror)
        [[other]] = predict_masks(network, [image.flip(-1)], [mirrored_box], batch_size=1, mirror=mirror)
        return one.window, other.window.flip(-1)

    one, other = masks(mirror=True)
    assert (one == other).float().mean() > 0.999
    assert (masks(mirror=False)[0] != one).any(), "the mirror image has a say"
