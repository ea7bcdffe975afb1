"""A small box-prompted segmenter: an ImageNet backbone and a decoder on a square crop around each box."""
