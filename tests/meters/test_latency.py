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


def test_what_a_run_changes_is_put_back_after_each_also_in_a_throughput_window_and_takes_no_time():
    """A run of the first state takes 2 ms, one of any later state 50."""
    world, state = World(), {"runs": 0}

    def step():
        world.now += int(1e6 * (2.0 if state["runs"] == 0 else 50.0))
        state["runs"] += 1

    def put_back():
        world.now += int(7e6)
        state["runs"] = 0

    samples = {"a": Samples(1)}
    latency.throughput_windows(
        [Runner("a", step, after=put_back)], samples, {"a": 2.0}, windows=1, window_s=0.1, seed=0, clock=world.clock
    )
    assert samples["a"].throughput == [{"iterations": 50, "ms": pytest.approx(100.0)}]


def test_the_garbage_collector_is_off_while_sampling_and_back_after():
    import gc

    seen = []
    latency.interleave([Runner("a", lambda: seen.append(gc.isenabled()))], {"a": Samples(1)}, 3, 0)
    assert seen == [False] * 3 and gc.isenabled()


class Queue:
    """A device that works a while after it is told to, with a clock of its own that reads nothing before it is done."""

    def __init__(self, world, *, device_ms=2.0, launch_ms=0.5, wait_ms=0.0):
        self.world, self.device_ms, self.launch_ms, self.wait_ms = world, device_ms, launch_ms, wait_ms
        self.launched, self.done, self.marks, self.flushes, self.waits = 0, 0, [], 0, 0

    def step(self):
        self.launched += 1
        self.world.now += int(self.launch_ms * 1e6)

    def flush(self):
        self.flushes += 1
        self.world.now += int(50e6)  # long, so that it would show

    def synchronise(self):
        late = int(((self.launched - self.done) * (self.device_ms - self.launch_ms) + self.wait_ms) * 1e6)
        self.world.now, self.done, self.waits = self.world.now + max(late, 0), self.launched, self.waits + 1

    def start(self):
        self.marks = [self.launched]

    def stop(self):
        self.marks.append(self.launched)

    def elapsed_ms(self):
        assert self.done == self.launched, "read before the device was waited for"
        return (self.marks[1] - self.marks[0]) * self.device_ms

    def runner(self, **rest):
        return Runner("a", self.step, self.synchronise, self, **rest)


def test_host_and_device_time_the_same_iterations():
    world = World()
    queue = Queue(world)
    host, device = latency.time_both(queue.runner(), 5, world.clock)
    assert (host, device, queue.launched) == (pytest.approx(2.0), pytest.approx(2.0), 5)
    samples = Samples(3)
    latency.take_sample(queue.runner(), samples, world.clock)
    assert samples.device_ms == [pytest.approx(2.0)] and samples.latency_ms == [pytest.approx(2.0)]
    assert queue.launched == 5 + 3 + 1  # one warms the caches before the sample's clock starts


@pytest.mark.parametrize("block", [1, 4])
def test_latency_on_a_device_is_one_forward_waited_for_whatever_the_block(block):
    """Launching costs 0.5 ms and waiting 0.3; back to back only the first launch and the last wait would be seen."""
    world = World()
    queue = Queue(world, device_ms=2.0, wait_ms=0.3)
    host, device = latency.time_both(queue.runner(), block, world.clock)
    assert (host, device) == (pytest.approx(2.3), pytest.approx(2.0))
    assert queue.waits == 2 * block


def test_a_host_without_a_device_waits_once_for_a_block():
    world, waits = World(), []
    runner = Runner("a", world.runner("a", 1.0).step, lambda: waits.append(world.now))
    latency.take_sample(runner, Samples(4), world.clock)
    assert waits == [0, 4_000_000]  # and no step is taken that is not timed


def test_a_warm_sample_on_a_device_finds_what_its_own_forward_left_and_a_cold_one_what_the_flush_left():
    world, ran = World(), []
    cache = {"of": ""}

    def member(name, before=None):
        def step():
            ran.append(name)
            world.now += int((1.0 if cache["of"] == name else 5.0) * 1e6)
            cache["of"] = name

        queue = Queue(world)
        return Runner(name, step, queue.synchronise, queue, before)

    def flush():
        cache["of"] = ""

    def latencies(*runners):
        samples = {runner.name: Samples(1) for runner in runners}
        latency.interleave(runners, samples, 6, seed=3, clock=world.clock)
        return {value for found in samples.values() for value in found.latency_ms}

    assert latencies(member("a"), member("b")) == {1.0}
    assert len(ran) == 2 * 2 * 6  # one step that is not timed before each sample
    assert latencies(member("a", flush), member("b", flush)) == {5.0}
    assert len(ran) == 2 * 2 * 6 + 2 * 6


def test_throughput_windows_of_a_device_are_long_enough_though_back_to_back_is_quicker():
    """A synchronised iteration takes 2 ms and one of many 0.5: by the first a window would be a quarter as long."""
    world = World()
    queue = Queue(world, device_ms=0.5, launch_ms=0.5, wait_ms=1.5)
    samples, told = {"a": Samples(1)}, []
    latency.throughput_windows(
        [queue.runner()], samples, {"a": 2.0}, windows=3, window_s=0.1, seed=0, clock=world.clock, turn=told.append
    )
    assert [window["ms"] >= 100 for window in samples["a"].throughput] == [True] * 3
    assert len({window["iterations"] for window in samples["a"].throughput}) == 1  # none is dropped for being quick
    assert told == ["a"] * 3  # who fills the device while it is tried is known as well


def test_what_precedes_an_iteration_is_done_before_each_and_never_timed():
    world = World()
    queue = Queue(world)
    host, device = latency.time_both(queue.runner(before=queue.flush), 4, world.clock)
    assert queue.flushes == 4
    assert (host, device) == (pytest.approx(2.0), pytest.approx(2.0))


def test_throughput_is_back_to_back_and_flushes_nothing():
    world = World()
    queue = Queue(world)
    samples = {"a": Samples(1)}
    latency.throughput_windows(
        [queue.runner(before=queue.flush)], samples, {"a": 2.0}, windows=1, window_s=0.1, seed=0, clock=world.clock
    )
    assert queue.flushes == 0 and samples["a"].throughput == [{"iterations": 50, "ms": pytest.approx(100.0)}]


def test_whose_turn_it_is_is_told_before_each_sample_and_rounds_are_told_apart():
    told = []

    def member(name):
        return Runner(name, lambda: told.append(f"runs {name}"))

    runners = [member(name) for name in "ab"]
    latency.interleave(runners, {n: Samples(1) for n in "ab"}, 2, 0, turn=told.append, between=lambda: told.append("-"))
    assert told.count("-") == 2 and told[-1] == "-"
    assert all(told[place + 1] == f"runs {name}" for place, name in enumerate(told) if name in ("a", "b"))
