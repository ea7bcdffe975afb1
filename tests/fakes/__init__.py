"""Drawn datasets, tiny networks and plugins that fail on purpose, for tests."""
