"""Kinetics' model against a step: the closed form by hand, and only steps of machines that are known are compared."""

import pytest

from reports.kinetics import lines_of, main, markdown, predicted


def record(**changes):
    case = {
        "model": "byte_3m", "method": "none", "setting": "", "dtype": "fp32", "device": "cpu", "threads": 1, "batch": 4,
        "shape": "context=511, new_tokens=4",
    }  # fmt: skip
    machine = {
        "peaks": [{"dtype": "fp32", "device": "cpu", "threads": 1, "value": 1e11, "unit": "op/s"}],
        "bandwidth": {"device": "cpu", "threads": 1, "value": 1e10, "unit": "B/s"},
    }
    readings = [
        {"metric": "latency_ms", "part": "decode", "value": 5.0}, {"metric": "macs", "part": "decode", "value": 4e6},
        {"metric": "cache_bytes", "part": "request", "value": 2e7}, {"metric": "params", "value": 3e6},
    ]  # fmt: skip
    return {"case": case | changes, "machine": machine, "readings": readings}


def test_seconds_are_operations_over_the_peak_and_bytes_over_the_bandwidth():
    without, whole = predicted(16e6, 2e7, 12e6, peak_ops=1e11, bandwidth=1e10)
    assert without == pytest.approx(32e6 / 1e11 + 2e7 / 1e10)
    assert whole - without == pytest.approx(12e6 / 1e10)


def test_steps_of_known_machines_are_compared_in_order():
    found = lines_of([record(batch=16), record(), record(method="zipvl", setting="tau=0.9")])
    assert [(line.case, line.batch, line.context) for line in found] == [
        ("byte_3m", 4, 511), ("byte_3m", 16, 511), ("byte_3m, zipvl(tau=0.9)", 4, 511),
    ]  # fmt: skip
    assert found[0].measured == 0.005
    assert found[0].with_weights == pytest.approx(predicted(16e6, 2e7, 12e6, peak_ops=1e11, bandwidth=1e10)[1])
    text = markdown(found).splitlines()
    assert len(text) == 5 and text[2].startswith("| byte_3m | 4 | 511 |")


@pytest.mark.parametrize("gone", ["latency_ms", "macs", "cache_bytes", "params"])
def test_without_a_number_or_a_peak_there_is_no_line(gone):
    lacking, unknown = record(), record()
    lacking["readings"] = [r for r in lacking["readings"] if r["metric"] != gone]
    unknown["machine"]["peaks"] = []
    assert lines_of([lacking, unknown, record(dtype="int8")]) == []


def test_an_empty_folder_gives_the_head_alone(tmp_path, capsys):
    assert main([str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("\n") == 2
