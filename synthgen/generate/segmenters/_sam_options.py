"""Options of SAM, without heavy imports: the command line makes flags from them."""

from __future__ import annotations

from dataclasses import dataclass

from synthgen.plugin_options import ModelOptions, option


@dataclass(frozen=True, kw_only=True)
class SamOptions(ModelOptions):
    """Options of the segmenter `sam`."""

    variant: str = option(
        "", flag=True, metavar="vit_b|vit_l|vit_h", help="Size of the model (default: the checkpoint's, else vit_h)"
    )
    checkpoint: str = option(
        "",
        runtime=True,
        flag=True,
        metavar="PATH",
        help="Weights (default: the official ones, downloaded once to $SYNTHGEN_WEIGHTS or ./weights)",
    )
    compile: bool = option(
        False, runtime=True, flag=True, help="torch.compile the encoder: minutes at the start, some percent faster"
    )
    multimask: bool = option(
        False, flag=True, help="Choose the best of three candidates by evidence, instead of the single mask"
    )
    zoom: bool = option(False, flag=True, help="Prompt small boxes again on an enlarged part of the image")
    self_test: bool = option(
        True, runtime=True, help="Compare the chosen precision and device with plain float32 before the first image"
    )


OPTIONS = SamOptions
