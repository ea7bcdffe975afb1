"""Predict objects in an image file: a drawing and JSON."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthgen.checkpoints.checkpoint import NO_MASKS_WARNING
from synthgen.devices import check_device_options
from synthgen.errors import SynthgenError, escape_control_chars
from synthgen.evaluation import postprocess
from synthgen.evaluation.metrics import Detection
from synthgen.evaluation.network_predictor import DEFAULT_THRESHOLD, Predictor, clean_prompts
from synthgen.evaluation.prediction_pictures import draw_found
from synthgen.evaluation.query_shares import compute_shares, format_shares, query_kind
from synthgen.evaluation.results import printable_json
from synthgen.images.decode import ImageError, load_rgb
from synthgen.records.boxes import xyxy_to_xywh
from synthgen.records.sample import Rle
from synthgen.storage.atomic import atomic_write
from synthgen.visualize.drawing import save_png, shorten_text

#: A URL after conversion to a path.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)

#: Limits of the printed list: objects, characters of a text.
_MAX_PRINTED_DETECTIONS, _MAX_PROMPT_CHARS = 20, 80


@dataclass(frozen=True, slots=True, eq=False)
class PredictResult:
    """The result for one image.

    Attributes:
        texts: the prompts.
        detections: best first; labels are indices into `texts`.
        best_scores: for each text the best score, below the threshold too; for an empty mask the label's probability.
        empty_masks: for each text whether all candidate masks are empty, so that no threshold detects it.
        has_learned_masks: whether the network was ever trained with masks. If not, only boxes are detected, and scores
            are label probabilities.
        image_path, json_path: the files written.
        replaced: whether files of another prediction were overwritten.
        num_conditional: the number of conditional queries; they come first.
    """

    texts: tuple[str, ...]
    detections: tuple[Detection, ...]
    best_scores: tuple[float, ...]
    empty_masks: tuple[bool, ...]
    has_learned_masks: bool
    image_path: Path
    json_path: Path
    replaced: bool = False
    num_conditional: int = 0

    def format_lines(self, threshold: float) -> list[str]:
        """The lines to print.

        Args:
            threshold: the score threshold of the call, in [0, 1]; the line for "nothing found" names it.
        """
        lines = [
            f"{one.score:.2f}  {shorten_text(self.texts[one.label], _MAX_PROMPT_CHARS)}"
            for one in self.detections[:_MAX_PRINTED_DETECTIONS]
        ]
        if len(self.detections) > _MAX_PRINTED_DETECTIONS:
            lines.append(f"... and {len(self.detections) - _MAX_PRINTED_DETECTIONS:,} more")
        if not self.detections:
            lines.append(self._explain_no_detections(threshold))
        if not self.has_learned_masks:
            lines.append(NO_MASKS_WARNING)
        if self.replaced:
            lines.append(
                "replaced an earlier one that was different (another image of that name, say); --out FOLDER keeps both"
            )
        return [*lines, str(self.image_path), str(self.json_path)]

    def format_shares(self) -> list[str]:
        """Which kind of query found how many of the detections, in a line; none without detections."""
        kinds = Counter(("objects", query_kind(one.query, self.num_conditional)) for one in self.detections)
        return list(format_shares(compute_shares(kinds)))

    def _explain_no_detections(self, threshold: float) -> str:
        """Explain in a sentence why nothing was detected."""
        all_empty = all(self.empty_masks)
        score, text = max(
            (score, text)
            for score, text, empty in zip(self.best_scores, self.texts, self.empty_masks, strict=True)
            if empty == all_empty
        )
        what = f"{score:.2g}, {shorten_text(text, _MAX_PROMPT_CHARS)}"
        if all_empty:
            return (
                f"no mask has a pixel, whatever --threshold; the likeliest label is {what}: the network is to learn on"
            )
        return f"nothing reaches {threshold:g}; the best is {what}: lower --threshold to see it"


def predict_file(
    image_path: Path,
    prompts: Sequence[str],
    checkpoint_path: Path,
    *,
    out: Path = Path("predictions"),
    threshold: float = DEFAULT_THRESHOLD,
    text_encoder: str | None = None,
    device: str = "auto",
    precision: str = "fp32",
    short: int | None = None,
    long: int | None = None,
    color_by: str = "object",
) -> PredictResult:
    """Detect objects in an image file, and write NAME.found.png and NAME.found.json (photo.jpg.found.png).

    Args:
        image_path: an image file.
        prompts: names or phrases; none = all category names of the checkpoint.
        checkpoint_path: a checkpoint of `synthgen train`.
        out: folder of both files.
        threshold: minimum score.
        text_encoder: replaces the path in the checkpoint.
        device: see `synthgen.devices`.
        precision: see `synthgen.devices`.
        short: shorter side of the network's input, in pixels; None = that of the evaluation in training.
        long: maximum of the longer side, in pixels; None = that of the evaluation in training.
        color_by: see `prediction_pictures.draw_found`.

    Raises:
        SynthgenError: the image or the checkpoint cannot be read; a file cannot be written; there are no prompts; or
            `short` is larger than `long`.
    """
    check_device_options(device, precision, 1)
    asked = clean_prompts(prompts)
    if "" in asked:
        raise SynthgenError("a prompt is empty; say what to look for, or give none for all names that were learned")
    pixels = _load_image(image_path)
    predictor = Predictor.from_checkpoint(
        checkpoint_path, text_encoder=text_encoder, device=device, precision=precision, short=short, long=long
    )
    held = predictor.checkpoint
    texts = asked or held.category_names
    if not texts:
        raise SynthgenError(f"{checkpoint_path} has learned no names of categories, only phrases; say what to look for")
    seen = predictor.look(pixels, texts)
    likely = postprocess.boxes(seen, every_text=True)
    every = postprocess.instances(seen, every_text=True) if held.has_learned_masks else likely
    # The last one of each text wins; it has the best score.
    best = {one.label: one.score for one in (*reversed(likely), *reversed(every))}
    there = {one.label for one in every}
    done = PredictResult(
        texts=texts,
        detections=tuple(one for one in every if one.score >= threshold),
        best_scores=tuple(best[label] for label in range(len(texts))),
        empty_masks=tuple(label not in there for label in range(len(texts))),
        has_learned_masks=held.has_learned_masks,
        image_path=out / f"{image_path.name}.found.png",
        json_path=out / f"{image_path.name}.found.json",
        num_conditional=seen.num_conditional,
    )
    drawn = draw_found(
        pixels, done.detections, texts, _footer(image_path, done, held.step),
        num_conditional=seen.num_conditional, color_by=color_by,
    )  # fmt: skip
    content = printable_json(_as_json(image_path, pixels, done, checkpoint_path, held.step))
    done = replace(done, replaced=_has_other_content(done.json_path, content))
    save_png(done.image_path, drawn)
    with atomic_write(done.json_path, remedy="choose another --out") as temporary:
        temporary.write_text(content, encoding="utf-8")
    return done


def _load_image(image: Path) -> NDArray[np.uint8]:
    try:
        if image.is_dir():
            raise SynthgenError(f"image {image} is a folder; name one of the images in it")
        if image.is_file():
            return load_rgb(image)
        problem = "no regular file, but a device or a pipe" if image.exists() else "no such file"
    except (ImageError, OSError, ValueError) as why:  # ValueError: a null character in the path
        problem = str(why) if isinstance(why, ImageError) else "its name cannot be used"
    if address := _URL.fullmatch(str(image)):
        raise SynthgenError(f"{address[1]}://{address[2]} is an address, and predict reads files; download it first")
    raise SynthgenError(f"image {image}: {problem}; name another")


def _has_other_content(path: Path, content: str) -> bool:
    """Whether a file with other content exists."""
    try:
        return path.is_file() and path.read_bytes() != content.encode()
    except OSError:
        return True


def _footer(image: Path, result: PredictResult, step: int) -> str:
    boxes = "" if result.has_learned_masks else "   boxes alone: it has never learned a mask"
    return f"{escape_control_chars(image.name)}   {len(result.detections)} found   after {step:,} steps{boxes}"


def _as_json(
    image: Path, pixels: NDArray[np.uint8], result: PredictResult, checkpoint: Path, step: int
) -> dict[str, Any]:
    """In the format of COCO results, with names instead of ids; without masks if the network was not trained with
    any.
    """
    return {
        "image": image.name,
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "checkpoint": checkpoint.name,
        "step": step,
        "asked": [
            {"text": text, "best": best, "empty": empty}
            for text, best, empty in zip(result.texts, result.best_scores, result.empty_masks, strict=True)
        ],
        "found": [
            {
                "text": result.texts[one.label],
                "score": one.score,
                "query": query_kind(one.query, result.num_conditional),
                "bbox": xyxy_to_xywh(one.box_xyxy).tolist(),
                **_segmentation(one.mask),
            }
            for one in result.detections
        ],
    }


def _segmentation(mask: Rle | None) -> dict[str, Any]:
    return {} if mask is None else {"segmentation": {"size": list(mask.size), "counts": mask.counts.decode("ascii")}}
