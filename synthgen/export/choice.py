"""Which images an export has, and in which split: by a digest of their keys, so that the choice can be repeated."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterable, Sequence

from synthgen.errors import ArgumentError
from synthgen.export.options import ExportOptions


class ImageChoice:
    """Chooses images and their splits. A photograph is in the same split whatever the dataset, as its key decides.

    Args:
        options: `max_images`, `val`, `test` and `seed`.
        image_keys: reads the keys of all images; called if there is a `max_images`.
    """

    def __init__(self, options: ExportOptions, image_keys: Callable[[], Iterable[str]]) -> None:
        self._val, self._test, self._seed = options.val, options.test, options.seed
        self._limit: int | None = None
        self._left = options.max_images
        if options.max_images:
            least = heapq.nsmallest(options.max_images, (self._draw("subset", key) for key in image_keys()))
            self._limit = least[-1] if least else 0

    def has(self, image_key: str) -> bool:
        """Whether the export has the image of this key, `image_key`. To be asked once for each image, in order."""
        if self._limit is None:
            return True
        if self._left and self._draw("subset", image_key) <= self._limit:
            self._left -= 1  # two images may have one key
            return True
        return False

    def split(self, image_key: str, own: str) -> str:
        """The split of an image.

        Args:
            image_key: its key.
            own: the split of its layer.
        """
        if not self._val and not self._test:
            return own
        share = self._draw("split", image_key) / 2**64
        return "val" if share < self._val else "test" if share < self._val + self._test else "train"

    def _draw(self, purpose: str, image_key: str) -> int:
        text = f"{self._seed}/{purpose}/{image_key}".encode("utf-8", "replace")
        return int.from_bytes(hashlib.sha256(text).digest()[:8], "big")


def split_names(layers: Sequence[str], *, val: float, test: float) -> tuple[str, ...]:
    """The names of the splits: those of the layers, or train, val and test.

    Args:
        layers: names of the layers, "dataset/split/layer".
        val: share of the split "val".
        test: share of the split "test".

    Raises:
        ArgumentError: several splits cannot be divided again.
    """
    own = tuple(dict.fromkeys(layer.split("/")[1] for layer in layers))
    if not val and not test:
        return own
    if len(own) > 1:
        raise ArgumentError(
            f"val={val} and test={test} divide one split, and the layers are of {', '.join(own)}; leave them out"
        )
    return ("train", *(["val"] if val else []), *(["test"] if test else []))
