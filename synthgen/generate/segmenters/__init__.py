"""Plugin folder of segmenters: one file each, its name is the `--segmenter`. A plugin has `build`, in one of two ways.

1. `build(options)` with `OPTIONS`, a frozen dataclass whose fields are made by `synthgen.plugin_options.option`: type,
   default and help of each option. All plugins of synthgen are written so. Options with a flag of the command line
   (`flag=True`) stand in a light file `_NAME_options.py`; all others need `-O name=value`.
2. `build(*, option=default, ...)` with keyword options, and no `OPTIONS`: the short way for a module of your own.

Options that say only where and how fast (`runtime=True`; with keywords, the names in
`plugin_options.KEYWORD_RUNTIME_OPTIONS`: `device`, `batch_size`, ...) stay out of a job's recipe.

A plugin may also have `resolve_options`. It is called once, where the job begins, with all options. With `OPTIONS` it
takes and returns the dataclass, else it takes keywords and returns a dict. What decides the bytes is definite in the
result (which weights, by their SHA-256). It raises `SynthgenError` for options that make no sense.

A plugin may have a text `NOTE_AFTER_JOB`: the command prints it after the job. It says what the masks are worth.

A plugin with weights may have a light file `_NAME_weights.py`, which imports no network. Then `--segmenter auto` can
choose the plugin (`generate.auto_choice`). The file has:

- `RANK`: {"cpu": number, "cuda": number}. The plugin with the highest rank on the device is chosen.
- `list_local_weights() -> list[LocalWeights]`: the weights on this machine, the most accurate first and the fastest
  last; [] if there are none. On CUDA the first are used, else the last. It downloads nothing, and it may name weights
  that `resolve_options` refuses later: these are not chosen.
- `how_to_get(options) -> str`: a clause that says how to get the weights that a recipe's options need, or any weights
  if there are no options; "" if the user cannot get them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:  # the command line imports this folder for the names of options, and must not import NumPy
    import numpy as np
    from numpy.typing import NDArray

    from synthgen.records.sample import Rle


class MaskPrediction(NamedTuple):
    """One mask for one box.

    Attributes:
        rle: of the original image's size; of area 0 where nothing was found.
        predicted_iou: in [0, 1]; the segmenter's own score of this very mask; None where it gives none.
        stability_score: in [0, 1]; IoU of the masks at a higher and a lower threshold; None where it gives none.
        sam_predicted_iou: in [0, 1]; see `Annotation`; None but for HQ-SAM.
        soft_iou: in [0, 1]; see `Annotation`; None where there are no pixel probabilities.
    """

    rle: Rle
    predicted_iou: float | None
    stability_score: float | None
    sam_predicted_iou: float | None = None
    soft_iou: float | None = None


class Segmenter(Protocol):
    """Boxes in, masks out; batch first, stateless between calls.

    `segment` may be called from two threads at once, so that one batch is on the device while another's images are made
    ready or its masks packed: who has one device locks it for that part.

    Attributes:
        batch_size: images it likes to get at once; may change between calls (less memory than hoped for).
        source: what stands in `Annotation.mask_source`, e.g. "grabcut", "sam vit_h".
    """

    source: str

    @property
    def batch_size(self) -> int: ...

    def segment(
        self, images: Sequence[NDArray[np.uint8]], boxes_xyxy: Sequence[NDArray[np.float32]]
    ) -> Iterator[list[MaskPrediction]]:
        """Yield for each image, in order, one prediction for each of its boxes, in order.

        Every prediction is checked before it is stored (`generate.output_checks`): a `MaskPrediction` with an `Rle` of
        the image's size, whose runs fill that size; scores None or finite numbers in [0, 1]. If one does not pass, or
        if this raises, the batch is run again image by image. An image that still fails gets the flag
        `segmenter_failed` and the reason, and the others are kept. That holds for SystemExit, too. Whoever ends the
        process itself (`os._exit`, a segmentation fault) ends the run, except under `--engine ray`.

        Args:
            images: uint8 [H, W, 3] RGB each, of any sizes.
            boxes_xyxy: float32 [N, 4] each, absolute pixels of the original image, inside it, with an area; N may be 0.
        """
        ...
