"""The roofline of a machine: its measured roofs, and every plain network that ran on it as one dot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench.analysis.roofline import OPERATIONS_PER_MAC
from bench.analysis.roofline_of_record import bandwidth_of, dtype_name, peak_of
from reports.figures import roofs
from reports.figures.figure import Figure, no_picture, percent, significant, table_of
from reports.figures.roofs import Dot
from reports.figures.theme import SERIES, plain
from reports.rows import Row

ID = "machine-roofline"
HOW_TO_READ = (
    "A dot is a plain network as a whole: operations per byte that its layers move, and the operations per second that "
    "it reached; the line above is what the machine's memory and arithmetic allow."
)
#: Networks that are drawn; the table has all.
MOST = 400


@dataclass(frozen=True)
class Network:
    """A plain network on the machine: its row, operations per byte, op/s, and the roof of its dtype."""

    row: Row
    dtype: str
    intensity: float
    speed: float
    roof: float | None

    @property
    def share(self) -> float | None:
        """The part of the roof above it that it reached."""
        return None if not self.roof else self.speed / self.roof


def dots(rows: Sequence[Row]) -> list[Network]:
    """Every plain network whose layers say what they compute and move and which was timed."""
    found = []
    for row in rows:
        if not (row.case.is_baseline or row.by_model) or not row.ranked:
            continue
        layers = row.record.get("layers") or []
        ops = OPERATIONS_PER_MAC * sum(float(layer.get("macs") or 0.0) for layer in layers)
        moved = sum(float(layer.get(part) or 0.0) for layer in layers for part in ("read_bytes", "write_bytes"))
        time_ms = (row.record.get("layers_info") or {}).get("end_to_end_ms") or row.value("latency_ms")
        if ops and moved and time_ms:
            found.append(_network(row, ops, moved, time_ms))
    return found


def _network(row: Row, ops: float, moved: float, time_ms: float) -> Network:
    machine: dict[str, Any] = row.record.get("machine") or {}
    dtype, device = dtype_name(row.case.dtype), row.case.device
    peak = peak_of(machine, dtype, device=device, threads=row.case.threads)[0]
    bandwidth = bandwidth_of(machine, device=device, threads=row.case.threads)[0]
    roof = min(peak, bandwidth * ops / moved) if peak and bandwidth else None
    return Network(row, dtype, ops / moved, ops / time_ms * 1e3, roof)


def figure(rows: Sequence[Row], *, id: str = ID) -> Figure:
    """The figure of the rows of one machine."""
    found = dots(rows)
    if not found:
        return no_picture(id, "No roofline", HOW_TO_READ, "no plain network here has layers and a time")
    first = found[0].row
    machine: dict[str, Any] = first.record.get("machine") or {}
    threads, device = first.case.threads, first.case.device
    dtypes = list(dict.fromkeys(network.dtype for network in found))
    peaks = {dtype: peak for dtype in dtypes if (peak := peak_of(machine, dtype, device=device, threads=threads)[0])}
    bandwidth = bandwidth_of(machine, device=device, threads=threads)[0]
    colours = {dtype: SERIES[place % len(SERIES)] for place, dtype in enumerate(dtypes)}
    drawn = [
        Dot(network.intensity, network.speed, place, place, network.dtype) for place, network in enumerate(found[:MOST])
    ]
    notes = [f"the roofs are of {threads} thread{'' if threads == 1 else 's'} on {device}"]
    if len(found) > MOST:
        notes.append(f"the first {MOST} of {len(found)} networks are drawn")
    if not peaks:
        notes.append("no peak was measured for these networks; run job=calibrate")
    return Figure(
        id,
        _title(found),
        HOW_TO_READ,
        _table(found),
        {"": roofs.draw(drawn, peaks, bandwidth, colours, "operations per byte that layers move, log")},
        notes=tuple(notes),
        hover=tuple(_hover(network) for network in found[:MOST]),
        links=tuple(network.row.page for network in found),
    )


def _title(found: Sequence[Network]) -> str:
    shares = sorted(network.share for network in found if network.share is not None)
    if not shares:
        return "Plain networks on this machine; without measured peaks there is no roof"
    return (
        f"Plain networks reach {percent(shares[0])} to {percent(shares[-1])} of the roof above them, "
        f"{percent(shares[(len(shares) - 1) // 2])} in the middle"
    )


def _hover(network: Network) -> str:
    row = network.row
    return (
        f"<b>{plain(row.model)}</b><br>{plain(row.case.suite)} · {plain(network.dtype)} · batch {row.case.batch}<br>"
        f"{significant(network.intensity)} op/byte, {significant(network.speed / 1e9)} GFLOP/s<br>"
        f"{percent(network.share)} of the roof above it"
    )


def _table(found: Sequence[Network]) -> pd.DataFrame:
    rows = [
        {
            "network": network.row.model,
            "suite": network.row.case.suite,
            "batch": network.row.case.batch,
            "dtype": network.dtype,
            "operations per byte": network.intensity,
            "GFLOP/s": network.speed / 1e9,
            "roof (GFLOP/s)": None if network.roof is None else network.roof / 1e9,
            "share of roof": network.share,
        }
        for network in found
    ]
    return table_of(rows)
