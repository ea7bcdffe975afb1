"""Joins shapes of one group and label into one object, as LabelMe and CVAT do in their exports to COCO."""

from __future__ import annotations

from synthgen.errors import SynthgenError
from synthgen.formats.readers._object_rows import ObjectRows
from synthgen.formats.readers._shapes import Shape, box_around, join


class ShapeGroups:
    """The objects of one image. Shapes with a mask and with the same label and group become one object."""

    def __init__(self) -> None:
        self._found: list[tuple[str, list[Shape | None], frozenset[str]]] = []
        self._groups: dict[tuple[str, str], int] = {}

    def add(self, label: str, shape: Shape | None, flags: frozenset[str], group: str | None) -> None:
        """Add a shape. Boxes, unreadable shapes and those with a flag stay objects of their own.

        Args:
            label: name of the category; "" = none.
            shape: None = it cannot be read.
            flags: flags of the object.
            group: None = it is in none.
        """
        if group is not None and shape is not None and (shape.polygons or shape.mask) and not flags:
            place = self._groups.setdefault((label, group), len(self._found))
            if place < len(self._found):
                self._found[place][1].append(shape)
                return
        self._found.append((label, [shape], flags))

    def add_to(self, rows: ObjectRows, image_id: int, height: int, width: int) -> None:
        """Add the objects to the rows. `height`, `width`: of the image in pixels."""
        for label, parts, flags in self._found:
            shapes = [part for part in parts if part is not None]
            whole = parts[0]
            if len(shapes) > 1:
                try:
                    whole = join(shapes, height, width)
                except SynthgenError:
                    whole = box_around(
                        [v for x, y, w, h in (part.bbox for part in shapes) for v in (x, y, x + w, y + h)]
                    )
                    flags |= {"bad_segmentation"}
            rows.add_object(image_id, label, whole, flags=flags)
