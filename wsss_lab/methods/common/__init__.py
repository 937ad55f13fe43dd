"""What methods share: base class, consistency plug-in, AffinityNet, DeepLab."""
