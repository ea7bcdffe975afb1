"""Layers for Python users: read, filter, draw, export to COCO JSON and to tables."""
