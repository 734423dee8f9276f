"""Records from anywhere become one folder: none lost, none twice, contradictions refused in words."""

import json

import pytest

from bench.app.jobs import merge as job
from bench.errors import UsageError
from bench.store import classes, union
from bench.store.bundle import pack
from bench.store.journal import Journal
from bench.store.lock import Locked, ResultsLock
from bench.store.records import Store, read_json, seal, write_json
from tests.app.test_jobs import config_for
from tests.synthetic import record, samples, store

HERE, THERE = "machine0000000aa", "machine0000000bb"


def measured(day, machine=HERE, **fields):
    """A record of one day on one machine, with samples of its own."""
    made = record(method="tome", setting="r=8", macs=1e9, latency_ms=30.0, machine_key=machine, seed=day, **fields)
    session = f"s{day}-{machine}"
    made["timing"]["session"] = session
    for run in made["timing"]["invocations"]:
        run["samples_file"] = f"samples/{session}/{run['index']:02d}.json.gz"
    return {
        **made,
        "started_at": f"2026-11-{day:02d}T12:00:00+00:00",
        "finished_at": f"2026-11-{day:02d}T12:01:00+00:00",
    }


def folder(root, *records):
    """A results folder, several sessions of one case beside each other as a merge leaves them."""
    made = Store(root)
    for item in records:
        sealed = seal(item)
        made.put_copy(item["case_key"], item["machine_key"], json.dumps(sealed).encode())
        for run in item["timing"]["invocations"]:
            write_json(root / run["samples_file"], samples(item, run["index"]))
    return root


def hashes(root):
    return sorted(item.get("redacted_from") or item["content_hash"] for item in Store(root).iterate())


def test_folders_and_bundles_merge_each_record_once_with_its_samples_whatever_the_order(tmp_path):
    a = folder(tmp_path / "a", measured(1), measured(2))
    b = folder(tmp_path / "b", measured(2), measured(1, THERE))
    zipped = pack(b, None, tmp_path / "b.zip")
    done = union.merge([a, zipped], tmp_path / "lab")
    assert (done.records, done.known, done.samples, done.machines) == (3, 1, 9, (HERE, THERE))
    assert len(list((tmp_path / "lab" / "samples").glob("*/*.json.gz"))) == 9
    again = union.merge([zipped, a, b], tmp_path / "lab")
    assert (again.records, again.known, again.samples) == (0, 6, 0)
    union.merge([zipped, a], tmp_path / "other")
    every = folder(tmp_path / "every", measured(1), measured(2), measured(1, THERE))
    assert hashes(tmp_path / "lab") == hashes(tmp_path / "other") == hashes(every)


def test_a_copy_without_personal_parts_is_the_same_record_whichever_came_first(tmp_path):
    item = {**measured(1), "log_file": "/home/ada/logs/x.log"}
    a = folder(tmp_path / "a", item)
    zipped = pack(a, None, tmp_path / "a.zip")
    for name, order in (("one", [a, zipped]), ("two", [zipped, a])):
        assert union.merge(order, tmp_path / name).records == 1
        assert len(list(Store(tmp_path / name).iterate())) == 1


def test_attempts_come_in_the_order_of_their_days_and_the_newest_is_the_latest(tmp_path):
    late, early = folder(tmp_path / "late", measured(9)), folder(tmp_path / "early", measured(3), measured(5))
    union.merge([late, early], tmp_path / "lab")
    found = Store(tmp_path / "lab")
    key = measured(1)["case_key"]
    days = [found.read(path)["started_at"][8:10] for path in found.attempts(key, HERE)]
    assert days == ["03", "05", "09"] and found.latest(key, HERE)["started_at"].startswith("2026-11-09")


def test_what_a_machine_measured_again_and_replaced_does_not_come_back(tmp_path):
    first = measured(1)
    old = folder(tmp_path / "old", first)
    redone = {**measured(2), "supersedes": seal(first)["content_hash"]}
    new = folder(tmp_path / "new", redone)
    done = union.merge([old, new], tmp_path / "lab")
    assert done.records == 1 and [r["started_at"][8:10] for r in Store(tmp_path / "lab").iterate()] == ["02"]
    assert union.merge([old], tmp_path / "lab").records == 0


def changed(item):
    """The same measurement with another number, sealed again as whoever edits a record can do."""
    other = json.loads(json.dumps(item))
    other["readings"][0]["value"] += 1
    return other


def test_two_different_records_of_one_measurement_are_refused_and_nothing_is_written(tmp_path):
    a, b = folder(tmp_path / "a", measured(1)), folder(tmp_path / "b", changed(measured(1)))
    with pytest.raises(union.Contradiction, match=r"are both the record of case .* and say different things of it"):
        union.merge([a, b], tmp_path / "lab")
    assert not list((tmp_path / "lab").glob("records/*"))
    union.merge([a], tmp_path / "lab")
    with pytest.raises(union.Contradiction, match="Nothing was merged"):
        union.merge([b], tmp_path / "lab")
    assert len(hashes(tmp_path / "lab")) == 1


def test_a_session_that_went_on_in_two_copies_of_its_folder_is_two_records_unless_a_shared_process_differs(tmp_path):
    whole = measured(1)
    shorter = json.loads(json.dumps(whole))
    shorter["timing"]["invocations"] = shorter["timing"]["invocations"][:2]
    a, b = folder(tmp_path / "a", whole), folder(tmp_path / "b", shorter)
    assert union.merge([a, b], tmp_path / "lab").records == 2
    shorter["timing"]["invocations"][0]["median_ms"] *= 2
    with pytest.raises(union.Contradiction):
        union.merge([a, folder(tmp_path / "c", shorter)], tmp_path / "again")


def test_untimed_records_of_two_equal_machines_are_two_unless_they_count_differently(tmp_path):
    one = {**measured(1), "timing": {"session": None, "invocations": []}}
    two = {**one, "environment": {**one["environment"], "kernel": "6.5"}}
    a, b = folder(tmp_path / "a", one), folder(tmp_path / "b", two)
    assert union.merge([a, b], tmp_path / "lab").records == 2
    with pytest.raises(union.Contradiction):
        union.merge([a, folder(tmp_path / "c", changed(one))], tmp_path / "again")


def test_samples_that_differ_are_refused_but_a_label_that_was_taken_out_is_no_difference(tmp_path):
    a, b = folder(tmp_path / "a", measured(1)), folder(tmp_path / "b", measured(1))
    path = next(b.glob("samples/*/*.json.gz"))
    value = read_json(path)
    write_json(path, {**value, "host": {"name": "[taken out]"}})
    assert union.merge([a, b], tmp_path / "lab").records == 1
    write_json(path, {**value, "twin": {"latency_ms": [1.0]}})
    with pytest.raises(union.Contradiction, match="samples of one name and differ"):
        union.merge([a, b], tmp_path / "again")


def test_samples_that_were_missing_come_later(tmp_path):
    bare = store(tmp_path / "bare", [measured(1)], with_samples=False).root
    union.merge([bare], tmp_path / "lab")
    assert union.merge([folder(tmp_path / "whole", measured(1))], tmp_path / "lab").samples == 3


def test_the_newest_calibration_stays_and_classes_of_machines_are_joined_also_through_a_bundle(tmp_path):
    a, b = folder(tmp_path / "a", measured(1)), folder(tmp_path / "b", measured(1, THERE))
    for root, at in ((a, 100.0), (b, 200.0)):
        write_json(root / "machines" / f"{HERE}.cpu.1.json", {"peaks": [], "bandwidth": None, "measured_at": at})
    classes.write(a, {"small": [HERE]})
    classes.write(b, {"small": [THERE], "large": [THERE], "": [HERE]})
    union.merge([pack(b, None, tmp_path / "b.zip"), a], tmp_path / "lab")
    assert read_json(tmp_path / "lab" / "machines" / f"{HERE}.cpu.1.json")["measured_at"] == 200.0
    found = classes.read(tmp_path / "lab")
    assert {label: sorted(keys) for label, keys in found.items()} == {
        "small": [HERE, THERE],
        "large": [THERE],
        "": [HERE],
    }
    assert classes.by_machine(found) == {HERE: "small", THERE: "large, small"}


@pytest.mark.parametrize("value", [[], {"a b": []}, {"x": "y"}, {"x": ["../y"]}, {"x": [1]}])
def test_a_list_of_classes_that_is_none_is_not_believed(tmp_path, value):
    write_json(tmp_path / classes.FILE, value)
    assert classes.read(tmp_path) == {}


def test_rows_that_came_in_are_not_taken_for_measured_here_and_the_folder_is_locked_meanwhile(tmp_path):
    a = folder(tmp_path / "a", measured(1))
    union.merge([a], tmp_path / "lab")
    journal = Journal(Store(tmp_path / "lab").journal).read()
    assert [entry["event"] for entry in journal.entries] == ["merged"] and journal.entries[0]["records"] == 1
    with ResultsLock(tmp_path / "lab"), pytest.raises(Locked):
        union.merge([a], tmp_path / "lab")


def test_the_command_takes_patterns_and_says_what_came_in(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, item in (("a", measured(1)), ("b", measured(1, THERE))):
        pack(folder(tmp_path / name, item), None, tmp_path / "in" / f"{name}.zip")
    config = config_for(
        tmp_path, job="merge", sources="in/*.zip,a", paths={"results": "lab", "site": "s", "cache": "c"}
    )
    assert job.run(config) == 0
    told = capsys.readouterr().out
    assert "3 sources into lab: 2 records new, 1 there already, 6 samples files" in told and "2 machines in all" in told


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        ("nowhere", "nowhere is not there"),
        ("empty", "empty holds no records"),
        ("lab", "merged into"),
        ("x.json", "is neither"),
    ],
)
def test_what_cannot_be_merged_is_said(tmp_path, monkeypatch, sources, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.json").write_text("{}")
    folder(tmp_path / "lab", measured(1))
    config = config_for(tmp_path, job="merge", sources=sources, paths={"results": "lab", "site": "s", "cache": "c"})
    with pytest.raises(UsageError, match=words):
        job.run(config)


def test_merging_needs_sources(tmp_path):
    with pytest.raises(UsageError, match="job=merge needs sources"):
        config_for(tmp_path, job="merge")
