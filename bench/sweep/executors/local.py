"""Fresh processes on this machine, forked from a server that has imported torch."""

from __future__ import annotations

from bench.worker.client import Workers


def open_executor(timeouts_s: dict[str, float]) -> Workers:
    """The workers of this machine; leaving them leaves no process behind."""
    return Workers(timeouts_s)
