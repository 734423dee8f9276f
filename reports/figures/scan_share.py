"""The scan's share of the time of a network, beside its share of the products: one line per network and shape."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from reports.figures.figure import Figure, no_picture, rounded
from reports.figures.lines import error_bar
from reports.figures.theme import Spec, axis, family_styles, layout, legend, plain
from reports.scan_share import ScanShare, table

ID = "scan-share"
HOW = (
    "The right mark of a line is the share of the time that goes when the recurrence is taken away: the most that a "
    "better scan could win. The left one is the share of the products that go with it. Bars are 95 % intervals."
)
TIME, PRODUCTS = "of the time", "of the products"


def figure(found: Sequence[ScanShare], *, id: str = ID) -> Figure:
    """The figure of `reports.scan_share.scan_shares`."""
    head, rows = table(found)
    numbers = pd.DataFrame(rows, columns=head).astype(object)
    if not found:
        return no_picture(
            id, "No share of scans", HOW, "no network was timed beside its control scan=identity", numbers
        )
    hover = [
        f"<b>{plain(one.name)}</b><br>{one.products:.2%} of the products, {one.time:.0%} of the time" for one in found
    ]
    return Figure(id, title(found), HOW, numbers, {"": draw(found)}, (), hover=tuple(hover))


def title(found: Sequence[ScanShare]) -> str:
    """The finding: the range of both shares."""
    times, products = ([getattr(one, name) for one in found] for name in ("time", "products"))
    return (
        f"Scans are {min(times):.0%} to {max(times):.0%} of the time and "
        f"{min(products):.1%} to {max(products):.1%} of the products"
    )


def draw(found: Sequence[ScanShare]) -> Spec:
    """Shares along x, networks along y, the largest share of time on top."""
    styles = family_styles([TIME, PRODUCTS])
    names = [plain(one.name) for one in found]
    traces = []
    for name, values in ((PRODUCTS, [one.products for one in found]), (TIME, [one.time for one in found])):
        trace: Spec = {
            "type": "scatter", "mode": "markers", "name": name, "x": rounded(values), "y": names,
            "marker": {"symbol": styles[name].symbol, "size": 10, "color": styles[name].colour},
            "customdata": [[place] * 2 for place in range(len(found))], "meta": "hover",
        }  # fmt: skip
        if name == TIME:
            trace["error_x"] = error_bar(values, [one.low for one in found], [one.high for one in found])
        traces.append(trace)
    xaxis = axis("share of the scan", tickformat=".0%")
    yaxis = {**axis(""), "type": "category", "autorange": "reversed", "automargin": True}
    return {
        "data": traces,
        "layout": layout(xaxis=xaxis, yaxis=yaxis, height=160 + 34 * len(found), legend=legend()),
    }
