"""Queues against closed forms, and an open loop that measures from the scheduled arrival."""

import random
import statistics
from itertools import pairwise

import pytest

from bench.workloads import open_loop, queueing
from tests.workloads.subjects import HandClock


def wait(moment, clock):
    clock.now = max(clock.now, moment)


def loop_of(services, rate, count, seed=0, kind="poisson", **options):
    """An open loop of known service times in milliseconds on a clock of its own."""
    clock = HandClock()
    return open_loop.run(
        lambda index: clock.pass_ms(services(index)),
        rate,
        count=count,
        seed=seed,
        kind=kind,
        clock=clock,
        wait_until=wait,
        **options,
    )


def test_lindley_by_hand():
    assert queueing.replay([0, 1, 2, 9], [2, 2, 1, 1]) == [2, 3, 3, 1]
    assert queueing.replay([0, 1, 2], [2, 2, 1], servers=2) == [2, 2, 1]


@pytest.mark.parametrize("kind", ["poisson", "fixed", "bursty"])
def test_arrivals_come_at_a_mean_rate_of_one(kind):
    times = queueing.unit_arrivals(40_000, 3, kind)
    assert times == sorted(times) and len(times) / times[-1] == pytest.approx(1, rel=0.05)
    assert times == queueing.unit_arrivals(40_000, 3, kind)


def test_intervals_of_a_poisson_process_vary_as_much_as_they_last_and_bursts_more():
    def variation(kind):
        times = [0.0, *queueing.unit_arrivals(40_000, 1, kind)]
        gaps = [b - a for a, b in pairwise(times)]
        return statistics.pstdev(gaps) / statistics.fmean(gaps)

    assert variation("poisson") == pytest.approx(1, rel=0.03)
    assert variation("bursty") > 1.1


def test_replayed_queues_have_the_mean_of_the_closed_forms():
    generator = random.Random(7)
    arrivals = [time / 0.5 for time in queueing.unit_arrivals(60_000, 5)]
    exponential = [generator.expovariate(1.0) for _ in arrivals]
    assert statistics.fmean(queueing.replay(arrivals, [1.0] * len(arrivals))) == pytest.approx(
        queueing.md1_sojourn(0.5, 1.0), rel=0.03
    )
    assert statistics.fmean(queueing.replay(arrivals, exponential)) == pytest.approx(2.0, rel=0.05)
    assert queueing.mm1_sojourn(0.5, 1.0) == 2.0 and queueing.md1_sojourn(0.5, 1.0) == 1.5
    twice = [2 * service for service in exponential]
    assert statistics.fmean(queueing.replay(arrivals, twice, servers=2)) == pytest.approx(
        queueing.mm2_sojourn(0.5, 2.0), rel=0.05
    )
    assert queueing.mm2_sojourn(0.5, 2.0) == pytest.approx(2 / 0.75)


def test_a_full_server_has_no_mean():
    with pytest.raises(ValueError, match="below 1"):
        queueing.mm1_sojourn(1.0, 1.0)


def test_little_s_law_holds_of_a_loop():
    loop = loop_of(lambda index: 10, 50, 2000)
    ends = [end for end in loop.finished if end is not None]
    number = queueing.mean_in_system(loop.scheduled, ends)
    mean = statistics.fmean(end - start for start, end in zip(loop.scheduled, ends, strict=True))
    assert number == pytest.approx(len(ends) / (ends[-1] - loop.scheduled[0]) * mean, rel=1e-9)


def test_an_open_loop_measures_from_the_schedule_as_lindley_does():
    loop = loop_of(lambda index: 10, 80, 500)
    expected = queueing.replay(loop.scheduled, [0.010] * 500)
    measured = [end - start for start, end in zip(loop.scheduled, loop.finished, strict=True)]
    assert measured == pytest.approx(expected, abs=1e-8)
    assert open_loop.replayed_mean(loop) == pytest.approx(statistics.fmean(measured), abs=1e-8)


def test_neither_a_tenth_of_the_requests_nor_those_of_five_mean_waits_are_kept():
    due = [(place + 1) / 8 for place in range(20)]
    # each waits 1/8 s and is served for 1/16 s: five waits are 5/8 s, when the fifth request comes
    waiting = open_loop.OpenLoop(8.0, due, [time + 1 / 8 for time in due], [time + 3 / 16 for time in due])
    assert waiting.first_kept == 4 and waiting.kept == [3 / 16] * 16
    assert open_loop.value_of(waiting, "waiting_mean_ms") == (125.0, "")
    calm = open_loop.OpenLoop(8.0, due, list(due), [time + 1 / 16 for time in due])
    assert calm.first_kept == 2 and calm.kept == [1 / 16] * 18  # nobody waits: the first tenth
    slow = open_loop.OpenLoop(8.0, due, [time + 1 for time in due], [time + 2 for time in due])
    value, why = open_loop.value_of(slow, "sojourn_mean_ms")  # five waits are longer than the run
    assert value is None and "more seconds" in why


def test_equal_seeds_give_one_schedule_only_faster():
    slow, fast = loop_of(lambda index: 1, 10, 50), loop_of(lambda index: 1, 40, 50)
    assert [4 * time for time in fast.scheduled] == pytest.approx(slow.scheduled)


def test_a_server_that_keeps_up_has_percentiles_and_one_that_does_not_has_none():
    calm, flooded = loop_of(lambda index: 10, 50, 900), loop_of(lambda index: 10, 110, 900)
    assert open_loop.status(calm) == "ok" and open_loop.status(flooded) == "unstable"
    found = {item.metric: item for item in open_loop.readings(calm)}
    assert found["sojourn_p50_ms"].value > 9.99 and found["sojourn_p99_ms"].value > found["sojourn_p90_ms"].value
    assert found["achieved_rate"].value == pytest.approx(50, rel=0.1)
    lost = {item.metric: item for item in open_loop.readings(flooded)}
    assert lost["sojourn_p50_ms"].value is None and "grew by" in lost["sojourn_p50_ms"].method_note
    assert lost["achieved_rate"].value == pytest.approx(100, rel=0.02)


@pytest.mark.parametrize("seed", range(20))
def test_a_busy_queue_is_not_called_unstable(seed):
    assert loop_of(lambda index: 10, 80, 1000, seed).stability.stable


@pytest.mark.parametrize("seed", range(5))
def test_a_flooded_queue_is_called_unstable(seed):
    assert not loop_of(lambda index: 10, 110, 1000, seed).stability.stable


def test_a_loop_is_bounded_and_what_is_left_open_is_not_answered():
    loop = loop_of(lambda index: 1000, 100, 500, seconds=2.0)
    assert loop.scheduled[-1] <= 2.0
    assert loop.finished[-1] is None and len([end for end in loop.finished if end is not None]) <= 8
    assert open_loop.status(loop) == "unstable"


def test_curves_run_over_the_offered_rate_and_stop_after_the_first_unstable_one():
    clock = HandClock()
    loops = open_loop.sweep(
        lambda index: clock.pass_ms(10), [50, 20, 150, 200], seconds=30, seed=0, clock=clock, wait_until=wait
    )
    assert [loop.rate for loop in loops] == [20, 50, 150]
    curves = {curve.metric: curve for curve in open_loop.curves(loops)}
    assert curves["sojourn_p50_ms"].values[2] is None and curves["sojourn_p50_ms"].values[0] == pytest.approx(10)


def test_an_offered_rate_is_above_zero():
    with pytest.raises(ValueError, match="above 0"):
        loop_of(lambda index: 1, 0, 5)
