"""MQ-Former: learnable and conditional queries that attend to each other; image and texts to boxes and masks."""
