"""Checkpoint files, and networks built from a manifest or a checkpoint."""
