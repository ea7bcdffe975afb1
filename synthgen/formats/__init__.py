"""Annotation formats: readers of other formats."""
