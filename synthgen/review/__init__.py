"""Commands that look at shards: status and pictures."""
