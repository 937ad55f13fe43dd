"""Training: the loop, optimisers, checkpoints, the guard against bad steps, the log."""
