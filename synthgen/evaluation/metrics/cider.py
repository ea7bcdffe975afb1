"""What was said of objects against what people said of them: CIDEr (Vedantam et al., 2015) and F1 of words.

CIDEr is computed by the authors' own code, in pycocoevalcap. Their words come of a tokenizer in Java; ours are the
letters and digits between blanks and marks, in lower case, of both sides alike. Phrases of objects hold few marks, and
none that divides a word.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np

from synthgen.errors import missing_extra_error
from synthgen.evaluation.metrics import GroundTruth, ImageResult, Scores

TAKES = "captions"
MAIN = "CIDEr"

#: The package that computes CIDEr.
_PACKAGE = "pycocoevalcap"

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


def require_package() -> None:
    """Ask for it before a training begins, rather than at its end.

    Raises:
        SynthgenError: it is not installed.
    """
    if find_spec(_PACKAGE) is None:
        raise missing_extra_error(_PACKAGE, "The metric CIDEr")


def compare(ground_truth: GroundTruth, captions: Sequence[str]) -> ImageResult:
    """One image; kept is for each of its objects what was said, and all that people said, as words with blanks.

    Args:
        captions: for each object of the target a phrase; "" = nothing was said.
    """
    people = {a.id: [normalize_text(caption.text) for caption in a.captions] for a in ground_truth.sample.annotations}
    kept = [
        (normalize_text(said), [text for i in ids for text in people[i] if text])
        for said, ids in zip(captions, ground_truth.target.annotation_ids, strict=True)
    ]
    return ImageResult([(said, texts) for said, texts in kept if texts])


def scores(image_results: Sequence[ImageResult]) -> Scores:
    """CIDEr, 100 times as is usual, where words weigh by how few of the layer's objects they are said of; and token F1,
    of each object the best with any one of its phrases, averaged over objects.

    Raises:
        SynthgenError: the package that counts CIDEr is not installed.
    """
    rows = [row for one in image_results for row in one.stats]
    if not rows:
        return Scores({}, {})
    require_package()
    from pycocoevalcap.cider.cider import Cider

    total, _ = Cider().compute_score(
        {i: texts for i, (_, texts) in enumerate(rows)}, {i: [said] for i, (said, _) in enumerate(rows)}
    )
    f1 = np.mean([max(token_f1(said, text) for text in texts) for said, texts in rows])
    return Scores({"CIDEr": 100 * float(total), "token_F1": 100 * float(f1)}, {})


def normalize_text(text: str) -> str:
    """A text's words in lower case, with a blank between."""
    return " ".join(_WORD.findall(text.lower()))


def token_f1(prediction: str, reference: str) -> float:
    """Twice the words that both have, by the words of both, in [0, 1]; a word counts as often as it is said."""
    ours, theirs = Counter(prediction.split()), Counter(reference.split())
    both, either = (ours & theirs).total(), ours.total() + theirs.total()
    return 2 * both / either if either else 0.0
