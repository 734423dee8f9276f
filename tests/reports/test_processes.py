"""The table of timed processes: a GPU's two clocks and its board's side by side, and no empty columns on a CPU."""

from reports.pages.case import process_table
from tests import synthetic


def test_cpu_rows_have_no_columns_of_a_gpu():
    found = process_table(synthetic.record())
    assert "Median (ms)" in found["head"] and not any("device" in title or "clock" in title for title in found["head"])
    assert all(len(row) == len(found["head"]) for row in found["rows"]) and found["rows"]
    assert [row[0] for row in found["rows"]] == ["1", "2", "3"]  # as the figures number them


def test_host_time_device_time_and_clocks_stand_side_by_side():
    record = synthetic.record()
    for place, run in enumerate(record["timing"]["invocations"]):
        spread = {"median": 1755, "low": 1200, "high": 1980}
        run |= {"median_ms": 2.5, "device_median_ms": 2.25, "gpu": {"n": 9, "sm_mhz": spread, "power_w": None}}
        run["labels"] = ["GPU throttled"] if place == 0 else []
    found = process_table(record)
    row = dict(zip(found["head"], found["rows"][0], strict=True))
    assert (row["Median (ms)"], row["Median by device events (ms)"]) == ("2.500", "2.250")
    assert row["SM clock (MHz)"] == "1755" and row["Labels"] == "GPU throttled"
    assert row["Power (W)"] == row["Temperature (°C)"] != "0"
    assert len(found["numbers"]) == len(found["head"]) - 3
