"""MQ-Former: a transformer with learnable and conditional queries predicting boxes and masks from images and texts."""
