"""Examines a dataset before any GPU time is spent; changes nothing. `examine` does it, `diagnosis` says it."""
