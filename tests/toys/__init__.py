"""Small worlds and small models for tests: drawn images with known objects, segmenters that misbehave on purpose."""
