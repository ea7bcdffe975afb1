"""Options of Florence-2, without heavy imports: the command line makes flags from them."""

from __future__ import annotations

from dataclasses import dataclass

from synthgen.plugin_options import ModelOptions, option


@dataclass(frozen=True, kw_only=True)
class Florence2Options(ModelOptions):
    """Options of the captioner `florence2`.

    `checkpoint` is a folder as `hf download florence-community/Florence-2-base --local-dir FOLDER` makes it, with
    weights as safetensors. A job with `--top-k` above `num_beams` is refused. If the captioner is called directly, it
    follows as many beams as captions are wanted.
    """

    checkpoint: str = option(
        "",
        runtime=True,
        flag=True,
        metavar="PATH",
        help="Folder of the weights, required (the README has the command that downloads them)",
    )
    num_beams: int = option(10, flag=True, minimum=1, help="Beams of the beam search, at least as many as --top-k")
    max_length: int = option(32, flag=True, minimum=1, help="Maximum number of tokens of a caption")


OPTIONS = Florence2Options
