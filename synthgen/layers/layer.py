"""A layer of a store as a sequence of images with their annotations."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from synthgen.errors import ArgumentError, SynthgenError, escape_control_chars, shorten_value
from synthgen.images.decode import ImageError, find_image, load_rgb
from synthgen.layers.layer_filter import LayerFilter, check_categories
from synthgen.layers.layer_rows import LayerRows
from synthgen.records.sample import Sample
from synthgen.storage.disk import check_path, require_path
from synthgen.storage.shard_store import ShardStore

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    import supervision as sv
    from numpy.typing import NDArray
    from PIL import Image

    from synthgen.export.options import ExportOptions
    from synthgen.export.run import ExportReport
    from synthgen.export.source import ExportSource
    from synthgen.progress import OpenProgress


@dataclass(frozen=True, slots=True, repr=False)
class LayerSample(Sample):
    """One image of a layer: a `Sample` that can read and draw its image.

    Attributes:
        image_folder: the folder that `file_name` is relative to; None = not known.
    """

    image_folder: Path | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        """One short line, as a notebook shows it: the masks alone would be thousands of characters."""
        name, count = escape_control_chars(self.file_name), len(self.annotations)
        return f"<LayerSample {self.image_id}: {name}, height {self.height}, width {self.width}, {count} annotations>"

    def image(self) -> NDArray[np.uint8]:
        """Read the image.

        Returns:
            uint8 [H, W, 3] RGB, upright (EXIF orientation is applied); the frame of boxes and masks.

        Raises:
            SynthgenError: the image folder is not known, or the image is missing, damaged or of another size.
        """
        if self.image_folder is None:
            raise SynthgenError(
                f"the folder of image {self.file_name} is not known; name it: load_layer(store, name, images=FOLDER)"
            )
        try:
            return load_rgb(find_image(self.image_folder, self.file_name), self.height, self.width)
        except ImageError as why:
            raise SynthgenError(
                f"image {self.file_name} in {self.image_folder}: {why}; check the folder, or name another with images="
            ) from None

    def plot(self) -> Image.Image:
        """Draw the image with its masks, boxes, scores and captions.

        An image that cannot be read is grey, and the reason stands below it.

        Returns:
            An RGB picture, its long side at least 1,024 pixels.

        Raises:
            SynthgenError: the image folder is not known.
        """
        from synthgen.visualize.drawing import to_pil
        from synthgen.visualize.sample_view import draw_sample

        if self.image_folder is None:
            self.image()  # raises
        try:
            return to_pil(draw_sample(self, self.image()))
        except SynthgenError as why:
            return to_pil(draw_sample(replace(self, error=self.error or str(why)), None))


class Layer(Sequence[LayerSample]):
    """A layer: its images, in the order of their ids. Nothing is read before it is needed.

    `layer[i]`, `layer[-1]` and iteration give a `LayerSample`. A slice and `filter` give another `Layer` on the same
    shards. At most one row group (64 images) is in memory. Shards that are not committed are left out.

    Args:
        rows: the rows of all committed shards.
        selection: the rows that belong to this layer, as an ascending range; None = all.
        own_filter: the conditions on annotations; None = none.
    """

    def __init__(self, rows: LayerRows, selection: range | None = None, own_filter: LayerFilter | None = None) -> None:
        self._rows, self._selection, self._filter = rows, selection, own_filter

    def __repr__(self) -> str:
        return f"<Layer {self.name} in {self._rows.store.root}, {len(self):,} images>"

    @property
    def name(self) -> str:
        """Its name, "dataset/split/layer"."""
        return "/".join(self._rows.place)

    @property
    def categories(self) -> tuple[str, ...]:
        """The names of the dataset's categories. A filter does not change them."""
        return self._rows.categories

    @property
    def recipe(self) -> dict[str, Any]:
        """What made the layer: the stage, the plugin, and all options that decide the bytes."""
        return self._rows.recipe

    @property
    def num_missing_shards(self) -> int:
        """Number of shards that are not committed yet."""
        return self._rows.shards[0].num_shards - len(self._rows.shards)

    @property
    def image_folder(self) -> Path | None:
        """The folder that file names are relative to; None = not known."""
        return self._rows.image_folder

    def __len__(self) -> int:
        """Number of images. A filter removes annotations, not images, so it does not change it."""
        return len(self._range())

    @overload
    def __getitem__(self, index: int) -> LayerSample: ...
    @overload
    def __getitem__(self, index: slice) -> Layer: ...
    def __getitem__(self, index: int | slice) -> LayerSample | Layer:
        """One image, or a layer of some images.

        Args:
            index: the image's place from 0, or from the end if it is negative; or a slice.

        Raises:
            IndexError: there is no such image.
        """
        rows = self._range()
        if isinstance(index, slice):
            return Layer(self._rows, rows[index], self._filter)
        try:
            row = rows[index]
        except IndexError:
            raise IndexError(f"{self.name} has {len(rows):,} images; there is no image {index}") from None
        return self._finish(self._rows.read(row))

    def __iter__(self) -> Iterator[LayerSample]:
        """The images in order."""
        return map(self._finish, self._rows.stream(self._range()))

    def filter(
        self,
        *,
        min_stability_score: float | None = None,
        min_predicted_iou: float | None = None,
        min_box_iou: float | None = None,
        min_soft_iou: float | None = None,
        categories: Iterable[str] | None = None,
        min_area: float | None = None,
    ) -> Layer:
        """The layer with only those annotations that meet the conditions. Its images stay, also without annotations.

        Filters combine: `layer.filter(a).filter(b)` is `layer.filter(b).filter(a)`.

        Args:
            min_stability_score: in [0, 1]; minimum of the mask's score. Annotations without a mask, or whose mask lacks
                the score, are left out. Masks that people drew or reviewed stay.
            min_predicted_iou: as `min_stability_score`.
            min_box_iou: as `min_stability_score`.
            min_soft_iou: as `min_stability_score`.
            categories: names of categories.
            min_area: minimum area in pixels: of the mask, or of the box if there is no mask.

        Raises:
            ArgumentError: a value is not valid, or the layer has no such category.
        """
        known = () if self.num_missing_shards or categories is None else self.categories
        new = LayerFilter(
            min_stability_score=min_stability_score,
            min_predicted_iou=min_predicted_iou,
            min_box_iou=min_box_iou,
            min_soft_iou=min_soft_iou,
            categories=check_categories(categories, known, self.name),
            min_area=min_area,
        )
        return Layer(self._rows, self._selection, new if self._filter is None else self._filter.combine(new))

    def to_coco(
        self, path: str | os.PathLike[str], *, masks_only: bool = False, renumber: bool = False
    ) -> ExportReport:
        """Write a COCO instances JSON, atomically, one image in memory at a time.

        `bbox` is (x, y, width, height) in absolute pixels, as the source gives it; one that is not finite is read off
        the mask. `segmentation` is a compressed RLE; an annotation without a mask has none. Ids of images, annotations
        and categories are those of the dataset; where it has none, categories count from 1. Scores, provenance,
        captions and flags are further members of an annotation. Images with an error are left out. `export` writes
        whole folders, also in other formats.

        Args:
            path: the file. Its folder is created.
            masks_only: leave out annotations without a mask.
            renumber: number images and annotations from 1 instead.

        Returns:
            How many images and annotations were written, and why others were left out.

        Raises:
            ArgumentError: `path` is not a path.
            SynthgenError: two images or annotations have one id, a mask is damaged, or the file cannot be written.
        """
        from synthgen.layers.layer_export import export_coco_file

        return export_coco_file(
            self.export_source(), require_path("path", path), masks_only=masks_only, renumber=renumber
        )

    def export(
        self,
        to: str,
        out: str | os.PathLike[str],
        *,
        options: ExportOptions | None = None,
        partial: bool = False,
        progress: OpenProgress | None = None,
    ) -> ExportReport:
        """Write the layer in the format of another tool, as `synthgen export` does.

        Args:
            to: the format: "coco", "yolo", "roboflow", "lvis", "png", "hf", "webdataset", "labelstudio" or "cvat".
            out: the folder to write. It gets its name when everything is written.
            options: splits, categories, masks and images of the export, and options of the format; None = the defaults.
            partial: export what is there, if shards are not committed yet.
            progress: opens the progress bar; None = nothing is shown.

        Returns:
            What was written, what was left out and why, and what the format changed.

        Raises:
            ArgumentError: an argument is not valid.
            SynthgenError: shards are missing, the folder is in use, the images are not known, or a mask is damaged.
        """
        from synthgen.layers.layer_export import export_layers

        return export_layers([self], to, out, options=options, partial=partial, progress=progress)

    def export_source(self) -> ExportSource:
        """The layer as an export reads it."""
        from synthgen.layers.layer_export import make_source

        return make_source(self._rows, self._range(), self._filter)

    def to_arrow(self) -> pa.Table:
        """All images as a table of the schema of shards, one row for each image. The table is in memory."""
        from synthgen.records.parquet_schema import table_from_stream

        return table_from_stream(self)

    def to_dataframe(self) -> pd.DataFrame:
        """All annotations as a pandas table, one row for each. Images without annotations have no row.

        Columns: image_id, file_name, image_height, image_width; annotation_id, category, x, y, width, height (the box,
        in absolute pixels), area (pixels), iscrowd, isthing, flags, mask_source, predicted_iou, stability_score,
        box_iou, soft_iou, captions (texts), and segmentation (a COCO RLE, or None).

        Raises:
            SynthgenError: pandas is not installed.
        """
        from synthgen.layers.table_export import to_dataframe

        return to_dataframe(self)

    def to_supervision(self, *, images: bool = True) -> Iterator[tuple[NDArray[np.uint8] | None, sv.Detections]]:
        """Each image with its annotations as `supervision.Detections`, in order.

        Args:
            images: read the images: uint8 [H, W, 3] RGB; None for an image that cannot be read.

        Returns:
            Pairs of image and detections: `xyxy` float32 [N, 4] in absolute pixels; `mask` bool [N, H, W], or None if
            no annotation has a mask; `class_id`, an index into `categories`; names and scores in `data`. Annotations
            whose box is not finite are left out.

        Raises:
            SynthgenError: supervision is not installed.
        """
        from synthgen.layers.table_export import load_supervision, to_detections

        supervision = load_supervision()
        return (
            (_image_or_none(sample) if images else None, to_detections(supervision, sample, self.categories))
            for sample in self
        )

    def _range(self) -> range:
        return range(len(self._rows)) if self._selection is None else self._selection

    def _finish(self, sample: Sample) -> LayerSample:
        annotations = sample.annotations if self._filter is None else self._filter.apply(sample.annotations)
        return LayerSample(
            image_id=sample.image_id,
            image_key=sample.image_key,
            file_name=sample.file_name,
            height=sample.height,
            width=sample.width,
            annotations=annotations,
            error=sample.error,
            neg_categories=sample.neg_categories,
            not_exhaustive_categories=sample.not_exhaustive_categories,
            license_id=sample.license_id,
            image_folder=self._rows.image_folder,
        )


def load_layer(store: str | os.PathLike[str], name: str, *, images: str | os.PathLike[str] | None = None) -> Layer:
    """Open a layer of a store: its committed shards; see `Layer.num_missing_shards`.

    Args:
        store: root of the shards.
        name: "dataset/split/layer", as `synthgen status` lists them.
        images: folder of the images. None = the folder that the runs on the layer have recorded.

    Raises:
        ArgumentError: the name is not a text, or `store` or `images` is not a path.
        SynthgenError: there is no such layer or image folder, or the layer's shards are of two plans.
    """
    if not isinstance(name, str):
        raise ArgumentError(f"name={shorten_value(name)} is not a text; give DATASET/SPLIT/LAYER")
    root, folder = require_path("store", store), check_path("images", images)
    if folder is not None and not folder.is_dir():
        raise SynthgenError(f"no folder {folder} with the images of {name}; name it with images=")
    shard_store, parts = ShardStore(root), name.strip("/").split("/")
    shards = shard_store.list_shards(*parts) if len(parts) == 3 else []
    if not shards:
        have = ", ".join("/".join(place) for place in shard_store.list_layers()) or "none"
        raise SynthgenError(f"no layer '{name}' in {root}; name one as DATASET/SPLIT/LAYER (have: {have})")
    return Layer(LayerRows(shard_store, shards, folder))


def _image_or_none(sample: LayerSample) -> NDArray[np.uint8] | None:
    try:
        return sample.image()
    except SynthgenError:
        return None
