"""Annotation files to shards: external sort, sharding, dataset validation."""
