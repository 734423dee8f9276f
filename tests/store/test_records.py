"""Records stay readable for years, and nothing that was edited, damaged or forged is taken for one."""

import contextlib
import copy
import json
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.analysis.compare import compare
from bench.analysis.judge import judge
from bench.analysis.table import load
from bench.canonical import content_hash
from bench.plan.case import Case
from bench.store import bundle, records
from bench.store.records import CorruptRecord, Store, check, read_json, seal, write_json
from reports.site import build
from tests.synthetic import record

ORACLES = Path(__file__).parents[1] / "oracles"
#: Written once when the schema was made; these files never change again.
FROZEN = {
    1: ("record_schema_1.json", "3f405cb2017fc69779e3c765524b04c667c3b665bdb860b84df1c009ed7531f6"),
    2: ("record_schema_2.json", "1b5d65470f056bb03bd781194d5ba3dd5c82501d8670c8c27d92c5877dd487cf"),
}


#: What a real sweep wrote (trained weights, a method, two processes), as it is packed for others.
MEASURED = {
    1: ("record_schema_1_measured.json", "787d83333cc3b3f0da93ce9e1a7fafac1d502ba36d30cc6ef0c3230b09e3ceb9"),
    2: ("record_schema_2_measured.json", "2cde2d8888aef4f9a5ef322b6c7820a2902ec7c92031f84f2f4ea60ab8781e9a"),
}
#: Of each measured example how many readings it has, and some of their values.
VALUES = {
    1: (29, {"params": 62650, "macs": 4399776, "accuracy": 97.31993299832496, "latency_ms": 6.7605222656971,
             "speedup": 0.4667271736660771, "peak_memory_bytes": 446752, "ideal_ms": 0.05964531113815308}),
    2: (31, {"params": 62650, "macs": 4399776, "accuracy": 96.48241206030151, "latency_ms": 3.3014256587656945,
             "speedup": 0.5399182814681821, "peak_memory_bytes": 446752, "ideal_ms": 0.11316593299484252}),
}  # fmt: skip


def frozen(schema, examples=None):
    name, digest = (examples or FROZEN)[schema]
    found = json.loads((ORACLES / name).read_text())
    assert found["content_hash"] == digest, "a frozen example was changed; write a new one for a new schema instead"
    return found


def test_every_schema_has_a_frozen_example():
    assert set(FROZEN) == set(MEASURED) == set(range(1, records.SCHEMA + 1))


@pytest.mark.parametrize("schema", FROZEN)
def test_a_frozen_record_of_every_schema_still_loads_and_keeps_its_numbers(schema, tmp_path):
    kept = check(frozen(schema), "frozen")
    assert kept["schema"] == records.SCHEMA
    case = Case.from_dict(kept["case"])
    assert (case.model, case.method_label, kept["status"]) == ("deit_tiny", "tome(r=13)", "ok")
    write_json(Store(tmp_path).record_path(kept["case_key"], kept["machine_key"]), frozen(schema))
    rows = load(tmp_path).set_index("metric")["value"]
    assert rows["macs"] == 7.4e8
    assert rows["accuracy"] == 91.5
    assert rows["params"] == 5.7e6


@pytest.mark.parametrize("schema", MEASURED)
def test_a_record_that_was_measured_is_read_with_every_value_it_had(schema, tmp_path):
    """By the table, as itself by comparison and reproduction, through a bundle, and onto a page."""
    told = frozen(schema, MEASURED)
    kept = check(told, "measured")
    count, values = VALUES[schema]
    assert {r["metric"]: r["value"] for r in kept["readings"] if r["metric"] in values} == values
    write_json(Store(tmp_path / "results").record_path(kept["case_key"], kept["machine_key"]), told)
    rows = load(tmp_path / "results").set_index("metric")
    assert len(rows) == len(told["readings"]) == count
    for reading in told["readings"]:
        row = rows.loc[reading["metric"]]
        for name in ("value", "ci_low", "ci_high", "n", "unit", "provenance", "statistic", "method_note"):
            assert row[name] == reading[name] or (reading[name] is None and pd.isna(row[name])), (
                reading["metric"],
                name,
            )
    (back,) = bundle.unpack_records(bundle.pack(tmp_path / "results", None, tmp_path / "b.zip"))
    assert back == kept
    assert {row.kind for row in compare([kept], [back]).rows} <= {"SAME", "AMBIGUOUS"}
    assert {verdict.metric for verdict in judge(kept, back) if verdict.kind == "AGREES"} >= {
        "macs",
        "params",
        "accuracy",
    }
    site = build(tmp_path / "results", tmp_path / "site")
    assert not site.problems and "digits_tiny" in site.index.read_text()


@pytest.mark.parametrize("examples", [FROZEN, MEASURED], ids=["made", "measured"])
@pytest.mark.parametrize("schema", FROZEN)
def test_the_key_of_an_old_record_is_the_key_of_its_case_today(schema, examples):
    kept = frozen(schema, examples)
    assert Case.from_dict(kept["case"]).key == kept["case_key"]


# -- migration --------------------------------------------------------------------------------------------------


@pytest.fixture
def two_schemas_on(monkeypatch):
    """A suite two schemas from now, in which `readings` has been renamed and then got a unit system."""

    def to_2(old):
        renamed = {key: value for key, value in old.items() if key != "timing"}
        return {**renamed, "schema": 2, "sessions": [old["timing"]]}

    def to_3(old):
        return {**old, "schema": 3, "unit_system": "SI"}

    monkeypatch.setattr(records, "SCHEMA", 3)
    monkeypatch.setattr(records, "MIGRATIONS", {1: to_2, 2: to_3})


@pytest.mark.parametrize("examples", [FROZEN, MEASURED], ids=["made", "measured"])
def test_a_record_is_brought_forward_step_by_step_and_its_file_is_left_alone(two_schemas_on, tmp_path, examples):
    old = frozen(1, examples)
    path = tmp_path / "records" / f"{old['record_key']}.json"
    write_json(path, old)
    before = path.read_bytes()
    (new,) = Store(tmp_path).iterate()
    assert (new["schema"], new["unit_system"], new["sessions"]) == (3, "SI", [old["timing"]])
    assert "timing" not in new
    assert path.read_bytes() == before
    assert new["content_hash"] == old["content_hash"]  # its identity: what supersedes it names this hash


def test_a_migrated_record_can_be_superseded_by_a_new_one(two_schemas_on, tmp_path):
    store, old = Store(tmp_path), frozen(1)
    write_json(store.record_path(old["case_key"], old["machine_key"]), old)
    new = {**old, "sessions": [], "supersedes": old["content_hash"]}
    store.write(new)
    assert [item["schema"] for item in store.iterate()] == [3]
    assert len(list(store.records.glob("*.json"))) == 2


def test_an_edit_of_an_old_record_is_found_before_it_is_migrated(two_schemas_on):
    edited = {**frozen(1), "status": "failed"}
    with pytest.raises(CorruptRecord, match="hash"):
        check(edited, "edited")


@pytest.mark.parametrize("schema", [0, -1, None, "1", True, 1.0, 99])
def test_a_schema_that_is_not_known_is_refused(schema):
    made = {**record(), "schema": schema}
    with pytest.raises(CorruptRecord, match="schema"):
        check({**made, "content_hash": content_hash(made)}, "odd")


# -- fuzzing ----------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
GOOD = seal(record(method="tome", setting="r=8"))


def places(value, path=()):
    """Every place of a JSON tree."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


PLACES = list(places(GOOD))[1:]


def changed(tree, path, value):
    made = copy.deepcopy(tree)
    place = made
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return made


@settings(max_examples=200, deadline=None)
@given(path=st.sampled_from(PLACES), value=JSON)
def test_a_change_anywhere_is_noticed(path, value):
    made = changed(GOOD, path, value)
    try:
        assert check(made, "mutated") == GOOD
    except CorruptRecord:
        return
    # what passes is the same in canonical JSON, and so the same record


@settings(max_examples=200, deadline=None)
@given(path=st.sampled_from([place for place in PLACES if len(place) <= 2]), value=JSON)
def test_a_forged_hash_over_another_shape_is_refused_or_harmless_to_readers(path, value, tmp_path_factory):
    """Who can hash can forge; then a reader still gets a record or a CorruptRecord, never another error."""
    made = changed(GOOD, path, value)
    try:
        sealed = {**made, "content_hash": content_hash(made)}
    except ValueError:  # NaN: cannot be hashed
        sealed = made
    folder = tmp_path_factory.mktemp("forged")
    store = Store(folder)
    store.records.mkdir()
    store.record_path(GOOD["case_key"], GOOD["machine_key"]).write_text(json.dumps(sealed))
    problems = []
    found = list(store.iterate(problems))
    assert len(found) + len(problems) == 1


@settings(max_examples=200, deadline=None)
@given(value=JSON)
def test_whatever_is_no_record_is_refused(value):
    with pytest.raises(CorruptRecord):
        check(value, "arbitrary")


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damaged_files_are_corrupt_records_and_never_another_error(data, tmp_path_factory):
    suffix = data.draw(st.sampled_from([".json", ".json.gz"]))
    path = tmp_path_factory.mktemp("damage") / f"file{suffix}"
    write_json(path, GOOD)
    blob = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(blob[: data.draw(st.integers(0, len(blob)))]))
    with contextlib.suppress(CorruptRecord):
        assert check(read_json(path), str(path)) == GOOD


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"NaN",
        b'{"case": {}, "content_hash": NaN}',
        b'{"case": {"x": 1e999}}',
        b'{"case": {}, "x": ' + b"9" * 5000 + b"}",
        b"\x00" * 4096,
    ],
)
def test_hostile_files_are_corrupt_records(text, tmp_path):
    path = tmp_path / "record.json"
    path.write_bytes(text)
    with pytest.raises(CorruptRecord):
        check(read_json(path), str(path))


# -- attempts ---------------------------------------------------------------------------------------------------


def test_a_gap_between_attempts_hides_none_and_is_not_filled(tmp_path):
    store = Store(tmp_path)
    hashes = []
    for seed in range(3):
        path = store.write({**record(seed=seed), "supersedes": hashes[-1] if hashes else None})
        hashes.append(read_json(path)["content_hash"])
    first, second, third = store.attempts(GOOD_BASE["case_key"], GOOD_BASE["machine_key"])
    assert [path.name.split(".")[2] for path in (first, second, third)] == ["json", "2", "3"]
    for gone in (second, first):
        gone.rename(tmp_path / f"away-{gone.name}")
        assert store.latest(GOOD_BASE["case_key"], GOOD_BASE["machine_key"])["content_hash"] == hashes[2]
    assert store.write({**record(seed=9), "supersedes": hashes[2]}).name.endswith(".4.json")
    with pytest.raises(FileExistsError):
        store.write(record(seed=10))


def test_an_interruption_settles_nothing(tmp_path):
    store, keys = Store(tmp_path), (GOOD_BASE["case_key"], GOOD_BASE["machine_key"])
    assert store.last_final_hash(*keys) is None
    before = None
    for status, settles in (("interrupted", False), ("crashed", True), ("interrupted", False)):
        path = store.write({**record(status=status), "supersedes": before})
        before = read_json(path)["content_hash"]
        if settles:
            settled = before
    assert store.last_final_hash(*keys) == settled
    path.write_text("{")
    assert store.last_final_hash(*keys) == records.UNREADABLE


GOOD_BASE = record()


def test_a_migrated_record_is_packed_as_it_was_written(two_schemas_on, tmp_path):
    """Its hash is of the old body; with personal parts in it, it is cut and resealed in its own schema."""
    old = frozen(1)
    named = {**old, "error": {"phase": "load", "type": "E", "message": "/home/jd/x/y", "log_tail": ""}}
    for number, item in enumerate((old, {**named, "content_hash": content_hash(named)})):
        folder = tmp_path / str(number)
        write_json(Store(folder).record_path(old["case_key"], old["machine_key"]), item)
        for private in (False, True):
            path = bundle.pack(folder, None, tmp_path / "b.zip", private=private)
            assert bundle.verify(path).problems == ()
            (back,) = bundle.unpack(path, tmp_path / f"copy-{number}-{private}").iterate()
            assert back["schema"] == 3 and ("redacted_from" in back) == (number == 1 and not private)
