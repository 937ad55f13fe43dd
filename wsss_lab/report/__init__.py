"""One HTML page about a run: what was set, planned, measured and scored, and what it looks like."""
