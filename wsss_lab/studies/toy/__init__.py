"""Studies that belong to the toy world: calibration, pre-training, warm-up, localisation."""
