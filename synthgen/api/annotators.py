"""Segmenters and captioners on single images: boxes in, masks or captions out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from synthgen import plugins
from synthgen.api.arguments import PathLike, caption_options
from synthgen.errors import ArgumentError, SynthgenError, shorten_value
from synthgen.generate.auto_choice import choose_plugin
from synthgen.generate.output_checks import PluginError
from synthgen.images.image_argument import ImageInput, as_rgb
from synthgen.plugin_options import OptionValue
from synthgen.records.box_argument import check_boxes_xyxy
from synthgen.records.boxes import xyxy_to_xywh
from synthgen.records.rle import decode_mask, rle_area
from synthgen.records.rle_ops import empty_rle
from synthgen.records.sample import Annotation, Caption, Rle, Sample

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from synthgen.generate.stages import Stage


@dataclass(frozen=True, slots=True)
class Mask:
    """The mask of one box.

    Attributes:
        rle: COCO compressed run-length encoding, of the image's size.
        box_xyxy: the prompt: (x1, y1, x2, y2) in absolute pixels, clipped to the image.
        source: what drew it, such as "sam vit_h".
        predicted_iou: in [0, 1]; the segmenter's own score; None if it gives none.
        stability_score: in [0, 1]; IoU of the masks at a higher and a lower threshold; None if it gives none.
        soft_iou: in [0, 1]; the IoU that the pixel probabilities expect; None if there are none.
        box_iou: in [0, 1]; IoU of the mask's tight box with the prompt. 0 for an empty mask.
    """

    rle: Rle = field(repr=False)
    box_xyxy: tuple[float, float, float, float]
    source: str
    predicted_iou: float | None = None
    stability_score: float | None = None
    soft_iou: float | None = None
    box_iou: float = 0.0

    @property
    def mask(self) -> NDArray[np.bool_]:
        """The pixels: bool [H, W], decoded anew at each access."""
        return decode_mask(self.rle)

    @property
    def area(self) -> int:
        """Number of pixels; 0 if the segmenter found nothing in the box."""
        return rle_area(self.rle)


class Segmenter:
    """A box-prompted segmenter, loaded once.

    Masks are those of `generate_masks` for the same image and boxes.

    Attributes:
        name: the plugin; with "auto", the one that was chosen.
        options: all its options.
        choice: why "auto" chose it; "" if you named it.
    """

    def __init__(self, name: str = "auto", **options: OptionValue) -> None:
        """Load a segmenter.

        Args:
            name: a segmenter of synthgen such as "sam", a module of your own ("package.module"), or "auto": the best
                one whose weights are on this machine. Nothing is downloaded for "auto".
            **options: its options, such as `variant="vit_h"` or `device="cuda"`.

        Raises:
            SynthgenError: no such segmenter or option, or the weights are missing.
        """
        self.name, self.options, self.choice = _resolve("masks", name, options)
        self._stage = _build_stage("masks", self.name, self.options)

    def __repr__(self) -> str:
        return f"<Segmenter {self.name}>"

    def predict(self, image: ImageInput, boxes_xyxy: ArrayLike) -> list[Mask]:
        """Draw a mask for each box of an image.

        Args:
            image: uint8 [H, W, 3] RGB, an image of Pillow, or a path. Of the last two, EXIF orientation is applied.
            boxes_xyxy: integers or floats [N, 4], (x1, y1, x2, y2) in absolute pixels of the upright image. A part
                beyond the image is cut off. N may be 0.

        Returns:
            One mask for each box, in order, of the image's size.

        Raises:
            ArgumentError: the image or a box is not valid.
            SynthgenError: the segmenter returned something that is not a mask.
        """
        pixels, boxes, sample = _as_sample(image, boxes_xyxy)
        done = _run_stage(self._stage, self.name, sample, pixels)
        return [
            Mask(
                rle=a.segmentation or empty_rle(sample.height, sample.width),
                box_xyxy=box,
                source=a.mask_source or self.name,
                predicted_iou=a.predicted_iou,
                stability_score=a.stability_score,
                soft_iou=a.soft_iou,
                box_iou=a.box_iou or 0.0,
            )
            for a, box in zip(done.annotations, boxes, strict=True)
        ]


class Captioner:
    """A captioner of boxes, loaded once.

    Captions are those of `generate_captions` for the same image, boxes and categories.

    Attributes:
        name: the plugin; with "auto", the one that was chosen.
        options: all its options; stage_options: those that all captioners share.
        choice: why "auto" chose it; "" if you named it.
    """

    def __init__(
        self,
        name: str = "auto",
        *,
        top_k: int | None = None,
        min_score: float | None = None,
        forbidden: PathLike = "",
        **options: OptionValue,
    ) -> None:
        """Load a captioner.

        Args:
            name: a captioner of synthgen such as "ofa", a module of your own ("package.module"), or "auto".
            top_k: maximum number of captions of a box. None = 5.
            min_score: captions below it get the reason `low_score`; a mean token log-probability, at most 0.
            forbidden: words with commas between them, or a file of words; captions with one get the reason
                `forbidden_word`.
            **options: its options, such as `checkpoint="weights/ofa-base"`.

        Raises:
            ArgumentError: `top_k`, `min_score` or `forbidden` is not valid.
            SynthgenError: no such captioner or option, or the weights are missing.
        """
        given = caption_options(top_k, min_score, forbidden)
        self.name, self.options, self.choice = _resolve("captions", name, options)
        stage: Any = plugins.load_plugin("generate.stages", "captions")
        self.stage_options: dict[str, Any] = stage.resolve_options(self.options, **given)
        self._stage = _build_stage("captions", self.name, self.options, **self.stage_options)

    def __repr__(self) -> str:
        return f"<Captioner {self.name}>"

    def predict(
        self, image: ImageInput, boxes_xyxy: ArrayLike, categories: Sequence[str] | None = None
    ) -> list[list[Caption]]:
        """Write captions for each box of an image.

        Args:
            image: see `Segmenter.predict`.
            boxes_xyxy: see `Segmenter.predict`.
            categories: the name of each box's category, [N]. With it, `category_match` of a caption is known.

        Returns:
            For each box, in order, its captions, best first. A list is empty if the captioner wrote nothing.

        Raises:
            ArgumentError: the image, a box or the categories are not valid.
            SynthgenError: the captioner returned something that is not a caption.
        """
        pixels, _, sample = _as_sample(image, boxes_xyxy, categories)
        return [list(a.captions) for a in _run_stage(self._stage, self.name, sample, pixels).annotations]


def _resolve(stage: str, name: str, options: Mapping[str, OptionValue]) -> tuple[str, dict[str, Any], str]:
    """The plugin, its complete options, and why `auto` chose it."""
    if not isinstance(name, str):
        raise ArgumentError(f"name={shorten_value(name)} is not a text; give the name of a plugin, or 'auto'")
    stage_module: Any = plugins.load_plugin("generate.stages", stage)
    choice = choose_plugin(name, options, stage=stage)
    resolved = plugins.resolve_options(stage_module.PLUGIN_PACKAGE, choice.plugin, choice.options)
    return plugins.normalize_name(choice.plugin), resolved, choice.sentence


def _build_stage(stage: str, plugin: str, options: dict[str, Any], **stage_options: Any) -> Stage:
    module: Any = plugins.load_plugin("generate.stages", stage)
    built: Stage = module.build(plugin, options, **stage_options)
    return built


def _as_sample(
    image: ImageInput, boxes_xyxy: ArrayLike, categories: Sequence[str] | None = None
) -> tuple[NDArray[np.uint8], list[tuple[float, float, float, float]], Sample]:
    """The pixels, the clipped boxes, and both as the sample that a stage takes."""
    pixels = as_rgb(image)
    height, width = pixels.shape[:2]
    boxes = check_boxes_xyxy(boxes_xyxy, height, width)
    names = [""] * len(boxes) if categories is None else list(categories)
    if isinstance(categories, str) or len(names) != len(boxes) or not all(isinstance(name, str) for name in names):
        raise ArgumentError(
            f"categories={shorten_value(categories)} is not valid; give a list of {len(boxes)} names, one for each box"
        )
    annotations = tuple(
        Annotation(number, (x, y, w, h), name)
        for number, ((x, y, w, h), name) in enumerate(zip(xyxy_to_xywh(boxes).tolist(), names, strict=True))
    )
    corners = [(x1, y1, x2, y2) for x1, y1, x2, y2 in boxes.tolist()]
    return pixels, corners, Sample(0, "", "", height, width, annotations)


def _run_stage(stage: Stage, plugin: str, sample: Sample, pixels: NDArray[np.uint8]) -> Sample:
    try:
        (done,) = stage.process([sample], [pixels])
    except PluginError as why:
        raise SynthgenError(f"plugin '{plugin}' returned what its protocol forbids: {why}; fix the plugin") from None
    return done
