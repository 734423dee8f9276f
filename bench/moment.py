"""The present moment in UTC, ISO 8601, as fine as records, journals and results of processes write it."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_second() -> str:
    """The present moment to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def utc_millisecond() -> str:
    """The present moment to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def utc_microsecond() -> str:
    """The present moment to the microsecond."""
    return datetime.now(UTC).isoformat(timespec="microseconds")
