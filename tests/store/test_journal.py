"""A journal keeps every entry that was acknowledged, in order, whatever happens to its writer or its bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.errors import ResultsError
from bench.store.journal import Journal

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(entries=st.lists(st.dictionaries(st.sampled_from(["case", "note", "x"]), plain), max_size=6))
def test_what_was_appended_is_read_back_in_order(tmp_path_factory, entries):
    journal = Journal(tmp_path_factory.mktemp("j") / "deep" / "journal.jsonl")
    written = [journal.append("e", **entry) for entry in entries]
    contents = journal.read()
    assert list(contents.entries) == written
    assert [{k: v for k, v in e.items() if k not in ("event", "at")} for e in contents.entries] == entries
    assert not contents.corrupt and not contents.torn


@settings(max_examples=100, deadline=None)
@given(cut=st.integers(0, 200))
def test_a_journal_cut_anywhere_loses_only_its_last_line(tmp_path_factory, cut):
    journal = Journal(tmp_path_factory.mktemp("j") / "journal.jsonl", clock=lambda: "t")
    for number in range(5):
        journal.append("case", number=number)
    data = journal.path.read_bytes()
    kept = data[: min(cut, len(data))]
    journal.path.write_bytes(kept)
    contents = journal.read()
    whole = kept.count(b"}")  # an entry whose newline alone was cut off is whole
    assert [e["number"] for e in contents.entries] == list(range(whole))
    assert contents.torn == bool(kept and kept[-1:] not in b"}\n") and not contents.corrupt
    journal.append("after")
    again = journal.read()
    assert again.entries[-1]["event"] == "after" and len(again.entries) == len(contents.entries) + 1
    assert len(again.corrupt) == int(contents.torn) and not again.torn


@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=200))
def test_any_bytes_can_be_read(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("j") / "journal.jsonl"
    path.write_bytes(data)
    contents = Journal(path).read()
    filled = [line for line in data.split(b"\n") if line]
    assert len(contents.entries) + len(contents.corrupt) + contents.torn == len(filled)


def test_corrupt_lines_are_named_and_do_not_stop_the_reading(tmp_path):
    journal = Journal(tmp_path / "j")
    journal.append("first")
    deep = b"[" * 100_000
    with journal.path.open("ab") as file:
        file.write(b"\x00\x00\x00\n" + b'{"event": 5, "at": "t"}\n' + b"[1]\n" + deep + b"\n")
    journal.append("last")
    contents = journal.read()
    assert [entry["event"] for entry in contents.entries] == ["first", "last"]
    assert [line.number for line in contents.corrupt] == [2, 3, 4, 5]
    assert contents.corrupt[1].reason == "not a journal entry"
    assert [entry["event"] for entry in contents.events("last")] == ["last"]


def test_values_that_are_no_json_are_refused_and_nothing_is_written(tmp_path):
    journal = Journal(tmp_path / "j")
    for bad in ({"x": float("nan")}, {"x": object()}, {"at": "mine"}):
        with pytest.raises(ValueError):
            journal.append("e", **bad)
    assert not journal.path.exists()


def test_no_journal_reads_as_empty(tmp_path):
    assert Journal(tmp_path / "none").read().entries == ()


def test_full_disk_is_told_with_a_remedy_and_earlier_entries_stay(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "j")
    journal.append("kept")
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:5]))
    with pytest.raises(ResultsError, match="free space"):
        journal.append("lost")
    monkeypatch.undo()
    journal.append("later")
    assert [entry["event"] for entry in journal.read().entries] == ["kept", "later"]


def test_full_device_is_told(tmp_path):
    (tmp_path / "j").symlink_to("/dev/full")
    with pytest.raises(ResultsError, match="cannot be written"):
        Journal(tmp_path / "j").append("e")


def test_several_processes_never_mix_their_lines(tmp_path):
    path = tmp_path / "j"
    code = (
        "import sys; from bench.store.journal import Journal\n"
        "for n in range(40): Journal(sys.argv[1]).append('e', who=sys.argv[2], n=n, pad='x' * 3000)"
    )
    workers = [subprocess.Popen([sys.executable, "-c", code, str(path), name]) for name in "abc"]
    assert [worker.wait() for worker in workers] == [0, 0, 0]
    contents = Journal(path).read()
    assert not contents.corrupt and len(contents.entries) == 120
    for name in "abc":
        assert [e["n"] for e in contents.entries if e["who"] == name] == list(range(40))


def test_killed_writer_loses_nothing_that_was_acknowledged(tmp_path):
    path = tmp_path / "j"
    code = (
        "import sys; from bench.store.journal import Journal; n = 0\n"
        "while True: Journal(sys.argv[1]).append('e', n=n); print(n, flush=True); n += 1"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    acknowledged = [int(writer.stdout.readline()) for _ in range(20)]
    writer.send_signal(signal.SIGKILL)
    acknowledged += [int(line) for line in writer.stdout.read().split()]
    writer.wait()
    numbers = [entry["n"] for entry in Journal(path).read().entries]
    assert numbers[: len(acknowledged)] == acknowledged == list(range(len(acknowledged)))


def test_entries_are_one_json_object_per_line(tmp_path):
    journal = Journal(tmp_path / "j", clock=lambda: "2026-01-01T00:00:00+00:00")
    journal.append("start", text="two\nlines")
    assert [json.loads(line) for line in journal.path.read_text().splitlines()] == [
        {"event": "start", "at": "2026-01-01T00:00:00+00:00", "text": "two\nlines"}
    ]
