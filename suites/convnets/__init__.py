"""Convolutional networks of ten years: which ideas arrive as time."""
