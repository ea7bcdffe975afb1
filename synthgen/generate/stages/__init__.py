"""Plugin folder of stages: one file each, Sample in, Sample out. `build(plugin, options, **stage_options)` makes one
around a plugin of the folder that its `PLUGIN_PACKAGE` names. `DEFAULT_PLUGIN` is the plugin that needs no weights.

`is_result(before, after) -> bool` of the file says whether a sample `after` is what the stage made of a sample equal to
`before`. Then a shard that is made again keeps the row.

A stage with options of its own (`Job.stage_options`) declares them in a dataclass, in the light file
`_NAME_options.py`, and has `resolve_options(options, /, **stage_options) -> dict`. It is called once, where the job
begins, with the resolved options of the plugin. It returns its own options with everything that decides the bytes made
definite, or raises `SynthgenError`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # the command line imports this folder for the names of options, and must not import NumPy
    import numpy as np
    from numpy.typing import NDArray

    from synthgen.records.sample import Sample


class Stage(Protocol):
    """What a worker does with images. `process` may be called from two threads at once.

    Attributes:
        batch_size: preferred number of images per call.
    """

    @property
    def batch_size(self) -> int: ...

    def process(self, samples: Sequence[Sample], images: Sequence[NDArray[np.uint8]]) -> Iterator[Sample]:
        """Yield each sample, in order, with the stage's results.

        Args:
            samples: without an error, and with the height and width of their images.
            images: uint8 [H, W, 3] RGB each, of the original size.
        """
        ...

    def failed(self, sample: Sample) -> Sample:
        """The sample after `process` raised on it alone: each object that needed a result gets a flag."""
        ...
