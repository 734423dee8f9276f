"""Where the pages of the site are: one file per suite, method, network and machine, with a name any system keeps."""

from __future__ import annotations

import hashlib
import re
from functools import cache

#: Letters of a name that a file's name keeps.
MOST_LETTERS = 60
_SAFE = re.compile(rf"[a-z0-9_][a-z0-9_-]{{0,{MOST_LETTERS - 1}}}")
INDEX = "index.html"


@cache
def slug(name: str) -> str:
    """A name as a file has it: itself where it is short and plain, else with a hash that keeps it apart.

    Capitals count as not plain, because some systems take `A.html` and `a.html` for one file.
    """
    if _SAFE.fullmatch(name):
        return name
    kept = re.sub(r"[^a-z0-9_]+", "-", name.lower()).strip("-")[:MOST_LETTERS] or "x"
    return f"{kept}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def suite_page(name: str) -> str:
    """The page of a suite, relative to the site."""
    return f"suites/{slug(name)}.html"


def suite_rows(name: str) -> str:
    """The rows of a suite as data of scripts, relative to the site."""
    return f"suites/{slug(name)}.rows.js"


def suite_figures(name: str) -> tuple[str, str]:
    """The figures of a suite's page as data of scripts, relative to the site: those in view, and those folded away."""
    return f"suites/{slug(name)}.figures.js", f"suites/{slug(name)}.folded.js"


def method_page(name: str) -> str:
    """The page of a method, relative to the site."""
    return f"methods/{slug(name)}.html"


def model_page(name: str) -> str:
    """The page of a network, relative to the site."""
    return f"models/{slug(name)}.html"


#: The machines side by side.
MACHINES = "machines.html"


def machine_page(key: str) -> str:
    """The page of a machine, relative to the site."""
    return f"machines/{slug(key)}.html"
