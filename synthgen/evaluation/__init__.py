"""What networks predict, in the frame of the image file, measured against ground truth."""
