"""A simulated row stands in a group of its own, says so, and claims neither speed nor an arrived share."""

import pytest

from reports.site import build, load
from tests.synthetic import record, store


def rows():
    plain = record(latency_ms=100.0, baseline_ms=100.0, macs=4e9)
    common = {"method": "tome", "macs": 2e9, "baseline_ms": 100.0}
    real = record(setting="r=8", latency_ms=80.0, **common)
    masked = record(setting="r=13", latency_ms=50.0, **common)
    return [plain, real, {**masked, "labels": {"execution": "simulated", "kernel": "mask"}}]


def test_simulated_and_real_rows_are_of_two_groups_and_the_page_says_which(tmp_path):
    store(tmp_path / "results", rows(), with_samples=False)
    site = load([tmp_path / "results"])
    by_setting = {row.case.setting: row for row in site.rows}
    assert by_setting[""].group == by_setting["r=8"].group != by_setting["r=13"].group
    shown = by_setting["r=8"].cells["arrived_share"]
    # speed-up 1.25 over half of the products: 0.2 of the time for 0.5 of the work
    assert shown.value == pytest.approx(0.4) and shown.low < 0.4 < shown.high
    for name in ("arrived_share", "realised_gain"):
        hidden = by_setting["r=13"].cells[name]
        assert hidden.value is None and "cost of the simulation" in hidden.note
    assert "speedup" not in by_setting["r=13"].rank or by_setting["r=13"].rank["speedup"] == (1, 1)


def test_the_pages_are_made_and_name_the_simulation(tmp_path):
    store(tmp_path / "results", rows(), with_samples=False)
    build(tmp_path / "results", tmp_path / "site")
    text = (tmp_path / "site" / "suites" / "vit_tokens.rows.js").read_text()
    assert "simulated: claims no speed" in text and "Arrived share" in text
