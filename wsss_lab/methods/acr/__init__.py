"""ACR: all-pairs consistency."""
