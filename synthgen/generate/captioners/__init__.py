"""Plugin folder of captioners: one file each, its name is the `--captioner`.

`build`, `OPTIONS`, `resolve_options`, `NOTE_AFTER_JOB` and the light file `_NAME_weights.py` are as in the plugin
folder of segmenters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # the command line imports this folder for the names of options, and must not import NumPy
    import numpy as np
    from numpy.typing import NDArray

    from synthgen.records.sample import Caption


class Captioner(Protocol):
    """Boxes in, phrases out; batch first, stateless between calls. The box is a prompt on the whole image, not a crop.

    `caption` may be called from two threads at once, so that one batch is on the device while another's images are made
    ready: who has one device locks it for that part.

    Attributes:
        batch_size: images it likes to get at once; may change between calls (less memory than hoped for).
        source: what stands in `Caption.source`, e.g. "attributes", "ofa base".
    """

    source: str

    @property
    def batch_size(self) -> int: ...

    def caption(
        self,
        images: Sequence[NDArray[np.uint8]],
        boxes_xyxy: Sequence[NDArray[np.float32]],
        categories: Sequence[Sequence[str]],
        crowds: Sequence[Sequence[str]],
        top_k: int,
    ) -> Iterator[list[list[Caption]]]:
        """Yield for each image, in order, one list for each of its boxes, in order: captions, best first, none twice.

        Text, source and score are the captioner's to give; the rest is the stage's.

        Every caption is checked before it is stored (`generate.output_checks`): texts of at most `MAX_CAPTION_LENGTH`
        characters, a source, scores None or finite numbers of at most 0. The stage leaves out empty texts, shortens
        texts to 1,000 characters, and stores at most `top_k` captions of an object. What does not pass, or raises,
        gets the flag `captioner_failed`, as described for segmenters.

        Args:
            images: uint8 [H, W, 3] RGB each, of any sizes.
            boxes_xyxy: float32 [N, 4] each, absolute pixels of the original image, inside it, with an area; N may be 0.
            categories: the names of the boxes' categories, as the data set spells them; "" where it gives none.
            crowds: the categories of which an image shows more than is boxed (COCO iscrowd, LVIS not_exhaustive): there
                "the left one" may be false. A captioner that looks at pixels alone has no use for it, nor for
                `categories`.
            top_k: captions that each box shall have; at least 1. More may be given: what says the same is merged later.
        """
        ...
