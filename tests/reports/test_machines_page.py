"""Machines side by side on the site: classes, ranks, gains and flips as the analysis has them, never one ranking."""

import re

from bench.app.jobs import report
from bench.store import classes
from reports.site import build, load
from tests.analysis.test_portability import SHUFFLED, A, B, timed, two_machines
from tests.app.test_jobs import config_for
from tests.synthetic import store


def folders(root, left=SHUFFLED[0], right=SHUFFLED[1]):
    made = two_machines(left, right)
    return [
        store(root / name, [one for one in made if one["machine_key"] == machine], with_samples=False).root
        for name, machine in (("a", A), ("b", B))
    ]


def test_two_folders_are_one_report_with_classes_ranks_and_what_flips(tmp_path):
    places = folders(tmp_path, (1.5, 1.5, 0.9, 0.9), (0.8, 1.01, 0.7, 1.4))
    classes.write(places[0], {"small": [A]})
    build(places, tmp_path / "site")
    text = (tmp_path / "site" / "machines.html").read_text()
    assert "2 machines of 2 classes have 4 cases in common" in text and "2 turn from a gain into a loss" in text
    assert "0 gain, 1 lose, 1 open" in text and ">small<" in text and "Another CPU 9" in text
    flips = text[text.index('id="flips"') :]
    assert flips.count('<tr><th scope="row"') == 2 and "1.50 ± 0.03×" in flips and "0.800 ± 0.016×" in flips
    pages = re.findall(r'href="(cases/[^"]+)"', flips)
    assert len(pages) == 4 and all((tmp_path / "site" / page).is_file() for page in pages)
    method = (tmp_path / "site" / "methods" / "tome.html").read_text()
    assert "On which machines" in method and "flips" in method
    assert 'href="machines.html"' in (tmp_path / "site" / "index.html").read_text()


def test_rows_of_two_machines_are_never_ranked_together(tmp_path):
    site = load(folders(tmp_path))
    for group in site.groups:
        assert len({row.machine_key for row in site.in_group(group.index)}) == 1
    ranked = [row for row in site.rows if "speedup" in row.rank]
    assert ranked and max(row.rank["speedup"][1] for row in ranked) == 5  # five rows of each machine, not ten


def test_one_machine_has_no_such_page_and_unequal_conditions_say_why(tmp_path):
    places = folders(tmp_path)
    build(places[:1], tmp_path / "one")
    assert not (tmp_path / "one" / "machines.html").exists()
    assert "On which machines" not in (tmp_path / "one" / "methods" / "tome.html").read_text()
    other = store(tmp_path / "c", [timed(1.5, machine=B, setting="r=0", threads=4)], with_samples=False).root
    build([places[0], other], tmp_path / "two")
    text = (tmp_path / "two" / "machines.html").read_text()
    assert "no case can be set side by side" in text and "in more than the machine: threads" in text


def test_job_report_takes_several_folders_and_a_new_label_makes_the_page_again(tmp_path):
    places = folders(tmp_path)
    paths = {"results": ",".join(map(str, places)), "site": str(tmp_path / "site")}
    assert report.run(config_for(tmp_path, job="report", paths=paths)) == 0
    assert "0.80 [" in (tmp_path / "site" / "machines.html").read_text()
    classes.write(places[1], {"large": [B]})
    report.run(config_for(tmp_path, job="report", paths=paths))
    assert ">large<" in (tmp_path / "site" / "machines.html").read_text()


def test_a_disturbed_night_takes_nothing_away_and_adds_no_rows(tmp_path):
    places = folders(tmp_path, (1.5, 1.5, 0.9, 0.9), (0.8, 1.01, 0.7, 1.4))
    night = [
        {**record, "status": "contaminated", "started_at": "2030-01-01T00:00:00+00:00"}
        for record in two_machines((1.5, 1.5, 0.9, 0.9), (0.1, 0.1, 0.1, 0.1))
        if record["machine_key"] == B
    ]
    disturbed = store(tmp_path / "night", night, with_samples=False).root
    site = load([*places, disturbed])
    assert [pair.rows for pair in site.across.pairs] == [4] and len(site.across.flips) == 2
    assert sorted(site.across.rows.values()) == [5, 5]
    assert {row.status for row in site.rows if row.machine_key == B} == {"contaminated"}
