"""Shards to training batches: manifest, mixture, tasks, transforms, collate, loaders."""
