"""Options of the stage `captions`, without heavy imports: the command line makes flags from them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from synthgen.errors import SynthgenError
from synthgen.plugin_options import option


@dataclass(frozen=True, kw_only=True)
class CaptionStageOptions:
    """Options of the stage, whatever the captioner.

    Raises:
        SynthgenError: a value that makes no sense.
    """

    top_k: int = option(5, flag=True, minimum=1, help="Captions per box, beside those by people")
    min_score: float | None = option(
        None,
        flag=True,
        help="Captions below it get the reason low_score, those without a score no_score (mean token log-probability, "
        "at most 0)",
    )
    forbidden: str = option(
        "",
        flag=True,
        metavar="WORDS|FILE",
        help="Captions with one of a,b,c or of a file get the reason forbidden_word",
    )

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise SynthgenError(f"--top-k {self.top_k} should be at least 1")
        if self.min_score is not None and not math.isfinite(self.min_score):
            raise SynthgenError(f"--min-score {self.min_score} should be a number, such as --min-score -1.5")
        if self.min_score is not None and self.min_score > 0:
            raise SynthgenError(
                f"--min-score {self.min_score} is what no caption reaches: scores are mean log-probabilities of "
                "tokens, at most 0; -1.5 is a start"
            )


OPTIONS = CaptionStageOptions
