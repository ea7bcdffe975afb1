"""Drawings of images, masks, boxes and texts, for people to look at."""
