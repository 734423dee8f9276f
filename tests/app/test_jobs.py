"""Reproducing, comparing and packing rows, as the command line does it."""

import json

import pytest

from bench.app.jobs import bundle, compare, doctor, reproduce, verify
from bench.app.sources import find_row, records_at
from bench.errors import BenchError, UsageError
from bench.store import bundle as bundles
from bench.store.bundle import pack
from bench.store.records import Store, seal, write_json
from tests.sweeping import HEALTHY, configuration, sweep
from tests.synthetic import ENVIRONMENT, record, store

NARROW = "tests.faults.methods:narrow"


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("jobs")
    return folder, sweep(configuration(folder, [HEALTHY], ["none", NARROW])).records


def config_for(folder, **changes):
    return configuration(folder, [HEALTHY], ["none", NARROW], **changes)


def test_own_row_reproduces_with_exact_counts_and_a_verdict_table(measured, capsys):
    folder, records = measured
    row = next(r for r in records if r["case"]["method"] == NARROW)
    code = reproduce.run(config_for(folder, job="reproduce", row=row["case_key"][:8]))
    told = capsys.readouterr().out
    assert code in (0, 1, 4)  # times may be noisy; counts may not
    for line in told.splitlines():
        if line.startswith(("macs ", "params ")):
            assert "AGREES" in line
    assert (folder / "results" / "reproductions" / row["case_key"] / "1" / "records").is_dir()


def test_a_machine_that_is_busier_than_then_is_told_beside_the_verdicts():
    def at(*cores):
        return {"timing": {"invocations": [{"host": {} if each is None else {"other_cores": each}} for each in cores]}}

    told = reproduce.busier_now(at(0.1, 0.0, 0.2), at(1.4, 1.4, None))
    assert told.startswith("the machine is busier now: other programs used 1.4 cores, and 0.1 then")
    assert not reproduce.busier_now(at(1.4), at(0.1)) and not reproduce.busier_now(at(0.1), at(0.3))
    assert not reproduce.busier_now(at(None), at(1.0)) and not reproduce.busier_now({}, at(1.0))


def test_a_row_that_is_not_there_names_the_nearest(measured):
    folder, records = measured
    key = records[0]["case_key"]
    wrong = key[:-1] + ("0" if key[-1] != "0" else "1")
    with pytest.raises(UsageError, match="did you mean"):
        find_row(wrong, folder / "results")


def test_foreign_code_is_not_run_unless_trusted(measured, tmp_path):
    _, records = measured
    foreign = tmp_path / "foreign.json"
    write_json(foreign, records[0])
    with pytest.raises(UsageError, match="trust=true"):
        reproduce.run(config_for(tmp_path, job="reproduce", row=str(foreign)))
    assert not (tmp_path / "results").exists()


def test_a_row_of_another_protocol_version_is_not_comparable(measured, tmp_path):
    _, records = measured
    other = {**records[0], "protocol": {**records[0]["protocol"], "version": 99}}
    path = tmp_path / "old.json"
    write_json(path, seal(other))
    with pytest.raises(UsageError, match="protocol 99"):
        reproduce.run(config_for(tmp_path, job="reproduce", row=str(path), trust=True))


def test_a_missing_weights_file_is_asked_for_by_its_hash(measured, tmp_path):
    from bench.plan.case import Case

    _, records = measured
    case = Case.from_dict({**records[0]["case"], "checkpoint": "ab" * 32})
    keys = {"case_key": case.key, "record_key": f"{case.key}.{records[0]['machine_key']}"}
    other = {**records[0], "case": case.as_dict(), **keys}
    path = tmp_path / "weights.json"
    write_json(path, seal(other))
    with pytest.raises(UsageError, match="abab"):
        reproduce.run(config_for(tmp_path, job="reproduce", row=str(path), trust=True))


def test_an_edited_record_is_refused(measured, tmp_path):
    _, records = measured
    path = tmp_path / "edited.json"
    path.write_text(json.dumps({**records[0], "status": "oom"}))
    with pytest.raises(Exception, match="does not match its hash"):
        records_at(str(path))


def lone(folder, made, **changes):
    """A file of its own with a record like this one."""
    write_json(folder / "lone.json", seal({**made, **changes}))
    return str(folder / "lone.json")


def test_what_differs_is_told_before_anything_is_measured(measured, tmp_path, capsys, monkeypatch):
    def stopped(*_):
        raise BenchError("now it would measure")

    monkeypatch.setattr("bench.sweep.loop.Driver.run", stopped)
    made = next(r for r in measured[1] if r["case"]["method"] == NARROW)
    there = {**made["environment"], "python": "3.99.1"}
    row = lone(tmp_path, made, environment=there, code={"version": "0.0.1", "commit": "abc1234", "dirty": False})
    with pytest.raises(BenchError, match="now it would measure"):
        reproduce.run(config_for(tmp_path, job="reproduce", row=row, trust=True))
    told = capsys.readouterr().out
    assert "3.99.1" in told and "abc1234" in told


def test_files_that_the_row_was_measured_without_are_a_clash_and_not_loaded(measured, tmp_path):
    _, records = measured
    (tmp_path / "x.pt").write_bytes(b"no weights")
    (tmp_path / "images").mkdir()
    for name, asked in (
        ("checkpoint", {"checkpoint": str(tmp_path / "x.pt")}),
        ("data.root", {"data": {"root": str(tmp_path / "images")}, "task": {"name": "imagefolder"}}),
    ):
        config = config_for(tmp_path, job="reproduce", row=lone(tmp_path, records[0]), trust=True, **asked)
        with pytest.raises(UsageError, match=rf"{name}=.* clashes with the row"):
            reproduce.run(config)
    assert not (tmp_path / "results").exists()


def test_a_row_on_two_machines_is_named_by_its_record_key(tmp_path):
    made = [record(), record(machine_key="another")]
    store(tmp_path, made)
    for one in made:
        found, foreign = find_row(one["record_key"], tmp_path)
        assert (found["machine_key"], foreign) == (one["machine_key"], False)
    with pytest.raises(UsageError, match="fits 2 records") as told:
        find_row(made[0]["case_key"], tmp_path)
    assert all(one["record_key"] in str(told.value) for one in made)


def test_comparing_a_run_with_itself_finds_nothing(tmp_path, capsys):
    store(tmp_path / "results")
    assert (
        compare.run(config_for(tmp_path, job="compare", a=str(tmp_path / "results"), b=str(tmp_path / "results"))) == 0
    )
    assert (tmp_path / "site" / "comparison.md").is_file()


def test_two_folders_are_also_compared_on_a_page(tmp_path, capsys):
    for side in ("a", "b"):
        store(tmp_path / side)
    compare.run(config_for(tmp_path, job="compare", a=str(tmp_path / "a"), b=str(tmp_path / "b")))
    assert "deit_small" in (tmp_path / "site" / "comparison" / "compare.html").read_text()


def test_a_slowdown_fails_the_gate(tmp_path, capsys):
    slow = [record(latency_ms=50.0, baseline_ms=50.0, noise=0.001, invocations=6)]
    fast = [record(latency_ms=40.0, baseline_ms=40.0, noise=0.001, invocations=6)]
    store(tmp_path / "a", fast)
    store(tmp_path / "b", slow)
    assert compare.run(config_for(tmp_path, job="compare", a=str(tmp_path / "a"), b=str(tmp_path / "b"))) == 1


def sessions(folder, side, slow=1.0):
    """Three results folders of one side, on a host that moves by some percent from session to session."""
    places = []
    for number, host in enumerate((1.0, 1.04, 0.97)):
        made = record(latency_ms=40.0 * host * slow, baseline_ms=40.0 * host * slow, noise=0.001, invocations=5)
        made["timing"]["session"] = f"{side}{number}"
        for line in made["timing"]["invocations"]:
            line["gemm_median_ms"] = 1.5 * line["median_ms"] / (40.0 * slow)
        made["started_at"] = f"2026-11-0{number + 1}T12:00:00+00:00"
        made["code"] = {"version": "0.1.0", "commit": side * 20, "dirty": False}
        store(folder / f"{side}{number}" / "results", [made])
        places.append(folder / f"{side}{number}" / "results")
    return places


def told_by_compare(tmp_path, capsys, a, b):
    sides = {"a": ",".join(map(str, a)), "b": ", ".join(map(str, b))}
    code = compare.run(config_for(tmp_path, job="compare", all=True, report={"enabled": False}, **sides))
    return code, capsys.readouterr().out


def test_several_sessions_of_a_side_are_the_unit_of_replication(tmp_path, capsys):
    a, same, slow = (sessions(tmp_path, name, factor) for name, factor in (("p", 1.0), ("q", 1.0), ("r", 1.06)))
    code, told = told_by_compare(tmp_path, capsys, a, same)
    assert code == 0 and "by session" in told and "alternate" not in told
    assert told.startswith("History of 1 quantity in up to 6 sessions, ") and ": 0 worse now, " in told
    assert "\np0/results, p1/results, p2/results -> q0/results" in told
    code, told = told_by_compare(tmp_path, capsys, a, slow)
    assert code == 1 and "SLOWER" in told
    assert "code commit" in told and "pppp" in told and "rrrr" in told


def test_a_folder_named_twice_is_not_two_sessions(tmp_path, capsys):
    a, b = sessions(tmp_path, "p"), sessions(tmp_path, "q")
    _, once = told_by_compare(tmp_path, capsys, a[:1], b[:1])
    _, twice = told_by_compare(tmp_path, capsys, [a[0]] * 3, [b[0]] * 3)
    rows = [[line for line in told.splitlines() if line.startswith("deit_tiny")] for told in (once, twice)]
    assert rows[0] and rows[0] == rows[1]
    assert "by session" not in twice


def test_a_folder_and_its_own_bundle_are_not_two_sessions(tmp_path, capsys):
    a, b = sessions(tmp_path, "p")[0], sessions(tmp_path, "q")[0]
    (own,) = Store(a).iterate()
    own["environment"] = {**own["environment"], "private": {"user": "somebody"}}
    del own["content_hash"]
    Store(tmp_path / "again").write(own)
    packed = pack(tmp_path / "again", None, tmp_path / "again.bundle.zip")
    sides = [tmp_path / "again", packed]
    (first,), (second,) = (records_at(str(place)) for place in sides)
    assert first["content_hash"] != second["content_hash"] and second["redacted_from"] == first["content_hash"]
    for order in (sides, sides[::-1]):
        assert compare.side_at(order) == [first]
    later = {**own, "supersedes": first["content_hash"], "finished_at": "2026-11-30T12:00:00+00:00"}
    Store(tmp_path / "later").write(later)
    assert [r["supersedes"] for r in compare.side_at([tmp_path / "later", packed])] == [first["content_hash"]]
    _, once = told_by_compare(tmp_path, capsys, sides[:1], [b])
    _, twice = told_by_compare(tmp_path, capsys, sides, [b])
    rows = [[line for line in told.splitlines() if line.startswith("deit_tiny")] for told in (once, twice)]
    assert rows[0] and rows[0] == rows[1]


def test_bundles_and_single_records_are_sides_too(tmp_path, capsys):
    a, b = sessions(tmp_path, "p"), sessions(tmp_path, "q", 1.1)
    packed = pack(b[0], None, tmp_path / "b.bundle.zip")
    (lone,) = (a[0] / "records").glob("*.json")
    code, told = told_by_compare(tmp_path, capsys, [lone], [packed])
    assert code == 1 and "SLOWER" in told


def test_other_machines_and_torch_versions_are_sides_and_what_differs_is_told_first(tmp_path, capsys):
    there = {**ENVIRONMENT, "cpu": {**ENVIRONMENT["cpu"], "model": "Other CPU"}}
    newer = {**ENVIRONMENT, "packages": {**ENVIRONMENT["packages"], "torch": "2.99.0"}}
    slower = {"latency_ms": 60.0, "baseline_ms": 60.0, "noise": 0.001, "invocations": 5}
    store(tmp_path / "a", [record(noise=0.001, invocations=5)])
    store(tmp_path / "there", [record(machine_key="other", environment=there, **slower)])
    store(tmp_path / "newer", [record(environment=newer, **slower)])
    code, told = told_by_compare(tmp_path, capsys, [tmp_path / "a"], [tmp_path / "there"])
    assert (
        code == 5 and "other hardware: only counts and ratios to the baseline travel" in told
    )  # a baseline has no ratio
    assert told.index("Other CPU") < told.index("latency_ms")
    code, told = told_by_compare(tmp_path, capsys, [tmp_path / "a"], [tmp_path / "newer"])
    assert "packages.torch" in told and "2.99.0" in told
    assert code == 1 and "SLOWER" in told


def test_a_bundle_is_whole_and_reads_back(tmp_path, capsys):
    store(tmp_path / "results")
    config = config_for(tmp_path, job="bundle", report={"enabled": False})
    assert bundle.run(config) == 0
    packed = tmp_path / "results.bundle.zip"
    assert verify.run(config_for(tmp_path, job="verify", row=str(packed))) == 0
    assert len(records_at(str(packed))) == len(list(Store(tmp_path / "results").iterate()))
    data = bytearray(packed.read_bytes())
    data[len(data) // 2] ^= 1
    packed.write_bytes(bytes(data))
    assert verify.run(config_for(tmp_path, job="verify", row=str(packed))) == 1


HOSTILE = "[/red]names [bold]vanish[/] here [0]"


def test_doctor_shows_foreign_text_as_it_is(tmp_path, capsys, monkeypatch):
    from bench.meters import peaks

    row = {"what": HOSTILE, "available": False, "how": None, "why_not": HOSTILE, "remedy": HOSTILE}
    monkeypatch.setattr(peaks, "capabilities", lambda: [row])
    assert doctor.run(config_for(tmp_path, job="doctor")) == 0
    assert " ".join(capsys.readouterr().out.split()).count(HOSTILE) == 3


def test_the_progress_bar_shows_foreign_text_as_it_is(monkeypatch):
    from io import StringIO

    from rich.console import Console

    from bench.app import progress

    screen = StringIO()
    terminal = Console(file=screen, force_terminal=True, width=200)
    monkeypatch.setattr(progress, "Console", lambda **_: terminal)
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    with progress.ProgressBar() as bar:
        bar.working(f"probe {HOSTILE}")
        bar._progress.refresh()
    assert HOSTILE in screen.getvalue()


def test_a_bundle_that_lacks_something_exits_with_3_and_one_that_is_not_whole_with_1(tmp_path, capsys, monkeypatch):
    made = store(tmp_path / "results")
    config = config_for(tmp_path, job="bundle", report={"enabled": False})
    next(made.samples.rglob("*.json.gz")).write_bytes(b"damaged")
    assert bundle.run(config) == 3
    assert "left out: " in capsys.readouterr().err
    report = bundles.Verification(tmp_path / "x.zip", 3, (), ("records/a.b.json: does not match its checksum",))
    monkeypatch.setattr(bundles, "verify", lambda _: report)
    assert bundle.run(config) == 1
    assert "does not match its checksum" in capsys.readouterr().err
