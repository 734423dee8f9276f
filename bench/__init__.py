"""Waterline: efficiency benchmarks with a unit, an interval, a provenance and a definition for every number."""

from bench.version import __version__

__all__ = ["__version__"]
