"""Learns from what is read, measures what was learned, and predicts. Knows nothing of how shards were made."""
