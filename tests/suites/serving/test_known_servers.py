"""Queues of known service: the check cases of the suite to the digit, and the instrument against them."""

import statistics

import pytest

from bench.workloads import open_loop, queueing, together
from suites.serving.known_server import DRAWN, known_server, spin
from tests.workloads.subjects import HandClock


def test_closed_forms_are_the_check_cases():
    assert 1e3 * queueing.md1_sojourn(50, 0.010) == pytest.approx(15.0)
    assert 1e3 * queueing.md1_sojourn(80, 0.010) == pytest.approx(30.0)
    assert 1e3 * queueing.mm1_quantile(50, 0.010, 0.99) == pytest.approx(92.1, abs=0.05)
    assert 1e3 * queueing.mm1_quantile(80, 0.010, 0.99) == pytest.approx(230.3, abs=0.05)
    assert 1e3 * queueing.mm2_sojourn(100, 0.010) == pytest.approx(13.33, abs=0.005)


@pytest.mark.parametrize("rho", [0.1, 0.5, 0.9])
def test_general_forms_hold_the_special_ones(rho):
    assert queueing.mg1_sojourn(rho, 1.0, 1.0) == pytest.approx(queueing.mm1_sojourn(rho, 1.0))
    assert queueing.mg1_sojourn(rho, 1.0, 0.0) == pytest.approx(queueing.md1_sojourn(rho, 1.0))
    assert queueing.mmc_sojourn(rho, 1.0, 1) == pytest.approx(queueing.mm1_sojourn(rho, 1.0))
    assert queueing.mmc_sojourn(2 * rho, 1.0, 2) == pytest.approx(queueing.mm2_sojourn(2 * rho, 1.0))


def test_a_known_server_tells_the_closed_form_of_its_queue():
    fixed, drawn = known_server(), known_server(law="exponential")
    assert fixed.expected_sojourn_ms(80, 1, "poisson") == pytest.approx(30)
    assert fixed.expected_sojourn_ms(90, 1, "fixed") == 10 and fixed.expected_sojourn_ms(90, 2, "poisson") is None
    mean = float(drawn.services.double().mean())
    assert drawn.expected_sojourn_ms(100, 2, "poisson") == pytest.approx(1e3 * queueing.mmc_sojourn(100, mean / 1e3, 2))
    assert drawn.expected_sojourn_ms(50, 1, "bursty") is None
    with pytest.raises(ValueError, match="below 1"):
        fixed.expected_sojourn_ms(110, 1, "poisson")


def test_service_times_are_drawn_as_the_law_says():
    drawn = known_server(law="exponential", ms=10.0).services.double()
    assert len(drawn) == DRAWN and float(drawn.mean()) == pytest.approx(10, rel=0.07)
    assert float(drawn.std() / drawn.mean()) == pytest.approx(1, rel=0.07)
    assert known_server(ms=3.0).services.tolist() == [3.0]


def test_a_spinning_stage_takes_its_time():
    import time

    import torch

    start = time.perf_counter()
    spin(torch.tensor(2.0))
    assert time.perf_counter() - start >= 0.002


def sojourns(module, rate, count, seed):
    clock = HandClock()
    return open_loop.run(
        lambda index: clock.pass_ms(float(module.example_request(index % module.requests))),
        rate,
        count=count,
        seed=seed,
        clock=clock,
        wait_until=lambda moment, clock: setattr(clock, "now", max(clock.now, moment)),
    )


@pytest.mark.parametrize(("law", "rate"), [("fixed", 50), ("fixed", 80), ("exponential", 50)])
def test_the_instrument_measures_the_queue_that_the_closed_form_says(law, rate):
    """Without a machine: the clock passes when the stage says so. Means over many runs, since one is correlated."""
    module = known_server(law=law)
    loops = [sojourns(module, rate, 2000, seed) for seed in range(30)]
    mean = statistics.fmean(statistics.fmean(loop.kept) for loop in loops)
    variation = 0.0 if law == "fixed" else float(module.services.double().std() / module.services.double().mean())
    service = 1e-3 * float(module.services.double().mean())
    assert mean == pytest.approx(queueing.mg1_sojourn(rate, service, variation), rel=0.08)
    for loop in loops[:3]:
        measured = statistics.fmean(end - due for due, end in zip(loop.scheduled, loop.finished, strict=True))
        assert open_loop.replayed_mean(loop) == pytest.approx(measured, rel=1e-6)  # Lindley
        number = queueing.mean_in_system(loop.scheduled, loop.finished)  # Little
        span = loop.finished[-1] - loop.scheduled[0]
        assert number == pytest.approx(len(loop.finished) / span * measured, rel=0.02)
        assert max(loop.lateness) == pytest.approx(0, abs=1e-6)


@pytest.mark.slow
def test_a_recorded_run_of_a_spinning_server_keeps_lindley_s_and_little_s_laws():
    module = known_server(ms=2.0)
    loop = open_loop.run(lambda index: spin(module.example_request(0)), 250, count=1000, seed=1)
    measured = statistics.fmean(end - due for due, end in zip(loop.scheduled, loop.finished, strict=True))
    assert open_loop.replayed_mean(loop) == pytest.approx(measured, rel=0.05)
    number = queueing.mean_in_system(loop.scheduled, loop.finished)
    assert number == pytest.approx(len(loop.finished) / (loop.finished[-1] - loop.scheduled[0]) * measured, rel=0.02)


def batched(rate, *, fixed, each, most, window, count=400):
    clock = HandClock()
    return together.run(
        together.Together(lambda index: index, lambda values: clock.pass_ms(fixed + each * len(values)), most, window),
        rate,
        count=count,
        seed=2,
        clock=clock,
        wait_until=lambda moment, clock: setattr(clock, "now", max(clock.now, moment)),
    )


def test_batches_answer_at_the_rate_of_their_closed_form_under_overload():
    loop = batched(5000, fixed=4.0, each=1.0, most=8, window=0.0, count=2000)
    assert queueing.batch_rate(8, 0.004, 0.001) == pytest.approx(8 / 0.012)
    assert loop.achieved_rate == pytest.approx(queueing.batch_rate(8, 0.004, 0.001), rel=0.02)
    assert together.mean_together(loop) == pytest.approx(8, rel=0.02)


def test_at_low_load_nobody_waits_for_longer_than_the_window():
    plain, patient = (batched(5, fixed=4.0, each=1.0, most=8, window=window, count=200) for window in (0.0, 0.020))
    medians = [statistics.median(loop.kept) for loop in (plain, patient)]
    assert medians[0] <= medians[1] <= medians[0] + 0.020 + 1e-9
    assert all(len(loop.finished) == 200 and None not in loop.finished for loop in (plain, patient))


def test_a_full_batch_does_not_wait_for_its_window():
    loop = batched(1e5, fixed=1.0, each=0.0, most=4, window=10.0, count=8)
    assert loop.finished[-1] < 0.01 and len(loop.spans) == 2
