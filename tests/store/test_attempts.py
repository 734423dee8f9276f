"""A sweep lists the folder of its records once, and still sees what another process puts there meanwhile."""

import os

import pytest

from bench.store import attempts
from bench.store.records import Store, read_json, write_atomically
from tests.synthetic import record


@pytest.fixture
def scans(monkeypatch):
    """Grows by one for each listing of a folder."""
    seen = []
    scandir = os.scandir
    monkeypatch.setattr(attempts.os, "scandir", lambda folder: seen.append(folder) or scandir(folder))
    return seen


def keys(item):
    return item["case_key"], item["machine_key"]


def cases(count):
    return [record(batch=number + 1) for number in range(count)]


def test_a_whole_sweep_lists_the_folder_once(tmp_path, scans):
    for item in cases(6)[:3]:
        Store(tmp_path).write(item)
    scans.clear()
    sweep = Store(tmp_path)
    for item in cases(6):
        if sweep.latest(*keys(item)) is None:
            sweep.write(item)
    assert all(sweep.latest(*keys(item)) for item in cases(6))
    hashes = [read_json(sweep.attempts(*keys(item))[-1])["content_hash"] for item in cases(6)]
    for item, before in zip(cases(6), hashes, strict=True):
        sweep.write({**item, "supersedes": before})
    assert [len(sweep.attempts(*keys(item))) for item in cases(6)] == [2] * 6
    assert len(scans) == 1


def test_a_record_of_another_process_is_seen_whenever_it_is_written(tmp_path, scans):
    ours, theirs = Store(tmp_path), Store(tmp_path)
    first, second = cases(2)
    assert ours.latest(*keys(first)) is None
    theirs.write(first)
    assert ours.latest(*keys(first)) is not None
    with pytest.raises(FileExistsError):
        ours.write(first)
    ours.write(second)
    before = theirs.latest(*keys(second))["content_hash"]
    theirs.write({**second, "supersedes": before})
    assert len(ours.attempts(*keys(second))) == 2


def stopped(folder, monkeypatch):
    """Let the folder's time of change stand still, as it does within one grain of the file system's clock."""
    monkeypatch.setattr(attempts.Attempts, "changed", lambda self: 7 if self.folder.exists() else None)


def test_a_clock_too_coarse_to_tell_hides_no_attempt_of_another_writer(tmp_path, monkeypatch):
    ours, theirs = Store(tmp_path), Store(tmp_path)
    first, second = cases(2)
    path = ours.write(first)
    stopped(tmp_path, monkeypatch)
    assert ours.attempts(*keys(first)) == [path] and ours.attempts(*keys(second)) == []
    theirs.write(second)
    theirs.write({**first, "supersedes": read_json(path)["content_hash"]})
    assert len(ours.attempts(*keys(first))) == 2 and len(ours.attempts(*keys(second))) == 1
    with pytest.raises(FileExistsError):
        ours.write({**first, "supersedes": read_json(path)["content_hash"]})
    path.unlink()
    assert [found.name.split(".")[2] for found in ours.attempts(*keys(first))] == ["2"]


def test_what_a_hand_puts_behind_a_gap_is_seen(tmp_path):
    store, (item,) = Store(tmp_path), cases(1)
    path = store.write(item)
    os.utime(store.records, ns=(1, 1))
    assert store.attempts(*keys(item)) == [path]
    write_atomically(store.record_path(*keys(item), 5), path.read_bytes())
    assert len(store.attempts(*keys(item))) == 2
    assert store.write({**item, "supersedes": read_json(path)["content_hash"]}).name.endswith(".6.json")


@pytest.mark.parametrize(
    "name", ["a.m.0.json", "a.m.01.json", "a.m.x.json", "a.m.2.json.tmp", ".a.m.json.x.tmp", "a.m.1.json"]
)
def test_other_files_are_no_attempts(tmp_path, name):
    (tmp_path / name).write_text("")
    assert attempts.Attempts(tmp_path).of("a.m") == []


def test_a_key_that_ends_in_a_number_keeps_its_attempts(tmp_path):
    for name in ("a.m.json", "a.m.2.json", "a.m.2.3.json"):
        (tmp_path / name).write_text("")
    known = attempts.Attempts(tmp_path)
    assert known.of("a.m") == [1, 2] and known.of("a.m.2") == [1, 3]
