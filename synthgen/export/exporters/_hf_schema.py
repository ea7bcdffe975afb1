"""The columns of the Parquet files for Hugging Face's `datasets`, as its features and as an Arrow schema.

The features go into the metadata of the files, in the form that all versions of `datasets` since 2.0 read: a list is a
"Sequence", and a list of structs a JSON list, since a "Sequence" of structs means a struct of lists there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pyarrow as pa

from synthgen.records.sample import MASK_SCORES

#: Where a row has its image: bytes in the file, a path in the column "image", or a path in the column "file_name" of
#: the metadata of an ImageFolder.
ImageColumn = Literal["bytes", "path", "file_name"]

_INT, _FLOAT, _BOOL, _TEXT = ({"dtype": name, "_type": "Value"} for name in ("int64", "float64", "bool", "string"))


def make_features(image: ImageColumn, category_names: Sequence[str]) -> dict[str, Any]:
    """The features by column, as JSON.

    Args:
        image: where a row has its image.
        category_names: of the ClassLabel of objects, in the order of their numbers.
    """
    images: dict[ImageColumn, dict[str, Any]] = {
        "bytes": {"image": {"_type": "Image"}},
        "path": {"image": _TEXT},
        "file_name": {"file_name": _TEXT},
    }
    objects = {
        "id": _list(_INT),
        "bbox": _list({**_list(_FLOAT), "length": 4}),
        "category": _list({"names": list(category_names), "_type": "ClassLabel"}),
        "category_id": _list(_INT),
        "area": _list(_FLOAT),
        "iscrowd": _list(_BOOL),
        "segmentation": [{"size": _list(_INT), "counts": _TEXT}],
        "mask_source": _list(_TEXT),
        "provenance": _list(_TEXT),
        **{name: _list(_FLOAT) for name in MASK_SCORES},
        "captions": _list(_list(_TEXT)),
        "flags": _list(_list(_TEXT)),
    }
    return {
        **images[image],
        "image_id": _INT,
        "source_file": _TEXT,
        "width": _INT,
        "height": _INT,
        "license": {"id": _INT, "name": _TEXT, "url": _TEXT},
        "neg_categories": _list(_TEXT),
        "not_exhaustive_categories": _list(_TEXT),
        "objects": objects,
    }


def make_schema(features: Mapping[str, Any], source: Mapping[str, Any]) -> pa.Schema:
    """The Arrow schema of features, with both of these as its metadata.

    Args:
        features: from `make_features`.
        source: the layer and what made it, plain JSON.
    """
    metadata = {
        b"huggingface": json.dumps({"info": {"features": features}}),
        b"synthgen": json.dumps(source, ensure_ascii=True),
    }
    return pa.schema([(name, _arrow_type(feature)) for name, feature in features.items()], metadata)


def _list(feature: dict[str, Any]) -> dict[str, Any]:
    return {"feature": feature, "_type": "Sequence"}


def _arrow_type(feature: Any) -> pa.DataType:
    """The type that `datasets` gives a feature; it takes the features of the metadata only if both agree."""
    if isinstance(feature, list):
        return pa.list_(_arrow_type(feature[0]))
    kind = feature.get("_type")
    if kind == "Sequence":
        return pa.list_(_arrow_type(feature["feature"]), feature.get("length", -1))
    if kind == "Image":
        return pa.struct({"bytes": pa.binary(), "path": pa.string()})
    if kind == "ClassLabel":
        return pa.int64()
    if kind == "Value":
        return {"int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_(), "string": pa.string()}[
            feature["dtype"]
        ]
    return pa.struct({name: _arrow_type(inner) for name, inner in feature.items()})
