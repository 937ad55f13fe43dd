"""CoSA: co-training with swapping assignments."""
