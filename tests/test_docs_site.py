"""The documentation leads where it says, its examples do what they show, and every setting and word is explained."""

import doctest
import importlib.util
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest

from bench.app import reference_tables
from bench.config.schema import all_keys
from bench.metrics import METRICS

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "suites").glob("*/README.md")),
]
#: Made when the site is built.
MADE = {ROOT / "docs" / "gallery_pages" / "index"}
#: Words whose meaning the glossary owes its readers.
WORDS = (
    "promised", "measured", "realised", "plain", "twin", "noise", "group", "process", "disturbed", "front", "ridge",
)  # fmt: skip


def without_code(text):
    """A document without its blocks and its code in running text."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^(```|:::).*?^\1", "", text, flags=re.S | re.M))


def links_of(text):
    """Targets of a document's links and pictures that lead to another place of the repository."""
    found = re.findall(r"\]\(([^)\s]+)\)", without_code(text))
    return [unquote(target) for target in found if not re.match(r"(https?|mailto):", target)]


@cache
def anchors_of(document):
    """The anchors that a document's headings get."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", document.read_text(), flags=re.S | re.M), re.M)
    plain = [re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in plain}


def test_every_link_of_every_document_leads_somewhere():
    lost = []
    for document in DOCUMENTS:
        for target in links_of(document.read_text(encoding="utf-8")):
            path, _, anchor = target.partition("#")
            place = (document.parent / path).resolve() if path else document
            if not place.exists() or (anchor and place.suffix == ".md" and anchor not in anchors_of(place)):
                lost.append(f"{document.relative_to(ROOT)}: {target}")
    assert not lost


def test_every_document_is_in_the_tree_of_the_site():
    trees = "\n".join(path.read_text() for path in (ROOT / "docs").rglob("index.md"))
    named = set(re.findall(r"^[\w./*-]+$", trees, re.M))
    for document in sorted((ROOT / "docs").rglob("*.md")):
        if document.name != "index.md" and document.parent.name != "findings":
            assert any(name.split("/")[-1] == document.stem for name in named), document
    assert {"../findings/*", "../../suites/*/README"} <= named


def test_every_setting_says_what_it_is_and_every_metric_is_defined():
    assert reference_tables.unexplained() == []
    page = (ROOT / "docs" / "reference" / "settings.md").read_text()
    own = [key for key in all_keys() if not key.startswith("protocol") and f"{key}." not in "\n".join(all_keys())]
    assert own and all(f"| `{key}` |" in page for key in own)
    protocols = (ROOT / "docs" / "reference" / "protocols.md").read_text()
    for key in all_keys():
        if key.startswith("protocol.") and key.count(".") == 2:
            assert f"| `{key.removeprefix('protocol.')}` |" in protocols
    metrics = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    assert all(f"| `{name}` |" in metrics for name in METRICS)
    assert "| `seed` | `0` |" in page and "| `latency.invocations` | `5` | `1` | `3` | `5` | `10` |" in protocols


def test_the_glossary_has_every_word_that_the_pages_use():
    text = (ROOT / "docs" / "glossary.md").read_text()
    terms = set(re.findall(r"^([a-z][a-z ]*)\n: ", text, re.M))
    assert set(WORDS) <= terms


def examples():
    """Documents with examples in the form of a Python session."""
    return [document for document in DOCUMENTS if ">>> " in document.read_text(encoding="utf-8")]


@pytest.mark.parametrize("document", examples(), ids=lambda path: path.stem)
def test_the_examples_of_a_document_give_what_they_show(document, tmp_path, monkeypatch, shared_server):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```pycon\n(.*?)^```", document.read_text(encoding="utf-8"), re.S | re.M)
    test = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, document.stem, str(document), 0)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    said: list[str] = []
    failed = doctest.DocTestRunner(optionflags=flags).run(test, out=said.append)
    assert test.examples and not failed.failed, "".join(said)


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    if any(importlib.util.find_spec(name) is None for name in ("sphinx", "myst_parser", "sphinx_gallery", "furo")):
        pytest.skip("the extra docs is not installed")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-c", "docs", "-d", str(tmp_path / "trees")]
    done = subprocess.run(
        [*command, ".", str(tmp_path / "site")],
        cwd=ROOT,
        env={**os.environ, "WATERLINE_GALLERY": "off", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    front = (tmp_path / "site" / "docs" / "index.html").read_text()
    styles = re.findall(r'<link rel="stylesheet"[^>]*href="\.\./([^"?]+)', front)
    assert len(styles) > 3 and all((tmp_path / "site" / style).is_file() for style in styles)
    assert "Tutorials" in front and "https://fonts" not in front
    api = (tmp_path / "site" / "docs" / "reference" / "api.html").read_text()
    assert 'id="bench.measure"' in api and 'id="bench.waterline"' in api
