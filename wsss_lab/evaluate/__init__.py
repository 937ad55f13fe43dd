"""Evaluation: scales and mirror images joined, scores with their protocol, masks for folders."""
