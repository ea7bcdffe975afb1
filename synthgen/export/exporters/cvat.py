"""CVAT: <split>.xml of "CVAT for images 1.1", with the images in images/<split>/.

A file is imported into a task whose frames have the names of the images, as "CVAT 1.1". Imports of whole projects read
no masks. `labels.json` holds the labels with their colours and attributes, for the Raw tab of a new task or project:
CVAT refuses a label that the task lacks, and leaves out attributes that the label lacks.

A mask is a `mask`: the run lengths of its rows in its own window. With `shape=polygon` it is a polygon for each part,
all of one group, with holes joined to the outline. Without a mask, an annotation is a `box`. `source` says who drew it:
"auto" a model, "semi-auto" a model, checked by a person, "manual" a person. Attributes hold the annotation's id, the
provenance, the model, the scores and the captions.

Format: https://docs.cvat.ai/docs/manual/advanced/xml_format/
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from synthgen.errors import ArgumentError, shorten_value
from synthgen.export.exporters import ExportContext, ExportItem, ExportNotes
from synthgen.export.exporters._polygon_loss import PolygonLoss, check_tolerance
from synthgen.export.exporters._tool_labels import ToolLabels, mask_scores, xml_text
from synthgen.plugin_options import option
from synthgen.records.rle import MaskWindow, decode_mask_window
from synthgen.records.sample import MASK_SCORES, Annotation, mask_provenance

TITLE = "CVAT for images 1.1"
IMAGES = "link"
FLAT_IMAGES = False

_SHAPES = ("mask", "polygon")
_SOURCES = {"machine": "auto", "reviewed": "semi-auto", "human": "manual", None: "manual"}

#: Name of an attribute -> its kind in CVAT. Scores are texts, as CVAT has numbers only in steps of a range.
_ATTRIBUTES = {
    "annotation_id": "text",
    "provenance": "text",
    "model": "text",
    **dict.fromkeys(MASK_SCORES, "text"),
    "captions": "text",
    "crowd": "checkbox",
}


@dataclass(frozen=True, kw_only=True)
class CvatOptions:
    """Options of the exporter `cvat`.

    Raises:
        ArgumentError: a value is not valid.
    """

    shape: str = option("mask", metavar="mask|polygon", help="How masks are written; polygons are easier to edit")
    tolerance: float = option(1.0, help="How far a polygon may be from the mask's outline, in pixels")

    def __post_init__(self) -> None:
        if self.shape not in _SHAPES:
            raise ArgumentError(f"shape={shorten_value(self.shape)} is not valid; give {' or '.join(_SHAPES)}")
        check_tolerance(self.tolerance)


OPTIONS = CvatOptions


class CvatExporter:
    """See the module's docstring.

    Args:
        context: of the export.
        options: of the format.
    """

    def __init__(self, context: ExportContext, options: CvatOptions) -> None:
        self._options = options
        self._labels = ToolLabels(context.categories)
        self._loss = PolygonLoss()
        self._left_out = Counter[str]()
        self._renamed = 0
        self._counts = dict.fromkeys(context.splits, 0)
        self._files: dict[str, BinaryIO] = {}
        for split in context.splits:
            self._files[split] = (context.folder / f"{split}.xml").open("xb", buffering=2**20)
            self._put(split, *_head(context, split, self._labels))
        with (context.folder / "labels.json").open("x", encoding="ascii") as file:
            file.write(json.dumps(_raw_labels(self._labels), indent=1) + "\n")

    def image_folder(self, split: str) -> str:
        """The folder of the `split` in the folder where Datumaro looks for images."""
        return f"images/{split}"

    def write(self, item: ExportItem) -> Sequence[Annotation]:
        """Write the `item` to the file of its split."""
        split, sample = item.split, item.sample
        name = xml_text(item.file_name)
        self._renamed += name != item.file_name
        size = f'width="{sample.width}" height="{sample.height}"'
        lines = [f'  <image id="{self._counts[split]}" name={quoteattr(name)} subset={quoteattr(split)} {size}>']
        self._counts[split] += 1
        written: list[Annotation] = []
        for annotation in sample.annotations:
            shapes = self._shapes(annotation, len(written) + 1)
            if not shapes:
                self._left_out["no_box"] += 1
                continue
            for tag, inside in shapes:
                lines.append(f"    <{tag} {self._common(annotation)} {inside}>")
                lines += _attribute_lines(annotation)
                lines.append(f"    </{tag}>")
            written.append(annotation)
        self._put(split, *lines, "  </image>")
        return written

    def finish(self) -> ExportNotes:
        """Close the elements that are open."""
        for split in self._files:
            self._put(split, "</annotations>")
        self.close()
        lines = [*self._labels.lines(), *self._loss.lines()]
        if self._renamed:
            lines.append(f"{self._renamed:,} names of images hold characters that XML cannot, which were replaced")
        return ExportNotes(dict(self._left_out), tuple(lines), self._loss.figures())

    def close(self) -> None:
        """Close all files."""
        for file in self._files.values():
            file.close()

    def _put(self, split: str, *lines: str) -> None:
        self._files[split].write(("\n".join(lines) + "\n").encode())

    def _common(self, annotation: Annotation) -> str:
        source = _SOURCES[mask_provenance(annotation)]
        return f'label={quoteattr(self._labels.label(annotation))} source="{source}" occluded="0"'

    def _shapes(self, annotation: Annotation, group: int) -> list[tuple[str, str]]:
        """The elements of an annotation: tag and own attributes. `group`: for the parts of one object."""
        if annotation.segmentation is None:
            x, y, width, height = annotation.bbox
            if not np.isfinite(annotation.bbox).all():
                return []
            corners = f'xtl="{x:.2f}" ytl="{y:.2f}" xbr="{x + width:.2f}" ybr="{y + height:.2f}"'
            return [("box", f'{corners} z_order="0"')]
        window = decode_mask_window(annotation.segmentation)
        if self._options.shape == "mask":
            return [("mask", f'{_mask_window(window)} z_order="0"')]
        rings = self._loss.draw(window, self._options.tolerance, single=False)
        together = f' group_id="{group}"' if len(rings) > 1 else ""
        points = (";".join(f"{x:.2f},{y:.2f}" for x, y in ring.tolist()) for ring in rings)
        return [("polygon", f'points="{own}" z_order="0"{together}') for own in points]


def build(context: ExportContext, options: CvatOptions) -> CvatExporter:
    """Make the exporter for `context` with the `options`."""
    return CvatExporter(context, options)


def _head(context: ExportContext, split: str, labels: ToolLabels) -> Iterator[str]:
    """The lines before the first image."""
    yield '<?xml version="1.0" encoding="utf-8"?>'
    yield "<annotations>"
    yield "  <version>1.1</version>"
    yield "  <meta>"
    yield "    <task>"
    yield f"      <name>{_escape(context.layer)}</name>"
    yield "      <mode>annotation</mode>"
    yield f"      <subset>{_escape(split)}</subset>"
    yield "      <labels>"
    for label, color in labels.colors.items():
        yield "        <label>"
        yield f"          <name>{_escape(label)}</name>"
        yield f"          <color>{color}</color>"
        yield "          <type>any</type>"
        yield "          <attributes>"
        for name, kind in _ATTRIBUTES.items():
            default = _default(kind)
            about = f"<name>{name}</name><mutable>False</mutable><input_type>{kind}</input_type>"
            value = f"<default_value>{default}</default_value><values>{default}</values>"
            yield f"            <attribute>{about}{value}</attribute>"
        yield "          </attributes>"
        yield "        </label>"
    yield "      </labels>"
    yield "    </task>"
    recipe = json.dumps(dict(context.recipe), sort_keys=True)
    own = f"<layer>{_escape(context.layer)}</layer><recipe>{_escape(recipe)}</recipe>"
    yield f"    <synthgen>{own}<created_by>synthgen {_escape(context.version)}</created_by></synthgen>"
    yield "  </meta>"


def _raw_labels(labels: ToolLabels) -> list[dict[str, object]]:
    """The labels as CVAT's Raw tab takes them."""
    attributes = [
        {
            "name": name,
            "input_type": kind,
            "mutable": False,
            "values": [_default(kind)],
            "default_value": _default(kind),
        }
        for name, kind in _ATTRIBUTES.items()
    ]
    return [
        {"name": label, "color": color, "type": "any", "attributes": attributes}
        for label, color in labels.colors.items()
    ]


def _default(kind: str) -> str:
    return "false" if kind == "checkbox" else ""


def _attribute_lines(annotation: Annotation) -> Iterator[str]:
    values = {
        "annotation_id": str(annotation.id),
        "provenance": mask_provenance(annotation) or "",
        "model": (annotation.mask_source or "") if mask_provenance(annotation) != "human" else "",
        **{name: f"{score:.6g}" for name, score in mask_scores(annotation).items()},
        "captions": "\n".join(caption.text for caption in annotation.captions),
        "crowd": "true" if annotation.iscrowd else "",
    }
    for name, value in values.items():
        if value:
            yield f'      <attribute name="{name}">{_escape(value)}</attribute>'


def _mask_window(window: MaskWindow) -> str:
    """The run lengths of a window, row by row, starting with background, and where it lies."""
    flat = window.pixels.ravel()
    turns = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs: Sequence[int] = np.diff(turns, prepend=0, append=flat.size).tolist()
    text = ", ".join(map(str, [0, *runs] if flat[0] else runs))
    height, width = window.pixels.shape
    return f'rle="{text}" left="{window.left}" top="{window.top}" width="{width}" height="{height}"'


def _escape(text: str) -> str:
    return escape(xml_text(text))
