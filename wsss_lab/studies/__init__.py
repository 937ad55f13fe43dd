"""Experiments of the book: each module is one command that writes one `metrics.json`."""
