"""Checks of what segmenters and captioners return, before it is stored.

A value out of place fails its image: the row gets the flag of the stage and a reason, and `--retry-failed` runs it
again. Scores are checked as they are stored, with `SCORE_DECIMALS` decimals, so that a network's rounding error (a
predicted IoU of 1.00001) fails nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from numbers import Real
from typing import Any

from synthgen.errors import SynthgenError
from synthgen.generate.segmenters import MaskPrediction
from synthgen.records.rle import check_rle
from synthgen.records.sample import Caption, Rle

#: Scores are rounded to this many decimals; further digits differ between machines.
SCORE_DECIMALS = 4

#: Maximum characters of a caption as a captioner returns it, and maximum captions of one object. More is a defect of
#: the captioner. The published networks stop at 1,024 tokens and 128 beams.
MAX_CAPTION_LENGTH, MAX_CAPTIONS = 10_000, 1_000

#: Maximum characters of the name in `Caption.source`.
_MAX_SOURCE_LENGTH = 200


class PluginError(Exception):
    """A plugin did what its protocol forbids. The message says what."""


def match_results(returned: Any, counts: Sequence[int], what: str) -> Iterator[list[Any]]:
    """Yield the list of results of each image, in order, checked to hold one result for each object.

    Args:
        returned: the iterator that the plugin returned.
        counts: number of objects of each image.
        what: name of the results, in the plural.

    Raises:
        PluginError: results for fewer or more images or objects, or no lists of results.
    """
    if not isinstance(returned, Iterable):
        raise PluginError(f"it returned {_type_name(returned)} instead of {what} for each image")
    found = iter(returned)
    for done, count in enumerate(counts):
        try:
            results = next(found)
        except StopIteration:
            raise PluginError(f"it returned {what} for {done} of {len(counts)} images") from None
        if not isinstance(results, Iterable):
            raise PluginError(f"it returned {_type_name(results)} instead of a list of {what} for an image")
        results = list(results)
        if len(results) != count:
            raise PluginError(f"the number of {what} of an image is {len(results)}, not {count}, one for each box")
        yield results
    if next(found, found) is not found:
        raise PluginError(f"it returned {what} for more than the {len(counts)} images it was given")


def check_mask(prediction: Any, height: int, width: int, annotation_id: int) -> None:
    """Check the mask of an object in an image of this size. Its scores are checked by `checked_score`.

    Args:
        prediction: what the segmenter returned; any type.
        height: of the image, in pixels.
        width: of the image, in pixels.
        annotation_id: of the object, for the message.

    Raises:
        PluginError: it is no `MaskPrediction` with an `Rle`, is of another size, or its runs do not fill its size.
    """
    if not isinstance(prediction, MaskPrediction):
        raise PluginError(f"for annotation {annotation_id} it returned {_type_name(prediction)}, not a MaskPrediction")
    rle: Any = prediction.rle
    if not isinstance(rle, Rle) or not isinstance(rle.counts, bytes):
        wrong = f"an Rle with counts of type {_type_name(rle.counts)}" if isinstance(rle, Rle) else _type_name(rle)
        raise PluginError(
            f"the mask of annotation {annotation_id} is {wrong}, not an Rle (synthgen.records.rle.encode_mask makes it)"
        )
    if rle.size != (height, width):
        given = " x ".join(map(str, rle.size)) if isinstance(rle.size, tuple) else _type_name(rle.size)
        raise PluginError(f"the mask of annotation {annotation_id} is {given}, the image {height} x {width}"[:200])
    try:
        check_rle(rle)
    except SynthgenError as why:
        raise PluginError(f"the RLE of annotation {annotation_id} is damaged ({why})") from None


def checked_score(value: Any, name: str, annotation_id: int, *, low: float = 0, high: float = 1) -> float | None:
    """The score as it is stored; None stays None.

    Args:
        value: what the plugin returned; any type.
        name: what the score is called, for the message.
        annotation_id: of the object, for the message.
        low: least value that is accepted; may be -inf.
        high: largest value that is accepted.

    Raises:
        PluginError: it is no finite number of that range.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Real):
        given = _type_name(value)
    else:
        try:
            score = round(float(value), SCORE_DECIMALS)
        except OverflowError:  # an integer beyond all floats
            score = math.inf
        if math.isfinite(score) and low <= score <= high:
            return score
        given = str(score)
    wanted = f"from {low:g} to {high:g}" if math.isfinite(low) else f"of at most {high:g}"
    raise PluginError(f"{name} of annotation {annotation_id} is {given}, not a finite number {wanted}")


def check_captions(captions: Any, annotation_id: int) -> list[Caption]:
    """The captions of an object, checked; their scores are checked by `checked_score`. Empty texts are allowed.

    Args:
        captions: what the captioner returned; any type.
        annotation_id: of the object, for the message.

    Raises:
        PluginError: it is no list of `Caption`, there are too many, or a text or source is no string or is too long.
    """
    if not isinstance(captions, list | tuple):
        raise PluginError(f"for annotation {annotation_id} it returned {_type_name(captions)}, not a list of captions")
    if len(captions) > MAX_CAPTIONS:
        raise PluginError(
            f"for annotation {annotation_id} it returned {len(captions):,} captions, more than {MAX_CAPTIONS:,}"
        )
    for caption in captions:
        if not isinstance(caption, Caption):
            raise PluginError(f"for annotation {annotation_id} it returned {_type_name(caption)}, not a Caption")
        for name, value, most in (
            ("text", caption.text, MAX_CAPTION_LENGTH),
            ("source", caption.source, _MAX_SOURCE_LENGTH),
        ):
            if not isinstance(value, str):
                raise PluginError(f"the {name} of a caption of annotation {annotation_id} is {_type_name(value)}")
            if len(value) > most:
                raise PluginError(
                    f"the {name} of a caption of annotation {annotation_id} has {len(value):,} characters, "
                    f"more than {most:,}"
                )
        # Unpaired surrogates in texts are cleaned later; the source is stored as it is.
        if any("\ud800" <= letter <= "\udfff" for letter in caption.source):
            raise PluginError(f"the source of a caption of annotation {annotation_id} is not valid Unicode")
    return list(captions)


def _type_name(value: object) -> str:
    return type(value).__name__
