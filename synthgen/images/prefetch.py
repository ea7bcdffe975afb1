"""Images decoded ahead of need on threads, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from synthgen.images.decode import ImageError, find_image, load_rgb, read_image_header
from synthgen.records.sample import Sample

#: Maximum bytes of all images that are being decoded or waiting.
PREFETCH_BYTES = 512 * 2**20


def prefetch_images(
    samples: Iterable[Sample], root: Path, *, num_threads: int
) -> Iterator[tuple[Sample, NDArray[np.uint8] | ImageError | None]]:
    """Pair each sample with its pixels, in order, decoding ahead on threads.

    A sample that already has an error is passed through with None. At most `2 * threads` images, and at most
    `PREFETCH_BYTES` of pixels (or one image), are in flight. Closing the iterator cancels the rest.

    Args:
        samples: drawn from as threads become free.
        root: image folder of the dataset.
        num_threads: images decoded at once.
    """

    def load(sample: Sample) -> NDArray[np.uint8] | ImageError | None:
        if sample.error is not None:
            return None
        try:
            return load_rgb(find_image(root, sample.file_name), sample.height, sample.width)
        except ImageError as why:
            return why

    def cost(sample: Sample) -> int:
        """Bytes of its pixels. The sample's size can be trusted: a file of another size is not decoded."""
        if sample.error is not None:
            return 0
        if sample.height and sample.width:
            return 3 * sample.height * sample.width
        try:
            height, width, _ = read_image_header(find_image(root, sample.file_name))
        except ImageError:
            return 0
        return 3 * height * width

    with ThreadPoolExecutor(num_threads, thread_name_prefix="decode") as pool:
        yield from _prefetch(samples, lambda s: pool.submit(load, s), cost, max_in_flight=2 * num_threads)


def _prefetch(
    samples: Iterable[Sample],
    submit: Callable[[Sample], Future[NDArray[np.uint8] | ImageError | None]],
    cost: Callable[[Sample], int],
    *,
    max_in_flight: int,
) -> Iterator[tuple[Sample, NDArray[np.uint8] | ImageError | None]]:
    waiting: deque[tuple[Sample, Future[NDArray[np.uint8] | ImageError | None], int]] = deque()
    held = 0

    def take() -> tuple[Sample, NDArray[np.uint8] | ImageError | None]:
        """The first one. No variable may keep its pixels in memory while the next ones are decoded."""
        nonlocal held
        first, future, size = waiting.popleft()
        held -= size
        return first, future.result()

    try:
        for sample in samples:
            more = cost(sample)
            while waiting and (len(waiting) >= max_in_flight or held + more > PREFETCH_BYTES):
                yield take()
            waiting.append((sample, submit(sample), more))
            held += more
        while waiting:
            yield take()
    finally:
        for _, future, _ in waiting:
            future.cancel()
