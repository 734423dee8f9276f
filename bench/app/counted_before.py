"""Counts behind estimates, kept in the cache folder: what was counted for a plan is not counted again for the run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.store.records import write_json
from bench.version import __version__

FILE = "counted.json"
#: Cases that are kept; the oldest leave first.
MOST = 4096


def read(folder: Path) -> dict[str, Any]:
    """What was counted, by case key: MACs by part. Empty where nothing was, by another version, or unreadably."""
    with suppress(OSError, ValueError, AttributeError):
        kept = json.loads((folder / FILE).read_text(encoding="utf-8"))
        if kept.get("version") == __version__ and isinstance(kept["cases"], dict):
            return {key: {"macs": parts} for key, parts in kept["cases"].items() if _is_whole(parts)}
    return {}


def keep(folder: Path, found: Mapping[str, Any]) -> None:
    """Add what was counted wholly; a folder that cannot be written costs only the time of counting again.

    Args:
        folder: the cache folder.
        found: `macs` by part of each case key; those with a reason instead of a count are left out.
    """
    whole = {key: one["macs"] for key, one in found.items() if _is_whole(one.get("macs"))}
    if not whole:
        return
    cases = {key: one["macs"] for key, one in read(folder).items() if key not in whole} | whole
    with suppress(OSError, ValueError):
        write_json(folder / FILE, {"version": __version__, "cases": dict(list(cases.items())[-MOST:])})


def _is_whole(parts: Any) -> bool:
    """Whether every part of a case has its number of MACs."""
    return isinstance(parts, dict) and bool(parts) and all(isinstance(value, int | float) for value in parts.values())
