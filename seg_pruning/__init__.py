"""Structured pruning of segmentation networks, with every cut proved."""
