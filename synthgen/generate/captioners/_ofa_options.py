"""Options of OFA, without heavy imports: the command line makes flags from them."""

from __future__ import annotations

from dataclasses import dataclass

from synthgen.plugin_options import ModelOptions, option


@dataclass(frozen=True, kw_only=True)
class OfaOptions(ModelOptions):
    """Options of the captioner `ofa`.

    `checkpoint` is a folder with the weights (`model.safetensors` or `pytorch_model.bin`; names of Hugging Face or of
    fairseq), `vocab.json` and `merges.txt`, as of `OFA-Sys/ofa-base`; or a file of weights beside these two.
    """

    checkpoint: str = option(
        "",
        runtime=True,
        flag=True,
        metavar="PATH",
        help="Folder of the weights, required (the README has the command that downloads them), or a file that "
        "`synthgen train` wrote",
    )
    side: int = option(
        0,
        help="Resize images to a square of this side: 384 in pre-training, 512 in RefCOCO's fine-tuning; 0 takes the "
        "side that `synthgen train` wrote to the checkpoint, else 384",
    )
    num_beams: int = option(10, flag=True, minimum=1, help="Beams of the beam search, at least as many as --top-k")
    groups: int = option(1, help="Groups of a diverse beam search; 1 is the plain one")
    diversity: float = option(0.5, help="Penalty for a token that an earlier group chose; with more than one group")
    max_length: int = option(16, flag=True, minimum=1, help="Maximum number of tokens of a caption")
    length_penalty: float = option(1.0, help="Divide scores by the length to this power; higher favors longer captions")
    no_repeat_ngram: int = option(3, help="No sequence of this many tokens occurs twice; 0 allows all")


OPTIONS = OfaOptions
