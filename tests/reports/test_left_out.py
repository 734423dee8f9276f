"""A page that cannot be made leaves one line in its place and on the terminal; the rest of the report is whole."""

import dataclasses
import importlib

import pytest

import bench.analysis.claims
from bench.app import cli, jobs
from reports import site
from reports.pages import PAGES
from tests.synthetic import store

HOSTILE = "<script>alert(1)</script> \x1b[2J /home/someone/secret"


class Unforeseen(Exception):
    """Of no kind that anybody catches by name."""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return store(tmp_path_factory.mktemp("left_out") / "results").root


@pytest.fixture(scope="module")
def whole(results, tmp_path_factory):
    """The report with nothing left out."""
    return site.build(results, tmp_path_factory.mktemp("whole"))


def broken(monkeypatch, title, how):
    """Let one kind of page fail: while its files are listed, or while each is rendered."""

    def fails(*_):
        raise Unforeseen(HOSTILE)

    (page,) = (page for page in PAGES if page.title == title)
    module = importlib.import_module(page.module)
    real = module.sheets

    def sheets(site):
        return [dataclasses.replace(one, render=fails, brief=fails) for one in real(site)]

    monkeypatch.setattr(module, "sheets", sheets if how == "rendered" else fails)


@pytest.mark.parametrize("title", ["Overview", "Suite", "Method", "How it was measured", "Case"])
@pytest.mark.parametrize("how", ["sheets", "rendered"])
def test_one_kind_of_page_that_fails_costs_no_other(results, whole, tmp_path, monkeypatch, title, how):
    folder = whole.index.parent
    broken(monkeypatch, title, how)
    made = site.build(results, tmp_path / "site")
    lost = {page.relative_to(tmp_path / "site") for page in made.pages if "is left out" in page.read_text()}
    assert lost and len(lost) == len(made.problems)
    assert all("left out: Unforeseen" in line and "\x1b" not in line for line in made.problems)
    beside = {path.with_suffix(end) for path in lost for end in (".figures.js", ".folded.js")}
    kept = {page.relative_to(folder) for page in whole.pages} - lost - beside
    assert kept
    folders = {"Suite": "suites", "Method": "methods", "Case": "cases"}
    gone = {p for p in kept if p.parent.name == folders.get(title)} if how == "sheets" else set()
    for name in kept - gone:
        assert (tmp_path / "site" / name).read_text() == (folder / name).read_text()
    for name in lost:
        text = (tmp_path / "site" / name).read_text()
        assert "<script" not in text and "someone" not in text and "default-src" in text


def test_the_next_build_makes_what_was_left_out(results, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        broken(patched, "How it was measured", "rendered")
        site.build(results, tmp_path / "site")
    made = site.build(results, tmp_path / "site")
    assert not made.problems
    assert "is left out" not in (tmp_path / "site" / "methods.html").read_text()


def test_claims_that_cannot_be_judged_cost_the_claims_alone(results, tmp_path, monkeypatch):
    def fails(*_):
        raise Unforeseen("no verdict")

    monkeypatch.setattr(bench.analysis.claims, "load", fails)
    suite = tmp_path / "vit_tokens"
    suite.mkdir()
    made = site.build(results, tmp_path / "site", claims=[suite])
    (line,) = made.problems
    assert "the claims of the suites: left out of the report: Unforeseen: no verdict" in line
    assert "deit_tiny" in made.index.read_text() and (tmp_path / "site" / "suites" / "vit_tokens.html").is_file()


def test_a_user_is_told_by_a_line_and_exit_code_zero(tmp_path, monkeypatch, capsys):
    store(tmp_path / "results")
    broken(monkeypatch, "How it was measured", "rendered")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["bench", "job=report", "suite=vit_tokens"])
    monkeypatch.setattr(cli, "open_streams", lambda: [])
    monkeypatch.setattr(cli, "close_streams", lambda sinks: True)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    told = capsys.readouterr()
    assert ended.value.code in (0, None), told.err
    assert "methods.html is left out: Unforeseen" in told.err and "Traceback" not in told.err
    assert jobs is not None
