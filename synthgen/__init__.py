"""synthgen turns box-annotated image datasets into segmentation datasets and trains on them."""

__version__ = "0.1.0"
