"""Image files: paths, decoding, EXIF orientation, prefetching, resizing."""
