"""Quantities, one file or folder each: parameters, MACs, memory, time, energy, quality, the peaks of a machine."""
