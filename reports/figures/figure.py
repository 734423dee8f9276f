"""What a page needs of a figure: pictures as plain JSON, the numbers beside them, and the words that explain them.

How a page shows one:

* `title` is the heading, `how_to_read` the sentence below, `caption` the credit, `notes` the badges. All are plain
  text: escape them as any text. Strings inside a spec are escaped already.
* `controls` are drop-downs. Join the chosen options, in order, with `SEPARATOR` to get the key of `views`; no control
  means one view under the key "". A combination without a picture is absent from `views`: disable it.
* A spec holds colour roles instead of colours: replace them with `theme.themed` or ``paint.js`` and draw with
  `theme.CONFIG`. `layout.height` is fixed, the width follows the page.
* `customdata[0]` of a mark is the position of the row of `table` that it stands for, or null.
* To keep pages small, what marks say on hover may be kept once for all views: a trace with `meta: "hover"` takes
  `hover[customdata[1]]` for each of its marks. `Figure.drawn` and ``paint.js`` do that and the colours in one go.
* `links` are pages of the site, one for each row of `table`, that a click on a mark opens.
* `table` is shown beside the picture and is what the CSV download holds; empty cells are None. A figure without a
  picture has `reason`, and its table where there are numbers at all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from reports.figures.theme import Spec, Theme, themed

SEPARATOR = " · "


@dataclass(frozen=True)
class Control:
    """One drop-down: its name and what can be chosen; the first option is the default."""

    label: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Figure:
    """One figure of a page. `id` is a stable slug, unique on its page; `title` states the finding.

    `wide` is the view that is shown first on a wide screen; empty where it is the first one on every screen.
    """

    id: str
    title: str
    how_to_read: str
    table: pd.DataFrame
    views: Mapping[str, Spec] = field(default_factory=dict)
    controls: tuple[Control, ...] = ()
    caption: str = ""
    notes: tuple[str, ...] = ()
    reason: str = ""
    hover: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    wide: str = ""

    def __post_init__(self) -> None:
        if bool(self.views) == bool(self.reason):
            raise ValueError(f"figure {self.id!r} needs either a picture or the reason why there is none")

    @property
    def spec(self) -> Spec | None:
        """The picture shown first: `{data, layout}`; None where `reason` says why."""
        return next(iter(self.views.values()), None)

    def view(self, *options: str) -> Spec | None:
        """The picture for one choice per control; None where that combination has none."""
        return self.views.get(SEPARATOR.join(options))

    def drawn(self, *options: str, theme: Theme = "light") -> Spec | None:
        """A view (default: the first) as plotly takes it: colours of the theme and hover texts filled in."""
        spec = self.view(*options) if options else self.spec
        return None if spec is None else themed({**spec, "data": [self._with_hover(x) for x in spec["data"]]}, theme)

    def _with_hover(self, trace: Spec) -> Spec:
        if trace.get("meta") != "hover":
            return trace
        return {**trace, "hovertext": [self.hover[item[1]] for item in trace["customdata"]], "hoverinfo": "text"}


def no_picture(id: str, title: str, how_to_read: str, reason: str, table: pd.DataFrame | None = None) -> Figure:
    """A figure that says why it is not there, with the numbers that exist all the same."""
    return Figure(id, title, how_to_read, pd.DataFrame() if table is None else table, reason=reason)


def table_of(lines: Sequence[Mapping[str, object]]) -> pd.DataFrame:
    """Lines as a table in which numbers keep their kind and what is not known is None; columns as they first occur."""
    columns = dict.fromkeys(name for line in lines for name in line)
    return pd.DataFrame({name: _column([line.get(name) for line in lines]) for name in columns})


def _column(values: Sequence[object]) -> pd.Series[Any]:
    return pd.Series(
        [None if isinstance(value, float) and math.isnan(value) else value for value in values], dtype=object
    )


def significant(value: float | None, digits: int = 3) -> str:
    """A number with `digits` significant digits and no exponent for everyday sizes; "n/a" for None."""
    if value is None:
        return "n/a"
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    decimals = digits - 1 - math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}"))))
    if not -9 <= decimals <= 9:
        return f"{value:.{digits - 1}e}"
    return f"{round(value, decimals):.{max(decimals, 0)}f}"


def percent(value: float | None, digits: int = 2) -> str:
    """A fraction as a percentage with `digits` significant digits (whole percents from 100 up), "n/a" for None."""
    if value is not None and abs(value) >= 1:
        return f"{100 * value:.0f} %"
    return "n/a" if value is None else f"{significant(100 * value, digits)} %"


def rounded(values: Sequence[float | None], digits: int = 5) -> list[float | None]:
    """Numbers for a spec with as many digits as a screen can show, so that pages stay small."""
    return [None if value is None else float(f"{value:.{digits}g}") for value in values]
