"""The documentation beside a report: where `nox -s docs_site` puts it, and what a copy that leaves it out has instead.

A report's pages lead to it where it is. Bundles and uploads leave it out, as it is the same for everybody; so that the
pages' links lead somewhere there too, each page that they name is replaced by a short one that says how to make it.
"""

from __future__ import annotations

from pathlib import Path

#: Its folder within the report's.
FOLDER = "docs"
#: What of it a report's pages lead to, as paths from the report's folder.
PAGES = {"documentation": "docs/index.html", "glossary": "docs/docs/glossary.html"}


def beside(site: Path) -> dict[str, str]:
    """Those of `PAGES` that stand beside a report."""
    return {name: path for name, path in PAGES.items() if (site / path).is_file()}


def replaced(site: Path) -> dict[str, str]:
    """The short page for every one that a copy of a report leaves out: path from its folder -> what stands there."""
    return {path: _left_out(name) for name, path in beside(site).items()}


def _left_out(name: str) -> str:
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>Waterline: {name}</title>\n'
        f"<h1>The {name} is not part of this copy</h1>\n"
        "<p>It is the same for every report and comes with Waterline: <code>nox -s docs_site</code> makes it there, in "
        "<code>site/docs</code>. What a quantity of this report is, with its unit, stands on its page "
        "<em>How it was measured</em> (<code>methods.html</code>).</p>\n</html>\n"
    )
