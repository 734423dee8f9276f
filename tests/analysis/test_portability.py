"""The same case on several machines: ranks, gains and flips as computed by hand, and only under equal conditions."""

import math

import pytest

import bench
from bench.analysis.portability import across
from bench.statistics import rank_correlation
from bench.store import classes
from tests.synthetic import ENVIRONMENT, record, store

A, B, C = "machine0000000aa", "machine0000000bb", "machine0000000cc"
FAST = {**ENVIRONMENT, "cpu": {**ENVIRONMENT["cpu"], "model": "Another CPU 9"}}
#: Exact results of the formulas, by hand: ranks 1..5 against 2, 1, 4, 3, 5 have d^2 = 4, so r = 1 - 24 / 120 = 0.8.
SHUFFLED = (1.1, 1.3, 1.5, 1.7, 1.9), (1.4, 1.2, 1.8, 1.6, 2.0)


def timed(gain, *, machine=A, setting="r=8", method="tome", half_width=0.02, n=5, **fields):
    """A case whose speed-up is exactly this, with this relative half-width; it makes 1/1.25 of the products."""
    environment = {A: ENVIRONMENT, B: FAST}.get(machine, ENVIRONMENT)
    made = record(
        method=method, setting=setting, macs=1e9, baseline_ms=40.0, latency_ms=40.0 / gain, machine_key=machine,
        **{"environment": environment, **fields},
    )  # fmt: skip
    for reading in made["readings"]:
        if reading["metric"] == "speedup":
            reading.update(value=gain, ci_low=gain / (1 + half_width), ci_high=gain * (1 + half_width), n=n)
    return made


def plain(machine=A, **fields):
    return record(machine_key=machine, **{"environment": {A: ENVIRONMENT, B: FAST}.get(machine, ENVIRONMENT), **fields})


def two_machines(left, right, **fields):
    made = [plain(A), plain(B)]
    for place, gains in ((A, left), (B, right)):
        made += [timed(gain, machine=place, setting=f"r={i}", **fields) for i, gain in enumerate(gains)]
    return made


def test_the_correlation_of_ranks_and_its_interval_are_those_of_the_formulas():
    found = rank_correlation(*SHUFFLED)
    reach = 1.959964 * math.sqrt((1 + 0.8**2 / 2) / 2)
    ends = math.tanh(math.atanh(0.8) - reach), math.tanh(math.atanh(0.8) + reach)
    assert found.value == pytest.approx(0.8) and found.n == 5
    assert (found.low, found.high) == pytest.approx(ends, abs=1e-6)
    tied = rank_correlation([1, 1, 2], [1, 2, 3])  # ranks 1.5, 1.5, 3 and 1, 2, 3: 1.5 / sqrt(1.5 * 2)
    assert tied.value == pytest.approx(math.sqrt(3) / 2) and tied.low is None and "four pairs" in tied.reason


@pytest.mark.parametrize(
    ("xs", "ys", "value", "reason"),
    [
        ([1.0], [2.0], None, "two pairs"),
        ([1, 2, 3, 4], [2, 3, 4, 9], 1, "all ranks agree"),
        ([1, 2, 3, 4], [9, 4, 3, 2], -1, "all ranks agree"),
        ([1, 1, 1, 1], [1, 2, 3, 4], None, "all ties"),
    ],
)
def test_a_correlation_or_interval_that_there_is_none_of_has_a_reason(xs, ys, value, reason):
    found = rank_correlation(xs, ys)
    assert found.value == value and found.low is None and reason in found.reason


def test_two_machines_are_set_side_by_side_case_by_case():
    found = across(two_machines(*SHUFFLED), {})
    (pair,) = found.pairs
    assert (pair.rows, pair.gain, pair.lose, pair.open, pair.flips) == (5, 5, 0, 0, ())
    assert pair.correlation.value == pytest.approx(0.8)
    assert {place.title for place in found.places.values()} == {"Synthetic CPU 3000", "Another CPU 9"}
    (method,) = found.methods
    by_title = {found.places[one.place].title: one for one in method.delivered}
    for title, gains in zip(("Synthetic CPU 3000", "Another CPU 9"), SHUFFLED, strict=True):
        one, mean = by_title[title], math.prod(gains) ** (1 / 5)
        assert one.speedup.interval.value == pytest.approx(mean)
        assert one.gain.interval.value == pytest.approx(mean / 1.25)
        # each log has the same standard error, so that of their mean is a fifth of it times sqrt(5), with 5 * 4 degrees
        se = math.log(1.02) / 2.776445 / math.sqrt(5)
        assert math.log(one.speedup.interval.high / mean) == pytest.approx(2.085963 * se, rel=1e-4)
        assert one.gain.interval.high == pytest.approx(one.speedup.interval.high / 1.25)
    assert method.verdict == "gains everywhere"


def test_suites_are_never_ranked_together():
    made = two_machines(*SHUFFLED) + two_machines((1.5, 1.6), (1.7, 1.8), suite="ops", batch=8)
    found = across(made, {})
    assert [(pair.suite, pair.rows) for pair in found.pairs] == [("ops", 2), ("vit_tokens", 5)]
    assert [pair.correlation.value for pair in found.pairs] == pytest.approx([1.0, 0.8])


def test_a_case_that_gains_here_and_loses_there_for_certain_is_a_flip_and_an_open_one_is_not():
    found = across(two_machines((1.5, 1.5, 0.9, 0.9), (0.8, 1.01, 0.7, 1.4)), {})
    (pair,) = found.pairs
    assert (pair.gain, pair.lose, pair.open, len(pair.flips)) == (0, 1, 1, 2)
    shown = {(flip.gains.machine_key, flip.gains.case.setting): flip.loses.speedup.value for flip in pair.flips}
    assert shown == {(A, "r=0"): 0.8, (B, "r=3"): 0.9}
    assert found.methods[0].verdict == "flips" and len(found.flips) == 2


@pytest.mark.parametrize(
    ("fields", "title"),
    [({"threads": 4}, "threads"), ({"protocol": "other"}, "protocol"), ({"subject_digest": "x"}, "subject's source")],
)
def test_rows_whose_conditions_differ_in_more_than_the_machine_are_not_set_side_by_side(fields, title):
    found = across([plain(A), timed(1.5), plain(B, **fields), timed(1.5, machine=B, **fields)], {})
    assert found.pairs == () and found.methods[0].verdict == "cannot be told"
    assert found.reason == f"cases of one name differ between machines in more than the machine: {title}"


def test_a_gpu_and_its_host_are_two_places_and_boards_of_one_machine_are_one():
    boards = {**ENVIRONMENT, "gpus": [
        {"name": "L4", "visible_as": None, "visible_instance": None},
        {"name": "H200", "visible_as": "cuda:0", "visible_instance": None},
    ]}  # fmt: skip
    made = [plain(A), timed(1.5), timed(0.8, device="cuda", environment=boards),
            plain(A, device="cuda", environment=boards)]  # fmt: skip
    made[3]["machine_key"] = made[2]["machine_key"] = A
    found = across(made, {})
    assert {place.title for place in found.places.values()} == {"Synthetic CPU 3000", "H200"}
    assert len(found.pairs) == 1 and len(found.flips) == 1


def test_a_part_of_a_machine_is_a_place_of_its_own():
    half = {**ENVIRONMENT, "cpu": {**ENVIRONMENT["cpu"], "usable_cores": 1}}
    made = [plain(A), timed(1.5), plain(C, environment=half), timed(1.2, machine=C, environment=half)]
    found = across(made, {})
    titles = {place.title for place in found.places.values()}
    assert titles == {"Synthetic CPU 3000", "Synthetic CPU 3000, 1 of 2 processors"} and found.pairs[0].rows == 1


def test_disturbed_failed_simulated_and_invalid_rows_take_no_part_and_a_history_counts_once():
    bad = [timed(1.5, setting=f"r={i}") for i in range(4)]
    bad[0]["status"] = "contaminated"
    bad[1]["flags"] = [{"code": "x", "severity": "invalid", "text": "no"}]
    bad[2]["labels"] = {"execution": "simulated"}
    old = {**timed(1.9, setting="r=3"), "started_at": "2026-01-01T00:00:00+00:00"}
    there = [timed(1.2, machine=B, setting=f"r={i}") for i in range(4)]
    found = across([plain(A), plain(B), old, *bad, *there], {})
    (pair,) = found.pairs
    assert pair.rows == 1 and pair.correlation.value is None
    (mine,) = [one for one in found.methods[0].delivered if found.places[one.place].title == "Synthetic CPU 3000"]
    assert mine.speedup.interval.value == pytest.approx(1.5)


def test_machines_under_one_label_are_one_class_and_their_cases_are_averaged():
    made = [plain(A), plain(B), plain(C), timed(1.2), timed(1.8, machine=B), timed(2.0, machine=C)]
    found = across(made, {A: "small", B: "small", C: "large"})
    assert sorted((place.title, len(place.machines)) for place in found.places.values()) == [("large", 1), ("small", 2)]
    values = {found.places[one.place].title: one.speedup.interval.value for one in found.methods[0].delivered}
    assert values == pytest.approx({"small": math.sqrt(1.2 * 1.8), "large": 2.0})


def test_a_method_is_shown_over_the_cases_that_all_its_places_have():
    made = [plain(A), plain(B), *(timed(gain, setting=s) for gain, s in ((1.5, "r=1"), (1.1, "r=2"))),
            timed(1.3, machine=B, setting="r=1")]  # fmt: skip
    (method,) = across(made, {}).methods
    assert [one.rows for one in method.delivered] == [1, 1]
    large = {"environment": {**FAST, "memory_bytes": 2**40}}
    one_more = across([*made, plain(C, **large), timed(1.3, machine=C, setting="r=9", **large)], {})
    assert one_more.methods[0].verdict == "cannot be told" and "all of its 3 places" in one_more.methods[0].reason


def test_without_products_the_gain_is_unavailable_and_says_so():
    found = across([timed(1.5), timed(1.4, machine=B)], {})
    for one in found.methods[0].delivered:
        assert one.gain.interval is None and "missing" in one.gain.reason and one.speedup.interval is not None


def test_the_library_gives_it_as_tables_with_the_classes_of_the_folders(tmp_path):
    left, right = (
        store(tmp_path / name, [one for one in two_machines(*SHUFFLED) if one["machine_key"] == machine]).root
        for name, machine in (("a", A), ("b", B))
    )
    classes.write(left, {"small": [A]})
    frame = bench.across_machines([left, right])
    assert list(frame["place"]) == ["Another CPU 9", "small"] and set(frame["cases"]) == {5}
    (pair,) = frame.attrs["pairs"].to_dict("records")
    assert pair["rank_correlation"] == pytest.approx(0.8) and pair["cases"] == 5 and frame.attrs["flips"].empty
    assert bench.across_machines(left).empty
