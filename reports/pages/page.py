"""What a page is, and how a template becomes one: autoescaped, with the content policy and the shared look."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from bench.short_names import short_name
from reports.content import Site
from reports.needs import ANY_SITE, PageNeeds
from reports.numbers import quantity
from reports.safe import CONTENT_POLICY

TEMPLATES = Path(__file__).resolve().parents[1] / "templates"


@dataclass(frozen=True)
class Beside:
    """A file of data that stands beside a page and is written whenever the page is; `text` is told whether in brief."""

    path: str
    text: Callable[[bool], str]


@dataclass(frozen=True)
class Sheet:
    """One HTML file: its path in the site, a hash of what it is made from (empty: always make it), and its maker.

    `brief` makes the same page without its figures, for a build that has spent its time on others; `beside` are files
    that belong to the page and are as old as it.
    """

    path: str
    digest: str
    render: Callable[[], str]
    brief: Callable[[], str] | None = None
    beside: tuple[Beside, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """The page and what stands beside it."""
        return (self.path, *(one.path for one in self.beside))


@dataclass(frozen=True)
class Page:
    """A kind of page.

    Attributes:
        title: as the navigation has it.
        path: its entry in the navigation, empty for pages that are reached from others.
        module: dotted path of the module whose `sheets(site)` makes its files.
        needs: what a site must have for it.
        per_row: every row has one, so that there are thousands.
    """

    title: str
    path: str
    module: str
    needs: PageNeeds = ANY_SITE
    per_row: bool = False

    def sheets(self, site: Site) -> Iterable[Sheet]:
        """The files of this page for a site."""
        found: Iterable[Sheet] = import_module(self.module).sheets(site)
        return found


def render(template: str, site: Site, here: str, **values: Any) -> str:
    """The HTML of one page; `here` is its path in the site."""
    root = "../" * here.count("/")
    page = templates().get_template(template)
    return page.render(site=site, here=here, root=root, policy=CONTENT_POLICY, icon=_icon(), **values)


#: Stands around a name in a template that is rendered once, and between texts that are escaped together.
_MARK = "\ue000\ue001"


class Stencil:
    """A template that puts texts into places and does nothing else, rendered once and filled in by joining strings."""

    def __init__(self, text: str) -> None:
        self._pieces = text.split(_MARK)
        self._names = self._pieces[1::2]

    @classmethod
    def of(cls, template: str, **values: Any) -> Stencil:
        """That of a template; `values` that are no `place` are the same wherever it is filled in."""
        return cls(templates().get_template(template).render(values))

    def filled(self, texts: Mapping[str, str]) -> Markup:
        """The template with these texts at its places, escaped; what is markup already stays as it is."""
        pieces = self._pieces.copy()
        pieces[1::2] = _escaped([texts[name] for name in self._names])
        return Markup("".join(pieces))


def place(name: str) -> str:
    """What stands in a stencil where a text of that name is to be put."""
    return f"{_MARK}{name}{_MARK}"


def _escaped(texts: Sequence[str]) -> list[str]:
    """All texts escaped, those in one go that are no markup."""
    foreign = [text for text in texts if not isinstance(text, Markup)]
    together = str(escape(_MARK.join(foreign))).split(_MARK) if foreign else []
    if len(together) != len(foreign):  # one of them has the mark in it
        together = [str(escape(text)) for text in foreign]
    left = iter(together)
    return [str(text) if isinstance(text, Markup) else next(left) for text in texts]


def frame(site: Site, here: str) -> Stencil:
    """The frame that many small pages share, with places for `title` and `body`."""
    return Stencil(render("shell.html.j2", site, here, marker_title=place("title"), marker_body=place("body")))


@cache
def templates() -> Environment:
    """The environment of all templates: everything is escaped, and a missing name is an error."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,  # or every page would look at its template's file again
    )
    environment.filters["quantity"] = quantity
    environment.filters["brief"] = short_name
    environment.filters["code"] = with_code
    return environment


def with_code(text: str) -> Markup:
    """Text of a card, escaped, in which what stands between backticks is code."""
    parts = str(text).split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    pattern = Markup("<code>{}</code>")
    return Markup("").join(pattern.format(part) if place % 2 else escape(part) for place, part in enumerate(parts))


@cache
def _icon() -> str:
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><g fill="#4b6b7d"><rect x="3" y="4" width="7" '
        'height="24"/><rect x="12.5" y="11" width="7" height="17"/><rect x="22" y="19" width="7" '
        'height="9"/></g><path d="M1 15q3.75-3 7.5 0t7.5 0 7.5 0 7.5 0" fill="none" stroke="#56b4e9" '
        'stroke-width="3"/></svg>'
    )
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
