"""Jobs that write layers of shards: masks and captions."""
