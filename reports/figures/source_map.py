"""Source map: which patches of a real image each token holds after a block, and which are gone."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from bench.plan.case import Case
from bench.store.records import Record
from reports.figures.figure import Control, Figure, no_picture
from reports.figures.theme import SERIES, Spec, axis, layout
from reports.labels import case_label

ID = "source-map"
HOW_TO_READ = (
    "An image of the task, cut into patches. Lines are drawn between patches that different tokens hold; patches "
    "without a line between them have become one token. Each tint is one of the largest tokens, wherever its patches "
    "lie; patches that no token holds any more are covered with a cross."
)
SIDE = 384
#: Pixels of the picture on the page.
HEIGHT = 460
#: Colours that stay apart when they lie on an image, and how much of it they cover.
TINTS = SERIES[:5]
TINT = 0.42


def summary(owners: Sequence[Sequence[int]]) -> pd.DataFrame:
    """Per block: tokens left that hold patches, patches dropped, and patches in the largest token.

    Args:
        owners: per block the token that holds each patch, or -1.
    """
    rows = []
    for block, held in enumerate(owners, 1):
        sizes = Counter(owner for owner in held if owner >= 0)
        rows.append(
            {
                "block": block,
                "tokens that hold patches": len(sizes),
                "patches dropped": sum(o < 0 for o in held),
                "patches in the largest token": max(sizes.values(), default=0),
            }
        )
    return pd.DataFrame(rows)


def borders(held: Sequence[int], grid: int) -> tuple[list[float | None], list[float | None]]:
    """Line segments between neighbouring patches of different tokens, in patch units, broken by None; rows go down."""
    xs: list[float | None] = []
    ys: list[float | None] = []
    for place, owner in enumerate(held):
        row, column = divmod(place, grid)
        if column + 1 < grid and held[place + 1] != owner:
            xs += [column + 1, column + 1, None]
            ys += [row, row + 1, None]
        if row + 1 < grid and held[place + grid] != owner:
            xs += [column, column + 1, None]
            ys += [row + 1, row + 1, None]
    return xs, ys


def largest(held: Sequence[int], most: int = len(TINTS)) -> list[int]:
    """The tokens with most patches, at most `most`, that hold several; of equal ones the first in the image."""
    sizes = Counter(owner for owner in held if owner >= 0)
    return [owner for owner, size in sizes.most_common(most) if size > 1]


def _tints(held: Sequence[int], grid: int) -> list[Spec]:
    """A coloured square over every patch of the largest tokens."""
    colours = dict(zip(largest(held), TINTS, strict=False))
    return [
        {
            "type": "rect",
            "x0": place % grid,
            "x1": place % grid + 1,
            "y0": place // grid,
            "y1": place // grid + 1,
            "layer": "between",
            "fillcolor": colours[owner],
            "opacity": TINT,
            "line": {"width": 0, "color": "@none"},
        }
        for place, owner in enumerate(held)
        if owner in colours
    ]


def figure(record: Record, *, id: str = ID) -> Figure:
    """The source map of a case, a view per block that changes something; the reason if the record has no picture."""
    label = case_label(Case.from_dict(record["case"]))
    picture = record.get("picture")
    if not picture:
        return no_picture(id, f"{label}: no source map", HOW_TO_READ, "the model does not trace sources on real images")
    owners, grid = picture["owners"], int(picture["grid"])
    if any(len(held) != grid * grid for held in owners):
        return no_picture(id, f"{label}: no source map", HOW_TO_READ, "the patches do not form a square")
    table = summary(owners)
    blocks = [1, *(block for block in range(2, len(owners) + 1) if owners[block - 1] != owners[block - 2])]
    source, last = _png(picture["pixels"]), table.iloc[-1]
    names = [f"block {block}" for block in reversed(blocks)]
    views = {f"block {block}": _spec(source, owners[block - 1], grid) for block in reversed(blocks)}
    dropped = int(last["patches dropped"])
    title = (
        f"{label}: at the end {last['tokens that hold patches']} tokens hold {grid * grid - dropped} of {grid * grid} "
        f"patches, the largest {last['patches in the largest token']}"
    )
    return Figure(id, title, HOW_TO_READ, table, views, (Control("After", tuple(names)),))


def _spec(source: str, held: Sequence[int], grid: int) -> Spec:
    xs, ys = borders(held, grid)
    gone = [divmod(place, grid) for place, owner in enumerate(held) if owner < 0]
    sizes = Counter(held)
    where = [divmod(place, grid) for place in range(len(held))]
    words = ["dropped" if o < 0 else f"token {o}, {sizes[o]} patch{'es' if sizes[o] > 1 else ''}" for o in held]
    traces: list[dict[str, Any]] = [
        {"type": "scatter", "mode": "markers", "x": [c + 0.5 for _, c in where], "y": [r + 0.5 for r, _ in where],
         "marker": {"size": 14, "color": "@none"}, "text": words, "hoverinfo": "text", "showlegend": False},
        {"type": "scatter", "mode": "lines", "x": xs, "y": ys, "line": {"color": "@orange", "width": 2},
         "hoverinfo": "skip", "name": "between tokens"},
        {"type": "scatter", "mode": "markers", "x": [c + 0.5 for _, c in gone], "y": [r + 0.5 for r, _ in gone],
         "marker": {"size": 11, "symbol": "x-thin", "line": {"color": "@vermillion", "width": 2}}, "hoverinfo": "skip",
         "name": "dropped"},
    ]  # fmt: skip
    side = {"range": [0, grid], "showgrid": False, "showticklabels": False, "ticks": "", "constrain": "domain"}
    image = {
        "source": source,
        "xref": "x",
        "yref": "y",
        "x": 0,
        "y": 0,
        "sizex": grid,
        "sizey": grid,
        "sizing": "stretch",
        "layer": "below",
    }
    drawn = layout(
        xaxis=axis("patches from left to right", **side),
        yaxis=axis("patches from top to bottom", **{**side, "range": [grid, 0], "scaleanchor": "x"}),
        height=HEIGHT,
    )
    return {"data": traces, "layout": {**drawn, "images": [image], "shapes": _tints(held, grid)}}


def _png(pixels: Any) -> str:
    """The image as a data address, enlarged without smoothing so that single pixels stay visible.

    Slashes are percent-encoded: a page that hides the machine's paths would take parts of the image for some.
    """
    array = np.asarray(pixels, dtype=np.uint8)
    factor = max(1, SIDE // array.shape[0])
    size = (array.shape[1] * factor, array.shape[0] * factor)
    buffer = io.BytesIO()
    Image.fromarray(array).resize(size, Image.Resampling.NEAREST).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode().replace("/", "%2F")
