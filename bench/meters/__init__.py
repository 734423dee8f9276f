"""Measured quantities: one module per quantity."""
