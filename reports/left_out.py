"""What cannot be made of a report is left out with a line and costs nothing else: a page, claims, a comparison."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from markupsafe import escape

from bench.errors import BenchError
from bench.foreign_text import escape_controls
from reports.content import Site
from reports.pages.page import Page, Sheet
from reports.safe import CONTENT_POLICY, without_paths

#: Letters of a line that says why something is left out.
MOST_LETTERS = 400
_TOLD = "the other pages are whole. This is a fault in the report; job=report with a newer version makes it again"
_PAGE = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" '
    'content="{policy}"><title>left '
    "out</title></head><body><p>{line}</p><p>{told}.</p><ul>{links}</ul></body></html>\n"
)


def or_told(make: Callable[[], Any], instead: Any, what: str, problems: list[str]) -> Any:
    """What `make` gives; where it cannot be made, `instead`, and a line in `problems`.

    Raises:
        BenchError: it can be made once the user has mended what the message says.
        OSError: a file cannot be read or written.
    """
    try:
        return make()
    except (BenchError, MemoryError, OSError):
        raise
    except Exception as error:  # the rows stand without it
        problems.append(_line(f"{what}: left out of the report", error))
        return instead


def sheets_of(site: Site, pages: Iterable[Page]) -> Iterator[Sheet]:
    """Every page of these kinds that is wanted; a kind that cannot say what it needs is one page that says so."""
    for page in pages:
        if not is_wanted(site, page):
            continue
        try:
            yield from page.sheets(site)
        except (BenchError, MemoryError, OSError):
            raise
        except Exception as error:  # of whatever kind: one page must not cost the others
            yield Sheet(page.path or f"{page.title.lower()}.html", "", partial(_raise, error))


def is_wanted(site: Site, page: Page) -> bool:
    """Whether a kind of page has something to show; where that cannot be said its place says why."""
    try:
        return page.needs.met(site)
    except Exception:  # making it raises the same, and that is told
        return True


def texts_of(site: Site, sheet: Sheet, *, brief: bool) -> tuple[list[str], bool]:
    """A page and the files beside it, and whether it is one; in the place of one that cannot be made a line says so.

    That line is told as well, and the files beside it are empty.

    Args:
        site: what it draws from.
        sheet: the page.
        brief: without its figures, if it can be had so.

    Raises:
        OSError: a file cannot be read or written.
    """
    try:
        page = sheet.brief() if brief and sheet.brief else sheet.render()
        return [page, *(one.text(brief) for one in sheet.beside)], True
    except (BenchError, MemoryError, OSError):
        raise
    except Exception as error:
        why = _line(f"{sheet.path} is left out", error)
        site.problems.append(f"{why}; {_TOLD}")
        shown = why if site.show_paths else str(without_paths(why))
        return [_page_of(site, sheet, shown), *("" for _ in sheet.beside)], False


def _line(what: str, error: Exception) -> str:
    return escape_controls(f"{what}: {type(error).__name__}: {error}"[:MOST_LETTERS])


def _page_of(site: Site, sheet: Sheet, why: str) -> str:
    root = "../" * sheet.path.count("/")
    links = "".join(
        f'<li><a href="{root}{escape(link.path)}">{escape(link.title)}</a></li>' for link in site.navigation
    )
    return _PAGE.format(policy=escape(CONTENT_POLICY), line=escape(why), told=_TOLD, links=links)


def _raise(error: Exception) -> str:
    raise error
