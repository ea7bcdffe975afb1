"""Networks: tensors in, tensors out; they carry published weights and know nothing of shards or datasets."""
