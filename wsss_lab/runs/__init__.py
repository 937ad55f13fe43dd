"""Runs: their folder, their stages, weights of others."""
