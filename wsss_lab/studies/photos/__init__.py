"""Studies on photographs: what can be learned on two processor cores from ImageNet features."""
