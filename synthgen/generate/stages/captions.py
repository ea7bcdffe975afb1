"""The stage that writes captions for boxes, with the rules that all captioners share."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthgen import plugins
from synthgen.errors import SynthgenError
from synthgen.generate.captioners import Captioner
from synthgen.generate.output_checks import check_captions, checked_score, match_results
from synthgen.generate.stages._captions_options import CaptionStageOptions
from synthgen.records.boxes import clip_xyxy, xywh_to_xyxy
from synthgen.records.sample import UNPROMPTED_FLAGS, Annotation, Caption, Sample
from synthgen.text.agreement import agrees_with_category, category_nouns
from synthgen.text.phrases import clean_text, comparison_key, contains_phrase, has_repetition, split_words
from synthgen.text.plurals import singularize

#: The plugin folder of captioners.
PLUGIN_PACKAGE = "generate.captioners"

#: The captioner that `auto` chooses on a machine without weights.
DEFAULT_PLUGIN = "attributes"

#: The source of captions that no run replaces.
HUMAN_SOURCE = "human"

#: Maximum bytes of a file of forbidden words.
_MAX_FILE_BYTES = 2**20


def resolve_options(options: Mapping[str, Any] | None = None, /, **stage_options: Any) -> dict[str, Any]:
    """The stage's options with what decides the bytes made definite: forbidden words themselves, not their file.

    Args:
        options: the captioner's own, resolved.
        **stage_options: see `CaptionStageOptions`.

    Raises:
        SynthgenError: an invalid option, or a missing file.
    """
    own = CaptionStageOptions(**stage_options)
    beams = (options or {}).get("num_beams", own.top_k)
    if beams < own.top_k:
        raise SynthgenError(
            f"--num-beams {beams} cannot give {own.top_k} captions; make it {own.top_k} or more, or ask for fewer with "
            "--top-k"
        )
    definite = {
        "top_k": own.top_k,
        "min_score": own.min_score,
        "forbidden": ",".join(sorted(_parse_forbidden(own.forbidden))) or None,
    }
    return {key: value for key, value in definite.items() if value is not None}


def build(plugin: str, options: dict[str, Any], **stage_options: Any) -> CaptionStage:
    """The stage around a captioner.

    Args:
        plugin: name of the captioner.
        options: options of the captioner, as `resolve_options` gives them.
        **stage_options: see `CaptionStageOptions`.
    """
    own = CaptionStageOptions(**stage_options)
    phrases = frozenset(filter(None, own.forbidden.split(",")))
    captioner = plugins.build_plugin(PLUGIN_PACKAGE, plugin, options)
    return CaptionStage(captioner, top_k=own.top_k, min_score=own.min_score, forbidden=phrases)


def is_result(before: Sample, after: Sample) -> bool:
    """Whether the captions of `after` were written for a sample equal to `before`."""
    return _without_results(before) == _without_results(after)


class CaptionStage:
    """The stage that writes captions. See `Stage`.

    Args:
        captioner: writes the captions.
        top_k: maximum number of captions of an object.
        min_score: captions with a lower score are kept with a reason; None = no limit.
        forbidden: phrases, normalized; captions that hold one are kept with a reason.
    """

    def __init__(
        self,
        captioner: Captioner,
        *,
        top_k: int = CaptionStageOptions.top_k,
        min_score: float | None = None,
        forbidden: frozenset[str] = frozenset(),
    ) -> None:
        self.captioner = captioner
        self.top_k = top_k
        self.min_score = min_score
        self.forbidden = forbidden

    @property
    def batch_size(self) -> int:
        """See `Stage`; the captioner's current value."""
        return self.captioner.batch_size

    def process(self, samples: Sequence[Sample], images: Sequence[NDArray[np.uint8]]) -> Iterator[Sample]:
        """Write captions for each annotation that may be prompted. Human captions stay first; others are replaced.

        Args:
            samples: without an error, and with the height and width of their images.
            images: uint8 [H, W, 3] RGB each, of the original size.

        Raises:
            PluginError: what the captioner returned must not be stored.
        """
        wanted = [[a for a in sample.annotations if needs_captions(a)] for sample in samples]
        regions = [_regions_xyxy(s, own) for s, own in zip(samples, wanted, strict=True)]
        categories = [[a.category for a in own] for own in wanted]
        crowds = [
            sorted({*sample.not_exhaustive_categories, *(a.category for a in sample.annotations if _is_crowd(a))})
            for sample in samples
        ]
        returned = self.captioner.caption(images, regions, categories, crowds, self.top_k)
        found = match_results(returned, [len(own) for own in wanted], "lists of captions")
        for sample, own, captions in zip(samples, wanted, found, strict=True):
            done = {
                id(a): self._add_captions(a, _checked_captions(new, a.id)) for a, new in zip(own, captions, strict=True)
            }
            yield replace(sample, annotations=tuple(done.get(id(a), a) for a in sample.annotations))

    def failed(self, sample: Sample) -> Sample:
        """Flag the annotations of `sample` that needed captions, and keep their human captions."""
        return replace(
            sample,
            annotations=tuple(
                _replace_flags(replace(a, captions=_human_captions(a)), "captioner_failed") if needs_captions(a) else a
                for a in sample.annotations
            ),
        )

    def _add_captions(self, annotation: Annotation, new: Sequence[Caption]) -> Annotation:
        kept = _human_captions(annotation)
        known = {comparison_key(caption.text) for caption in kept}
        added: list[Caption] = []
        for caption in new:
            text = clean_text(caption.text)
            # Keep the first of equivalent captions: it is the best.
            if text and comparison_key(text) not in known and len(added) < self.top_k:
                known.add(comparison_key(text))
                added.append(self._annotate_caption(replace(caption, text=text), annotation.category))
        return _replace_flags(
            replace(annotation, captions=(*kept, *added)), *(() if kept or added else ("no_caption",))
        )

    def _annotate_caption(self, caption: Caption, category: str) -> Caption:
        """The caption with `category_match` and `reasons`; no caption is dropped here."""
        score = caption.score
        found = {
            "only_category": _lemmas(caption.text)
            <= {lemma for name in category_nouns(category) for lemma in _lemmas(name)},
            "forbidden_word": contains_phrase(caption.text, self.forbidden),
            "low_score": score is not None and self.min_score is not None and score < self.min_score,
            "no_score": score is None and self.min_score is not None,
            "repeats": has_repetition(caption.text),
        }
        reasons = tuple(sorted(reason for reason, given in found.items() if given))
        return replace(caption, category_match=agrees_with_category(caption.text, category), reasons=reasons)


def needs_captions(annotation: Annotation) -> bool:
    """Whether a captioner is asked for this annotation."""
    return not annotation.iscrowd and UNPROMPTED_FLAGS.isdisjoint(annotation.flags)


def _checked_captions(captions: Any, annotation_id: int) -> list[Caption]:
    """What a captioner returned for an object, checked, with scores as they are stored."""
    name = "the score of a caption"
    return [
        replace(caption, score=checked_score(caption.score, name, annotation_id, low=-math.inf, high=0))
        for caption in check_captions(captions, annotation_id)
    ]


def _is_crowd(annotation: Annotation) -> bool:
    return annotation.iscrowd or "crowd" in annotation.flags


def _without_results(sample: Sample) -> Sample:
    """The sample without what the stage replaces."""
    return replace(
        sample,
        annotations=tuple(
            _replace_flags(replace(a, captions=_human_captions(a))) if needs_captions(a) else a
            for a in sample.annotations
        ),
    )


def _lemmas(text: str) -> set[str]:
    """The content words of a text, in the singular."""
    return {singularize(word) for word in comparison_key(text).split()} - {
        "a",
        "an",
        "the",
        "and",
        "or",
        "of",
        "object",
        "thing",
    }


def _human_captions(annotation: Annotation) -> tuple[Caption, ...]:
    return tuple(caption for caption in annotation.captions if caption.source == HUMAN_SOURCE)


def _replace_flags(annotation: Annotation, *flags: str) -> Annotation:
    """With these flags instead of the flags of an earlier captioner."""
    kept = {flag for flag in annotation.flags if flag not in ("no_caption", "captioner_failed")}
    return replace(annotation, flags=tuple(sorted(kept.union(flags))))


def _regions_xyxy(sample: Sample, annotations: Sequence[Annotation]) -> NDArray[np.float32]:
    """Boxes clipped to their image: float32 [N, 4] XYXY, absolute pixels of the original image."""
    boxes = np.array([a.bbox for a in annotations], np.float64).reshape(-1, 4)
    return clip_xyxy(xywh_to_xyxy(boxes), sample.height, sample.width).astype(np.float32)


def _parse_forbidden(given: str) -> set[str]:
    """Forbidden phrases, normalized for the search: case folded, without punctuation.

    Args:
        given: words with commas between them, or the path of a text file with a phrase in each line.

    Raises:
        SynthgenError: it looks like a file that cannot be read.
    """
    path = Path(given)
    parts = given.split(",")
    if given and os.path.isfile(given):  # noqa: PTH113 - a list of words is no path, and may be too long for one
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise SynthgenError(f"{path} is larger than {_MAX_FILE_BYTES} bytes; --forbidden takes a list of words")
        try:
            parts = path.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as why:
            raise SynthgenError(f"cannot read {path} ({why}); --forbidden takes a text file in UTF-8") from None
    elif len(parts) == 1 and ("/" in given or path.suffix):
        raise SynthgenError(f"no file {path}; --forbidden takes words with commas between them, or such a file")
    return {phrase for part in parts if (phrase := " ".join(split_words(part)))}
