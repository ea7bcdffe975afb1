"""What `synthgen demo` runs on: seven free photographs with boxes drawn by hand, and small manifests."""
