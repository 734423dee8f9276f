"""Bytes by formula, saved and alive, each over its own other side; the time is one over the speed-up."""

from types import SimpleNamespace

from reports.promised_bytes import prices, table
from reports.rows import Cell


def row(name, values, speedup=None, *, base=False, execution="real", against=""):
    cells = {"speedup": Cell(speedup, 0.8 * speedup, 1.25 * speedup, 3, "measured")} if speedup else {}
    return SimpleNamespace(
        cells=cells, value=lambda metric, part="": values.get(metric), head_in_full=name, against=against, ranked=True,
        record={"labels": {"execution": execution}}, case=SimpleNamespace(is_baseline=base, model_label="net"),
    )  # fmt: skip


PLAIN = {"engine_peak_bytes": 1000.0, "promised_saved_bytes": 640.0, "saved_activation_bytes": 800.0,
         "peak_activation_bytes": 2000.0, "macs": 300.0}  # fmt: skip


def lines(*rows):
    plain = row("none", PLAIN, base=True)
    found = prices(SimpleNamespace(rows=[plain, *rows], baseline=lambda one: plain))
    return table(found)[1]


def test_each_convention_is_over_its_own_other_side():
    patched = {"engine_peak_bytes": 125.0, "peak_activation_bytes": 500.0, "macs": 330.0}
    step = {"promised_saved_bytes": 64.0, "saved_activation_bytes": 200.0, "peak_activation_bytes": 900.0, "macs": 400}
    one, two = lines(row("tiles", patched, 0.5), row("rebuilt", step, against="fp32"))
    assert one == [
        "net, tiles", "engine 0.125x (125 of 1,000 B)", "-", "0.250x (500 of 2,000 B)", "1.100x", "2.00x [1.60, 2.50]"
    ]  # fmt: skip
    assert two[:5] == [
        "net, rebuilt (against fp32)", "saved 0.100x (64 of 640 B)", "0.250x (200 of 800 B)", "0.450x (900 of 2,000 B)",
        "1.333x",
    ]  # fmt: skip
    assert two[5] == "unavailable (no speed-up was measured)"


def test_a_simulation_has_no_time_and_rows_without_bytes_are_left_out():
    (only,) = lines(row("half", {"saved_activation_bytes": 400.0}, 0.1, execution="simulated"), row("other", {}))
    assert only[0] == "net, half" and only[1] == "-" and only[5].startswith("unavailable (the execution is simulated")
