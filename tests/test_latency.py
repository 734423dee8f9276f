"""Timing loops against clocks that tell what the test says."""

import math
from collections import Counter

import pytest

from bench.meters import latency
from bench.meters.latency import Runner, Samples


class World:
    """A clock that only a step moves, by that step's duration in milliseconds."""

    def __init__(self):
        self.now = 0

    def clock(self):
        return self.now

    def runner(self, name, *durations):
        state = {"calls": 0}

        def step():
            self.now += int(durations[min(state["calls"], len(durations) - 1)] * 1e6)
            state["calls"] += 1

        return Runner(name, step)


def test_a_block_is_timed_per_iteration():
    world = World()
    assert latency.time_block(world.runner("a", 2.0), 5, world.clock) == pytest.approx(2.0)


def test_everything_before_and_after_a_block_is_waited_for():
    world, waits = World(), []
    runner = Runner("a", world.runner("a", 1.0).step, lambda: waits.append(world.now))
    latency.time_block(runner, 3, world.clock)
    assert waits == [0, 3_000_000]


def test_warm_up_goes_on_until_the_last_ten_are_steady():
    world = World()
    slow_start = world.runner("a", *([50.0] * 15 + [100.0] * 7), 10.0)  # settles after 1.5 s
    done = latency.warm_up(slow_start, iterations=10, seconds=1.0, cap_s=30, variation=0.02, clock=world.clock)
    assert done.steady and done.last_ms == pytest.approx(10.0)
    assert (done.iterations, done.seconds) == (32, pytest.approx(1.55))


def test_warm_up_that_never_settles_says_so_and_ends():
    world = World()
    noisy = [10.0, 20.0] * 5000
    done = latency.warm_up(
        world.runner("a", *noisy), iterations=10, seconds=1, cap_s=30, variation=0.02, clock=world.clock
    )
    assert not done.steady and done.seconds <= 30


def test_warm_up_keeps_to_iterations_and_seconds():
    world = World()
    done = latency.warm_up(
        world.runner("a", 1.0), iterations=10, seconds=1.0, cap_s=30, variation=0.02, clock=world.clock
    )
    assert done.seconds >= 1.0 and done.iterations >= 1000


@pytest.mark.parametrize(("iteration", "block"), [(0.1, 10), (0.3, 4), (1.0, 1), (7.0, 1)])
def test_short_iterations_are_blocked_until_a_sample_is_long_enough(iteration, block):
    assert latency.block_size(iteration, 1.0) == block


@pytest.mark.parametrize(
    ("slowest", "rounds"), [(1.0, 50), (100.0, 30), (1000.0, 10)]
)  # 3 s for a case: 50 samples of 1 ms fit, 30 of 100 ms, and ten are taken of anything
def test_slow_cases_get_fewer_rounds_but_never_too_few(slowest, rounds):
    assert latency.rounds_for([0.5, slowest], samples=50, min_samples=10, case_seconds=3.0) == rounds


def test_every_round_times_every_member_once_in_an_order_of_its_own():
    world, order = World(), []

    def member(name):
        return Runner(name, lambda: order.append(name))

    runners = [member(name) for name in "abcd"]
    samples = {runner.name: Samples(1) for runner in runners}
    latency.interleave(runners, samples, 40, seed=1, clock=world.clock)
    rounds = [tuple(order[i : i + 4]) for i in range(0, 160, 4)]
    assert all(sorted(items) == list("abcd") for items in rounds)
    assert len(set(rounds)) > 10
    assert all(len(s.latency_ms) == len(s.preempted) == len(s.minor_faults) == 40 for s in samples.values())
    again = []
    latency.interleave([Runner(n, lambda n=n: again.append(n)) for n in "abcd"], {n: Samples(1) for n in "abcd"}, 40, 1)
    assert again == order  # the seed is in the record, so the order can be had again
    assert Counter(order) == Counter("abcd" * 40)


def test_throughput_windows_are_long_enough_and_count_what_they_ran():
    world = World()
    runner, samples = world.runner("a", 3.0), {"a": Samples(1)}
    latency.throughput_windows([runner], samples, {"a": 3.0}, windows=2, window_s=0.1, seed=0, clock=world.clock)
    for window in samples["a"].throughput:
        assert window["iterations"] == math.ceil(100 / 3)
        assert window["ms"] == pytest.approx(3.0 * window["iterations"]) and window["ms"] >= 100


def test_the_garbage_collector_is_off_while_sampling_and_back_after():
    import gc

    seen = []
    latency.interleave([Runner("a", lambda: seen.append(gc.isenabled()))], {"a": Samples(1)}, 3, 0)
    assert seen == [False] * 3 and gc.isenabled()
