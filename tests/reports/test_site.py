"""The site is whole, safe and rebuilt only where something changed."""

import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from reports import figure_sets, fresh
from reports.site import build, load
from tests.synthetic import record, store, suite_records

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = "<img src=x onerror=alert(1)>\"'</script><script>alert(2)</script>&amp;\u2028"


class Page(HTMLParser):
    """What a browser would make of a page: tags with attributes, and the text of scripts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self._script = [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self._script = dict(attrs)

    def handle_data(self, data):
        if self._script is not None:
            self.scripts.append((self._script, data))

    def handle_endtag(self, tag):
        if tag == "script":
            self._script = None


def _rows(site, suite="vit_tokens"):
    """The rows that the script of a suite's page gets."""
    text = (site / "suites" / f"{suite}.rows.js").read_text()
    return json.loads(re.fullmatch(r'waterlineData\("rows", (.*)\);\n', text, re.S)[1])


def test_a_store_becomes_a_first_page_and_a_page_per_suite_method_network_machine_and_case(tmp_path):
    store(tmp_path / "results")
    made = build(tmp_path / "results", tmp_path / "site")
    assert made.index.is_file() and not made.problems
    pages = {str(page.relative_to(tmp_path / "site")) for page in made.pages if page.parent.name != "cases"}
    assert pages == {
        "index.html", "suites/vit_tokens.html", "suites/vit_tokens.rows.js", "suites/vit_tokens.figures.js",
        "suites/vit_tokens.folded.js", "compare.html", "methods.html",
        "methods/tome.html", "methods/evit.html", "methods/diffrate.html", "models/deit_tiny.html",
        "models/deit_small.html", "machines/synthetic000cpu0.html", "assets/search.js",
    }  # fmt: skip
    assert len(list((tmp_path / "site" / "cases").glob("*.html"))) == 9
    for name in ("plotly.min.js", "waterline.js", "waterline.css"):
        assert (tmp_path / "site" / "assets" / name).stat().st_size > 1000
    assert len(_rows(tmp_path / "site")["rows"]) == 9


def test_links_of_every_page_lead_to_pages_that_exist(tmp_path):
    store(tmp_path / "results")
    build(tmp_path / "results", tmp_path / "site")
    for page in (tmp_path / "site").rglob("*.html"):
        for tag, attributes in Page(page.read_text()).tags:
            address = attributes.get("href") or attributes.get("src") or ""
            if tag in ("a", "link", "script") and address and not address.startswith(("#", "data:")):
                assert (page.parent / address.split("#")[0]).resolve().is_file(), f"{page.name}: {address}"


def test_hostile_names_stay_text_on_every_page(tmp_path):
    failed = record(
        model=HOSTILE,
        method=HOSTILE,
        setting=HOSTILE,
        status="crashed",
        error={"phase": HOSTILE, "type": HOSTILE, "message": HOSTILE, "log_tail": HOSTILE},
    )
    named = record(model=HOSTILE, suite=HOSTILE, method="tome", setting="r=1")
    named["flags"] = [{"code": HOSTILE, "severity": HOSTILE, "text": HOSTILE}]
    for row in named["layers"]:
        row["name"] = row["module_path"] = HOSTILE
    store(
        tmp_path / "results",
        [failed, named, record(model=HOSTILE, suite=HOSTILE), *suite_records()],
        with_samples=False,
    )
    build(tmp_path / "results", tmp_path / "site", title=HOSTILE, figure_seconds=None)
    for path in (tmp_path / "site").rglob("*.html"):
        page = Page(path.read_text())
        assert not [tag for tag, _ in page.tags if tag in ("img", "iframe", "object", "form", "base")], path.name
        assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")], path.name
        for attributes, text in page.scripts:
            assert attributes.get("type") == "application/json", path.name
            json.loads(text)
    data = [*(tmp_path / "site" / "suites").glob("*.js"), tmp_path / "site" / "assets" / "search.js"]
    assert len(data) == 7 and all("<" not in path.read_text() for path in data)
    names = {path.name for path in (tmp_path / "site").rglob("*") if path.is_file()}
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in names)


def test_pages_ask_for_nothing_outside_and_carry_the_policy(tmp_path):
    store(tmp_path / "results")
    build(tmp_path / "results", tmp_path / "site")
    for path in (tmp_path / "site").rglob("*.html"):
        page = Page(path.read_text())
        assert any(
            a.get("http-equiv") == "Content-Security-Policy" and "default-src 'none'" in a["content"]
            for _, a in page.tags
        )
        outside = [a for _, a in page.tags for v in (a.get("src"), a.get("href")) if v and re.match(r"(https?:)?//", v)]
        assert not outside, path.name


def test_paths_of_the_machine_show_only_when_asked_for(tmp_path):
    row = record(
        status="crashed",
        error={
            "phase": "load",
            "type": "OSError",
            "message": "/srv/private/data/x.pt is missing",
            "log_tail": 'File "/srv/private/code/y.py"',
        },
    )
    store(tmp_path / "results", [row])
    build(tmp_path / "results", tmp_path / "closed")
    build(tmp_path / "results", tmp_path / "open", show_paths=True)
    closed = "".join(path.read_text() for path in (tmp_path / "closed").rglob("*.html"))
    opened = "".join(path.read_text() for path in (tmp_path / "open").rglob("*.html"))
    assert "/srv/private" not in closed and "x.pt is missing" in closed
    assert "/srv/private/data/x.pt" in opened


def test_a_second_build_makes_only_the_pages_that_changed(tmp_path, monkeypatch):
    made = store(tmp_path / "results")
    build(tmp_path / "results", tmp_path / "site", figure_seconds=None)
    before = {path: path.read_text() for path in (tmp_path / "site" / "cases").glob("*.html")}
    monkeypatch.setattr(figure_sets, "of_case", lambda *_: pytest.fail("a figure was made again"))
    fresh.forget(tmp_path / "site")
    again = build(tmp_path / "results", tmp_path / "site", figure_seconds=None)
    assert before == {path: path.read_text() for path in before}
    assert again.written <= 3
    monkeypatch.undo()
    for path in made.records.glob("*.json"):
        if "diffrate" in path.read_text():
            path.unlink()
    fewer = build(tmp_path / "results", tmp_path / "site", figure_seconds=None)
    assert len(list((tmp_path / "site" / "cases").glob("*.html"))) == 8
    gone = {str(path.relative_to(tmp_path / "site")) for path in set(again.pages) - set(fewer.pages)}
    assert len(gone) == 2 and "methods/diffrate.html" in gone and set(fewer.pages) < set(again.pages)
    assert not (tmp_path / "site" / "methods" / "diffrate.html").exists()


def test_a_build_without_time_for_figures_leaves_them_to_the_next(tmp_path):
    store(tmp_path / "results")
    first = build(tmp_path / "results", tmp_path / "site", figure_seconds=-1)
    assert first.brief == 15  # nine cases, their suite, three methods and two networks
    assert "goes on with those of this page" in (tmp_path / "site" / "suites" / "vit_tokens.html").read_text()
    assert "goes on with this one" in next((tmp_path / "site" / "cases").glob("*.html")).read_text()
    stood = {path: path.stat().st_mtime_ns for path in (tmp_path / "site" / "cases").glob("*.html")}
    again = build(tmp_path / "results", tmp_path / "site", figure_seconds=-1)
    assert again.brief == 15 and again.written <= 3  # pages that wait for their figures stay as they are
    assert stood == {path: path.stat().st_mtime_ns for path in stood}
    next(iter(stood)).unlink()
    assert build(tmp_path / "results", tmp_path / "site", figure_seconds=-1).written == again.written + 1
    other = build(tmp_path / "results", tmp_path / "site", figure_seconds=-1, title="Another")
    assert other.brief == 15 and other.written > 15
    second = build(tmp_path / "results", tmp_path / "site", figure_seconds=None, title="Another")
    assert second.brief == 0
    assert not [p for p in (tmp_path / "site" / "cases").glob("*.html") if "goes on with this one" in p.read_text()]


def test_several_folders_merge_into_one_site_and_two_machines_are_compared(tmp_path):
    other = copy.deepcopy(suite_records())
    for row in other:
        row |= {"machine_key": "othermachine0000", "record_key": f"{row['case_key']}.othermachine0000"}
        row["environment"] = {
            **row["environment"],
            "cpu": {"model": "Other CPU", "physical_cores": 8, "logical_cores": 8},
        }
    store(tmp_path / "a")
    store(tmp_path / "b", other)
    build([tmp_path / "a", tmp_path / "b"], tmp_path / "site")
    data = _rows(tmp_path / "site")
    assert len(data["rows"]) == 18 and len(data["groups"]) == 2
    text = (tmp_path / "site" / "compare.html").read_text()
    assert "Other CPU" in text and "Synthetic CPU 3000" in text
    unfolded = re.sub("<details>.*?</details>", "", text, flags=re.S)
    assert ">ambiguous</span>" in text and ">ambiguous</span>" not in unfolded


def test_no_results_and_all_failed_still_make_a_site_that_says_so(tmp_path):
    store(tmp_path / "none", [])
    made = build(tmp_path / "none", tmp_path / "site")
    assert "There are no results yet" in made.index.read_text()
    rows = [
        record(model=name, status="crashed", error={"phase": "load", "type": "E", "message": "broken"}) for name in "ab"
    ]
    store(tmp_path / "failed", rows)
    made = build(tmp_path / "failed", tmp_path / "site")
    assert "None of the 2 cases finished" in made.index.read_text()


def test_unreadable_and_malformed_records_are_named_and_do_not_stop_the_site(tmp_path):
    made = store(tmp_path / "results")
    torn = sorted(made.records.glob("*.json"))[0]
    torn.write_text(torn.read_text()[:100])
    odd = record(model="odd")
    odd["layers"] = [{"name": "x"}]
    made.write(odd)
    result = build(tmp_path / "results", tmp_path / "site", figure_seconds=None)
    assert any(torn.name in problem for problem in result.problems)
    assert any("layers" in problem for problem in result.problems)  # a layer without its operator is of no kind we know
    assert len(_rows(tmp_path / "site")["rows"]) == 8


def test_a_missing_number_is_a_reason_and_never_a_zero(tmp_path):
    store(tmp_path / "results")
    build(tmp_path / "results", tmp_path / "site")
    data = _rows(tmp_path / "site")
    energy = next(place for place, column in enumerate(data["columns"]) if column["key"] == "energy_j")
    cells = data["rowFields"].index("cells")
    for row in data["rows"]:
        assert isinstance(row[cells][energy], int)
        assert data["strings"][row[cells][energy]]


def test_claims_of_a_suite_are_judged_and_lead_to_their_rows(tmp_path):
    claim = {
        "method": "tome",
        "metric": "macs",
        "value": 0.59,
        "unit": "x",
        "relative_to_baseline": True,
        "model": "deit_small",
        "setting": "r=13",
        "mode": "off-the-shelf",
        "hardware": "any",
        "convention": "matmul",
        "tolerance": 0.02,
        "source": "A Paper, table 1",
    }
    folder = tmp_path / "vit_tokens"
    folder.mkdir()
    (folder / "claims.yaml").write_text(json.dumps({"claims": [claim, {**claim, "value": 0.3}]}))
    store(tmp_path / "results")
    build(tmp_path / "results", tmp_path / "site", claims=[folder])
    text = (tmp_path / "site" / "claims.html").read_text()
    assert "Reproduced: 1" in text and "Not reproduced: 1" in text and "A Paper, table 1" in text
    page = (tmp_path / "site" / "suites" / "vit_tokens.html").read_text()
    assert "Do the papers&#39; claims hold here?" in page.replace("'", "&#39;")
    places = re.findall(r'<section [^>]*?id="(chooser|leaderboard|promise|claims|failed|measured)"', page)
    assert places == ["chooser", "leaderboard", "promise", "claims", "failed", "measured"]
    index = (tmp_path / "site" / "index.html").read_text()
    assert (
        "1 reproduced, 1 not" in index and "1 of 2" in index and "claims that could be judged are reproduced" in index
    )
    assert "counted" in (tmp_path / "site" / "methods" / "tome.html").read_text()


def test_only_rows_of_the_suite_that_was_asked_for_are_shown(tmp_path):
    store(tmp_path / "results", [record(), record(model="other", suite="second")])
    assert [row.case.model for row in load([tmp_path / "results"], suite="second").rows] == ["other"]


def test_many_claims_of_one_verdict_are_folded_up_at_first(tmp_path):
    store(tmp_path / "results", [record(), record(method="tome", setting="r=8")], with_samples=False)
    build(tmp_path / "results", tmp_path / "site", claims=[ROOT / "suites" / "vit_tokens"])
    text = (tmp_path / "site" / "claims.html").read_text()
    folds = re.findall(r'<details class="fold"( open)?><summary><h2 id="verdict-\d">[^:]*: (\d+)', text)
    counts = [(bool(opened), int(count)) for opened, count in folds]
    assert max(count for _, count in counts) > 40
    assert all(opened == (count <= 40) for opened, count in counts)
