"""The record that all packages share: an image, its annotations and their captions. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass

#: Flags of annotations. A flag never removes an annotation; it warns a reader about it.
ANNOTATION_FLAGS: dict[str, str] = {
    "clipped": "the box reaches beyond the image; the prompt is its part inside",
    "degenerate": "the box has no area, or a number in it is not finite; not prompted",
    "outside": "the box lies wholly outside the image; not prompted",
    "duplicate": "an earlier annotation of this image has the same box and category",
    "crowd": "a group of objects (COCO iscrowd); not prompted",
    "unknown_category": "the file lists no name for this category id",
    "fake": "a depiction of the object, such as a printed face (Objects365 isfake)",
    "reflected": "a mirror image of the object (Objects365 isreflected)",
    "difficult": "the source marks the object as hard to see",
    "part": "a part of another object of the image (ADE20K part_level)",
    "ignored": "the source says that evaluation ignores the object",
    "rotated": "the source's box is rotated; the prompt is an upright box",
    "bad_segmentation": "the source's own mask could not be read; the box stays",
    "bad_polygon_part": "a part of the source's own mask could not be read; the mask lacks it",
    "flat_polygon": "the source writes its polygon as a flat list of numbers or as points; it was read as a polygon",
    "no_box": "the source gives no usable box; it was read off the mask where there is one",
    "bad_box": "the source's box is not four numbers; not prompted, unless a box was read off the mask",
    "empty_mask": "the segmenter found nothing inside the box",
    "no_imported_mask": "the imported file has no mask that fits the box",
    "segmenter_failed": "the segmenter failed on this image; try again with --retry-failed",
    "no_caption": "the captioner wrote nothing about the box",
    "captioner_failed": "the captioner failed on this image; try again with --retry-failed",
}

#: Why a reader may not want a caption. A reason never removes a caption; a manifest filters on it.
CAPTION_REASONS: dict[str, str] = {
    "only_category": "it says no more than the category",
    "forbidden_word": "it holds a word of the list that the run was given",
    "low_score": "its score is below the run's minimum",
    "no_score": "the run was given a minimum, and the captioner gives no score",
    "repeats": "it says the same words again and again",
}

#: Who answers for a mask.
PROVENANCES: dict[str, str] = {
    "machine": "a model drew it, and nobody has looked at it",
    "reviewed": "a model drew it, and a person accepted, corrected or replaced it",
    "human": "a person drew it",
}

#: Fields of `Annotation` that score its mask, all in [0, 1].
MASK_SCORES = ("predicted_iou", "stability_score", "box_iou", "sam_predicted_iou", "soft_iou")

#: An annotation with one of these is never given to a segmenter or a captioner.
UNPROMPTED_FLAGS = frozenset({"degenerate", "outside", "crowd"})


@dataclass(frozen=True, slots=True)
class Rle:
    """COCO compressed run-length encoding of one mask.

    Attributes:
        size: (height, width) in pixels of the original image.
        counts: column-major run lengths, starting with background, in COCO's 6-bit text form
            (cocoapi, `common/maskApi.c`, `rleToString`).
    """

    size: tuple[int, int]
    counts: bytes


@dataclass(frozen=True, slots=True)
class Caption:
    """A phrase for one object.

    Attributes:
        text: the phrase.
        source: who wrote it: "human", "ofa base", "attributes", ...
        score: mean token log-probability; None if the captioner gives none.
        category_match: whether its noun agrees with the box's category; None if not checked, or not decidable.
        reasons: why a reader may not want it, sorted; the keys of `CAPTION_REASONS`.
    """

    text: str
    source: str
    score: float | None = None
    category_match: bool | None = None
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Annotation:
    """One object of one image.

    Attributes:
        id: the dataset's own id.
        bbox: (x, y, width, height) in absolute pixels of the original image (COCO). As the source gives it: never
            clipped, never replaced by the mask's own box.
        category: a name, never an index; "" if the source names none.
        iscrowd: COCO's mark for a group of objects.
        isthing: COCO panoptic's mark: countable thing, or stuff.
        flags: reason codes, sorted; the keys of `ANNOTATION_FLAGS`.
        segmentation: the mask; None = none yet, or none for the reason in `flags`.
        mask_source: who drew the mask: "human", "grabcut", "sam vit_h", ...
        predicted_iou: in [0, 1]; the segmenter's own score of the mask it returned; None if it gives none.
        stability_score: in [0, 1]; IoU of the masks at a higher and at a lower threshold (segment-anything).
        box_iou: in [0, 1]; IoU of the mask's tight box with the prompt.
        sam_predicted_iou: in [0, 1]; HQ-SAM's score of SAM's mask, which is a part of the mask here but not the mask:
            not a score to filter by.
        soft_iou: in [0, 1]; the IoU that the segmenter's own pixel probabilities expect of the mask: the sum of the
            probabilities inside it, over its area plus the sum of those outside. None if it gives no probabilities.
        captions: phrases, best first.
        category_id: the category's number in the source's own file; None if its format has none.
        area: in pixels, as the source gives it for its own mask (COCO `area`), which may differ from the mask's number
            of pixels; None if it gives none.
        provenance: a key of `PROVENANCES` that `mask_source` does not tell: "reviewed", or what the file of a mask from
            elsewhere says; None = "human" if `mask_source` is "human", else "machine". See `mask_provenance`.
    """

    id: int
    bbox: tuple[float, float, float, float]
    category: str
    iscrowd: bool = False
    isthing: bool = True
    flags: tuple[str, ...] = ()
    segmentation: Rle | None = None
    mask_source: str | None = None
    predicted_iou: float | None = None
    stability_score: float | None = None
    box_iou: float | None = None
    sam_predicted_iou: float | None = None
    soft_iou: float | None = None
    captions: tuple[Caption, ...] = ()
    category_id: int | None = None
    area: float | None = None
    provenance: str | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One image with everything that is known about it.

    Attributes:
        image_id: the dataset's own id.
        image_key: the photograph's identity: the same photograph has the same key in every dataset
            ("coco/000000391895"), so that leakage between datasets can be checked.
        file_name: path below the dataset's image root, with forward slashes.
        height, width: of the original image in pixels, as a viewer shows it (EXIF orientation applied); 0 where the
            source does not say, until the image has been read.
        annotations: in the order of their ids.
        error: why this image could not be processed; the row stays.
        neg_categories: names that annotators looked for in this image and did not find: the only names whose absence
            is known (LVIS). None = the dataset annotates all its names exhaustively, so that all names except those of
            `annotations` are absent.
        not_exhaustive_categories: names of which there are more objects in this image than annotations (LVIS).
        license_id: the number of the photograph's licence in the source's file (COCO `license`); None if it gives none.
    """

    image_id: int
    image_key: str
    file_name: str
    height: int
    width: int
    annotations: tuple[Annotation, ...] = ()
    error: str | None = None
    neg_categories: tuple[str, ...] | None = None
    not_exhaustive_categories: tuple[str, ...] = ()
    license_id: int | None = None


def mask_provenance(annotation: Annotation) -> str | None:
    """Who answers for the mask of `annotation`: a key of `PROVENANCES`; None if it has no mask."""
    if annotation.segmentation is None:
        return None
    return resolve_provenance(annotation.provenance, annotation.mask_source)


def is_checked_by_person(annotation: Annotation) -> bool:
    """Whether a person drew, accepted or corrected the mask of `annotation`. Then its scores decide nothing."""
    return mask_provenance(annotation) in ("reviewed", "human")


def resolve_provenance(provenance: str | None, mask_source: str | None) -> str:
    """Who answers for a mask, from the two columns of an annotation that say it.

    Args:
        provenance: `Annotation.provenance`.
        mask_source: `Annotation.mask_source`.
    """
    return provenance or ("human" if mask_source == "human" else "machine")
