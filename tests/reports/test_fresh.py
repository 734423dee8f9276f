"""A report with nothing new is answered from the files' times alone; anything new makes it anew."""

import os

import pytest

import reports.site
from bench.app import site as door
from reports import fresh
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


@pytest.mark.parametrize("change", ["record", "suite", "page", "option", "code"])
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
    else:
        monkeypatch.setattr(fresh, "__version__", "another")
    assert again(made, **options).written > 0
    assert again(made, **options).written == 0


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


def test_the_command_asks_before_it_imports_what_makes_pages(tmp_path, monkeypatch):
    store(tmp_path / "results", [record()], with_samples=False)
    config = config_for(tmp_path, job="report")
    door.build(config)
    if not (tmp_path / "site" / fresh.FILE).exists():
        door.build(config)
    monkeypatch.setattr(reports.site, "build", lambda *_, **__: pytest.fail("the site was built"))
    assert door.build(config) == tmp_path / "site" / "index.html"
    os.utime(next((tmp_path / "results" / "records").glob("*.json")))
    with pytest.raises(pytest.fail.Exception, match="the site was built"):
        door.build(config)
