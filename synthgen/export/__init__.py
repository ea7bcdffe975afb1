"""A layer in the formats of other tools: COCO, YOLO, CVAT and others, with its images and a data card."""
