"""Kinetics' model against a step: the closed form by hand, and only plain steps of machines that are known are compared."""

import pytest

from suites.common.decoder_shapes import shape_of
from suites.decode.kinetics_check import lines_of, markdown, predicted, step_cost


def record(**changes):
    case = {
        "model": "byte_3m", "method": "none", "workload": "generate", "dtype": "fp32", "device": "cpu", "threads": 1,
        "batch": 4, "shape": "context=511, new_tokens=4",
    }  # fmt: skip
    machine = {
        "peaks": [{"dtype": "fp32", "device": "cpu", "threads": 1, "value": 1e11, "unit": "op/s"}],
        "bandwidth": {"device": "cpu", "threads": 1, "value": 1e10, "unit": "B/s"},
    }
    readings = [{"metric": "latency_ms", "part": "decode", "value": 5.0}]
    return {"case": case | changes, "machine": machine, "readings": readings}


def test_a_step_is_arithmetic_and_traffic_counted_by_hand():
    cost = step_cost(shape_of("byte_3m"), batch=4, keys=512, intensity=40.0)
    linear = 6 * (4 * 192**2 + 3 * 192 * 512) + 192 * 256
    assert cost.compute == 4 * 2 * (linear + 6 * 2 * 192 * 512)
    assert cost.memory == 40 * 4 * 512 * 6 * 2 * 192


def test_seconds_are_operations_over_the_peak_and_bytes_over_the_bandwidth():
    without, whole = predicted(shape_of("byte_3m"), 4, 512, peak_ops=1e11, bandwidth=1e10, number=4)
    cost = step_cost(shape_of("byte_3m"), 4, 512, 0.0)
    assert without == pytest.approx(cost.compute / 1e11 + 4 * 512 * 9216 / 1e10)
    assert whole - without == pytest.approx(2_755_008 * 4 / 1e10)


def test_plain_steps_on_known_machines_are_compared_in_order():
    found = lines_of(
        [record(batch=16), record(), record(method="zipvl"), record(model="vit_small"), record(dtype="int8")]
    )
    assert [(line.model, line.batch, line.keys) for line in found] == [("byte_3m", 4, 512), ("byte_3m", 16, 512)]
    assert found[0].measured == 0.005
    text = markdown(found)
    assert text.splitlines()[2].startswith("| byte_3m | 4 | 512 |") and len(text.splitlines()) == 4


def test_without_a_peak_or_a_time_there_is_no_line():
    unknown, untimed = record(), record()
    unknown["machine"]["peaks"] = []
    untimed["readings"] = []
    assert lines_of([unknown, untimed]) == []
