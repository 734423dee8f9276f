"""The version of the instrument: one place, read by the build and written into every record."""

__version__ = "0.2.0"
