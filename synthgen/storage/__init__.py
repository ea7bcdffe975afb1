"""Shards on disk: atomic commits, locks, and the log of each run."""
