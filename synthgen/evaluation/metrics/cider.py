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

from synthgen.errors import needs_extra
from synthgen.evaluation.metrics import Asked, Compared, Scores

TAKES = "captions"
MAIN = "CIDEr"

#: The package that computes CIDEr.
_PACKAGE = "pycocoevalcap"

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


def need_package() -> None:
    """Ask for it before a training begins, rather than at its end.

    Raises:
        SynthgenError: it is not installed.
    """
    if find_spec(_PACKAGE) is None:
        raise needs_extra(_PACKAGE, "The metric CIDEr")


def compare(asked: Asked, found: Sequence[str]) -> Compared:
    """One image; kept is for each of its objects what was said, and all that people said, as words with blanks.

    Args:
        found: for each object of the target a phrase; "" = nothing was said.
    """
    people = {a.id: [words(caption.text) for caption in a.captions] for a in asked.sample.annotations}
    kept = [
        (words(said), [text for i in ids for text in people[i] if text])
        for said, ids in zip(found, asked.target.annotation_ids, strict=True)
    ]
    return Compared([(said, texts) for said, texts in kept if texts])


def scores(compared: Sequence[Compared]) -> Scores:
    """CIDEr, 100 times as is usual, where words weigh by how few of the layer's objects they are said of; and token F1,
    of each object the best with any one of its phrases, averaged over objects.

    Raises:
        SynthgenError: the package that counts CIDEr is not installed.
    """
    rows = [row for one in compared for row in one.kept]
    if not rows:
        return Scores({}, {})
    need_package()
    from pycocoevalcap.cider.cider import Cider

    total, _ = Cider().compute_score(
        {i: texts for i, (_, texts) in enumerate(rows)}, {i: [said] for i, (said, _) in enumerate(rows)}
    )
    f1 = np.mean([max(token_f1(said, text) for text in texts) for said, texts in rows])
    return Scores({"CIDEr": 100 * float(total), "token_F1": 100 * float(f1)}, {})


def words(text: str) -> str:
    """A text's words in lower case, with a blank between."""
    return " ".join(_WORD.findall(text.lower()))


def token_f1(said: str, text: str) -> float:
    """Twice the words that both have, by the words of both, in [0, 1]; a word counts as often as it is said."""
    ours, theirs = Counter(said.split()), Counter(text.split())
    both, either = (ours & theirs).total(), ours.total() + theirs.total()
    return 2 * both / either if either else 0.0
