"""Every kind of file that others may write, every place of a good one changed: one error of ours, or nothing happens.

Records have a test of their own (`tests/store/test_arrival.py`), and what a worker leaves
(`tests/worker/test_ending.py`).
"""

import copy
import hashlib
import json
import zipfile
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.analysis import claims, table
from bench.analysis.compare import compare
from bench.app.listing import about
from bench.app.sources import measured_here
from bench.config import cards, catalogue
from bench.config.suites import read_suite
from bench.errors import BenchError
from bench.plan.case import Case
from bench.store import bundle
from bench.store.journal import Journal
from bench.store.lock import NAME, ResultsLock
from bench.store.records import Store, read_calibration, seal, write_json
from bench.sweep.unfinished import Unfinished
from bench.tracking.cases import LEDGER, Cases
from bench.tracking.connection import Connection
from reports import bibliography
from tests.store.test_arrival import DELETED, VALUES, places
from tests.synthetic import record

ROOT = Path(__file__).resolve().parents[2]
RECORD = seal(record(method="tome", setting="r=8"))
CASE = Case.from_dict(RECORD["case"])


def changed(value, path, new):
    """The value with one place changed."""
    made = copy.deepcopy(value)
    inner = made
    for key in path[:-1]:
        inner = inner[key]
    if new is DELETED:
        del inner[path[-1]]
    else:
        inner[path[-1]] = new
    return made


def first(value, keep=2):
    """The beginning of a long file of ours: its lists and tables cut to a few entries."""
    if isinstance(value, dict):
        tables = len(value) > 30  # names to entries, of which a few say how all are
        return {key: first(inner, keep) for key, inner in list(value.items())[: 3 if tables else None]}
    return [first(inner, keep) for inner in value[:keep]] if isinstance(value, list) else value


def of_suite(name, suite="vit_tokens"):
    return first(yaml.safe_load((ROOT / "suites" / suite / name).read_text()))


# ---------------------------------------------------------------- YAML
def reads_suite(folder):
    read_suite(folder / "suite.yaml")


def reads_catalogue(folder):
    found = catalogue.load([folder])
    for entry in [*found.models.values(), *found.methods.values(), *found.tasks.values(), *found.prefixes.values()]:
        assert isinstance(entry.path, str) and entry.folder == folder


def reads_claims(folder):
    listed = claims.load(folder)
    claims.as_dicts(claims.evaluate(listed, table.from_records([RECORD]), {}, [RECORD]))


def reads_cards(folder):
    for card in cards.read(folder):
        about(card)


SUITE = {
    "name": "s",
    "title": "t",
    "description": "d",
    "task": "none",
    "grids": {
        "default": [
            {
                "models": ["m"],
                "methods": ["none"],
                "resolutions": [224],
                "batches": [1],
                "dtypes": ["fp32"],
                "backends": ["eager"],
                "workload": "forward",
                "shapes": {"batch": [1]},
                "against": {"method": "none"},
            }
        ]
    },
}
CATALOGUE = {
    "models": {"m": {"build": "a:b", "settings": {"x": 1}, "task": "t"}},
    "methods": {"n": "a:c"},
    "tasks": {"t": {"build": "a:d"}},
    "prefixes": {"p": {"build": "a:e", "is_path": True, "suffix": ".x", "backend": "eager"}},
}
YAML = {
    "suite.yaml": (SUITE, reads_suite),
    "catalogue.yaml": (CATALOGUE, reads_catalogue),
    "claims.yaml": (of_suite("claims.yaml"), reads_claims),
    "systems.yaml": (of_suite("systems.yaml"), reads_cards),
}


@pytest.mark.parametrize("name", YAML)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_value_in_any_place_of_a_suites_yaml_is_a_file_or_one_error_that_names_it(name, data, tmp_path_factory):
    good, read = YAML[name]
    path = data.draw(st.sampled_from(sorted(places(good), key=repr)))
    odd = changed(good, path, data.draw(st.sampled_from(VALUES)))
    folder = tmp_path_factory.mktemp("suite")
    (folder / name).write_text(yaml.safe_dump(odd), encoding="utf-8")
    try:
        read(folder)
    except BenchError as error:
        assert name in str(error) or str(folder) in str(error)


def test_reading_a_suite_or_its_claims_imports_no_workload_that_it_names(tmp_path, monkeypatch):
    """The suite's folder is on the import path, as that of a suite that is measured is."""
    (tmp_path / "payload").mkdir()
    (tmp_path / "payload" / "work.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    odd = copy.deepcopy(SUITE)
    odd["grids"]["default"][0] |= {"workload": "payload.work", "shapes": {"width": [3]}}
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(odd))
    read_suite(tmp_path / "suite.yaml")
    claim = {**of_suite("claims.yaml")["claims"][0], **of_suite("claims.yaml")["assume"]}
    claim |= {"workload": "payload.work", "shape": {"width": 3}}
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump({"claims": [claim]}))
    assert claims.load(tmp_path)[0].workload == "payload.work"
    assert not (tmp_path / "ran").exists()


def test_the_examples_are_good_ones_so_that_a_change_is_what_is_tested(tmp_path):
    for name, (good, read) in YAML.items():
        folder = tmp_path / name.removesuffix(".yaml")
        folder.mkdir()
        (folder / name).write_text(yaml.safe_dump(good))
        read(folder)
    for name, (good, read) in JSON.items():
        (tmp_path / name).mkdir()
        read(tmp_path / name, good)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_references_with_any_change_are_references_or_one_error_that_names_the_file(data, tmp_path_factory):
    good = (ROOT / "suites" / "vit_tokens" / "references.bib").read_text(encoding="utf-8")[:1500]
    start = data.draw(st.integers(0, len(good)))
    put = data.draw(
        st.sampled_from(["", "{", "}", "@", ",", "=", "\\", "\x00", "\ufeff", "{" * 500, "@string{", '"', "#", "%"])
        | st.text(max_size=5)
    )
    folder = tmp_path_factory.mktemp("suite")
    odd = good[:start] + put + good[start + data.draw(st.integers(0, 40)) :]
    (folder / "references.bib").write_bytes(odd.encode("utf-8", "surrogatepass"))
    try:
        found = bibliography.load(folder)
        assert bibliography.entries_for(["tome"], found)
    except BenchError as error:
        assert "references.bib" in str(error)


# ---------------------------------------------------------------- JSON
def reads_calibration(folder, value):
    store = Store(folder)
    path = store.calibration_path("m", "cpu", 1)
    write_json(path, value)
    found = read_calibration(path)
    if found is not None:
        compare([seal({**record(), "machine": found})], [RECORD])


def reads_probe(folder, value):
    store = Store(folder)
    unfinished = Unfinished(store, "m", {}, write_json)
    write_json(store.probes / f"{CASE.key}.m.json", value)
    unfinished.probe(CASE)


def reads_session(folder, value):
    store = Store(folder)
    write_json(store.samples / "s" / "session.json", value)
    Unfinished(store, "m", {"v": 1}, write_json).session("g", CASE, [CASE], "now")


def reads_journal(folder, value):
    store = Store(folder)
    store.root.mkdir(exist_ok=True)
    store.journal.write_text("".join(json.dumps(line) + "\n" for line in value if line))
    for event in ("recorded", "recording", "probed", "timed", "interrupted", "sweep_started"):
        Journal(store.journal).read().events(event)
    measured_here(RECORD, folder)


def reads_ledger(folder, value):
    store = Store(folder)
    store.root.mkdir(exist_ok=True)
    (store.root / LEDGER).write_text("".join(json.dumps(line) + "\n" for line in value if line))
    connection = Connection(f"sqlite:///{folder}/none.db", "e", folder, folder)
    cases = Cases(connection, folder, lambda: "")
    connection.connect = lambda: None
    connection.destination = "here"
    cases.pending(store)


def reads_lock(folder, value):
    (folder / NAME).write_text(json.dumps(value))
    lock = ResultsLock(folder)
    assert lock._refusal().isprintable()
    with lock:
        pass


def reads_manifest(folder, value):
    """A bundle whose manifest is this, its checksums of the record that it holds."""
    name = f"records/{RECORD['record_key']}.json"
    data = json.dumps(RECORD, separators=(",", ":")).encode()
    rows = [{"path": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}]
    whole = {**value, "files": rows} if isinstance(value, dict) and value.get("files") == [] else value
    path = folder / "b.zip"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("manifest.json", json.dumps(whole))
        made.writestr(name, data)
    assert all(problem.isprintable() for problem in bundle.verify(path).problems)
    bundle.unpack_records(path)


MOMENT = "2026-01-01T00:00:00.000+00:00"
JSON = {
    "calibration": (
        {"peaks": [{"dtype": "fp32", "kind": "compute", "value": 1e12}], "measured_at": 1.0},
        reads_calibration,
    ),
    "probe": (
        {
            "started_at": MOMENT,
            "readings": [],
            "details": {},
            "flags": [],
            "maker": {},
            "settled": None,
            "weights": {},
            "load_ms": 1.0,
        },
        reads_probe,
    ),
    "session": (
        {
            "session": "s",
            "group": "g",
            "machine": "m",
            "anchor": CASE.key,
            "maker": {"v": 1},
            "waiting": {CASE.key: None},
        },
        reads_session,
    ),
    "journal": (
        [
            {
                "event": "recording",
                "at": MOMENT,
                "case": RECORD["case_key"],
                "machine": "m",
                "content_hash": "x",
                "status": "ok",
            },
            {"event": "recorded", "at": MOMENT, "case": RECORD["case_key"], "file": "x.json", "content_hash": "x"},
        ],
        reads_journal,
    ),
    "ledger": (
        [{"event": "mirrored", "at": MOMENT, "destination": "here", "content_hash": "x", "run_id": "r"}],
        reads_ledger,
    ),
    "lock": ({"pid": 1, "since": MOMENT, "machine": "m"}, reads_lock),
    "manifest": (
        {
            "schema": 1,
            "kind": "waterline bundle",
            "created_at": MOMENT,
            "code_version": "0",
            "private": False,
            "files": [],
        },
        reads_manifest,
    ),
}


@pytest.mark.parametrize("name", JSON)
@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_value_in_any_place_of_a_file_of_ours_is_one_error_or_nothing(name, data, tmp_path_factory):
    good, read = JSON[name]
    path = data.draw(st.sampled_from(sorted(places(good), key=repr)))
    odd = changed(good, path, data.draw(st.sampled_from([v for v in VALUES if v != 10**400])))
    try:
        read(tmp_path_factory.mktemp(name), odd)
    except BenchError as error:
        assert str(error).isprintable() and len(str(error)) < 2000


@pytest.mark.parametrize("value", [None, 3, "x", [], [1], {}, [[]], {"a": {}}])
@pytest.mark.parametrize("name", JSON)
def test_other_json_in_place_of_a_whole_file_is_one_error_or_nothing(name, value, tmp_path):
    if name in ("journal", "ledger"):
        value = [value]
    try:
        JSON[name][1](tmp_path, value)
    except BenchError as error:
        assert str(error).isprintable()
