"""Counters of the processor: the kernel's own events for real, refusals in words, threads and shares."""

import errno
import struct
import threading

import pytest

from bench.host import perf_events
from bench.host.perf_events import SOFTWARE, CountersUnavailable, counting


def software():
    """Counters that every Linux has, where it lets us look."""
    try:
        return perf_events.Counters(SOFTWARE)
    except CountersUnavailable as reason:
        pytest.skip(str(reason))


def busy(rounds=300_000):
    return sum(i * i for i in range(rounds))


def test_a_clock_of_the_kernel_counts_while_it_runs_and_not_before():
    counters = software()
    try:
        busy()
        counters.start()
        nothing = counters.stop()["task_clock_ns"].value
        counters.start()
        busy()
        found = counters.stop()["task_clock_ns"]
    finally:
        counters.close()
    assert found.value > 10 * nothing and found.value > 1e6 and found.share == pytest.approx(1.0, abs=0.01)


def test_threads_that_are_there_and_those_that_start_later_are_followed():
    done, go = threading.Event(), threading.Event()

    def wait_and_work():
        go.wait(60)
        busy()
        done.set()

    before = threading.Thread(target=wait_and_work)
    before.start()
    counters = software()
    try:
        counters.start()
        alone = counters.stop()["task_clock_ns"].value
        counters.start()
        later = threading.Thread(target=busy)
        later.start()
        go.set()
        done.wait(60)
        later.join(60)
        found = counters.stop()["task_clock_ns"].value
    finally:
        go.set()
        before.join(60)
        counters.close()
    assert found > 10 * alone and found > 2e6


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.EACCES, "perf_event_paranoid"),
        (errno.EPERM, "--cap-add PERFMON"),
        (errno.ENOENT, "no hardware counters"),
        (errno.EOPNOTSUPP, "no hardware counters"),
        (errno.ENOSYS, "not implemented"),
    ],
)
def test_a_refusal_says_why_and_what_helps(code, words):
    assert words in perf_events._why(code)


def test_another_system_has_no_such_call(monkeypatch):
    monkeypatch.setattr(perf_events.platform, "machine", lambda: "riscv128")
    with pytest.raises(CountersUnavailable, match="riscv128"):
        perf_events.open_event(0, 0, 0)


def test_counters_that_took_turns_are_scaled_and_one_that_never_ran_is_no_zero(monkeypatch):
    answers = {1: struct.pack("=QQQ", 100, 10, 5), 2: struct.pack("=QQQ", 50, 10, 10), 3: struct.pack("=QQQ", 0, 10, 0)}
    monkeypatch.setattr(perf_events.os, "read", lambda descriptor, size: answers[descriptor])
    assert perf_events._total("cycles", [1, 2]) == perf_events.Count(250.0, 0.75)
    with pytest.raises(CountersUnavailable, match="never ran"):
        perf_events._total("cycles", [3])


def test_descriptors_are_given_back_when_one_event_is_refused(monkeypatch):
    closed = []

    def opened(kind, configuration, thread):
        if kind == 9:
            raise CountersUnavailable("no such event")
        return 77

    monkeypatch.setattr(perf_events, "open_event", opened)
    monkeypatch.setattr(perf_events.os, "close", closed.append)
    with pytest.raises(CountersUnavailable), counting({"good": (1, 1), "bad": (9, 9)}):
        pass
    assert set(closed) == {77}
