"""Products and states are told apart, and what papers print follows from them by the papers' own ways of counting."""

from dataclasses import replace

import pytest
import torch

from bench import conventions
from bench.meters import layers, macs, scan_counts
from suites.ssm.efficient_vmamba import efficient_vmamba
from suites.ssm.mobile_mamba import mobile_mamba
from suites.ssm.netmamba import netmamba, netmamba_transformer


def as_counted(build, **settings):
    """Readings of a network at its own resolution, on the meta device, and what conventions take of them."""
    with torch.device("meta"):
        module = build(**settings)
    side = module.resolution
    given = (torch.empty(1, 3, side, side, device="meta"),)
    counted = macs.count(module, given, {}, second_count=False)
    rows = [*macs.readings(counted, 1), *scan_counts.readings(counted, module, 1)]
    readings = {row.metric: row.value for row in rows if row.value is not None}
    table = layers.table(module, given, {}, repeats=0, counted=counted)
    return conventions.Counts(readings, tuple(table.rows), 1)


def in_convention(name, counts):
    return conventions.CONVENTIONS[name][1](counts)


LARGER = {"T4": 412.3, "S6": 652.1, "B1": 1079.5, "B2": 2426.4, "B4": 4312.2}


@pytest.mark.parametrize(
    ("size", "millions"),
    [("T2", 254.6), *(pytest.param(size, value, marks=pytest.mark.slow) for size, value in LARGER.items())],
)
def test_mobile_mamba_is_what_its_table_prints_with_norms_and_without_scans(size, millions):
    counts = as_counted(mobile_mamba, size=size)
    assert round(in_convention("without_scans", counts) / 1e6, 1) == millions


def test_efficient_vmamba_is_what_its_log_prints_with_nine_for_each_state():
    counts = as_counted(efficient_vmamba, size="S")
    states = counts.value("macs_scan")
    assert counts.value("macs") == counts.value("macs_products") + states
    assert in_convention("vmamba", counts) - in_convention("without_scans", counts) == 9 * states + states / 16
    assert round(in_convention("vmamba", counts) / 1e9, 4) == 1.3415
    # two blocks of D = 128 on maps of 56 and of 256 on maps of 28, four scans of a quarter of each
    assert counts.value("moved_bytes") == 16 * 4 * 2 * (128 * 28 * 28 + 256 * 14 * 14)


def test_products_of_a_backward_are_not_told_apart():
    module = netmamba(bytes=16, width=8, depth=1, state=2)
    forward = macs.count(module, module.example_inputs(1), {}, second_count=False)
    backward = replace(forward, records=[*forward.records, replace(forward.records[0], phase="backward", macs=7)])
    assert all(row.value is not None for row in scan_counts.readings(forward, module, 1))
    assert all(row.value is None for row in scan_counts.readings(backward, module, 1))


def test_a_network_without_scans_has_no_such_rows_and_a_fused_scan_no_such_values():
    module = netmamba_transformer(bytes=16, width=8, heads=2, depth=1)
    counted = macs.count(module, module.example_inputs(1), {}, second_count=False)
    assert scan_counts.readings(counted, module, 1) == []
    hidden = torch.nn.Linear(2, 2)
    hidden.counts_as, hidden.kernel = "macs_scan", "runtime"
    counted = macs.count(hidden, (torch.randn(1, 2),), {}, second_count=False)
    told = scan_counts.readings(counted, hidden, 1)
    assert [row.metric for row in told] == ["macs_products", "macs_scan", "scan_outputs"] and all(
        row.value is None for row in told
    )
