"""The figures of a case's page; one that cannot be made says why in its place and in the list of problems."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from reports.drawing import Drawing, draw
from reports.figures import waterline
from reports.figures.figure import Figure, no_picture
from reports.rows import Row

if TYPE_CHECKING:
    from reports.site import Site

#: What a figure can stumble over in a malformed record; anything else is a defect and is not hidden.
_MALFORMED = (KeyError, TypeError, ValueError, IndexError, AttributeError, ZeroDivisionError, OverflowError)


def drawings(site: Site, row: Row) -> list[Drawing]:
    """The figures of the row's case, ready for the page."""
    if row.status != "ok" and not row.record.get("layers"):
        return []
    return [guarded("waterline", row.page, site.problems, lambda: waterline.figure(row.record))]


def guarded(id: str, where: str, problems: list[str], make: Callable[[], Figure]) -> Drawing:
    """The figure, or its place with the reason why it could not be made."""
    try:
        return draw(make())
    except _MALFORMED as error:
        reason = f"the figure {id} could not be made from these records ({type(error).__name__}: {error})"
        problems.append(f"{where}: {reason}")
        return draw(no_picture(id, f"No {id} figure", "Nothing is drawn; the reason is given above.", reason))
