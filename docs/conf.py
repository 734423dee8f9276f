"""Sphinx makes a site of every document of the project: `nox -s docs_site`.

The source is the whole checkout, so that a link in a document leads to the same place in the repository and on the
site; `-c docs` says where this file is. Nothing is fetched when the site is built or read.
"""

import os
import sys
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.version import __version__  # noqa: E402

project = "Waterline"
author = "the authors of Waterline"
release = version = __version__
copyright = author
language = "en"
root_doc = "docs/index"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
include_patterns = [
    "docs/*.md",
    "docs/**/*.md",
    "docs/gallery_pages/**",
    "suites/*/README.md",
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
]
#: Hidden folders by name: a pattern for all of them would also fit the paths that lead to the themes' own files.
HIDDEN = (".git", ".nox", ".venv", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis")
exclude_patterns = [
    *(f"{name}/**" for name in HIDDEN),
    *("results*/**", "site*/**", "cache/**", "mlflow/**", "dist/**", "build/**", "docs/gallery/**"),
]

myst_enable_extensions = ["colon_fence", "deflist", "attrs_block"]
myst_heading_anchors = 4
suppress_warnings = ["config.cache"]

default_role = "code"  # what stands between single backticks in a docstring
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
python_use_unqualified_type_names = True
napoleon_google_docstring = True

html_theme = "furo"
html_title = f"Waterline {__version__}"
html_static_path: list[str] = []
html_copy_source = False
html_show_sourcelink = False

#: Examples are run by the machine that builds the site; `WATERLINE_GALLERY=off` shows their code alone.
sphinx_gallery_conf = {
    "examples_dirs": "docs/gallery",
    "gallery_dirs": "docs/gallery_pages",
    "filename_pattern": "/example_",
    "ignore_pattern": r"__init__\.py",
    "plot_gallery": os.environ.get("WATERLINE_GALLERY", "on") != "off",
    "capture_repr": ("_repr_html_", "__repr__"),
    "image_scrapers": (),
    "reset_modules": (),
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_signature": False,
    "show_memory": False,
    "remove_config_comments": True,
    "write_computation_times": False,
}
warnings.filterwarnings("ignore", category=DeprecationWarning)


def _lead_to_the_front(app, error) -> None:
    """A first page that leads to the front page, which stands where the repository has it."""
    if error is None and app.builder.format == "html":
        page = '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url=docs/index.html">'
        link = '<title>Waterline</title><a href="docs/index.html">Waterline: the documentation</a>'
        (Path(app.outdir) / "index.html").write_text(page + link, encoding="utf-8")


def setup(app) -> None:
    """Connect what is made after the build."""
    app.connect("build-finished", _lead_to_the_front)
