"""Neural networks: tensors in, tensors out. This package does not depend on shards or datasets."""
