"""Changes of level are found where they are, not where they are not, and regressions say since when."""

import random
from itertools import pairwise

import numpy as np
import pytest

from bench.analysis import history, history_text
from bench.app.jobs import compare
from bench.statistics import log_mean_interval
from tests.app.test_jobs import config_for
from tests.synthetic import record, store

pytest.importorskip("ruptures", reason="changes of level need the extra history: pip install ruptures")


def session(day, gain, *, seed=0, commit=None, noise=0.004, **fields):
    """A record of one day whose method has this speed-up, on a host that is some percent faster or slower that day."""
    host = 1 + 0.05 * random.Random(day + 100 * seed).gauss(0, 1)
    made = record(
        method="tome", setting="r=8", macs=1e9, baseline_ms=40.0 * host, latency_ms=40.0 * host / gain, noise=noise,
        seed=0, invocations=6, **fields,
    )  # fmt: skip
    rng = random.Random(f"{day}{seed}")
    for run in made["timing"]["invocations"]:
        run["median_ms"] = run["baseline_median_ms"] / (gain * (1 + rng.gauss(0, noise)))
        run["gemm_median_ms"] = 1.5 * host
    made["timing"]["session"] = f"session-{day}"
    made["started_at"] = made["finished_at"] = f"2026-10-{day:02d}T12:00:00+00:00"
    made["code"] = {**made["code"], "commit": commit or f"{day:08x}"}
    made["content_hash"] = f"hash-{day}-{seed}"
    return made


def course(gains, **fields):
    found = history.follow([session(day, gain, **fields) for day, gain in enumerate(gains, 1)])
    return next(one for one in found.courses if one.metric == "speedup")


def test_a_drop_is_found_at_its_session_and_is_a_regression_since_that_day():
    found = history.follow([session(day, 1.5 if day < 6 else 1.3) for day in range(1, 11)])
    (one,) = found.regressions()
    assert one.since.started_at.startswith("2026-10-06") and one.since.commit == f"{6:08x}" and not one.mended
    assert one.change.ratio.value == pytest.approx(1.3 / 1.5, rel=0.01)
    assert one.change.ratio.low < 1.3 / 1.5 < one.change.ratio.high


def test_what_came_back_is_mended_and_what_got_better_is_no_regression():
    dip = course([1.5] * 4 + [1.2] * 4 + [1.5] * 4)
    assert [(change.at, change.verdict.kind) for change in dip.changes] == [(4, "SLOWER"), (8, "FASTER")]
    (one,) = history.History((dip,)).regressions()
    assert one.mended
    assert not history.History((course([1.2] * 4 + [1.5] * 4),)).regressions()


@pytest.mark.parametrize("length", [3, 5, 12])
def test_level_courses_have_no_change(length):
    wrong = 0
    for seed in range(60):
        made = [
            session(day, 1.5 * (1 + 0.003 * random.Random(f"{day},{seed}").gauss(0, 1)), seed=seed)
            for day in range(1, length + 1)
        ]
        wrong += bool(sum(len(one.changes) for one in history.follow(made).courses))
    assert wrong <= 3


def test_a_change_inside_the_margin_is_none():
    assert course([1.5] * 6 + [1.49] * 6, noise=0.0002).changes == ()


def test_breaks_are_those_of_a_search_over_all_places():
    rng = np.random.default_rng(3)
    for _ in range(20):
        n = 9
        values = rng.normal(0, 1, n) + 4 * (np.arange(n) >= rng.integers(1, n))
        variances = rng.uniform(0.5, 2.0, n)

        def cost(bounds, values=values, variances=variances, n=n):
            total = 0.0
            for start, end in pairwise(bounds):
                weights = 1 / variances[start:end]
                mean = (weights * values[start:end]).sum() / weights.sum()
                total += (weights * (values[start:end] - mean) ** 2).sum()
            return total + 3 * np.log(n) * (len(bounds) - 2)

        every = [[0, *[i + 1 for i in range(n - 1) if mask >> i & 1], n] for mask in range(2 ** (n - 1))]
        best = min(every, key=cost)
        assert history.breaks(values, variances) == best[1:-1]


def test_two_sessions_have_a_line_and_no_level():
    found = history.follow([session(1, 1.5), session(2, 1.0)])
    assert [one.metric for one in found.courses] == ["speedup"] and not found.courses[0].changes


def test_a_copy_of_a_session_counts_once_and_other_machines_stand_apart():
    one = session(1, 1.5)
    assert history.follow([one, {**one, "content_hash": "other"}]).courses == ()
    assert history.follow([one, {**session(2, 1.5), "machine_key": "elsewhere"}]).courses == ()


def test_baselines_are_followed_in_reference_gemms_so_that_the_host_cancels():
    made = []
    for day in range(1, 9):
        host, own = (1.3 if day > 4 else 1.0), (1.1 if day > 6 else 1.0)
        item = record(latency_ms=40.0 * host * own, baseline_ms=40.0 * host * own, noise=1e-3, invocations=5)
        for run in item["timing"]["invocations"]:
            run["gemm_median_ms"] = 1.5 * host
            run["median_ms"] = run["baseline_median_ms"] = 40.0 * host * own * (1 + 0.001 * (run["index"] % 3))
        item["timing"]["session"], item["started_at"] = f"s{day}", f"2026-10-{day:02d}T00:00:00+00:00"
        made.append({**item, "content_hash": f"h{day}"})
    (found,) = history.follow(made).courses
    assert found.metric == "latency_ms" and found.unit == "reference GEMMs"
    assert [(one.at, one.verdict.kind) for one in found.changes] == [(6, "SLOWER")]


def test_a_count_that_changed_is_told_exactly_and_one_that_did_not_has_no_line():
    same = [session(day, 1.5) for day in range(1, 5)]
    assert "macs" not in {one.metric for one in history.follow(same).courses}
    for item in same[2:]:
        for reading in item["readings"]:
            if reading["metric"] == "macs":
                reading["value"] *= 1.05
    (found,) = [one for one in history.follow(same).courses if one.metric == "macs"]
    assert [(one.at, one.verdict.kind) for one in found.changes] == [(2, "SLOWER")]


def test_weights_part_courses_where_one_commit_has_two_of_a_case():
    two = [session(day, 1.5, commit="c") | {"content_hash": f"{day}{w}"} for day in (1, 2) for w in "ab"]
    for item, weights in zip(two, "abab", strict=True):
        item["case"] = {**item["case"], "checkpoint": weights}
        item["timing"] = {**item["timing"], "session": f"{item['timing']['session']}{weights}"}
    assert len([one for one in history.follow(two).courses if one.metric == "speedup"]) == 2


def test_the_text_counts_first_and_fits_the_terminal():
    found = history.follow([session(day, 1.5 if day < 6 else 1.3) for day in range(1, 11)])
    text = history_text.as_text(found, width=100)
    first = " ".join(text.partition("\n\n")[0].split())
    assert "1 worse now, 0 worse and mended since, 0 better" in first and "2026-10-01 to 2026-10-10" in first
    assert max(map(len, text.splitlines())) <= 100 and "2026-10-06 00000006" in text
    assert history_text.as_text(history.History(())) == "History: no case was measured in two sessions or more.\n"


def folders(root, gains):
    for day, gain in enumerate(gains, 1):
        store(root / f"r{day}", [session(day, gain)], with_samples=False)
    return [root / f"r{day}" for day in range(1, len(gains) + 1)]


def test_job_compare_tells_the_history_of_several_folders(tmp_path, capsys):
    places = folders(tmp_path, [1.5] * 4 + [1.2] * 4)
    paths = {"results": ",".join(map(str, places)), "site": str(tmp_path / "site")}
    assert compare.run(config_for(tmp_path, job="compare", paths=paths)) == 1
    assert "1 worse now" in capsys.readouterr().out
    sides = {"a": ",".join(map(str, places[:4])), "b": ",".join(map(str, places[4:]))}
    compare.run(config_for(tmp_path, job="compare", report={"enabled": False}, **sides))
    told = capsys.readouterr().out
    assert told.index("1 worse now") < told.index("SLOWER")


def test_an_interval_of_one_session_is_that_of_its_processes():
    item = session(1, 1.5)
    runs = item["timing"]["invocations"]
    expected = log_mean_interval([run["baseline_median_ms"] / run["median_ms"] for run in runs])
    (found, _) = course([1.5, 1.5]).sessions
    assert (found.value.low, found.value.high) == pytest.approx((expected.low, expected.high))
