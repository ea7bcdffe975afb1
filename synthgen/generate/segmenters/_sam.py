"""Shared by SAM and HQ-SAM: batches of images, chunks of boxes, masks as runs from the device."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything.modeling import Sam
from torch import Tensor

from synthgen.generate.segmenters import MaskPrediction
from synthgen.generate.segmenters._sam_zoom import Crop, plan_zoom_crops
from synthgen.models.sam_forward import (
    decode_masks,
    encode_images,
    postprocess_logits,
    preprocess_images,
    resize_longest_side,
    scale_boxes,
)
from synthgen.models.sam_masks import run_edges, select_masks
from synthgen.oom import OomBatcher
from synthgen.records.rle import encode_run_boundaries

#: Full-resolution logits at a time, 4 bytes each. One mask of a huge photograph may exceed it.
MAX_LOGITS = {"cuda": 2**28, "cpu": 2**25}


@dataclass(frozen=True, slots=True)
class SamInput:
    """An image or a window of it, as the network's input.

    Attributes:
        resized_image: uint8 [h, w, 3], as of `sam_forward.resize_longest_side`.
        boxes_xyxy: float32 [N, 4], absolute pixels of the window.
        window: its position in the image.
        image_size: (height, width) of the image, in pixels.
    """

    resized_image: Tensor
    boxes_xyxy: NDArray[np.float32]
    window: Crop
    image_size: tuple[int, int]

    @property
    def resized_size(self) -> tuple[int, int]:
        """(height, width) of the network's input."""
        return self.resized_image.shape[0], self.resized_image.shape[1]


@dataclass(frozen=True, slots=True)
class SamMask:
    """What came off the device for one box: `edges` as of `rle.encode_run_boundaries`, the scores as of
    `sam_masks.SelectedMasks`.
    """

    edges: NDArray[np.int64]
    predicted_iou: float
    stability_score: float
    soft_iou: float
    evidence: float


class SamSegmenter:
    """See `Segmenter`.

    Args:
        network: on its device, in its precision.
        source: see `Segmenter`.
        scores_its_mask: whether the predicted IoU belongs to the returned mask (SAM) or to another (HQ-SAM).
        multimask: choose the best of three candidate masks instead of the single mask.
        zoom: prompt small boxes again on an enlarged window, and keep the better mask.
        oom_batcher: number of images and boxes on the device at once.
    """

    def __init__(
        self,
        network: Sam,
        *,
        source: str,
        scores_its_mask: bool,
        multimask: bool,
        zoom: bool,
        oom_batcher: OomBatcher,
    ) -> None:
        self.network, self.source, self.scores_its_mask = network, source, scores_its_mask
        self.multimask, self.zoom = multimask, zoom
        self.oom_batcher = oom_batcher
        self.side: int = network.image_encoder.img_size
        self.resize_pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="resize")

    @property
    def batch_size(self) -> int:
        """See `Segmenter`."""
        return self.oom_batcher.max_images

    def segment(
        self, images: Sequence[NDArray[np.uint8]], boxes_xyxy: Sequence[NDArray[np.float32]]
    ) -> Iterator[list[MaskPrediction]]:
        wanted = [i for i, boxes in enumerate(boxes_xyxy) if len(boxes)]
        whole = [Crop(0, 0, *images[i].shape[:2]) for i in wanted]
        masks = dict(
            zip(wanted, self._predict_windows(images, wanted, whole, [boxes_xyxy[i] for i in wanted]), strict=True)
        )
        if self.zoom:
            self._refine_small_boxes(images, boxes_xyxy, masks)
        for i, image in enumerate(images):
            yield [self._to_prediction(mask, *image.shape[:2]) for mask in masks.get(i, [])]

    def _to_prediction(self, mask: SamMask, height: int, width: int) -> MaskPrediction:
        own, sams = (mask.predicted_iou, None) if self.scores_its_mask else (None, mask.predicted_iou)
        rle = encode_run_boundaries(mask.edges, height, width)
        return MaskPrediction(rle, own, mask.stability_score, sams, mask.soft_iou)

    def _refine_small_boxes(
        self,
        images: Sequence[NDArray[np.uint8]],
        boxes_xyxy: Sequence[NDArray[np.float32]],
        masks: dict[int, list[SamMask]],
    ) -> None:
        """Prompt small boxes again on windows of their image; better masks replace those in `masks`."""
        work = [
            (i, crop, members) for i in masks for crop, members in plan_zoom_crops(boxes_xyxy[i], *images[i].shape[:2])
        ]
        at_once = self.batch_size  # may change during the loop
        for start in range(0, len(work), at_once):
            some = work[start : start + at_once]
            found = self._predict_windows(
                images,
                [i for i, _, _ in some],
                [crop for _, crop, _ in some],
                [crop.boxes_to_window(boxes_xyxy[i][members]) for i, crop, members in some],
            )
            for (i, _, members), closer in zip(some, found, strict=True):
                for member, mask in zip(members, closer, strict=True):
                    if mask.evidence > masks[i][member].evidence:
                        masks[i][member] = mask

    def _predict_windows(
        self,
        images: Sequence[NDArray[np.uint8]],
        which: Sequence[int],
        windows: Sequence[Crop],
        boxes_xyxy: Sequence[NDArray[np.float32]],
    ) -> list[list[SamMask]]:
        """The masks of the boxes of some windows. Images are resized without the device lock, the rest with it."""
        if not windows:
            return []
        resized = self.resize_pool.map(lambda i, window: self._resize(window.extract(images[i])), which, windows)
        views = [
            SamInput(small, boxes, window, images[i].shape[:2])
            for small, boxes, window, i in zip(resized, boxes_xyxy, windows, which, strict=True)
        ]
        return self.oom_batcher.run(self._forward, views)

    def _resize(self, image: NDArray[np.uint8]) -> Tensor:
        small = resize_longest_side(image, self.side)
        # From pinned memory, the copy to a GPU is asynchronous.
        return small.pin_memory() if self.network.device.type == "cuda" else small

    @torch.inference_mode()
    def _forward(self, views: list[SamInput]) -> list[list[SamMask]]:
        embeddings = encode_images(
            self.network, preprocess_images(self.network, [view.resized_image for view in views])
        )
        boxes = [torch.tensor(view.boxes_xyxy) for view in views]
        prompts = [
            scale_boxes(own, view.window.size, view.resized_size) for own, view in zip(boxes, views, strict=True)
        ]
        masks: list[list[SamMask]] = [[] for _ in views]
        for chunk in decode_masks(
            self.network, embeddings, prompts, chunk_size=self.oom_batcher.max_boxes, multimask_output=self.multimask
        ):
            start = 0
            for owner, members in groupby(chunk.image_indices):
                part = slice(start, start := start + len(list(members)))
                done = len(masks[owner])
                own = boxes[owner][done : done + part.stop - part.start]
                masks[owner] += self._masks_to_host(views[owner], chunk.logits[part], chunk.iou[part], own)
        return masks

    def _masks_to_host(self, view: SamInput, logits: Tensor, iou: Tensor, boxes_xyxy: Tensor) -> list[SamMask]:
        height, width = view.window.size
        at_once = max(
            1, MAX_LOGITS.get(logits.device.type, 2**25) // (max(height * width, self.side**2) * logits.shape[1])
        )
        masks = []
        for start in range(0, len(logits), at_once):
            part = slice(start, start + at_once)
            large = postprocess_logits(self.network, logits[part], view.resized_size, (height, width))
            found = select_masks(large, iou[part], boxes_xyxy[part].to(large.device), always_score=self.zoom)
            owner, place = run_edges(found.masks, view.window.top, view.window.left, view.image_size[0])
            evidence = found.iou if found.selection_score is None else found.selection_score
            scores = torch.stack([found.iou, found.stability, found.soft_iou, evidence])
            ends = np.searchsorted(owner.cpu().numpy(), np.arange(1, len(found.masks)))
            edges = np.split(place.cpu().numpy(), ends)
            masks += [SamMask(own, *row) for own, row in zip(edges, scores.T.tolist(), strict=True)]
        return masks
