"""From which batch a method pays is said of measured batches only, and only where the interval is surely above 1."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.short_names import short_name, short_names
from reports import batches
from reports.batches import LATENCY, THROUGHPUT, Course, Point, crossings, in_words, panels, pays, pays_from
from reports.figures import batch_gain
from reports.rows import Cell, rows_of
from reports.site import build, load
from tests.synthetic import record, store


def cell(low, high):
    return Cell((low + high) / 2, low, high, 3, "measured")


def course(*spans):
    """A course at batches 1, 2, 4, ...; None is a batch whose speed-up has no interval."""
    points = [Point(2**i, None, 2.0, {LATENCY: cell(*span) if span else Cell(1.5)}) for i, span in enumerate(spans)]
    return Course("m", "m", tuple(points))


FASTER, SLOWER, OPEN = (1.1, 1.3), (0.7, 0.9), (0.9, 1.1)


@pytest.mark.parametrize(
    ("spans", "first", "words"),
    [
        ((FASTER, FASTER, FASTER), 1, "from the smallest measured batch (1)"),
        ((SLOWER, OPEN, FASTER), 4, "from batch 4"),
        ((OPEN, FASTER, FASTER), 2, "from batch 2"),
        ((SLOWER, OPEN, SLOWER), None, "not up to 4"),
        ((FASTER, OPEN, FASTER), 4, "from batch 4"),
        ((SLOWER, FASTER, OPEN), None, "not up to 4; it does at 2"),
        ((FASTER, None, FASTER), 4, "from batch 4"),
        ((None, None), None, "not up to 2"),
        ((FASTER,), 1, "pays at 1, the only batch measured"),
        ((OPEN,), None, "does not pay at 1, the only batch measured"),
        ((), None, "not measured"),
    ],
)
def test_a_method_pays_from_the_smallest_batch_after_which_every_interval_is_above_one(spans, first, words):
    found = course(*spans)
    assert pays_from(found) == first
    assert in_words(found) == words


def test_an_interval_that_touches_one_does_not_pay():
    assert pays(cell(1.0, 1.2)) is None
    assert pays(cell(0.8, 1.0)) is None
    assert pays(cell(1.0001, 1.2)) is True
    assert pays(None) is None and pays(Cell(3.0)) is None


@given(st.lists(st.tuples(st.floats(0.5, 2.0), st.floats(0.0, 0.5)), min_size=2, max_size=6))
def test_the_crossing_is_a_measured_batch_and_everything_from_it_on_pays(spans):
    found = course(*((low, low + width) for low, width in spans))
    first = pays_from(found)
    measured = {point.batch: pays(point.gains[LATENCY]) for point in found.points}
    if first is None:
        assert measured[max(measured)] is not True
    else:
        assert first in measured and all(paying for batch, paying in measured.items() if batch >= first)
        before = [batch for batch in measured if batch < first]
        assert not before or measured[max(before)] is not True


def sweep(**changes):
    """tome slower at 1, faster at 8 and 32; evit faster everywhere; a plain network at each batch."""
    rows = []
    for batch, tome, evit in ((1, 0.9, 1.2), (8, 1.1, 1.3), (32, 1.4, 1.5)):
        base = 10.0 * batch
        common = {"batch": batch, "baseline_ms": base, "baseline_macs": 1.2e9, "noise": 1e-4, **changes}
        rows.append(record(macs=1.2e9, latency_ms=base, **common))
        rows.append(record(method="tome", setting="r=13", macs=0.8e9, latency_ms=base / tome, **common))
        rows.append(record(method="evit", setting="keep_rate=0.7", macs=0.6e9, latency_ms=base / evit, **common))
    return rows


def test_rows_of_several_batches_become_one_course_per_method():
    (panel,) = panels(rows_of(sweep(), []))
    assert panel.title == "deit_tiny" and panel.batches == [1, 8, 32]
    evit, tome = panel.courses
    assert (tome.name, tome.promised, evit.promised) == ("tome(r=13)", pytest.approx(1.5), pytest.approx(2.0))
    assert pays_from(tome) == 8 and pays_from(evit) == 1
    lines = crossings(panel)
    assert lines[1].verdict == "from batch 8" and lines[1].promised == "1.50×"
    assert lines[1].gains[0] == "0.90× [0.88, 0.92]" and len(lines[1].gains) == 3


def test_throughput_is_compared_within_the_processes_that_timed_both():
    (panel,) = panels(rows_of(sweep(), []))
    at_eight = panel.courses[1].points[1]
    assert at_eight.gains[THROUGHPUT].value == pytest.approx(1.1, rel=1e-3)
    assert at_eight.gains[THROUGHPUT].low < 1.1 < at_eight.gains[THROUGHPUT].high
    alone = [{**row, "timing": {**row["timing"], "session": f"s{i}"}} for i, row in enumerate(sweep())]
    (panel,) = panels(rows_of(alone, []))
    assert all(THROUGHPUT not in point.gains for course in panel.courses for point in course.points)


def test_conditions_other_than_the_batch_are_never_joined():
    found = panels(rows_of([*sweep(), *sweep(dtype="bf16")], []))
    assert sorted(panel.title for panel in found) == ["deit_tiny, bf16", "deit_tiny, fp32"]
    assert panels(rows_of(sweep()[:3], [])) == []


def test_a_failed_batch_is_named_and_breaks_nothing():
    rows = sweep()
    rows[7] = record(
        method="tome",
        setting="r=13",
        batch=32,
        status="oom",
        error={"phase": "measure", "type": "MemoryError", "message": "out of memory"},
    )
    (panel,) = panels(rows_of(rows, []))
    tome = panel.courses[1]
    assert tome.failed == (32,) and [point.batch for point in tome.points] == [1, 8]
    assert crossings(panel)[1].gains[2] == "no valid time"
    assert any("tome(r=13) on deit_tiny at 32" in note for note in batch_gain.figure(rows_of(rows, [])).notes)


def test_a_batch_at_which_nothing_gave_a_time_still_has_its_column():
    rows = sweep()
    for place in (7, 8):
        rows[place]["status"] = "contaminated"
    (panel,) = panels(rows_of(rows, []))
    assert panel.batches == [1, 8, 32]
    assert {line.gains[2] for line in crossings(panel)} == {"no valid time"}
    assert crossings(panel)[1].verdict == "from batch 8"


def test_the_figure_rings_the_crossing_and_draws_the_promise():
    figure = batch_gain.figure(rows_of(sweep(), []))
    assert figure.title == "Of 2 cases 1 pays at every measured batch, 1 pays only from a larger batch on"
    spec = figure.view("deit_tiny", LATENCY)
    rings = [trace for trace in spec["data"] if trace.get("marker", {}).get("symbol") == "circle-open"]
    assert [round(ring["x"][0]) for ring in rings] == [1, 8]
    assert rings[1]["y"] == [pytest.approx(1.1, rel=1e-3)]
    promises = [trace["y"] for trace in spec["data"] if trace["mode"] == "lines"]
    assert promises == [[2.0, 2.0], [1.5, 1.5]]
    assert [s["y0"] for s in spec["layout"]["shapes"]] == [1]
    assert len(figure.table) == 6 and set(figure.table["pays"]) == {
        "from batch 8",
        "from the smallest measured batch (1)",
    }


def test_the_first_page_has_the_table_of_crossings_where_batches_were_varied(tmp_path):
    store(tmp_path / "results", sweep(), with_samples=False)
    build(tmp_path / "results", tmp_path / "site")
    text = (tmp_path / "site" / "suites" / "vit_tokens.html").read_text()
    assert "From which batch does a method pay?" in text and "<td>from batch 8</td>" in text
    store(tmp_path / "one", sweep()[:3], with_samples=False)
    build(tmp_path / "one", tmp_path / "site1")
    assert "From which batch" not in (tmp_path / "site1" / "suites" / "vit_tokens.html").read_text()
    assert load([tmp_path / "one"]).problems == []


def test_long_lists_are_cut_in_names_as_far_as_two_do_not_look_alike():
    long = "diffrate(merge=[197, 194, 176, 156, 141, 3], prune=[197, 196, 30])"
    assert short_name(long) == "diffrate(merge=[197 … 3], prune=[197, 196, 30])"
    assert short_name("evit(at=[4, 7, 10])") == "evit(at=[4, 7, 10])"
    other = long.replace("176", "175")
    assert list(short_names([long, other]).values()) == [
        "diffrate(merge=[197, 194, 176 … 3], prune=[197, 196, 30])",
        "diffrate(merge=[197, 194, 175 … 3], prune=[197, 196, 30])",
    ]
    end = long.replace("141", "140")  # differs in the last entry but one
    assert short_names([long, end]) == {long: long, end: end}
    assert batches.MEASURES == (LATENCY, THROUGHPUT)
