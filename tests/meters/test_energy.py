"""Joules are those of the simulated device, whatever its counter does; and what is missing is never zero."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.meters import energy
from bench.meters.energy.alias import at_risk, largest_unseen
from bench.meters.energy.backend import CounterReset, DeadCounter, EnergyError
from bench.meters.energy.counter import Counter, CounterBackend, find_period
from bench.meters.energy.power import PowerBackend
from tests.meters.simulated import DutyCycle, Latched, World


def counter_backend(world, sensor, check=None):
    backend = CounterBackend(
        "simulated", "gpu_board", {"board": Counter(sensor.read, sensor.unit_j, sensor.span, world.clock)}
    )
    backend.check = check
    return backend


def run(world, backend, *, step_s=0.02, batch=1, **options):
    return energy.measure(lambda: world.step(step_s), batch, backend, clock=world.clock, sleep=world.sleep, **options)


def codes(result):
    return {flag["code"] for flag in result.flags}


# --- known joules --------------------------------------------------------------------------------------------------


def test_known_joules_come_out_gross_and_net():
    world = World(idle_w=30, load_w=lambda since: 100)
    found = run(world, counter_backend(world, Latched(world)), batch=4)
    # 20 ms at 100 W for four samples: 0.5 J each, 0.35 J of it above 30 W
    assert found.gross_j == pytest.approx([0.5] * 3, rel=0.01)
    assert found.net_j == pytest.approx([0.35] * 3, rel=0.015)
    assert found.idle_power_w == pytest.approx(30, rel=0.04)
    assert found.counter_period_s == pytest.approx(0.1, rel=0.05)
    gross, net = found.readings()
    assert (gross.metric, gross.unit, gross.provenance, gross.n) == ("energy_j", "J", "measured", 3)
    assert gross.ci_low <= gross.value <= gross.ci_high
    assert net.value == pytest.approx(0.35, rel=0.015)
    assert "gpu_board" in gross.method_note


@pytest.mark.parametrize("refresh_s", [0.001, 0.02, 0.1, 0.3])
def test_a_window_lasts_a_hundred_refreshes_and_ten_seconds(refresh_s):
    world = World()
    found = run(world, counter_backend(world, Latched(world, refresh_s)), windows=1)
    assert found.window_s == pytest.approx(max(10.0, 100 * refresh_s), rel=0.02)
    assert found.windows[0].seconds >= found.window_s
    assert found.gross_j == pytest.approx([2.0], rel=0.012)


def test_a_wrapping_counter_loses_nothing():
    world = World()
    found = run(world, counter_backend(world, Latched(world, 0.05, 1e-3, span=150_000)))  # wraps every 1.5 s
    assert found.gross_j == pytest.approx([2.0] * 3, rel=0.01)


def test_a_reset_loses_one_window_and_no_joule():
    world = World()
    sensor = Latched(world)
    when = [25.0]

    def tick(time, power):
        if when and time >= when[0]:
            when.pop()
            sensor.reset()

    world.listeners.append(tick)
    found = run(world, counter_backend(world, sensor))
    assert not when
    assert found.gross_j == pytest.approx([2.0] * 3, rel=0.01)


def test_a_counter_that_keeps_being_reset_is_given_up():
    world = World()
    sensor = Latched(world)
    world.listeners.append(lambda time, power: sensor.reset() if time > 8 and int(time * 1000) % 5000 == 0 else None)
    with pytest.raises(CounterReset, match="reset"):
        run(world, counter_backend(world, sensor))


def test_a_dead_counter_is_an_error_not_a_zero():
    world = World()
    sensor = Latched(world)
    sensor.dead = True
    with pytest.raises(DeadCounter, match="0 times"):
        run(world, counter_backend(world, sensor))


def test_a_counter_that_dies_under_load_is_an_error():
    world = World()
    sensor = Latched(world)
    world.listeners.append(lambda time, power: setattr(sensor, "dead", power > 50))
    with pytest.raises(EnergyError, match="under load"):
        run(world, counter_backend(world, sensor))


def test_a_load_that_draws_no_more_than_idle_has_no_net_energy():
    world = World(idle_w=100, load_w=lambda since: 99.0)
    _, net = run(world, counter_backend(world, Latched(world))).readings()
    assert net.value is None and "no more than idle" in net.method_note


def test_windows_do_not_all_start_in_step_with_the_sensor():
    def starts(seed):
        world, begun = World(), []
        backend = counter_backend(world, Latched(world))
        original = backend.mark

        def mark():
            begun.append(world.time % 0.1)
            return original()

        backend.mark = mark
        run(world, backend, seed=seed, step_s=0.01)
        return tuple(round(phase, 6) for phase in begun)

    assert starts(1) == starts(1) != starts(2)


# --- sensors that look from time to time ---------------------------------------------------------------------------


def bursts(since):
    return 200.0 if since < 0.05 else 20.0


def test_iterations_in_step_with_a_duty_cycle_sensor_are_flagged():
    world = World(load_w=bursts)
    backend = counter_backend(world, DutyCycle(world))
    backend.sampled = True
    found = run(world, backend, step_s=0.1, windows=2)
    assert any(abs(joules / 11.0 - 1) > 0.2 for joules in found.gross_j)  # 110 W on average: 11 J per step
    assert "energy_alias" in codes(found)


def test_iterations_out_of_step_are_right_and_not_flagged():
    world = World(load_w=bursts)
    backend = counter_backend(world, DutyCycle(world))
    backend.sampled = True
    found = run(world, backend, step_s=0.093, windows=2)
    truth = 0.05 * 200 + 0.043 * 20
    assert found.gross_j == pytest.approx([truth] * 2, rel=0.05)
    assert "energy_alias" not in codes(found)


def test_a_counter_that_adds_up_all_the_time_runs_no_such_risk():
    world = World(load_w=bursts)
    found = run(world, counter_backend(world, Latched(world)), step_s=0.1, windows=1)
    assert found.gross_j == pytest.approx([11.0], rel=0.012)
    assert "energy_alias" not in codes(found)


def test_the_unseen_part_of_an_iteration():
    assert largest_unseen(0.1, 0.1, 10) == pytest.approx(1.0)
    assert largest_unseen(0.05, 0.1, 10) == pytest.approx(1.0)
    assert largest_unseen(0.2, 0.1, 10) == pytest.approx(0.5)
    assert largest_unseen(0.1618034, 0.1, 10) < 0.03


def test_jitter_and_steady_power_take_the_risk_away():
    assert at_risk(0.1, 0.1, 10, 0.0, bursty=None)
    assert not at_risk(0.1, 0.1, 10, 0.1, bursty=None)
    assert not at_risk(0.1, 0.1, 10, 0.0, bursty=False)


def sampled_backend(world, factor=1.0):
    now = [0.0]
    world.listeners.append(lambda time, power: now.__setitem__(0, power * factor))
    backend = PowerBackend("power", "gpu_board", lambda: now[0], clock=world.clock, threaded=False, period_s=0.02)
    due = [0.02]

    def tick(time, power):
        if time >= due[0]:
            due[0] += 0.02
            backend.sample()

    world.listeners.append(tick)
    return backend


def test_sampled_power_is_integrated():
    world = World()
    backend = sampled_backend(world)  # an idle sensor that stands still is steady, not dead
    found = run(world, backend, windows=2)
    assert found.gross_j == pytest.approx([2.0] * 2, rel=0.005)
    assert found.net_j == pytest.approx([1.4] * 2, rel=0.01)


def test_counter_and_sampled_power_check_each_other():
    world = World()
    agreeing = run(world, counter_backend(world, Latched(world), sampled_backend(world)), windows=1)
    assert agreeing.cross_check == pytest.approx(1.0, rel=0.02)
    assert "energy_cross_check" not in codes(agreeing)
    world = World()
    lying = run(world, counter_backend(world, Latched(world), sampled_backend(world, factor=1.3)), windows=1)
    assert lying.cross_check == pytest.approx(1.3, rel=0.02)
    assert "energy_cross_check" in codes(lying)


def test_a_silent_power_sensor_loses_the_window():
    backend = PowerBackend("power", "wall", lambda: 5.0, threaded=False, period_s=0.02)
    backend._times, backend._values = [0.0, 0.02, 5.0, 10.0], [5.0] * 4
    with pytest.raises(EnergyError, match="silent"):
        backend.joules(0.0, 10.0)


def test_a_sampling_thread_runs_and_ends():
    import time

    backend = PowerBackend("power", "wall", lambda: 7.0, period_s=0.002)
    backend.start()
    begin = backend.mark()
    time.sleep(0.1)
    end = backend.mark()
    backend.stop()
    assert backend.joules(begin, end) == pytest.approx(7.0 * (end - begin))
    assert backend._thread is None


# --- what stands beside the number ---------------------------------------------------------------------------------


def test_a_device_that_becomes_shared_gives_no_number():
    world = World()
    backend = counter_backend(world, Latched(world))
    backend.shared_with = lambda: "2 other process(es) on the GPU"
    with pytest.raises(EnergyError, match="shared"):
        run(world, backend, windows=1)


def test_who_draws_from_the_meter_for_a_while_in_the_middle_gives_no_number_either():
    world = World()
    backend = counter_backend(world, Latched(world))
    backend.shared_with = lambda: "1 other process(es) on the GPU" if 8.0 < world.time < 11.0 else None
    with pytest.raises(EnergyError, match="shared: 1 other process"):
        run(world, backend, windows=1)
    assert world.time < 12.0  # it is not measured to the end


def test_asynchronous_steps_are_waited_for():
    world, waits = World(), []
    run(world, counter_backend(world, Latched(world)), windows=1, synchronise=lambda: waits.append(world.time))
    assert len(waits) > 100


def test_short_steps_are_launched_in_blocks():
    world = World()
    found = run(world, counter_backend(world, Latched(world)), step_s=0.001, windows=1)
    assert found.windows[0].step_s == pytest.approx(0.001)
    assert found.gross_j == pytest.approx([0.1], rel=0.012)


def test_the_result_is_plain_json_and_names_its_scope():
    world = World()
    data = run(world, counter_backend(world, Latched(world)), windows=1).as_dict()
    json.dumps(data, allow_nan=False)
    assert (data["scope"], data["available"]) == ("gpu_board", True)


def test_idle_power_has_a_range():
    world = World(idle_w=12.0)
    found = energy.idle_power(counter_backend(world, Latched(world)), 9.0, clock=world.clock, sleep=world.sleep)
    assert found["low"] <= found["value"] <= found["high"]
    assert found["value"] == pytest.approx(12.0, rel=0.04)
    assert (found["unit"], found["n"], found["scope"]) == ("W", 3, "gpu_board")


def test_a_missing_meter_is_unavailable_with_its_reason_and_never_zero():
    gone = energy.Unavailable("no RAPL counters", "use bare metal")
    assert {row.metric for row in gone.readings()} == {"energy_j", "energy_net_j"}
    assert all(row.value is None and "bare metal" in row.method_note for row in gone.readings())
    assert gone.as_dict() == {"available": False, "reason": "no RAPL counters", "remedy": "use bare metal"}


# --- counters ------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 999), max_size=60), st.integers(0, 999))
def test_a_wrapping_count_adds_up_to_the_truth(steps, start):
    shown = [start]
    counter = Counter(lambda: shown[0], 0.5, 1000.0, clock=lambda: 0.0)
    assert counter.total_j() == 0.0
    for step in steps:
        shown[0] = (shown[0] + step) % 1000
        counter.total_j()
    assert counter.total_j() == 0.5 * sum(steps)


def test_a_fall_that_no_wrap_explains_is_a_reset():
    shown = [500_000_000]
    counter = Counter(lambda: shown[0], 1e-6, 262_143_328_850.0, clock=lambda: 0.0)
    counter.total_j()
    shown[0] = 10
    with pytest.raises(CounterReset):
        counter.total_j()
    shown[0] = 1_000_010
    counter.total_j()  # goes on from where it is now
    shown[0] = 3_000_010
    assert counter.total_j() == pytest.approx(2.0)


def test_the_period_is_that_of_the_refresh():
    world = World()
    sensor = Latched(world, refresh_s=0.07)
    assert find_period(sensor.read, world.clock, world.sleep) == pytest.approx(0.07, rel=0.03)
