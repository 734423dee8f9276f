"""How every figure looks: colour roles with a value for light and one for dark, and the style of each method or model.

A spec never holds a colour, only a role such as ``@ink`` (see `COLOURS`). The page replaces the roles when it draws and
again when the reader changes the theme; `themed` does the same in Python, and ``paint.js`` beside this file in the
browser. Hues are those of Okabe and Ito, "Color Universal Design" (2008), which stay apart for the colour-blind.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from bench.canonical import BASELINE_METHOD
from reports.rows import Row

Theme = Literal["light", "dark"]
Spec = dict[str, Any]

#: Role -> (light, dark). Blue and sky are lifted in the dark so that each keeps a contrast of 3 or more.
COLOURS: dict[str, tuple[str, str]] = {
    "@ink": ("#1b1f24", "#e8eaed"),
    "@quiet": ("#6a737d", "#9aa4af"),
    "@grid": ("rgba(27,31,36,0.10)", "rgba(232,234,237,0.13)"),
    "@paper": ("#ffffff", "#14171c"),
    "@band": ("rgba(106,115,125,0.20)", "rgba(154,164,175,0.24)"),
    "@grey": ("#9aa1a9", "#6f7882"),
    "@water": ("rgba(86,180,233,0.30)", "rgba(86,180,233,0.24)"),
    "@waterline": ("#0072b2", "#56b4e9"),
    "@blue": ("#0072b2", "#3a95d6"),
    "@vermillion": ("#d55e00", "#e8742a"),
    "@green": ("#009e73", "#1db98d"),
    "@purple": ("#cc79a7", "#d890b8"),
    "@orange": ("#e69f00", "#f0b429"),
    "@sky": ("#56b4e9", "#8ccff5"),
    "@none": ("rgba(0,0,0,0)", "rgba(0,0,0,0)"),
}
SERIES: tuple[str, ...] = ("@blue", "@vermillion", "@green", "@purple", "@orange", "@sky")
SYMBOLS: tuple[str, ...] = ("square", "diamond", "triangle-up", "pentagon", "triangle-down", "star", "hexagon", "cross")

#: Given to `Plotly.newPlot` with every figure; nothing is ever sent anywhere.
CONFIG: dict[str, Any] = {
    "showSendToCloud": False,
    "displaylogo": False,
    "responsive": True,
    "scrollZoom": False,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
    "toImageButtonOptions": {"format": "svg", "filename": "waterline"},
}


@dataclass(frozen=True)
class Style:
    """Colour role and marker symbol of one family (a method, or a model in a suite of models) in every figure."""

    colour: str
    symbol: str


BASELINE_STYLE = Style("@ink", "circle")


def styles_of(rows: Iterable[Row]) -> dict[str, Style]:
    """A style per `Row.family`; what others are compared with is the black circle."""
    listed = list(rows)
    return family_styles(
        (row.family for row in listed), (row.family for row in listed if row.is_other_side and row.by_model)
    )


def family_styles(families: Iterable[str], baselines: Iterable[str] = ()) -> dict[str, Style]:
    """A style per name; `none` and the baselines are black, the first of them circles.

    Colour and symbol change together and both cycle (6 and 8 long), so the first 24 names have different looks. Call
    it once per site with all names, so that a filter never recolours what is left.
    """
    black = {BASELINE_METHOD, *baselines}
    names = sorted(set(families) - black)
    styles = {name: Style(SERIES[i % len(SERIES)], SYMBOLS[i % len(SYMBOLS)]) for i, name in enumerate(names)}
    marks = ("circle", *SYMBOLS)
    others = sorted(black - {BASELINE_METHOD})  # `none` and a model that others are compared with share no figure
    compared = {name: Style(BASELINE_STYLE.colour, marks[i % len(marks)]) for i, name in enumerate(others)}
    return {BASELINE_METHOD: BASELINE_STYLE, **compared, **styles}


def plain(text: object) -> str:
    """Text that plotly shows as it is: its pseudo-HTML (bold, links, line breaks) is switched off."""
    return html.escape(str(text), quote=False).replace("\n", " ")


def axis(title: str, **rest: Any) -> Spec:
    """One axis in the house style; the title carries the unit."""
    return {
        "title": {"text": title, "standoff": 8, "font": {"size": 13}},
        "tickfont": {"size": 12},
        "gridcolor": "@grid",
        "linecolor": "@quiet",
        "tickcolor": "@quiet",
        "zeroline": False,
        "ticks": "outside",
        "ticklen": 4,
        "showline": True,
        "automargin": True,
        **rest,
    }


def log_axis(title: str, low: float, high: float, *, pad: float = 0.06, **rest: Any) -> Spec:
    """A logarithmic axis over `low`..`high`; ticks as plain numbers, at 1, 2 and 5, more or fewer as the span asks."""
    start, end = math.log10(low), math.log10(high)
    room = max(end - start, 0.05) * pad + 0.01
    start, end = start - room, end + room
    steps: tuple[float, ...] = (1, 2, 5) if end - start < 2.2 else (1,)
    if end - start < 1:
        steps = (1, 1.5, 2, 3, 5, 7)
    if end - start < 0.5:
        steps = (1, 1.2, 1.5, 2, 3, 4, 5, 6, 8)
    decades = range(math.floor(start), math.ceil(end) + 1)
    ticks = [float(f"{step}e{decade}") for decade in decades for step in steps]
    shown = [tick for tick in ticks if start <= math.log10(tick) <= end]
    return axis(title, type="log", range=[start, end], tickvals=shown, ticktext=[f"{tick:g}" for tick in shown], **rest)


def legend(**rest: Any) -> Spec:
    """A legend in rows above the plot; entries as wide as their text, so that a phone needs few rows."""
    return {
        "orientation": "h",
        "x": 0,
        "y": 1.02,
        "yanchor": "bottom",
        "bgcolor": "@none",
        "entrywidth": 0,
        "itemsizing": "trace",
        "font": {"size": 12},
        **rest,
    }


def layout(*, xaxis: Spec, yaxis: Spec, height: int = 420, **rest: Any) -> Spec:
    """A layout in the house style: no title (the page has it), the legend above, hover on the nearest mark."""
    return {
        "height": height,
        "margin": {"l": 56, "r": 16, "t": 28, "b": 48},
        "hovermode": "closest",
        "font": {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 13, "color": "@ink"},
        "paper_bgcolor": "@none",
        "plot_bgcolor": "@none",
        "hoverlabel": {"align": "left", "bgcolor": "@paper", "bordercolor": "@quiet", "font": {"color": "@ink"}},
        "legend": legend(),
        "modebar": {"bgcolor": "@none", "color": "@quiet", "activecolor": "@ink"},
        "xaxis": xaxis,
        "yaxis": yaxis,
        **rest,
    }


def themed(value: Any, theme: Theme) -> Any:
    """The spec (or any part) with every colour role replaced by its value in `theme`; the input is not changed."""
    column = 0 if theme == "light" else 1
    return _painted(value, {role: pair[column] for role, pair in COLOURS.items()}, under_colour=False)


def _painted(value: Any, palette: dict[str, str], *, under_colour: bool) -> Any:
    if isinstance(value, dict):
        return {key: _painted(part, palette, under_colour=key.endswith("color")) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_painted(part, palette, under_colour=under_colour) for part in value]
    return palette.get(value, value) if under_colour and isinstance(value, str) else value


def palettes() -> dict[str, dict[str, str]]:
    """`{"light": {role: colour}, "dark": {...}}`: what ``paint.js`` needs, as plain JSON types."""
    return {
        "light": {role: pair[0] for role, pair in COLOURS.items()},
        "dark": {role: pair[1] for role, pair in COLOURS.items()},
    }
