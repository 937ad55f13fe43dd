"""Hours, memory and disk of a run beforehand; long runs from notebooks."""
