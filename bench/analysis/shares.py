"""How much of a saving arrives, in its two views, defined once for tokens, pruning, caches and dynamic networks alike.

With t and m the time and the products of a case, t0 and m0 those of the case that it is compared with, s = t0/t:

* realised gain  = s / (m0 / m): the measured speed-up over the promised one. 1 is all of it.
* arrived share  = (1 - t/t0) / (1 - m/m0): saved time over saved products. 1 is all of it, 0 nothing, below 0 it got
  slower.

Both are of one part of the workload on one machine. Their intervals are those of the speed-up: m is exact.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from bench.labels import NO_SPEED, REAL

#: Case, machine, protocol, part and what was compared; then the two shares with their ends, or the reason.
COLUMNS = ("case_key", "machine_key", "protocol", "part", "mac_ratio", "speedup", "realised_gain", "realised_gain_low",
           "realised_gain_high", "arrived_share", "arrived_share_low", "arrived_share_high", "reason")  # fmt: skip
#: Saved or added part of the products below which time is not shared out: equal networks differ by as much in time.
LEAST_SAVED = 0.02
NOTHING_SAVED = "it makes as many products as what it is compared with, to 2 %: there is no saved part to share out"


@dataclass(frozen=True)
class Share:
    """A share with the ends of its interval; or no value and the reason."""

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""


def realised_gain(speedup: float, low: float | None, high: float | None, mac_ratio: float) -> Share:
    """Measured over promised speed-up.

    Args:
        speedup: t0/t, above 0.
        low: lower end of its interval.
        high: upper end.
        mac_ratio: m0/m, above 0.
    """
    low, high = (None if end is None else end / mac_ratio for end in (low, high))
    return Share(speedup / mac_ratio, low, high)


def arrived_share(speedup: float, low: float | None, high: float | None, mac_ratio: float) -> Share:
    """Saved time over saved products, (1 - 1/s) / (1 - 1/(m0/m)); no value where less than `LEAST_SAVED` is saved.

    Where the case makes more products than the other side, both parts of the ratio are losses: above 1 it loses more
    time than products, and the ends change places, so that low stays below high.

    Args:
        speedup: t0/t, above 0.
        low: lower end of its interval.
        high: upper end.
        mac_ratio: m0/m, above 0.
    """
    saved = 1 - 1 / mac_ratio
    if abs(saved) < LEAST_SAVED:
        return Share(None, reason=NOTHING_SAVED)
    low, high = (None if end is None or end <= 0 else (1 - 1 / end) / saved for end in (low, high))
    if saved < 0:
        low, high = high, low
    return Share((1 - 1 / speedup) / saved, low, high)


def table(frame: pd.DataFrame, bounds: Mapping[str, str] | None = None) -> pd.DataFrame:
    """The two shares of every row with a speed-up, one line per case, machine and part; columns `COLUMNS`.

    Args:
        frame: the tidy table of `bench.analysis.table`.
        bounds: of `lower_bounds(records)`, the cases whose products are a lower bound alone: they promise no ratio.
    """
    bounds = bounds or {}
    macs = {
        (row.case_key, row.machine_key, row.part): row.value
        for row in frame[(frame["metric"] == "macs") & frame["value"].notna()].itertuples()
    }
    rows = [_line(row, macs, bounds) for row in frame[frame["metric"] == "speedup"].itertuples()]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _line(row: object, macs: Mapping[tuple[str, str, str], float], bounds: Mapping[str, str]) -> dict[str, object]:
    """One line of the table from a row of the metric `speedup`."""
    key, machine, part = row.case_key, row.machine_key, row.part  # type: ignore[attr-defined]
    head = {"case_key": key, "machine_key": machine, "protocol": row.protocol, "part": part}  # type: ignore[attr-defined]
    own, base = macs.get((key, machine, part)), macs.get((row.baseline_key, machine, part))  # type: ignore[attr-defined]
    value, low, high = (_known(getattr(row, name)) for name in ("value", "ci_low", "ci_high"))
    execution = str(getattr(row, "execution", REAL))
    bound = next((bounds[side] for side in (row.baseline_key, key) if side in bounds), "")  # type: ignore[attr-defined]
    ratio = base / own if own and base and not bound else None
    if execution in NO_SPEED:
        return {**head, "mac_ratio": ratio, "reason": NO_SPEED[execution]}
    if value is None:
        return {**head, "mac_ratio": ratio, "reason": str(row.method_note)}  # type: ignore[attr-defined]
    if bound:
        return {**head, "speedup": value, "reason": f"products that are a lower bound have no ratio: {bound}"}
    if ratio is None:
        return {**head, "speedup": value, "reason": "the MACs of the case or of what it is compared with are missing"}
    gain, share = realised_gain(value, low, high, ratio), arrived_share(value, low, high, ratio)
    return {
        **head,
        "mac_ratio": ratio,
        "speedup": value,
        "realised_gain": gain.value,
        "realised_gain_low": gain.low,
        "realised_gain_high": gain.high,
        "arrived_share": share.value,
        "arrived_share_low": share.low,
        "arrived_share_high": share.high,
        "reason": share.reason,
    }


def _known(value: float) -> float | None:
    return None if value is None or math.isnan(value) else float(value)
