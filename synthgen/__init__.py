"""synthgen turns box-annotated image datasets into segmentation datasets and trains on them.

`import synthgen` is light: each name below is imported when it is used for the first time.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from synthgen.api.annotators import Captioner, Mask, Segmenter
    from synthgen.api.datasets import doctor, ingest_dataset, remove_layer
    from synthgen.api.generation import generate_captions, generate_masks
    from synthgen.api.imports import import_masks
    from synthgen.api.prediction import predict_folder
    from synthgen.api.results import Evaluation, GenerateResult, LayerResult
    from synthgen.api.training import evaluate, train
    from synthgen.errors import ArgumentError, FailedRunError, SynthgenError
    from synthgen.evaluation.folder_predictor import PredictionReport
    from synthgen.evaluation.network_predictor import Prediction, Predictor
    from synthgen.export.options import ExportOptions
    from synthgen.export.run import ExportReport
    from synthgen.layers.layer import Layer, LayerSample, load_layer
    from synthgen.layers.layer_export import export_layers
    from synthgen.records.sample import Annotation, Caption, Rle, Sample

__version__ = "0.1.0"

__all__ = [
    "Annotation",
    "ArgumentError",
    "Caption",
    "Captioner",
    "Evaluation",
    "ExportOptions",
    "ExportReport",
    "FailedRunError",
    "GenerateResult",
    "Layer",
    "LayerResult",
    "LayerSample",
    "Mask",
    "Prediction",
    "PredictionReport",
    "Predictor",
    "Rle",
    "Sample",
    "Segmenter",
    "SynthgenError",
    "__version__",
    "doctor",
    "evaluate",
    "export_layers",
    "generate_captions",
    "generate_masks",
    "import_masks",
    "ingest_dataset",
    "load_layer",
    "predict_folder",
    "remove_layer",
    "train",
]

#: Module -> the public names that it defines. The imports above are for type checkers and editors.
_MODULES = {
    "synthgen.api.annotators": ("Captioner", "Mask", "Segmenter"),
    "synthgen.api.datasets": ("doctor", "ingest_dataset", "remove_layer"),
    "synthgen.api.results": ("Evaluation", "GenerateResult", "LayerResult"),
    "synthgen.api.generation": ("generate_captions", "generate_masks"),
    "synthgen.api.imports": ("import_masks",),
    "synthgen.api.prediction": ("predict_folder",),
    "synthgen.api.training": ("evaluate", "train"),
    "synthgen.errors": ("ArgumentError", "FailedRunError", "SynthgenError"),
    "synthgen.evaluation.folder_predictor": ("PredictionReport",),
    "synthgen.evaluation.network_predictor": ("Prediction", "Predictor"),
    "synthgen.export.options": ("ExportOptions",),
    "synthgen.export.run": ("ExportReport",),
    "synthgen.layers.layer": ("Layer", "LayerSample", "load_layer"),
    "synthgen.layers.layer_export": ("export_layers",),
    "synthgen.records.sample": ("Annotation", "Caption", "Rle", "Sample"),
}


def __getattr__(name: str) -> Any:
    module = next((module for module, names in _MODULES.items() if name in names), None)
    if module is None:
        raise AttributeError(f"module 'synthgen' has no attribute '{name}'")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    """The public names, so that completion in a notebook shows no helpers and modules."""
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
