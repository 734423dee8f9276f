"""Waterline: efficiency benchmarks with a unit, an interval, a provenance and a definition for every number."""

from bench.api import build, curves, layers, load, measure
from bench.version import __version__

__all__ = ["__version__", "build", "curves", "layers", "load", "measure"]
