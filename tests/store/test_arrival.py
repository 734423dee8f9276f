"""Whatever stands in any place of a record, a bundle or a journal: refused in one line, and no reader dies."""

import contextlib
import copy
import json
import os
import re
import time
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.analysis.compare import compare
from bench.analysis.comparison_text import as_markdown, as_text
from bench.analysis.judge import judge
from bench.analysis.table import from_records, load
from bench.app.best import best_row
from bench.app.sources import records_at
from bench.errors import BenchError
from bench.foreign_files import read_most, read_regular
from bench.store import bundle, foreign
from bench.store.foreign import CorruptRecord, parse, read_json
from bench.store.journal import Journal
from bench.store.records import Store, check, read_calibration, seal, write_json
from bench.tracking.tracked_run import describe
from reports.site import build
from reports.site import load as load_site
from tests.store.test_foreign import archive
from tests.synthetic import record

DELETED = object()
VALUES = (
    None, -1, 0, True, "x", "", [], {}, [[]], [None], {"a": 1}, 1e29, 1e300, 10**400, 2**62, "\udc80", "../../x", [1,
    2], ["x"], "x" * 3000, 1.5, "<script>", "2026", DELETED,
)  # fmt: skip


def places(value, path=()):
    if path:
        yield path
    items = (
        list(value.items())
        if isinstance(value, dict)
        else list(enumerate(value))[:2]
        if isinstance(value, list)
        else []
    )
    for key, item in items:
        yield from places(item, (*path, key))


def changed(value, path, new):
    """The record with one place changed, resealed: whoever can write a record can hash it."""
    made = copy.deepcopy(value)
    inner = made
    for key in path[:-1]:
        inner = inner[key]
    if new is DELETED:
        del inner[path[-1]]
    else:
        inner[path[-1]] = new
    return seal({key: item for key, item in made.items() if key != "content_hash"})


BASES = [seal(record()), seal(record(method="tome", setting="r=8", accuracy=91.5))]
BASES += [
    seal(record(model="m", status="crashed", error={"phase": "load", "type": "E", "message": "m", "log_tail": ""}))
]
TARGETS = [(base, path) for base in BASES for path in places(base) if path[0] != "content_hash"]


def read_by_all(records):
    """Every reader but the pages."""
    from_records(records)
    found = compare(records, BASES[:2])
    as_text(found)
    as_markdown(found)
    best_row(records, lambda keys: [item for item in records if item["case_key"] in keys])
    for made in records:
        describe(made)
        with contextlib.suppress(BenchError):
            judge(made, made, own=True)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(TARGETS), st.sampled_from(VALUES))
def test_any_value_in_any_place_of_a_record_is_one_line_or_harmless_to_readers(target, value):
    base, path = target
    try:
        read_by_all([check(changed(base, path, value), "here")])
    except CorruptRecord as error:
        assert str(error).startswith("here") and str(error).isprintable() and len(str(error)) < 500


@pytest.mark.slow
def test_a_record_without_any_one_of_its_parts_is_refused_or_harmless_to_readers():
    for base, path in TARGETS:
        try:
            made = check(changed(base, path, DELETED), "here")
        except CorruptRecord:
            continue
        read_by_all([made])


def stored(folder, records):
    """A results folder of these records, each under the name of its keys, or a name of its own where those are none."""
    store = Store(folder)
    for number, made in enumerate(records):
        name = f"{made.get('case_key')}.{made.get('machine_key')}.json"
        path = store.records / (name if name.isascii() and "/" not in name and len(name) < 200 else f"odd{number}.json")
        write_json(path, made)
    return folder


#: The changes that were found to take the report away, and their like.
FOUND = [
    ("timing", -1),
    (("timing", "invocations", 1), None),
    (("timing", "invocations", 1, "median_ms"), "x"),
    (("timing", "invocations", 1, "baseline_median_ms"), [[]]),
    (("readings", 0, "ci_high"), ["x"]),
    (("case", "model"), True),
    ("readings", [5, None, {}]),
    (("timing", "invocations", 0, "samples_file"), "x" * 6000),
    ("layers", [3]),
    ("flags", [1]),
    ("environment", {"cpu": 3}),
    ("machine", {"peaks": [{"value": "x"}]}),
    ("protocol", []),
    ("started_at", "yesterday"),
]


def test_the_report_is_there_whatever_one_record_holds_and_names_it_in_one_line(tmp_path):
    made = [BASES[0], BASES[1]]
    for number, (path, value) in enumerate(FOUND):
        odd = changed(BASES[1], path if isinstance(path, tuple) else (path,), value)
        odd["case_key"] = f"odd{number:02}"
        odd["record_key"] = f"odd{number:02}.{odd['machine_key']}"
        made.append(seal({key: item for key, item in odd.items() if key != "content_hash"}))
    site = build(stored(tmp_path / "results", made), tmp_path / "site")
    page = site.index.read_text(encoding="utf-8")
    assert "deit_tiny" in page
    assert len(site.problems) == len(FOUND), site.problems
    assert all("\n" not in problem for problem in site.problems)
    assert len(load(tmp_path / "results")["case_key"].unique()) == 2
    assert len(records_at(str(tmp_path / "results"))) == 2


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.sampled_from(TARGETS), st.sampled_from(VALUES)), min_size=20, max_size=20))
def test_pages_are_built_whatever_twenty_records_hold(tmp_path_factory, changes):
    made = []
    for number, ((base, path), value) in enumerate(changes):
        with contextlib.suppress(TypeError):  # a key in a part that is no part any more
            odd = changed(base, path, value)
            if path[0] not in ("case_key", "machine_key", "record_key"):
                odd = {**odd, "case_key": f"k{number}", "record_key": f"k{number}.{odd['machine_key']}"}
            made.append(seal({key: item for key, item in odd.items() if key != "content_hash"}))
    folder = tmp_path_factory.mktemp("odd")
    build(stored(folder / "results", [*made, BASES[0]]), folder / "site", figure_seconds=None)


def test_two_records_under_each_others_names_are_noticed(tmp_path):
    store = Store(stored(tmp_path / "results", BASES[:2]))
    one, two = sorted(store.records.iterdir())
    one.rename(tmp_path / "x")
    two.rename(one)
    (tmp_path / "x").rename(two)
    problems = []
    assert list(store.iterate(problems)) == [] and len(problems) == 2
    assert all("exchanged" in problem for problem in problems)


# -- files that never end ---------------------------------------------------------------------------------------------


def test_a_pipe_or_an_endless_device_is_refused_wherever_a_file_is_read(tmp_path):
    store = Store(tmp_path)
    for folder in (store.records, store.machines):
        folder.mkdir()
    os.mkfifo(store.records / "a.b.json")
    (store.records / "c.d.json").symlink_to("/dev/zero")
    os.mkfifo(store.machines / "m.cpu.1.json")
    os.mkfifo(store.journal)
    (tmp_path / "b.zip").symlink_to("/dev/zero")
    start = time.monotonic()
    problems = []
    assert list(store.iterate(problems)) == []
    assert len(problems) == 2 and all("no regular file" in problem for problem in problems)
    assert read_calibration(store.machines / "m.cpu.1.json") is None
    with pytest.raises(BenchError, match="no regular file"):
        Journal(store.journal).read()
    assert not bundle.verify(tmp_path / "b.zip").ok
    assert time.monotonic() - start < 10


def test_a_file_is_read_up_to_its_limit_and_not_beyond(tmp_path):
    (tmp_path / "file").write_bytes(b"x" * 100)
    assert read_regular(tmp_path / "file", 100) == b"x" * 100
    with open(tmp_path / "file", "rb") as file:
        assert read_most(file, 40) == b"x" * 40
    with pytest.raises(OSError, match="more than 99 bytes"):
        read_regular(tmp_path / "file", 99)
    with pytest.raises(OSError, match="no regular file"):
        read_regular(tmp_path, 99)


# -- memory -----------------------------------------------------------------------------------------------------------

#: Texts that take the most memory for their length, each of about a megabyte.
SWELLING = {
    "empty lists": "[" + "[]," * 200_000 + "[]]",
    "empty objects": "[" + "{}," * 200_000 + "{}]",
    "small objects": "[" + '{"":0},' * 150_000 + "0]",
    "short texts": "[" + '"ab",' * 200_000 + "0]",
    "numbers": "[" + "1e3," * 250_000 + "0]",
    "integers": "[" + "999," * 250_000 + "0]",
    "keys": "{" + ",".join(f'"{number:x}":0' for number in range(120_000)) + "}",
    "one wide letter": '["\U0001f600' + "x" * 1_000_000 + '"]',
}


@pytest.mark.parametrize("what", SWELLING)
def test_parsing_costs_at_most_the_stated_multiple_of_the_stated_size(what):
    data = SWELLING[what].encode()
    tracemalloc.start()
    with contextlib.suppress(ValueError):
        parse(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < foreign.MEMORY_FACTOR * len(data) + foreign.MEMORY_BESIDE


def padded(padding):
    made = seal({**record(method="tome", setting=f"r={len(padding)}"), "padding": padding})
    return f"records/{made['record_key']}.json", json.dumps(made, separators=(",", ":")).encode()


def test_a_small_bundle_of_large_parts_is_refused_or_costs_one_of_its_files(tmp_path):
    records = dict(padded([[]] * (240_000 - number)) for number in range(6))
    path = archive(tmp_path / "b.zip", records)
    assert path.stat().st_size < 200_000
    tracemalloc.start()
    report = bundle.verify(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    largest = max(map(len, records.values()))
    assert report.ok and len(report.records) == 6
    assert peak < foreign.MEMORY_FACTOR * largest + foreign.MEMORY_BESIDE
    beyond = archive(tmp_path / "c.zip", dict([padded([[]] * 300_000)]))
    (problem,) = bundle.verify(beyond).problems
    assert "lists and objects" in problem


def test_a_manifest_of_nothing_but_brackets_is_refused_before_it_is_parsed(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("manifest.json", b"[" + b"[]," * 15_000_000 + b"[]]")
    tracemalloc.start()
    (problem,) = bundle.verify(tmp_path / "b.zip").problems
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "lists and objects" in problem and peak < 4 * 2**26


def test_more_records_than_memory_is_for_are_refused_where_they_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "MAX_KEPT_JSON_BYTES", 10_000)
    path = archive(tmp_path / "b.zip", dict(padded([number] * number) for number in range(3)))
    assert bundle.verify(path).ok
    with pytest.raises(bundle.BadBundle, match="are read at once"):
        bundle.unpack_records(path)


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["samples/" + "x" * 300 + "/00.json.gz"], "longer or deeper"),
        (["samples/" + "d/" * 3000 + "00.json.gz"], "longer or deeper"),
        (["samples/s", "samples/s/00.json.gz"], "is a file and a folder"),
        (["samples/S", "samples/s/00.json.gz"], "is a file and a folder"),
    ],
)
def test_names_that_unpacking_would_stumble_over_are_refused_by_verify(names, problem, tmp_path):
    import gzip

    path = archive(tmp_path / "b.zip", dict.fromkeys(names, gzip.compress(b"{}")))
    assert any(problem in found for found in bundle.verify(path).problems)
    with pytest.raises(bundle.BadBundle):
        bundle.unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_table_of_contents_without_end_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "MAX_DIRECTORY_BYTES", 1000)
    path = archive(tmp_path / "b.zip", {f"samples/s/{number:02}.json.gz": b"x" for number in range(50)})
    (problem,) = bundle.verify(path).problems
    assert "table of contents" in problem


def test_json_that_is_none_is_one_kind_of_error(tmp_path):
    for number, data in enumerate([b"", b"\xff\xfe", b"[" * 100_000, b"NaN", b"1e999", b"9" * 5000, b"{"]):
        path = tmp_path / f"{number}.json"
        path.write_bytes(data)
        if data != b"1e999":
            with pytest.raises(CorruptRecord):
                read_json(path)


def test_names_of_thousands_of_letters_are_cut_in_titles_and_cells_and_whole_on_the_page_of_the_case(tmp_path):
    long = "m" * 5000 + "end"
    folder = stored(
        tmp_path / "results", [BASES[0], seal(record(model=long)), seal(record(model=long, method="x" * 4000))]
    )
    site = build(folder, tmp_path / "site")
    assert not site.problems
    (front,) = (page.read_text(encoding="utf-8") for page in (tmp_path / "site" / "suites").glob("*.html"))
    names = re.findall(r"<noscript><ul>.*?</ul></noscript>", front, re.S)
    assert names and "mmm ... mmm" in names[0] and "m" * 200 not in names[0] and "x" * 200 not in names[0]
    assert all(len(row.name) < 300 for row in load_site([folder]).rows)
    assert any(long in page.read_text(encoding="utf-8") for page in (tmp_path / "site" / "cases").glob("*.html"))
