"""Flags: what a reader has to know of a row, with a code to filter by and how much it weighs."""

from __future__ import annotations

from typing import Literal

#: info: good to know. warn: the number may mislead. invalid: the row is not what it says it is.
Severity = Literal["info", "warn", "invalid"]
Flag = dict[str, str]
#: Requests of an open loop were taken late by a free server.
LATE_ARRIVALS = "late_arrivals"
#: Codes that say that other work disturbed a measurement: the row is contaminated, which is shown and never ranked.
DISTURBANCES = frozenset({LATE_ARRIVALS})


def flag(code: str, severity: Severity, text: str) -> Flag:
    """A flag as records hold it."""
    return {"code": code, "severity": severity, "text": text}
