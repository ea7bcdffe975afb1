"""What a COCO-style annotation says about the origin of its mask: who drew it, its scores, its captions.

The members are those that synthgen's own export writes. A payload of such an annotation holds the origin before the
JSON of the segmentation; any other payload is the segmentation alone.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from synthgen.formats.readers import SourceFinding
from synthgen.formats.readers._numbers import parse_float
from synthgen.records.sample import (
    ANNOTATION_FLAGS,
    CAPTION_REASONS,
    MASK_SCORES,
    PROVENANCES,
    Annotation,
    Caption,
    resolve_provenance,
)

#: All members that say something about the origin.
ORIGIN_MEMBERS = ("provenance", "mask_source", *MASK_SCORES, "captions", "flags")

#: What stands for no segmentation.
NO_MASK = (b"", b"null", b"[]", b"{}")

#: Who wrote a caption of which the file gives only the text.
_CAPTION_SOURCE = "file"

_MARK, _LENGTH = b"\x00origin ", struct.Struct("<I")  # JSON has no byte 0
_MAX_SOURCE_CHARS = 200
_MAX_CAPTIONS = 1_000
_NUM_EXAMPLES = 3


class MaskOrigin(msgspec.Struct, omit_defaults=True, frozen=True):
    """The origin of a mask; the attributes are those of `Annotation`. All values can be stored."""

    provenance: str | None = None
    mask_source: str | None = None
    predicted_iou: float | None = None
    stability_score: float | None = None
    box_iou: float | None = None
    sam_predicted_iou: float | None = None
    soft_iou: float | None = None
    captions: tuple[Caption, ...] = ()
    flags: tuple[str, ...] = ()

    @property
    def stated(self) -> str | None:
        """A key of `PROVENANCES`: who answers for the mask; None if the file does not say it."""
        if self.provenance is not None or self.mask_source is None:
            return self.provenance
        return resolve_provenance(None, self.mask_source)


_DECODER = msgspec.json.Decoder(MaskOrigin)


def parse_origin(members: Mapping[str, Any]) -> MaskOrigin | None:
    """The origin; None if the annotation is not of our own export: it names neither a provenance nor a source.

    Values that cannot be stored are left out.

    Args:
        members: some of `ORIGIN_MEMBERS` as JSON gives them; untrusted.
    """
    given = members.get("provenance")
    provenance = given if isinstance(given, str) and given in PROVENANCES else None
    source = _clean(members.get("mask_source"))[:_MAX_SOURCE_CHARS] or None
    if provenance is None and source is None:
        return None
    return MaskOrigin(
        provenance=provenance,
        mask_source=source,
        predicted_iou=parse_score(members.get("predicted_iou")),
        stability_score=parse_score(members.get("stability_score")),
        box_iou=parse_score(members.get("box_iou")),
        sam_predicted_iou=parse_score(members.get("sam_predicted_iou")),
        soft_iou=parse_score(members.get("soft_iou")),
        captions=_parse_captions(members.get("captions")),
        flags=_known(members.get("flags"), ANNOTATION_FLAGS),
    )


def record_origin(record: Any) -> MaskOrigin | None:
    """As `parse_origin`, of a record whose attributes are `ORIGIN_MEMBERS`; captions and flags are undecoded."""
    if record.provenance is None and record.mask_source is None:
        return None
    members = {name: getattr(record, name) for name in ORIGIN_MEMBERS}
    return parse_origin({**members, **{name: _decode(members[name]) for name in ("captions", "flags")}})


def score_origin(record: Any, score: float | None) -> MaskOrigin | None:
    """The scores of a record of any program, as an origin; None if it has none.

    Args:
        record: with `MASK_SCORES` as attributes.
        score: of the mask, if no `predicted_iou` is given; COCO's results have it.
    """
    found = MaskOrigin(
        predicted_iou=parse_score(score if record.predicted_iou is None else record.predicted_iou),
        stability_score=parse_score(record.stability_score),
        box_iou=parse_score(record.box_iou),
        sam_predicted_iou=parse_score(record.sam_predicted_iou),
        soft_iou=parse_score(record.soft_iou),
    )
    return None if found == MaskOrigin() else found


def own_models(info: object) -> tuple[str, ...]:
    """The models that the `info` of an export of synthgen names."""
    own = info.get("synthgen") if isinstance(info, dict) else None
    models = own.get("models") if isinstance(own, dict) else None
    names = [_clean(name)[:_MAX_SOURCE_CHARS] for name in models] if isinstance(models, list) else []
    return tuple(name for name in names if name)


def pack_origin(origin: MaskOrigin | None, segmentation: bytes) -> bytes | None:
    """A payload; None without a mask.

    Args:
        origin: of the mask; None = the file does not say it.
        segmentation: JSON; untrusted.
    """
    if segmentation in NO_MASK:
        return None
    if origin is None:
        return segmentation
    text = msgspec.json.encode(origin)
    return b"".join([_MARK, _LENGTH.pack(len(text)), text, segmentation])


def split_origin(payload: bytes) -> tuple[MaskOrigin | None, bytes]:
    """The origin and the segmentation of a payload; None if it is a segmentation alone."""
    if not payload.startswith(_MARK):
        return None, payload
    start = len(_MARK) + _LENGTH.size
    end = start + _LENGTH.unpack_from(payload, len(_MARK))[0]
    return _DECODER.decode(payload[start:end]), payload[end:]


def origin_segmentation(payload: bytes) -> bytes:
    """The segmentation of a payload."""
    return split_origin(payload)[1]


def apply_origin(annotation: Annotation, origin: MaskOrigin) -> Annotation:
    """The annotation with what its file says about the origin of its mask.

    Args:
        annotation: with a mask, and the source that it has if `origin` names none.
        origin: of the mask.
    """
    source = origin.mask_source or annotation.mask_source
    # None where the source tells it, so that an annotation comes back as it was exported.
    told = resolve_provenance(None, source)
    return replace(
        annotation,
        mask_source=source,
        provenance=None if origin.provenance == told else origin.provenance,
        captions=(*annotation.captions, *origin.captions),
        flags=tuple(sorted({*annotation.flags, *origin.flags})),
        **{name: getattr(origin, name) for name in MASK_SCORES},
    )


def parse_score(value: object) -> float | None:
    """A score in [0, 1]; None if it is none."""
    number = parse_float(value)
    return number if 0 <= number <= 1 else None  # false for NaN


def find_machine_masks(where: str, records: Sequence[Any]) -> SourceFinding | None:
    """The finding about the masks that machines drew, by the members of their annotations; None if there are none.

    Args:
        where: the file, for examples.
        records: with `ORIGIN_MEMBERS`, `id`, `image_id` and the undecoded `segmentation` as attributes.
    """
    said = [one for one in records if one.provenance is not None or one.mask_source is not None]
    found = [
        (one, origin)
        for one in said
        if bytes(one.segmentation) not in NO_MASK
        and (origin := record_origin(one)) is not None
        and origin.stated == "machine"
    ]
    if not found:
        return None
    examples = tuple(
        (where, f"annotation {one.id} of image {one.image_id} has a mask by {origin.mask_source or 'a machine'}")
        for one, origin in found[:_NUM_EXAMPLES]
    )
    return SourceFinding("machine_masks", "masks", len(found), examples)


def find_machine_file(where: str, info: object) -> SourceFinding | None:
    """The finding about a file whose `info` says that synthgen wrote it and that machines drew masks; None if not.

    Args:
        where: the file.
        info: the value of its member "info"; untrusted.
    """
    own = info.get("synthgen") if isinstance(info, dict) else None
    if not isinstance(own, dict):
        return None
    counts = own.get("provenance")
    number = counts.get("machine", 0) if isinstance(counts, dict) else 1
    if not isinstance(number, int) or number <= 0:
        return None
    layer = _clean(own.get("layer"))[:_MAX_SOURCE_CHARS]
    of = f" of the layer {layer}" if layer else ""
    return SourceFinding("machine_masks", "masks", number, ((where, f"its info says that it is an export{of}"),))


def _parse_captions(value: object) -> tuple[Caption, ...]:
    captions = []
    for one in value[:_MAX_CAPTIONS] if isinstance(value, list) else []:
        if isinstance(one, str):
            captions.append(Caption(_clean(one), _CAPTION_SOURCE))
        elif isinstance(one, dict) and isinstance(one.get("text"), str):
            score, match = parse_float(one.get("score")), one.get("category_match")
            captions.append(
                Caption(
                    _clean(one["text"]),
                    _clean(one.get("source"))[:_MAX_SOURCE_CHARS] or _CAPTION_SOURCE,
                    score if math.isfinite(score) else None,
                    match if isinstance(match, bool) else None,
                    _known(one.get("reasons"), CAPTION_REASONS),
                )
            )
    return tuple(captions)


def _known(value: object, names: Mapping[str, str]) -> tuple[str, ...]:
    """The names in a list, sorted; others are left out."""
    return (
        tuple(sorted({one for one in value if isinstance(one, str) and one in names}))
        if isinstance(value, list)
        else ()
    )


def _clean(value: object) -> str:
    """A text that UTF-8 can encode; "" for any other value."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""


def _decode(raw: msgspec.Raw) -> Any:
    """The value; None if there is none, or if no parser can read it."""
    text = bytes(raw)
    try:
        return json.loads(text.decode("utf-8", "replace")) if text else None
    except (ValueError, RecursionError):
        return None
