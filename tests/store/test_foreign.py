"""A bundle from a stranger through every job that reads one: nothing runs or lands elsewhere, names stay text."""

import hashlib
import json
import stat
import sys
import zipfile

import pytest

from bench.analysis.compare import compare as compared
from bench.analysis.judge import exit_code, judge
from bench.app.jobs import bundle as bundling
from bench.app.jobs import compare, report, reproduce, verify
from bench.app.sources import measured_here, records_at
from bench.canonical import content_hash
from bench.errors import BenchError, ResultsError, UsageError
from bench.host.environment import environment
from bench.host.identity import machine_key
from bench.plan.case import Case
from bench.store.bundle import BadBundle, pack, unpack
from bench.store.journal import Journal
from bench.store.records import CorruptRecord, Store, seal
from tests.sweeping import HEALTHY, configuration, sweep
from tests.synthetic import ENVIRONMENT, record, store

MARKUP = "<script>window.hit=1</script><img src=x onerror=hit()>\"'</td>${7*7}{{7*7}}](javascript:hit())"


def job(folder, name, **changes):
    return configuration(folder, [HEALTHY], job=name, **changes)


def archive(path, files, *, links=()):
    """A bundle of these files with a right manifest: whoever makes a bundle can make its checksums."""
    listed = [{"path": n, "bytes": len(d), "sha256": hashlib.sha256(d).hexdigest()} for n, d in files.items()]
    manifest = {
        "schema": 1,
        "kind": "waterline bundle",
        "files": listed,
        "private": False,
        "created_at": "",
        "code_version": "",
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("manifest.json", json.dumps(manifest))
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = ((stat.S_IFLNK if name in links else stat.S_IFREG) | 0o644) << 16
            made.writestr(info, data)
    return path


def foreign(**changes):
    """A sealed record with these parts exchanged, and the file it would be."""
    made = {**record(method="tome", setting="r=8"), **changes}
    sealed = seal(made)
    return f"records/{made['case_key']}.{made['machine_key']}.json", json.dumps(sealed).encode()


def with_case(**fields):
    made = record()
    case = Case.from_dict({**made["case"], **fields})
    return {
        "case": case.as_dict(),
        "case_key": case.key,
        "record_key": f"{case.key}.{made['machine_key']}",
        "group_key": case.group_key,
        "baseline_key": case.baseline.key,
    }


def unsealed(text):
    name, _ = foreign()
    return {name: text}


ENDLESS = b'{"case": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
REFUSED = {
    "a path that leads out": {"../../escaped.json": b"{}"},
    "an absolute path": {"/tmp/escaped-by-a-bundle.json": b"{}"},
    "a path with a backslash": {"records\\..\\..\\escaped.json": b"{}"},
    "a place that bundles have not": {"hooks/post-install": b"#!/bin/sh"},
    "a key that is a path": {"records/a.b.json": foreign(case_key="../../escaped")[1]},
    "no number": unsealed(b'{"case": {"x": NaN}}'),
    "a number without end": unsealed(b'{"case": {"x": ' + b"9" * 100_000 + b"}}"),
    "a number beyond all": unsealed(b'{"case": {"x": 1e999}}'),
    "nesting without end": unsealed(ENDLESS),
    "a pickle for a record": unsealed(
        b"\x80\x04\x95\x1c\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94."
    ),
    "a pickle for samples": {"samples/s/00.json.gz": b"\x80\x04cos\nsystem\n(S'touch mark'\ntR."},
    "a reading of another shape": dict([foreign(readings=[{"metric": "latency_ms", "value": "__import__('os')"}])]),
    "an edited record": {foreign()[0]: foreign()[1].replace(b'"status": "ok"', b'"status": "oom"')},
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_hostile_bundle_is_refused_by_every_job_and_writes_nothing(what, tmp_path, capsys):
    path = archive(tmp_path / "foreign.zip", REFUSED[what])
    assert verify.run(job(tmp_path, "verify", row=str(path))) == 1
    store(tmp_path / "mine", [record()])
    ours = {path: path.read_bytes() for path in (tmp_path / "mine").rglob("*") if path.is_file()}
    with pytest.raises(ResultsError):
        reproduce.run(job(tmp_path, "reproduce", row=str(path), trust=True))
    with pytest.raises(ResultsError):
        compare.run(job(tmp_path, "compare", a=str(tmp_path / "mine"), b=str(path)))
    with pytest.raises(ResultsError):
        unpack(path, tmp_path / "mine")
    assert {path: path.read_bytes() for path in (tmp_path / "mine").rglob("*") if path.is_file()} == ours
    assert sorted(p.name for p in tmp_path.iterdir()) == ["foreign.zip", "mine"]
    assert not list(tmp_path.parent.glob("escaped*"))
    assert all(len(line) < 1000 for line in capsys.readouterr().err.splitlines())


def test_a_bundle_with_a_link_or_one_that_explodes_is_refused_by_every_job(tmp_path):
    linked = archive(tmp_path / "link.zip", {foreign()[0]: b"/etc/passwd"}, links=[foreign()[0]])
    bomb = archive(tmp_path / "bomb.zip", {"samples/s/00.json.gz": bytes(300 * 2**20)})
    assert bomb.stat().st_size < 2**20
    for path in (linked, bomb):
        assert verify.run(job(tmp_path, "verify", row=str(path))) == 1
        with pytest.raises(ResultsError):
            reproduce.run(job(tmp_path, "reproduce", row=str(path), trust=True))


def hostile_names(folder):
    """A bundle that is well made, of records that hold markup wherever text may stand, and name code to run."""
    (folder / "evil.py").write_text(f"open({str(folder / 'mark')!r}, 'w').close()\ndef build(): pass\n")
    error = {"phase": MARKUP, "type": MARKUP, "message": MARKUP, "log_tail": MARKUP}
    flags = [{"code": MARKUP, "severity": "warn", "text": MARKUP}]
    environment = {**ENVIRONMENT, "cpu": {**ENVIRONMENT["cpu"], "model": MARKUP}, MARKUP: MARKUP}
    good = record()
    layers = [{**row, "name": MARKUP, "op": MARKUP, "module_path": MARKUP} for row in good["layers"]]
    parts = [
        foreign(**with_case(model=MARKUP), flags=flags, environment=environment, layers=layers, method=MARKUP),
        foreign(**with_case(suite=MARKUP, method=MARKUP, setting=MARKUP), status="crashed", error=error),
        foreign(**with_case(model="evil:build"), code={"version": MARKUP, "commit": MARKUP, "dirty": True}),
    ]
    return archive(folder / "foreign.zip", dict(parts))


def test_hostile_names_stay_text_through_verify_unpack_report_and_compare(tmp_path, capsys):
    path = hostile_names(tmp_path)
    assert verify.run(job(tmp_path, "verify", row=str(path))) == 0
    unpack(path, tmp_path / "results")
    assert report.run(job(tmp_path, "report")) == 0
    pages = [page.read_text() for page in (tmp_path / "site").rglob("*.html")]
    assert len(pages) > 3
    for page in pages:
        assert (
            "<script>window.hit" not in page
            and "<img src=x" not in page
            and "javascript:hit" not in page.split("href")[1:]
        )
    sides = {"a": str(path), "b": str(tmp_path / "results")}
    compare.run(job(tmp_path, "compare", **sides))
    markdown = (tmp_path / "site" / "comparison.md").read_text()
    assert "<script>" not in markdown and "<img" not in markdown
    assert bundling.run(job(tmp_path, "bundle")) == 0
    assert not (tmp_path / "mark").exists() and "evil" not in sys.modules


def test_code_that_a_foreign_bundle_names_is_not_even_imported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = hostile_names(tmp_path)
    key = with_case(model="evil:build")["case_key"]
    with pytest.raises(UsageError, match="trust=true"):
        reproduce.run(job(tmp_path, "reproduce", row=f"{path}#{key}"))
    other = with_case(model=MARKUP)["case_key"]
    with pytest.raises(UsageError, match="none that this version knows"):
        reproduce.run(job(tmp_path, "reproduce", row=f"{path}#{other}", trust=True))
    assert not (tmp_path / "mark").exists() and "evil" not in sys.modules
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    "part",
    [
        {"parameters": {"latency": {"invocations": "all"}}},
        {"parameters": [1]},
        {"parameters": {"name": 1}},
        {},
        {"parameters": {"energy": {"csv": "/etc/passwd"}, "more": MARKUP}},
        {"parameters": None},
    ],
)
def test_a_protocol_that_is_none_is_one_message_and_measures_nothing(part, tmp_path):
    _, data = foreign(**with_case(model="digits_tiny"), protocol={"name": "quick", "version": 1, **part})
    (tmp_path / "foreign.json").write_bytes(data)
    with pytest.raises(BenchError, match=r"none that this version knows|protocol\.parameters is"):
        reproduce.run(job(tmp_path, "reproduce", row=str(tmp_path / "foreign.json")))
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    "odd",
    [{"threads": "many"}, {"compile": MARKUP}, {"batch": -1}, {"batch": "1"}, {"model": "no_such_model"},
     {"dtype": "fp999"}, {"model_settings": "width=__import__('os')"}, {"setting": "r=9**9**9", "method": "tome"},
     {"device": "cuda:99"}, {"task": "../../evil"}, {"resolution": 10**30}, {"method": "timm:../../x"},
     {"seed": MARKUP}, {"memory_format": 3}],
)  # fmt: skip
def test_a_case_that_is_none_is_one_message_or_a_matter_for_a_worker(odd, tmp_path, monkeypatch):
    def measured(*_):
        raise BenchError("a worker would be asked")

    monkeypatch.setattr("bench.sweep.loop.Driver.run", measured)
    protocol = configuration(tmp_path, [HEALTHY]).protocol.as_record()
    body = {
        "case": {**record()["case"], "model": "digits_tiny", **odd},
        "protocol": protocol,
        "redacted_from": "0" * 64,
    }
    (tmp_path / "foreign.json").write_bytes(foreign(**body)[1])
    with pytest.raises(BenchError):
        reproduce.run(job(tmp_path, "reproduce", row=str(tmp_path / "foreign.json")))


# -- another machine --------------------------------------------------------------------------------------------------

NARROW = "tests.faults.methods:narrow"


@pytest.fixture(scope="module")
def from_another_machine(tmp_path_factory):
    """A bundle of a real sweep as a machine of another class would have made it: another processor, twice as slow."""
    folder = tmp_path_factory.mktemp("elsewhere")
    config = configuration(folder, [HEALTHY], ["none", NARROW])
    moved = []
    for made in sweep(config).records:
        environment = {**made["environment"], "memory_bytes": 2**33}
        environment["cpu"] = {
            **environment["cpu"],
            "model": "Other CPU 9000",
            "vendor": "Other",
            "architecture": "riscv64",
        }
        key = machine_key(environment)
        body = {**made, "environment": environment, "machine_key": key, "record_key": f"{made['case_key']}.{key}"}
        body["readings"] = [
            {**row, **{name: 2 * row[name] for name in ("value", "ci_low", "ci_high") if row[name] is not None}}
            if row["metric"] == "latency_ms"
            else row
            for row in made["readings"]
        ]
        lines = [
            {**line, "median_ms": 2 * line["median_ms"], "baseline_median_ms": 2 * line["baseline_median_ms"]}
            for line in made["timing"]["invocations"]
        ]
        body["timing"] = {**made["timing"], "invocations": lines}
        moved.append({**body, "content_hash": content_hash({k: v for k, v in body.items() if k != "content_hash"})})
    there = Store(folder / "there")
    for made in moved:
        there.write({k: v for k, v in made.items() if k != "content_hash"})
    return pack(there.root, None, folder / "there.bundle.zip"), moved


@pytest.mark.slow
def test_a_row_of_another_machine_class_is_reproduced_by_what_travels(from_another_machine, tmp_path, capsys):
    path, moved = from_another_machine
    row = next(made for made in moved if made["case"]["method"] == NARROW)
    with pytest.raises(UsageError, match="trust=true"):
        reproduce.run(job(tmp_path, "reproduce", row=f"{path}#{row['case_key']}"))
    code = reproduce.run(job(tmp_path, "reproduce", row=f"{path}#{row['case_key']}", trust=True))
    told = capsys.readouterr().out
    assert told.index("Other CPU 9000") < told.index("verdict")  # what differs around it comes first
    verdicts = {line.split()[0]: line for line in told.splitlines() if line.split()}
    for metric in ("macs", "params", "size_bytes"):
        assert "AGREES" in verdicts[metric] and "exact" in verdicts[metric]
    assert "NOT COMPARABLE" in verdicts["latency_ms"] and "do not travel" in verdicts["latency_ms"]
    assert "20 % (other hardware)" in verdicts["speedup"]
    (new,) = [
        made
        for made in Store(next((tmp_path / "results").rglob("records")).parent).iterate()
        if made["case"]["method"] == NARROW
    ]
    assert new["machine_key"] != row["machine_key"]
    assert code == exit_code(judge(row, new))
    assert code in (0, 1, 4)  # by the speed-up, whatever the host did to it


# -- whose code a row names -------------------------------------------------------------------------------------------


def evil_package(folder):
    """A package that leaves a mark when it is imported, however deep the name is that is looked for in it."""
    (folder / "evil").mkdir()
    (folder / "evil" / "__init__.py").write_text(f"open({str(folder / 'mark')!r}, 'w').close()\n")
    (folder / "evil" / "sub.py").write_text("def build(): pass\nclass Task: pass\n")


@pytest.mark.parametrize("field", ["model", "method", "task"])
@pytest.mark.parametrize("name", ["evil:Task", "evil.sub:Task"])
def test_nothing_that_a_foreign_row_names_is_imported_untrusted(field, name, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    evil_package(tmp_path)
    (tmp_path / "foreign.json").write_bytes(foreign(**with_case(**{"model": "digits_tiny", field: name}))[1])
    with pytest.raises(UsageError, match="trust=true"):
        reproduce.run(job(tmp_path, "reproduce", row=str(tmp_path / "foreign.json")))
    assert not (tmp_path / "mark").exists() and "evil" not in sys.modules


@pytest.mark.parametrize("fields", [{"method": "timm:build"}, {"task": "timm:Task"}, {"model": "timm:hf-hub:evil/net"}])
def test_only_a_model_is_a_plain_name_of_a_library(fields, tmp_path):
    (tmp_path / "foreign.json").write_bytes(foreign(**with_case(**{"model": "digits_tiny", **fields}))[1])
    with pytest.raises(UsageError, match="trust=true"):
        reproduce.run(job(tmp_path, "reproduce", row=str(tmp_path / "foreign.json")))


@pytest.fixture
def ours(tmp_path, monkeypatch):
    """A results folder with a row that was measured into it, beside a package that must not be imported."""
    monkeypatch.syspath_prepend(tmp_path)
    evil_package(tmp_path)
    here = machine_key(environment("cpu"))
    own = Store(tmp_path / "results")
    path = own.write(record(machine_key=here))
    made = own.read(path)
    Journal(own.journal).append("recorded", case=made["case_key"], status="ok", file=path.name)
    return own, made, here


def claiming(here, **changes):
    """The parts of a row that names code and says that it was measured on this machine."""
    parts = with_case(model="evil:build")
    return {**parts, "machine_key": here, "record_key": f"{parts['case_key']}.{here}", **changes}


def test_a_merged_row_that_claims_this_machine_is_not_ours(ours, tmp_path):
    own, made, here = ours
    unpack(archive(tmp_path / "foreign.zip", dict([foreign(**claiming(here))])), own.root)
    with pytest.raises(UsageError, match="trust=true"):
        reproduce.run(job(tmp_path, "reproduce", row=claiming(here)["case_key"]))
    assert not (tmp_path / "mark").exists() and "evil" not in sys.modules
    assert measured_here(made, own.root)


def test_a_merged_row_under_a_key_of_ours_is_not_ours(ours, tmp_path):
    own, made, here = ours
    keys = {"case_key": made["case_key"], "record_key": made["record_key"], "supersedes": made["content_hash"]}
    _, data = foreign(**claiming(here, **keys))
    name = f"records/{made['record_key']}.2.json"
    with pytest.raises(BadBundle, match="case_key is not the key of the case"):
        unpack(archive(tmp_path / "foreign.zip", {name: data}), own.root)
    (own.root / name).write_bytes(data)  # by hand, past the check of a bundle
    (shown,) = own.iterate()
    assert shown["case"]["model"] == "evil:build"
    with pytest.raises(UsageError, match="trust=true"):
        reproduce.run(job(tmp_path, "reproduce", row=made["case_key"]))
    assert not (tmp_path / "mark").exists() and "evil" not in sys.modules


def test_a_journal_that_names_the_content_vouches_for_no_other(ours):
    own, made, _ = ours
    Journal(own.journal).path.unlink()
    assert not measured_here(made, own.root)
    entry = {"case": made["case_key"], "status": "ok", "file": f"{made['record_key']}.json"}
    Journal(own.journal).append("recorded", **entry, content_hash="0" * 64)
    assert not measured_here(made, own.root)
    Journal(own.journal).append("recorded", **entry, content_hash=made["content_hash"])
    assert measured_here(made, own.root)
    assert not measured_here({**made, "machine_key": "another"}, own.root)


# -- parts of another kind --------------------------------------------------------------------------------------------

LINE = record()["timing"]["invocations"][0]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"timing": "x"}, "timing is 'x'"),
        ({"timing": {"invocations": "x"}}, "timing.invocations"),
        ({"timing": {"invocations": [{**LINE, "median_ms": -1}]}}, r"timing.invocations\[0\].median_ms is -1"),
        (
            {"timing": {"invocations": [LINE, {**LINE, "baseline_median_ms": None}]}},
            r"invocations\[1\].baseline_median_ms",
        ),
        ({"timing": {"invocations": [{**LINE, "gemm_median_ms": "1"}]}}, "gemm_median_ms"),
        ({"timing": {"invocations": [{**LINE, "throughput_per_s": 10**400}]}}, "throughput_per_s"),
        ({"timing": {"invocations": [{**LINE, "index": "0"}]}}, "index"),
        ({"timing": {"noise_floor": {"low": 0, "high": 1}}}, "timing.noise_floor.low"),
        ({"quality": [1]}, "quality is"),
        ({"quality": {"samples_digest": "d", "per_sample": 7}}, "quality.per_sample"),
        ({"quality": {"samples_digest": "d"}}, "quality.per_sample"),
        ({"environment": {"cpu": "x"}}, "environment"),
        ({"code": "x"}, "code is 'x'"),
        ({"started_at": 3}, "started_at"),
        ({"readings": [{**record()["readings"][0], "ci_low": "x"}]}, r"readings\[0\].ci_low"),
        ({"readings": [{"metric": "latency_ms", "value": 1.0}]}, "not a record"),
        ({"status": "splendid"}, "splendid"),
        ({"redacted_from": {}}, "redacted_from"),
        ({"labels": {"execution": "imagined"}}, "labels"),
        ({"labels": {"colour": "red"}}, "labels"),
        ({"labels": "real"}, "labels"),
    ],
)
def test_a_record_whose_parts_are_none_is_named_with_its_field_before_anything_is_measured(changes, field, tmp_path):
    path = tmp_path / "foreign.json"
    path.write_bytes(foreign(**changes)[1])
    with pytest.raises(CorruptRecord, match=field) as refused:
        reproduce.run(job(tmp_path, "reproduce", row=str(path), trust=True))
    assert str(path) in str(refused.value)
    with pytest.raises(CorruptRecord, match=field):
        compare.run(job(tmp_path, "compare", a=str(path), b=str(path)))
    assert not (tmp_path / "results").exists()


def test_a_folder_leaves_out_a_record_whose_parts_are_none(tmp_path):
    good, bad = record(), foreign(timing={"invocations": [{**LINE, "median_ms": 0}]})
    store(tmp_path / "results", [good])
    (tmp_path / "results" / bad[0]).write_bytes(bad[1])
    (found,) = records_at(str(tmp_path / "results"))
    assert found["case_key"] == good["case_key"]


def test_a_limit_that_is_none_is_the_usual_one():
    odd = [
        {**record(), "protocol": {"parameters": part}} for part in ([1], {"latency": [1]}, {"latency": {"margin": "x"}})
    ]
    for one in odd:
        assert compared([one], [one]).exit_code == 0
