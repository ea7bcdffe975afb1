"""Training: the loop, its learners, the optimizer, checkpoints to resume from, the run directory, ablations."""
