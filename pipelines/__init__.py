"""Entry points for `ray job submit` from a checkout: each is a command of synthgen with `--engine ray`."""
