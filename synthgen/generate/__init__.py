"""The wing that writes shards."""
