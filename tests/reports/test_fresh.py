"""A report with nothing new is answered without reading a record; anything new makes it anew."""

import os
import shutil
import time
from pathlib import Path

import pytest

import reports.site
from bench.app import site as door
from bench.reading import reading
from reports import fresh
from reports.footprint import Rates
from reports.site import build
from tests.app.test_jobs import config_for
from tests.synthetic import record, store


@pytest.fixture
def made(tmp_path):
    """A results folder, a suite's folder and a whole site of them."""
    store(tmp_path / "results", [record(), record(method="tome", setting="r=8")], with_samples=False)
    suite = tmp_path / "vit_tokens"
    suite.mkdir()
    (suite / "suite.yaml").write_text("title: Tokens\n")
    build(tmp_path / "results", tmp_path / "site", claims=[suite], figure_seconds=None)
    return tmp_path, suite


def again(made, **options):
    folder, suite = made
    return build(folder / "results", folder / "site", claims=[suite], figure_seconds=None, **options)


def test_nothing_new_means_that_nothing_is_read(made, monkeypatch):
    monkeypatch.setattr(reports.site, "load", lambda *_, **__: pytest.fail("records were read"))
    found = again(made)
    assert found.written == 0 and found.index.is_file() and len(found.pages) > 8


@pytest.mark.parametrize("change", ["record", "suite", "page", "option", "code", "documents"])
def test_anything_new_is_seen(made, change, monkeypatch):
    folder, suite = made
    options = {}
    if change == "record":
        store(folder / "results", [record(model="other")], with_samples=False)
    elif change == "suite":
        (suite / "suite.yaml").write_text("title: Other\n")
    elif change == "page":
        (folder / "site" / "methods" / "tome.html").unlink()
    elif change == "option":
        options["show_paths"] = True
    elif change == "documents":
        (folder / "site" / "docs").mkdir()
        (folder / "site" / "docs" / "index.html").touch()
    else:
        monkeypatch.setattr(fresh, "__version__", "another")
    assert again(made, **options).written > 0
    assert again(made, **options).written == 0


ROOT = Path(__file__).resolve().parents[2]
CLAIM = """claims:
  - {method: tome, metric: macs, value: 0.6, unit: "x", relative_to_baseline: true, model: deit_tiny, setting: null,
     mode: off-the-shelf, hardware: any, convention: matmul, tolerance: 0.02, comparable_when: always,
     source: "Bolya et al. 2023, Token Merging, abstract", note: "SAID"}
"""
REFERENCE = "@misc{tome, title = {Merging}, author = {A}, year = {2023}, url = {https://x}, of = {tome}}\n"


def test_code_templates_and_suite_files_are_told_by_what_is_in_them(made, tmp_path, monkeypatch):
    folder, suite = made
    template = tmp_path / "code" / "reports" / "templates" / "page.html.j2"
    template.parent.mkdir(parents=True)
    template.write_text("one")
    monkeypatch.setattr(fresh, "_CODE", tmp_path / "code")
    inputs = fresh.Inputs([folder / "results"], [suite], {})
    first = inputs.look()
    for path in (template, suite / "suite.yaml"):
        os.utime(path)
    assert inputs.look(first.at) == first
    seen = {first.stamp}
    for path, text in ((template, "two"), (suite / "claims.yaml", CLAIM), (suite / "claims.yaml", CLAIM + "#")):
        path.write_text(text)
        seen.add(inputs.look(first.at).stamp)
    assert len(seen) == 4


def test_a_record_that_was_changed_a_moment_before_the_look_is_told_by_its_content(made, monkeypatch):
    folder, _ = made
    monkeypatch.setattr(fresh, "_mark", lambda _: "as before")
    inputs, now = fresh.Inputs([folder / "results"], [], {}), time.time_ns()
    soon, late = inputs.look(now), inputs.look(now + 60_000_000_000)
    path = next((folder / "results" / "records").glob("*.json"))
    path.write_text(path.read_text().replace("a", "b"))
    assert inputs.look(soon.at) != soon and inputs.look(late.at) == late


def files_of(folder):
    """Every file of a site but what a build notes for the next one."""
    notes = {fresh.FILE, Path("assets/manifest.json")}
    found = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: content for name, content in found.items() if name not in notes}


def change_record(folder, suite):
    store(folder / "results", [record(method="tome", setting="r=13", latency_ms=30.0)], with_samples=False)


def change_remeasured(folder, suite):
    later = {**record(method="tome", setting="r=8", latency_ms=20.0), "started_at": "2027-01-01T00:00:00+00:00"}
    first = store(folder / "results", []).latest(later["case_key"], later["machine_key"])
    store(folder / "results", [{**later, "supersedes": first["content_hash"]}], with_samples=False)


def change_samples(folder, suite):
    store(folder / "further", [record(method="tome", setting="r=8")])
    (folder / "further" / "samples").rename(folder / "results" / "samples")


def change_title(folder, suite):
    (suite / "suite.yaml").write_text("title: Other\n")


def change_card(folder, suite):
    cards = (ROOT / "suites" / "vit_tokens" / "systems.yaml").read_text()
    (suite / "systems.yaml").write_text(cards.replace("similar tokens merged", "tokens of one kind merged"))


def change_claim(folder, suite):
    (suite / "claims.yaml").write_text(CLAIM.replace("SAID", "something else"))


def change_reference(folder, suite):
    (suite / "references.bib").write_text(REFERENCE.replace("Merging", "Melting"))


CHANGES = {
    "a new record": (change_record, {}),
    "a case measured again": (change_remeasured, {}),
    "samples": (change_samples, {}),
    "a suite's title": (change_title, {}),
    "a card": (change_card, {}),
    "a claim": (change_claim, {}),
    "a reference": (change_reference, {}),
    "the name of the site": (lambda *_: None, {"title": "Another"}),
    "the price of electricity": (lambda *_: None, {"rates": Rates(300.0, 0.4, "EUR")}),
}


@pytest.mark.slow
def test_a_site_built_on_is_the_site_built_anew(made):
    """Whatever changes, no page of the old site is left that a build from nothing would not make."""
    folder, suite = made
    shutil.copy(ROOT / "suites" / "vit_tokens" / "systems.yaml", suite)
    (suite / "claims.yaml").write_text(CLAIM)
    (suite / "references.bib").write_text(REFERENCE)
    store(folder / "results", [with_energy(record(model="powered"))], with_samples=False)
    again(made)
    before = files_of(folder / "site")
    for what, (change, options) in CHANGES.items():
        change(folder, suite)
        again(made, **options)
        shutil.rmtree(folder / "anew", ignore_errors=True)
        build(folder / "results", folder / "anew", claims=[suite], figure_seconds=None, **options)
        after = files_of(folder / "site")
        assert after == files_of(folder / "anew"), f"{what}: a page is stale"
        assert after != before, f"{what}: nothing changed"
        before = after


def with_energy(item):
    """The record with a measured energy, which carbon and cost are made from."""
    kept = [reading for reading in item["readings"] if reading["metric"] != "energy_j"]
    return {**item, "readings": [*kept, reading("energy_j", 2.0, "measured", n=3).as_dict()]}


def test_other_code_makes_every_page_again(made, tmp_path, monkeypatch):
    source = tmp_path / "code" / "rule.py"
    source.parent.mkdir()
    source.write_text("RULE = 1\n")
    monkeypatch.setattr(reports.site, "SOURCES", (*reports.site.SOURCES, (source.parent, "*.py")))
    monkeypatch.setattr(fresh, "kept", lambda *_: None)
    pages = len(again(made).pages)
    kept = again(made).written
    source.write_text("RULE = 2\n")
    assert again(made).written > kept
    assert again(made).written == kept < pages


def test_problems_are_told_again(tmp_path):
    made = store(tmp_path / "results", [record(), record(model="other")], with_samples=False)
    torn = sorted(made.records.glob("*.json"))[0]
    torn.write_text(torn.read_text()[:100])
    first = build(tmp_path / "results", tmp_path / "site", figure_seconds=None)
    second = build(tmp_path / "results", tmp_path / "site", figure_seconds=None)
    assert second.written == 0 and second.problems == first.problems and torn.name in second.problems[0]


def test_a_site_that_still_lacks_figures_is_not_whole(tmp_path):
    store(tmp_path / "results", [record()], with_samples=False)
    build(tmp_path / "results", tmp_path / "site", figure_seconds=-1)
    assert not (tmp_path / "site" / fresh.FILE).exists()
    assert build(tmp_path / "results", tmp_path / "site", figure_seconds=None).written > 0


def test_the_command_says_what_waits_and_asks_before_it_imports_what_makes_pages(tmp_path, monkeypatch, capsys):
    store(tmp_path / "results", [record()], with_samples=False)
    docs = tmp_path / "site" / "docs" / "docs"
    docs.mkdir(parents=True)
    (docs / "glossary.html").touch()
    config = config_for(tmp_path, job="report", report={"figure_seconds": 1e-9})
    door.build(config)
    told = capsys.readouterr().err
    assert told.endswith("figures: job=report goes on, report.figure_seconds=null makes all\n")
    config = config_for(tmp_path, job="report", report={"figure_seconds": None})
    door.build(config)
    assert capsys.readouterr().err == "" and (tmp_path / "site" / fresh.FILE).exists()
    (case,) = (tmp_path / "site" / "cases").glob("*.html")
    assert 'href="../docs/docs/glossary.html"' in case.read_text() and "docs/index.html" not in case.read_text()
    monkeypatch.setattr(reports.site, "build", lambda *_, **__: pytest.fail("the site was built"))
    assert door.build(config) == tmp_path / "site" / "index.html"
    os.utime(next((tmp_path / "results" / "records").glob("*.json")))
    with pytest.raises(pytest.fail.Exception, match="the site was built"):
        door.build(config)
