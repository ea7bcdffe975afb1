"""Captions of objects against human captions: CIDEr (Vedantam et al., 2015) and token F1.

CIDEr is computed by the authors' code in pycocoevalcap. It is used with a Java tokenizer there; here, tokens are
lower-case runs of letters and digits, for both sides. Object phrases contain little punctuation, and rarely inside
words.
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
    """Check for the package before training starts, rather than at its end.

    Raises:
        SynthgenError: it is not installed.
    """
    if find_spec(_PACKAGE) is None:
        raise missing_extra_error(_PACKAGE, "The metric CIDEr")


def compare(ground_truth: GroundTruth, captions: Sequence[str]) -> ImageResult:
    """Compare one image; keeps for each object the generated caption and all human captions, normalized.

    Args:
        ground_truth: of the image; holds the human captions.
        captions: a caption for each object of the target; "" = none.
    """
    people = {a.id: [normalize_text(caption.text) for caption in a.captions] for a in ground_truth.sample.annotations}
    kept = [
        (normalize_text(generated), [text for i in ids for text in people[i] if text])
        for generated, ids in zip(captions, ground_truth.target.annotation_ids, strict=True)
    ]
    return ImageResult([(generated, texts) for generated, texts in kept if texts])


def scores(image_results: Sequence[ImageResult]) -> Scores:
    """CIDEr times 100, with document frequencies of this layer, and token F1: the best F1 over the phrases of each
    object, averaged over objects.

    Args:
        image_results: from `compare`.

    Raises:
        SynthgenError: the package for CIDEr is not installed.
    """
    rows = [row for one in image_results for row in one.stats]
    if not rows:
        return Scores({}, {})
    require_package()
    from pycocoevalcap.cider.cider import Cider

    total, _ = Cider().compute_score(
        {i: texts for i, (_, texts) in enumerate(rows)}, {i: [caption] for i, (caption, _) in enumerate(rows)}
    )
    f1 = np.mean([max(token_f1(caption, text) for text in texts) for caption, texts in rows])
    return Scores({"CIDEr": 100 * float(total), "token_F1": 100 * float(f1)}, {})


def normalize_text(text: str) -> str:
    """The words of a text in lower case, separated by spaces."""
    return " ".join(_WORD.findall(text.lower()))


def token_f1(prediction: str, reference: str) -> float:
    """Token F1 of `prediction` and `reference` in [0, 1]: twice the number of common words over the words of both;
    repeated words count repeatedly.
    """
    predicted, expected = Counter(prediction.split()), Counter(reference.split())
    both, either = (predicted & expected).total(), predicted.total() + expected.total()
    return 2 * both / either if either else 0.0
