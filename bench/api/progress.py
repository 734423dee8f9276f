"""A bar for the library: on a terminal and in a notebook, and nothing where nobody looks."""

from __future__ import annotations

import sys
import warnings
from typing import Any

from bench.foreign_text import escape_controls, shortened
from bench.short_names import short_name
from bench.sweep.events import Event, Working

#: Signs of a step's description.
MOST = 48


class Bar:
    """A listener of a sweep (`bench.sweep.events`) that draws a bar, one step for each process.

    Args:
        steps: processes that are expected; more are drawn if more come.
        shown: whether it is drawn; by default where the standard error is a terminal, and in a notebook.
        title: what stands before every step.
    """

    def __init__(self, steps: int, shown: bool | None = None, title: str = "") -> None:
        self._steps, self._title = steps, title
        self._shown = (sys.stderr.isatty() or in_notebook()) if shown is None else shown
        self._bar: Any = None
        self._working = False

    def __enter__(self) -> Bar:
        if self._shown:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # without ipywidgets the bar is text, which needs no remark
                from tqdm.auto import tqdm

                self._bar = tqdm(total=self._steps, desc=self._title or "starting", leave=False, unit="process")
        return self

    def __exit__(self, *_: Any) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, event: Event) -> None:
        """Draw what an event says: work that begins ends the work before it."""
        if self._bar is None or not isinstance(event, Working):
            return
        if self._working:
            self._bar.total = max(self._bar.total, self._bar.n + 2)
            self._bar.update()
        self._working = True
        what = shortened(escape_controls(short_name(event.what)), MOST)
        self._bar.set_description(f"{self._title}: {what}" if self._title else what)


def in_notebook() -> bool:
    """Whether a notebook's kernel runs this process."""
    return "ipykernel" in sys.modules
