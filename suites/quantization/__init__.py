"""Quantization: which bits become bytes and time, and which only exist in a simulation."""
