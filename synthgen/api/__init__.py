"""The Python API: what `import synthgen` offers. The commands call the same functions, parse flags and print."""
