"""Options of `lite`, without heavy imports: the command line makes flags from them."""

from __future__ import annotations

from dataclasses import dataclass

from synthgen.plugin_options import ModelOptions, option


@dataclass(frozen=True, kw_only=True)
class LiteOptions(ModelOptions):
    """Options of the segmenter `lite`."""

    checkpoint: str = option(
        "",
        runtime=True,
        flag=True,
        metavar="PATH",
        help="Weights: a checkpoint of `synthgen train` with box_segmenter:, or a .safetensors file of one (default: "
        "the weights that come with synthgen)",
    )
    mirror: bool = option(False, help="Look at each crop and at its mirror image: better masks in twice the time")


OPTIONS = LiteOptions
