"""Checks for images that are both trained on and evaluated on."""
