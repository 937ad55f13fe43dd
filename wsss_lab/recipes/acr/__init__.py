"""ACR from data to `metrics.json`."""
