"""The command on a case's page finds the very row again."""

import html
import re
import shlex

import pytest

from bench.app.sources import find_row
from reports.site import build
from tests.synthetic import record, store


def commands(site):
    """The commands on the pages of all cases, as words."""
    pages = (path.read_text() for path in (site / "cases").glob("*.html"))
    return [shlex.split(html.unescape(re.search(r"<pre[^>]*>(python -m bench .*?)</pre>", page)[1])) for page in pages]


def test_the_command_names_case_and_machine(tmp_path):
    made = [record(), record(machine_key="another")]
    store(tmp_path / "results", made)
    build(tmp_path / "results", tmp_path / "site", figure_seconds=0)
    told = commands(tmp_path / "site")
    assert {word for words in told for word in words} >= {f"row={one['record_key']}" for one in made}
    for words in told:
        assert words[:4] == ["python", "-m", "bench", "job=reproduce"] and len(words) == 5
        assert f"row={find_row(words[4].removeprefix('row='), tmp_path / 'results')[0]['record_key']}" == words[4]


@pytest.mark.parametrize(
    ("folder", "show_paths", "told"),
    [
        ("results", False, []),
        ("runs/now", False, ["paths.results=runs/now"]),
        ("my runs", False, ['paths.results="my runs"']),
        ("{there}/other", False, ["paths.results=other"]),
        ("{there}/other", True, ["paths.results={there}/other"]),
    ],
)
def test_the_command_names_the_results_folder_where_it_is_not_the_usual_one(
    folder, show_paths, told, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    place = folder.format(there=tmp_path / "there")
    store(tmp_path / place, [record()])
    build(place, "site", show_paths=show_paths, figure_seconds=0)
    (words,) = commands(tmp_path / "site")
    assert words[5:] == [word.format(there=tmp_path / "there") for word in told]


def test_a_report_of_several_folders_names_none(tmp_path):
    for name, machine in (("a", "one"), ("b", "two")):
        store(tmp_path / name, [record(machine_key=machine)])
    build([tmp_path / "a", tmp_path / "b"], tmp_path / "site", figure_seconds=0)
    assert [len(words) for words in commands(tmp_path / "site")] == [5, 5]


def test_a_page_begins_with_a_short_name_a_sentence_and_the_way_around(tmp_path):
    schedule = f"prune={list(range(197, 173, -1))}"
    long = record(method="diffrate", setting=schedule, macs=0.8e9, latency_ms=30.0)
    disturbed = record(method="evit", status="contaminated")
    store(tmp_path / "results", [record(), long, disturbed], with_samples=False)
    for figure_seconds in (-1, None):  # without figures, then with them
        build(tmp_path / "results", tmp_path / "site", figure_seconds=figure_seconds)
        page, other = (
            html.unescape((tmp_path / "site" / "cases" / f"{one['record_key']}.html").read_text())
            for one in (long, disturbed)
        )
        assert "<h1>diffrate(prune=[197 … 174]) <span" in page
        sentence = r"makes deit_tiny 1\.33\d* ± 0\.0\d+ times as fast, at an accuracy [^<]* promise 1\.56 times\.<"
        assert re.search(sentence, page)
        assert {"../methods/diffrate.html", "../models/deit_tiny.html", "../machines/synthetic000cpu0.html"} <= set(
            re.findall(r'href="([^"]*)"', page)
        )
        assert re.search(r'id="after" href="\.\./cases/', page) and 'data-pin="vit_tokens:' in page
        told = "<code>python -m bench suite=vit_tokens retry=disturbed</code>"
        assert told in other and told in (tmp_path / "site" / "suites" / "vit_tokens.html").read_text()
        assert ("report.figure_seconds=null" in page) == (figure_seconds == -1)
    assert schedule in page
