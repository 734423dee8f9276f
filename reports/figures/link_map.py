"""Local, offloaded or split: the quickest way at each rate of a link and speed of a device, one view a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from bench.analysis.link_map import link_map
from reports.figures.figure import Control, Figure, no_picture, rounded
from reports.figures.theme import SERIES, Spec, layout, legend, log_axis, plain
from reports.split_ways import FACTORS, RATES, RTT_MS, Named

ID = "link-map"
HOW = (
    "Each square is a link and a device; its colour is the way that answers first there. Parts were measured on this "
    f"machine; the link, with a round trip of {RTT_MS:g} ms, and the slower device are modelled."
)


def figure(found: Mapping[str, Sequence[Named]], *, id: str = ID) -> Figure:
    """The figure of `reports.split_ways.ways_by_network`."""
    numbers = pd.DataFrame([line for network, ways in found.items() for line in _lines(network, ways)], dtype=object)
    if not found:
        return no_picture(id, "No map of links", HOW, "fewer than two ways of one network were timed", numbers)
    hover: list[str] = []
    views = {network: _draw(ways, hover) for network, ways in found.items()}
    return Figure(id, _title(found), HOW, numbers, views, (Control("Network", tuple(views)),), hover=tuple(hover))


def _lines(network: str, ways: Sequence[Named]) -> list[dict[str, object]]:
    return [
        {
            "way": named.way.name,
            "kind": named.kind,
            "of": network,
            "device (ms)": named.way.device_ms,
            "server (ms)": named.way.server_ms,
            "bytes": named.way.bytes,
        }
        for named in ways
    ]


def _title(found: Mapping[str, Sequence[Named]]) -> str:
    """The finding: how much of the map a split network wins."""
    network, ways = next(iter(found.items()))
    places = [place for line in _map(ways) for place in line]
    share = sum(ways[place].kind == "split" for place in places) / len(places)
    return f"{network}: splitting answers first on {100 * share:.0f} % of the links and devices drawn"


def _map(ways: Sequence[Named]) -> list[list[int]]:
    return link_map([named.way for named in ways], RATES, FACTORS, RTT_MS)


def _draw(ways: Sequence[Named], hover: list[str]) -> Spec:
    where: dict[int, list[tuple[float, float]]] = {}
    for factor, line in zip(FACTORS, _map(ways), strict=True):
        for rate, place in zip(RATES, line, strict=True):
            where.setdefault(place, []).append((rate, factor))
    traces = []
    for number, (place, points) in enumerate(sorted(where.items())):
        start, way = len(hover), ways[place].way
        hover += [
            f"<b>{plain(way.name)}</b><br>{rate:.3g} Mbit/s · device {factor:.3g}x · "
            f"{way.total_ms(rate, RTT_MS, factor):.3g} ms"
            for rate, factor in points
        ]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": plain(f"{ways[place].kind}: {way.name}"),
                "x": rounded([rate for rate, _ in points]),
                "y": rounded([factor for _, factor in points]),
                "marker": {"symbol": "square", "size": 13, "color": SERIES[number % len(SERIES)]},
                "customdata": [[start + i] * 2 for i in range(len(points))],
                "meta": "hover",
            }
        )
    xaxis = log_axis("rate of the link in Mbit/s, log", RATES[0], RATES[-1])
    yaxis = log_axis("device slower than this machine, times, log", FACTORS[0], FACTORS[-1])
    return {"data": traces, "layout": layout(xaxis=xaxis, yaxis=yaxis, height=460, legend=legend())}
