"""Reads shards for training: a manifest, its layers, samples, targets, views, batches. Knows nothing of networks."""
