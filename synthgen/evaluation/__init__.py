"""Prediction and evaluation of networks, in the coordinates of the image file."""
