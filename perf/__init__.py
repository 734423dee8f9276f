"""Benchmarks of the instrument itself; nothing here is part of the installed package."""
