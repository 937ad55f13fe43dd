"""Backbones, attention recording and heads."""
