"""The peak of live bytes follows from the log of events, whatever the order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bench.meters.live import Event, peak


def test_the_peak_is_split_by_what_was_alive_at_that_moment():
    log = [Event(1, 10, 0), Event(2, 20, 1), Event(1, -10, 2), Event(3, 5, 2), Event(2, -20, 3), Event(4, 24, 4)]
    found = peak(log, activations={2}, resident={"weights": 100, "inputs": 7})
    assert (found.total, found.operator) == (137, 1)
    assert found.split == {"weights": 100, "buffers": 0, "inputs": 7, "activations": 20, "temporaries": 10}


def test_what_passes_has_a_largest_moment_of_its_own():
    log = [Event(1, 20, 0), Event(1, -20, 1), Event(2, 30, 1), Event(3, 12, 2)]
    found = peak(log, activations={1}, resident={"weights": 100, "inputs": 7, "optimizer": 50}, named={2: "gradients"})
    assert found.total == 199 and found.split["gradients"] == 30 and found.split["activations"] == 0
    assert found.passing == 27  # inputs and the activation, before there was a gradient


def test_the_first_of_equal_peaks_is_named():
    assert peak([Event(1, 8, 0), Event(1, -8, 1), Event(2, 8, 2)], set(), {}).operator == 0


def test_nothing_allocated_leaves_what_was_there():
    found = peak([], set(), {"weights": 3})
    assert (found.total, found.operator) == (3, None)


@given(st.lists(st.tuples(st.integers(1, 100), st.integers(0, 5)), max_size=30))
def test_the_peak_is_the_largest_running_sum(steps):
    alive, log, running = {}, [], [0]
    for index, (size, victim) in enumerate(steps):
        log.append(Event(index, size, index))
        alive[index] = size
        running.append(running[-1] + size)
        if victim in alive and victim != index:
            log.append(Event(victim, -alive[victim], index))
            running.append(running[-1] - alive.pop(victim))
    found = peak(log, set(range(0, 30, 2)), {"weights": 11})
    assert found.total == 11 + max(running) == sum(found.split.values())
