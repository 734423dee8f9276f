"""Split networks as ways to answer a request, by network: what the map of links and the curve of payloads are made of.

A row is measured at one link; its parts hold at any. Where the same case stands at several links the first is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.analysis.link_map import Way, break_even, link_map
from bench.metrics import METRICS
from reports.content import Site
from reports.rows import Cell, Row
from reports.scores import score_of

#: Rates in Mbit/s and device factors that are drawn, and the round trip.
RATES = tuple(0.1 * 10 ** (step / 8) for step in range(33))
FACTORS = tuple(2.0 ** (step / 2) for step in range(15))
RTT_MS = 20.0
#: Device factors of the table of break-even rates; rates and factors of the table of who answers first.
TOLD = (1.0, 10.0)
TOLD_RATES, TOLD_FACTORS = (0.1, 1.0, 10.0, 100.0, 1000.0), (1.0, 4.0, 16.0, 64.0)


@dataclass(frozen=True)
class Named:
    """A way with the row that it was measured by, and which of the three kinds it is."""

    way: Way
    row: Row
    kind: str


def ways_by_network(site: Site) -> dict[str, list[Named]]:
    """The ways of every network of which at least two were timed, by the network and batch."""
    found: dict[str, dict[str, Named]] = {}
    for row in site.rows:
        named = _named(row) if row.ranked and row.case.workload == "split" else None
        if named is not None:
            found.setdefault(_network(row), {}).setdefault(named.way.name, named)
    return {network: list(ways.values()) for network, ways in found.items() if len(ways) > 1}


def _network(row: Row) -> str:
    return f"{row.case.model_label}, batch {row.case.batch}"


def _named(row: Row) -> Named | None:
    """The way of a row; None where a part was not timed or a payload not encoded."""
    payload, answer = row.value("payload_bytes"), row.value("answer_bytes")
    head = row.value("latency_ms", "head")
    if payload is None or answer is None or head is None:
        return None
    if payload == 0:
        return Named(Way(row.head, head, 0.0, 0.0, sends=False), row, "local")
    device = _device_ms(row, head)
    decode, tail = row.value("latency_ms", "decode"), row.value("latency_ms", "tail")
    if device is None or decode is None or tail is None:
        return None
    time, sent = device
    kind = "offload" if row.case.method.startswith("offload") else "split"
    return Named(Way(row.head, time, decode + tail, (payload if sent is None else sent) + answer), row, kind)


def _device_ms(row: Row, head: float) -> tuple[float, float | None] | None:
    """Milliseconds of head and encode, and the payload where it is a branch's; of several devices the slowest."""
    branches = [part for part in row.parts if part.startswith("head_")]
    if not branches:
        encode = row.value("latency_ms", "encode")
        return None if encode is None else (head + encode, None)
    times = []
    for part in branches:
        own, coded = row.value("latency_ms", part), row.value("latency_ms", part.replace("head", "encode"))
        if own is None or coded is None:
            return None
        times.append((own + coded, row.value("payload_bytes", part.replace("head", "encode"))))
    return max(times, key=lambda item: item[0])


def break_even_table(site: Site) -> tuple[list[str], list[list[str]]]:
    """Head and lines: at which rates each split is quicker than the quickest local and offloaded way of its network."""
    head = ["case", "of", *(f"quicker than {other}, device {f:g}x" for other in ("local", "offload") for f in TOLD)]
    lines = []
    for network, ways in ways_by_network(site).items():
        for named in ways:
            if named.kind == "split":
                told = [_against(named, ways, other, factor) for other in ("local", "offload") for factor in TOLD]
                lines.append([named.way.name, network, *told])
    return head, lines


def winners_table(site: Site) -> tuple[list[str], list[list[str]]]:
    """Head and lines: the map of links in words, which way answers first at each rate and device factor."""
    head = ["of", "device slower by", *(f"{rate:g} Mbit/s" for rate in TOLD_RATES)]
    lines = []
    for network, ways in ways_by_network(site).items():
        places = link_map([named.way for named in ways], TOLD_RATES, TOLD_FACTORS, RTT_MS)
        for factor, line in zip(TOLD_FACTORS, places, strict=True):
            lines.append([network, f"{factor:g}x", *(_wins(ways[place]) for place in line)])
    return head, lines


def _wins(named: Named) -> str:
    return "local" if named.kind == "local" else f"{named.kind}: {named.way.name}"


def _against(named: Named, ways: Sequence[Named], kind: str, factor: float) -> str:
    """The break-even against the way of a kind that sends least, which is the hardest to beat on a slow link."""
    others = [other.way for other in ways if other.kind == kind]
    if not others:
        return "unavailable"
    hardest = min(others, key=lambda way: way.bytes)
    return str(break_even(named.way, hardest, factor=factor, rtt_ms=RTT_MS))


# ---------------------------------------------------------------------------------------------- payloads


@dataclass(frozen=True)
class Point:
    """Mean payload and score of one row."""

    row: Row
    payload: float
    score: Cell


def payload_points(site: Site) -> dict[tuple[str, str], list[Point]]:
    """Rows with a payload and a score, by network and score, each case once, smallest payloads first."""
    scored = [row for row in site.rows if row.ranked and row.case.workload == "split"]
    metric = score_of(scored)
    found: dict[tuple[str, str], dict[str, Point]] = {}
    for row in scored:
        payload = row.value("payload_bytes")
        cell = row.cells.get(metric or "")
        if payload and metric and cell is not None and cell.value is not None:
            found.setdefault((_network(row), metric), {}).setdefault(row.head, Point(row, payload, cell))
    ordered = {key: sorted(points.values(), key=lambda p: p.payload) for key, points in found.items()}
    return {key: points for key, points in ordered.items() if len(points) > 1}


def payload_table(site: Site) -> tuple[list[str], list[list[str]]]:
    """Head and lines: bytes on the wire, how many times fewer than the pixels, and the score, smallest first."""
    head = ["case", "of", "payload (B)", "pixels over payload", "bytes of an equally good JPEG over payload", "score"]
    lines = []
    for (network, metric), points in payload_points(site).items():
        for point in points:
            ratios = [_ratio(point.row, name) for name in ("vs_u8_input", "vs_jpeg_equal_accuracy")]
            lines.append([point.row.head, network, f"{point.payload:,.0f}", *ratios, _scored(point.score, metric)])
    return head, lines


def _ratio(row: Row, metric: str) -> str:
    """`6.2x`, or the reason why there is none."""
    cell = row.cells.get(metric)
    if cell is None or cell.value is None:
        return f"unavailable ({cell.note})" if cell is not None and cell.note else "unavailable"
    return f"{cell.value:.3g}x"


def _scored(cell: Cell, metric: str) -> str:
    """`98.7 % [97.4, 99.3]`."""
    text = f"{cell.value:.4g} {METRICS[metric].unit}"
    return text if cell.low is None or cell.high is None else f"{text} [{cell.low:.4g}, {cell.high:.4g}]"
