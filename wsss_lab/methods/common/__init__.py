"""Parts that methods share: base class, AffinityNet, DeepLab."""
