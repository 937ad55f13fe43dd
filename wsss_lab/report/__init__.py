"""One HTML page about a run: its settings, plan, measurements, scores and pictures."""
