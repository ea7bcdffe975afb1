"""The data contract: samples, their Parquet schema, run-length encodings and box checks."""
