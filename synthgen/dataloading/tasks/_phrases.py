"""What somebody said of an object, which `referring` and `captioning` learn."""

from __future__ import annotations

from synthgen.dataloading.tasks._places import LabeledRegion


def collect_phrases(region: LabeledRegion) -> dict[str, str]:
    """An object's phrases, each once, by what is compared; blanks at their ends, and several in a row, are gone."""
    found = (" ".join(caption.text.split()) for a in region.annotations for caption in a.captions)
    return {normalize_phrase(phrase): phrase for phrase in found if phrase}


def normalize_phrase(phrase: str) -> str:
    """What two phrases are the same by: case makes no difference."""
    return phrase.lower()
