"""The library's one door to the reports: numbers as people read them, and drawings in a notebook or a file.

Everything else of the instrument knows no report; this module imports them where something is shown.
"""

from __future__ import annotations

import html
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    import pandas

    from reports.figures.figure import Figure


def as_read(value: Any, unit: str, low: Any = None, high: Any = None) -> str:
    """A value with its interval, prefix and unit, as the pages write it; a dash where there is none."""
    from reports.numbers import quantity

    number, below, above = (None if _missing(each) else float(each) for each in (value, low, high))
    return quantity(number, unit, below, above)


def _missing(value: Any) -> bool:
    return value is None or not isinstance(value, int | float) or math.isnan(value)


#: The ground of a picture.
PAPER = "white"


class Drawing:
    """A figure of the reports for a notebook: its finding, its views, and the numbers behind it.

    In a notebook it draws itself; `print` gives its finding; `save` writes a page that opens without a network.
    """

    def __init__(self, figure: Figure) -> None:
        self._figure = figure

    @property
    def title(self) -> str:
        """The finding in one line."""
        return self._figure.title

    @property
    def table(self) -> pandas.DataFrame:
        """The numbers behind the figure, one row per layer."""
        return self._figure.table

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader has to know of it; the reason alone where there is no picture."""
        reason = (self._figure.reason,) if self._figure.reason else ()
        return (*reason, *self._figure.notes)

    @property
    def views(self) -> tuple[str, ...]:
        """Names of the views, the one that is drawn by default first."""
        return tuple(self._figure.views)

    def plot(self, view: str | None = None) -> Any:
        """The picture as a `plotly.graph_objects.Figure`.

        Args:
            view: one of `views`; by default the first.

        Raises:
            UsageError: there is no such view, or no picture at all, with the reason.
        """
        from plotly import graph_objects

        from reports.figures.figure import SEPARATOR

        if self._figure.reason:
            raise UsageError(f"there is no picture: {self._figure.reason}")
        if view is not None and view not in self._figure.views:
            raise UsageError(f'view "{view}" does not exist; {did_you_mean(view, self.views)}')
        drawn = graph_objects.Figure(self._figure.drawn(*(view.split(SEPARATOR) if view else ())))
        # dark text needs a light ground, also where the notebook is dark
        return drawn.update_layout(paper_bgcolor=PAPER, plot_bgcolor=PAPER)

    def save(self, file: str | Path, view: str | None = None) -> Path:
        """The path of a page with the picture, its finding and what to know of it; plotly is inside."""
        path = Path(file)
        page = f"<!doctype html><meta charset='utf-8'><title>{html.escape(self.title)}</title>{self._html(view)}"
        path.write_text(page, encoding="utf-8")
        return path

    def _html(self, view: str | None = None) -> str:
        said = f"<h4>{html.escape(self.title)}</h4>"
        if not self._figure.reason:
            said += self.plot(view).to_html(full_html=False, include_plotlyjs=True)
        said += f"<p>{html.escape(self._figure.how_to_read)}</p>"
        return said + "".join(f"<div>{html.escape(note)}</div>" for note in self.notes)

    def _repr_html_(self) -> str:
        return self._html()

    def __repr__(self) -> str:
        return "\n".join([self.title, *self.notes])


def waterline_of(record: dict[str, Any]) -> Drawing:
    """The waterline of a record's case as a drawing."""
    from reports.figures import waterline

    return Drawing(waterline.figure(record))
