"""Exponents of growth: of power laws exactly, of what was measured at three sides or more."""

from types import SimpleNamespace

import pytest

from reports import growth


def test_the_exponent_of_a_power_law_is_its_power():
    sides = (64, 128, 256)
    assert growth.exponent(sides, [3 * side**2 for side in sides]) == pytest.approx(2)
    assert growth.exponent(sides, [0.1 * side**4 for side in sides]) == pytest.approx(4)
    # 1, 2, 8 at 1, 2, 4: slopes of log2 0, 1, 3 over 0, 1, 2 are 3 / 2 by least squares
    assert growth.exponent((1, 2, 4), (1, 2, 8)) == pytest.approx(1.5)


def curve(values, sides=(64, 128, 256)):
    rows = [SimpleNamespace(value=lambda metric, i=i: {name: own[i] for name, own in values.items()}.get(metric))
            for i in range(len(sides))]  # fmt: skip
    return SimpleNamespace(name="serpent", points=tuple(zip(map(float, sides), rows, strict=True)))


def test_what_is_missing_at_a_side_has_no_exponent(monkeypatch):
    whole = curve({"macs": [1.0, 4.0, 16.0], "latency_ms": [1.0, 8.0, 64.0], "peak_memory_bytes": [1.0, None, 4.0]})
    monkeypatch.setattr(growth, "curves", lambda rows, across: [whole, curve({"macs": [1.0, 4.0]}, (64, 128))])
    (found,) = growth.growths(SimpleNamespace(rows=[]))
    assert found.exponents == pytest.approx({"macs": 2.0, "latency_ms": 3.0})
    head, lines = growth.table([found])
    assert head[2:] == ["exponent of time", "exponent of peak memory", "exponent of products"]
    assert lines == [["serpent", "64, 128, 256", "3.00", "unavailable", "2.00"]]
