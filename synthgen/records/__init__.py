"""The data contract: the sample, its Parquet schema, run-length encodings and box checks. Imports no other package."""
