"""Data of `synthgen demo`: seven free photographs with hand-drawn boxes, and small manifests."""
