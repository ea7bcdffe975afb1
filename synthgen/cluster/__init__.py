"""Runs jobs and trainings on a Ray cluster. Only the commands import it, and only when `--engine ray` is given."""
