"""The porch: where a cluster meets the front door. Nothing in the house imports it."""
