"""Bits promised, bytes stored, time arrived: one line a case, and no time where it is a simulation's."""

from reports.figures import bits
from tests.reports.figures.rows import rows, with_readings
from tests.reports.figures.specs import check
from tests.synthetic import record


def cases(execution):
    plain = with_readings(record(), size_bytes=4000, effective_bits=32, params=1000)
    made = [plain]
    for name, nominal, size, speedup in (("int8", 8, 1100, 1.5), ("ternary", 1.6, 4000, 0.5)):
        row = record(method=name, setting="bits=8")
        values = {"size_bytes": size, "nominal_bits": nominal, "params": 1000, "effective_bits": 8 * size / 1000}
        row = with_readings(row, **values, speedup=(speedup * 0.9, speedup, speedup * 1.1))
        made.append({**row, "labels": {"execution": execution, "kernel": None}})
    return rows(*made)


def test_a_line_goes_from_promise_over_bytes_to_time():
    figure = check(bits.figure(cases("real-int")))
    lines = {trace["name"]: trace["y"] for trace in figure.views[bits.RATIOS]["data"]}
    assert [y for name, y in lines.items() if "int8" in name] == [[4.0, 3.6364, 1.5]]
    assert [y for name, y in lines.items() if "ternary" in name] == [[20.0, 1.0, 0.5]]
    assert "ternary" in figure.title and "promises 20.0x, stores 1.00x; 0.500x of time arrives" in figure.title
    assert any("1 of 2 save less than half" in note for note in figure.notes)
    assert figure.table["total bits promised"].tolist() == [8000, 1600]


def test_a_simulation_has_no_time():
    figure = bits.figure(cases("simulated"))
    assert all(trace["y"][2] is None for trace in figure.views[bits.RATIOS]["data"])
    assert "no time is claimed" in figure.title and any("no speed is claimed" in note for note in figure.notes)


def test_without_declared_bits_there_is_no_picture():
    figure = bits.figure(rows(record(), record(method="tome")))
    assert figure.spec is None and "nominal bits" in figure.reason
