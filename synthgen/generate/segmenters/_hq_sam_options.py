"""Options of HQ-SAM, without heavy imports: the command line makes flags from them."""

from __future__ import annotations

from dataclasses import dataclass

from synthgen.generate.segmenters._sam_options import SamOptions
from synthgen.plugin_options import option


@dataclass(frozen=True, kw_only=True)
class HqSamOptions(SamOptions):
    """Options of the segmenter `hq_sam`: those of `sam`, and one more."""

    hq_token_only: bool = option(
        False, help="Return the HQ mask alone instead of its sum with SAM's mask; for single, large objects"
    )


OPTIONS = HqSamOptions
