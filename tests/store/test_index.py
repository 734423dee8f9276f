"""The index beside the records is quick, is never believed over them, and may be thrown away, damaged or missing."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import bench
from bench.analysis import table
from bench.store import index, index_file, records
from bench.store.outline import LONG, Head, outline_of
from bench.store.records import CorruptRecord, Store, check, read_json, seal, without_superseded, write_json
from bench.store.stored import Stored
from tests.synthetic import record

LATER_NS = 60_000_000_000


@pytest.fixture
def worth(monkeypatch):
    """A few records are worth an index, and nothing was changed a moment ago."""
    monkeypatch.setattr(index, "WORTH", 1)
    monkeypatch.setattr(index.Index.__init__, "__defaults__", (lambda: time.time_ns() + LATER_NS,))


@pytest.fixture
def verified(monkeypatch):
    """Grows by one for each record that is verified."""
    seen = []
    monkeypatch.setattr(
        records, "check", lambda value, where, **more: seen.append(where) or check(value, where, **more)
    )
    return seen


def cases(count):
    return [record(batch=number + 1, method="tome", setting="r=8") for number in range(count)]


def filled(folder, count=5):
    store = Store(folder)
    for item in cases(count):
        store.write(item)
    return store


def truth(store):
    """What reading every file says: records, and lines about what cannot be read."""
    found, problems = [], []
    for path in sorted(store.records.glob("*.json")):
        try:
            found.append(store.read(path))
        except CorruptRecord as error:
            problems.append(str(error))
    return without_superseded(found), problems


def agrees(store):
    """Raise AssertionError unless records, outlines, heads and the table are as the files say."""
    wanted, lines = truth(store)
    told = [[], [], []]
    assert list(store.iterate(told[0])) == wanted
    assert list(store.outlines(told[1])) == [outline_of(item) for item in wanted]
    assert list(store.heads(told[2]).values()) == [
        Head.of(item, head.file_digest) for item, head in zip(wanted, store.heads([]).values(), strict=True)
    ]
    assert told == [lines] * 3
    frame = table.load(store.root)
    each_once = {item["content_hash"]: item for item in wanted}.values()
    pd.testing.assert_frame_equal(frame, table.from_records(each_once))
    assert sorted(frame.attrs["problems"]) == sorted(lines)


# ---------------------------------------------------------------- what it saves


def test_a_second_process_verifies_nothing_again_and_gets_the_same(tmp_path, worth, verified):
    filled(tmp_path)
    first = list(Store(tmp_path).outlines())
    assert len(verified) == 5 and (tmp_path / index_file.NAME).is_file()
    verified.clear()
    store = Store(tmp_path)
    assert list(store.outlines()) == first and not verified
    assert [item["content_hash"] for item in store.iterate()] == [item["content_hash"] for item in first]
    assert all(store.head(item["case_key"], item["machine_key"]).status == "ok" for item in cases(5))
    assert not verified


def test_one_changed_record_is_the_only_one_that_is_read(tmp_path, worth, verified):
    store = filled(tmp_path)
    list(store.heads())
    store.write(record(batch=77))
    verified.clear()
    assert len(Store(tmp_path).heads()) == 6 and len(verified) == 1


def test_a_handful_of_records_gets_no_index(tmp_path):
    assert len(filled(tmp_path).heads()) == 5
    assert not (tmp_path / index_file.NAME).exists()


def test_an_outline_has_every_part_but_the_long_ones(tmp_path):
    whole = seal({
        **record(method="tome", setting="r=8", accuracy=90.0),
        "quality": {"metric": "accuracy", "per_sample": "01", "also": [{"metric": "dice", "per_sample": [0.5]}]},
    })  # fmt: skip
    found = outline_of(whole)
    assert found["quality"] == {"metric": "accuracy", "also": [{"metric": "dice"}]}
    assert found["readings"] == whole["readings"] and found["case"] == whole["case"]
    assert set(found["timing"]) == set(whole["timing"]) - set(LONG["timing"])
    assert not {"layers", "environment", "machine", "curves"} & set(found)


def test_records_of_a_sweep_are_read_when_they_are_asked_for(tmp_path, worth, verified):
    store = filled(tmp_path)
    store.heads()
    kept = Stored(store)
    for item in reversed(cases(5)):
        kept.append(item)
    verified.clear()
    assert [head.case_key for head in kept.heads()] == [item["case_key"] for item in reversed(cases(5))]
    assert [item["case"]["batch"] for item in kept.outlines()] == [5, 4, 3, 2, 1]
    assert kept[0]["layers"] and len(kept[1:3]) == 2 and kept[-1]["case"]["batch"] == 1
    assert len(kept.that(lambda head: head.status != "ok")) == 0 and not verified


# ---------------------------------------------------------------- the records are the truth

#: A failure is not made smaller: each step reads files, and that would take minutes.
PHASES = [phase for phase in Phase if phase is not Phase.shrink]
WRITE, AGAIN, DELETE, EDIT, DAMAGE, RENAME, SPOIL, REOPEN = range(8)


@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    phases=PHASES,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 5), st.integers(0, 10**6)), max_size=8))
def test_whatever_happens_to_the_files_the_index_says_what_they_say(steps, worth, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    store = filled(folder, 2)
    agrees(store)
    for what, which, number in steps:
        files = sorted(store.records.glob("*.json"))
        path = files[which % len(files)] if files else None
        if what == WRITE:
            write_json(store.record_path(f"case{which}", "m"), sealed_as(f"case{which}", number))
        elif what == AGAIN and path is not None:
            item = read_json(path)
            write_json(
                path.with_name(f"{path.name[:-5]}.{9 + which}.json"), seal({**item, "supersedes": item["content_hash"]})
            )
        elif what == DELETE and path is not None:
            path.unlink()
        elif what == EDIT and path is not None:
            in_place(path, json.dumps(seal({**read_json(path), "started_at": f"2026-11-0{which + 1}T12:00:00+00:00"})))
        elif what == DAMAGE and path is not None:
            text = bytearray(path.read_bytes())
            text[number % len(text)] ^= 1
            in_place(path, bytes(text).decode(errors="replace"))
            agrees(store)
            path.unlink()
        elif what == RENAME and len(files) > 1:
            other = files[(which + 1) % len(files)]
            one, two = path.read_bytes(), other.read_bytes()
            path.write_bytes(two), other.write_bytes(one)
            agrees(Store(folder))
            path.write_bytes(one), other.write_bytes(two)
            later(path), later(other)
        elif what == SPOIL:
            spoilt(folder / index_file.NAME, number)
        elif what == REOPEN:
            store = Store(folder)
        agrees(store)
    agrees(Store(folder))


def sealed_as(key, number):
    made = record(batch=1 + number % 64)
    return seal({**made, "case_key": key, "machine_key": "m", "record_key": f"{key}.m"})


_LATER = iter(range(10**9))


def later(path):
    """Let the file's time of change differ from all before, as it does once a grain of the clock is past."""
    os.utime(path, ns=(1, 10**18 + next(_LATER)))


def in_place(path, text):
    """Write over a file as an editor does that keeps it: the same number, and times that differ."""
    with path.open("r+", encoding="utf-8", newline="") as file:
        file.write(text)
        file.truncate()
    later(path)


def spoilt(path, number):
    if not path.exists():
        return
    data = bytearray(path.read_bytes())
    for place in range(20):
        data[(number * (place + 1) * 7919) % len(data)] ^= 1 << place % 8
    path.write_bytes(bytes(data[: len(data) - number % 3 * 1000]))


def test_a_change_within_one_grain_of_the_clock_is_seen(tmp_path, monkeypatch):
    """Nothing about the file differs but what is in it."""
    monkeypatch.setattr(index, "WORTH", 1)
    store, (item,) = Store(tmp_path), cases(1)
    path = store.write(item)
    stamp = index._stamp(path.stat())
    monkeypatch.setattr(index, "_stamp", lambda found: stamp)
    assert [head.status for head in store.heads().values()] == ["ok"]
    path.write_text(json.dumps(seal({**item, "status": "crashed"})))
    for reader in (store, Store(tmp_path)):
        assert [head.status for head in reader.heads().values()] == ["crashed"]
        assert [item["status"] for item in reader.outlines()] == ["crashed"]


def test_bytes_that_differ_behind_an_unchanged_stamp_are_verified_before_a_whole_record_is_given(
    tmp_path, worth, monkeypatch
):
    """A disk that lost a bit tells nobody; the whole record is read from the disk, so it is looked at."""
    store, (item,) = Store(tmp_path), cases(1)
    path = store.write(item)
    stamp = index._stamp(path.stat())
    monkeypatch.setattr(index, "_stamp", lambda found: stamp)
    list(store.heads())
    path.write_bytes(path.read_bytes().replace(b'"batch":1', b'"batch":3'))
    with pytest.raises(CorruptRecord, match="hash"):
        list(store.iterate())


@pytest.mark.parametrize("spoil", [
    lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"\xff" * 9000),
    lambda path: path.write_bytes(path.read_bytes()[:-4096]), lambda path: path.unlink(),
    lambda path: replaced(path, "CREATE TABLE heads (name TEXT)"),
    lambda path: changed(path, "UPDATE about SET made_by = 'an older one'"),
    lambda path: changed(path, "UPDATE heads SET head = x'00'"), lambda path: changed(path, "DELETE FROM outlines"),
    lambda path: changed(path, "UPDATE outlines SET outline = (SELECT outline FROM outlines LIMIT 1)"),
    lambda path: changed(path, "CREATE TRIGGER t AFTER INSERT ON heads BEGIN DELETE FROM heads; END"),
])  # fmt: skip
def test_a_damaged_older_or_foreign_index_is_made_anew(spoil, tmp_path, worth, verified):
    store = filled(tmp_path)
    wanted = list(store.outlines())
    spoil(tmp_path / index_file.NAME)
    assert list(Store(tmp_path).outlines()) == wanted
    agrees(Store(tmp_path))
    list(Store(tmp_path).outlines())  # what was missing is there again
    Store(tmp_path).heads()
    verified.clear()
    assert len(Store(tmp_path).heads()) == 5 and not verified


def replaced(path, text):
    path.unlink()
    changed(path, text)


def changed(path, text):
    database = sqlite3.connect(path)
    with database:
        database.execute(text)
    database.close()


def test_an_index_that_came_with_records_from_elsewhere_is_not_believed(tmp_path, worth):
    """Its outlines are of the right records by every hash, and say other numbers."""
    filled(tmp_path / "theirs")
    list(Store(tmp_path / "theirs").outlines())
    path = tmp_path / "theirs" / index_file.NAME
    database = sqlite3.connect(path)
    with database:
        for name, blob in database.execute("SELECT name, outline FROM outlines").fetchall():
            stamp = database.execute("SELECT size, mtime, ctime, inode FROM heads WHERE name = ?", (name,)).fetchone()
            outline = json.loads(zlib.decompress(blob[index_file.SEAL_BYTES :]))
            outline["readings"][0]["value"] = 1.0
            forged = index_file._sealed(zlib.compress(json.dumps(outline).encode()), name, stamp)
            database.execute("UPDATE outlines SET outline = ? WHERE name = ?", (forged, name))
    database.close()
    assert next(Store(tmp_path / "theirs").outlines())["readings"][0]["value"] == 1.0  # where it was forged
    shutil.copytree(tmp_path / "theirs", tmp_path / "ours")
    agrees(Store(tmp_path / "ours"))


def test_a_folder_that_takes_no_index_is_read_as_it_is(tmp_path, worth):
    store = filled(tmp_path)
    (tmp_path / index_file.NAME).mkdir()
    agrees(store)
    agrees(Store(tmp_path))


def test_a_folder_of_records_alone_gets_no_index(tmp_path, worth):
    filled(tmp_path)
    assert not table.load(tmp_path / "records").empty
    assert not list((tmp_path / "records").glob("*.sqlite"))


def test_several_readers_and_a_writer_at_once_all_say_what_is_there(tmp_path, worth):
    filled(tmp_path, 12)
    failures = []

    def read():
        try:
            for _ in range(4):
                found = list(Store(tmp_path).outlines())
                assert len(found) >= 12
        except Exception as error:
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for number in range(20):
        Store(tmp_path).write(record(batch=100 + number))
    for reader in readers:
        reader.join()
    assert not failures
    agrees(Store(tmp_path))
    assert len(Store(tmp_path).heads()) == 32


def test_a_new_version_of_any_code_that_judges_records_makes_a_new_index():
    loaded = (
        "import sys, bench; before = set(sys.modules); import bench.store.records; new = set(sys.modules) - before; "
        "print(*(sys.modules[name].__file__ for name in new if name.startswith('bench.')))"
    )
    files = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True).stdout.split()
    home = Path(bench.__file__).parent
    rooms = {Path(file).relative_to(home).parts[0] for file in files}
    assert {name for name in rooms if not name.endswith(".py")} <= set(index_file._ROOMS)
    assert len(files) > 20
