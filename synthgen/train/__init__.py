"""Reads shards and trains on them. Knows nothing of how they were made."""
