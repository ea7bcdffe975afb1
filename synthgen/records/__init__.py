"""The contract: what one annotated image is, how it lies on disk, and how it is looked at."""
