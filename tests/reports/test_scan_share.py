"""The scan's share of the time: by hand, beside its share of the products, and only of the control that has no scan."""

from types import SimpleNamespace

from reports.figures import scan_share
from reports.rows import Cell
from reports.scan_share import scan_shares, table


def row(name, states, macs, speedup=None, *, base=False):
    values = {"macs_scan": states, "macs": macs}
    cells = {"speedup": Cell(speedup, 0.8 * speedup, 1.25 * speedup, 3, "measured")} if speedup else {}
    shape = {"batch": 1, "resolution": 64, "steps": None}
    return SimpleNamespace(
        cells=cells, value=lambda metric, part="": values[metric], name=name,
        case=SimpleNamespace(is_baseline=base, full_shape=shape), side=SimpleNamespace(label="whole"),
    )  # fmt: skip


def site(*rows, states=20.0):
    whole = row("whole", states, 100.0, base=True)
    return SimpleNamespace(rows=[whole, *rows], baseline=lambda one: whole)


def test_the_share_is_what_the_control_saves_of_the_whole_networks_time():
    (found,) = scan_shares(site(row("control", 0.0, 80.0, 4.0)))
    assert (found.time, found.products) == (0.75, 0.2)
    assert (round(found.low, 4), found.high) == (round(1 - 1 / 3.2, 4), 0.8)
    assert found.name == "whole, batch 1, resolution 64"


def test_networks_with_scans_or_without_any_are_no_controls():
    assert scan_shares(site(row("chunks", 20.0, 100.0, 2.0), row("convolutions", None, 90.0, 2.0))) == []
    assert scan_shares(site(row("control", 0.0, 80.0, 4.0), states=None)) == []
    assert scan_shares(site(row("untimed", 0.0, 80.0))) == []


def test_the_largest_share_stands_first_in_table_and_figure():
    found = scan_shares(site(row("a", 0.0, 80.0, 2.0), row("b", 0.0, 80.0, 4.0)))
    head, rows = table(found)
    assert head[-1] == "scan's share of the time" and [line[-1] for line in rows] == ["75 % [69, 80]", "50 % [38, 60]"]
    drawn = scan_share.figure(found)
    assert drawn.title == "Scans are 50% to 75% of the time and 20.0% to 20.0% of the products"
    (spec,) = drawn.views.values()
    assert [trace["x"] for trace in spec["data"]] == [[0.2, 0.2], [0.75, 0.5]]
    assert scan_share.figure([]).title == "No share of scans"
