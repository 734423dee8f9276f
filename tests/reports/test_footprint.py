"""Electricity, carbon and cost: only from energy that is there, at stated rates, marked as what they are."""

import pytest

from bench.store.records import seal
from reports import footprint
from reports.footprint import Rates
from reports.rows import rows_of
from reports.site import build
from tests.reports.figures.rows import with_readings
from tests.store.test_arrival import stored
from tests.synthetic import record


def rows(*records):
    return rows_of(list(records), [])


def with_energy(made, joules, provenance="measured"):
    taken = with_readings(made, energy_j=(0.9 * joules, joules, 1.1 * joules))
    for item in taken["readings"]:
        if item["metric"] == "energy_j":
            item["provenance"] = provenance
    return taken


def test_a_million_samples_of_36_joules_are_ten_kilowatt_hours():
    listed = rows(with_energy(record(), 36.0))
    columns = footprint.add(listed, Rates(grams_per_kwh=380, price_per_kwh=0.3, currency="CHF"))
    assert [column.key for column in columns] == [f"{name}_per_million_samples" for name in ("kwh", "co2e", "cost")]
    cells = [listed[0].cells[column.key] for column in columns]
    assert [cell.value for cell in cells] == pytest.approx([10, 3800, 3])
    assert [cell.low for cell in cells] == pytest.approx([9, 3420, 2.7])
    assert [cell.provenance for cell in cells] == ["measured", "modelled", "modelled"]
    assert [column.unit for column in columns] == ["kWh", "g", "CHF"]
    assert "380 g of CO2e per kWh, as stated" in columns[1].definition


def test_an_estimate_stays_an_estimate():
    listed = rows(with_energy(record(), 36.0, "estimated"))
    columns = footprint.add(listed, Rates(380, 0.3))
    assert {listed[0].cells[column.key].provenance for column in columns} == {"estimated"}


def test_rates_that_are_not_stated_have_no_column():
    assert [c.key for c in footprint.add(rows(with_energy(record(), 1.0)), Rates())] == ["kwh_per_million_samples"]


def test_without_energy_there_is_no_footprint_and_beside_a_row_with_it_a_reason():
    assert footprint.add(rows(record()), Rates(380, 0.3)) == []
    lacking = record(method="tome", setting="r=13")
    kept = [item for item in lacking["readings"] if item["metric"] != "energy_j"]
    gap = {**kept[0], "metric": "energy_j", "value": None, "provenance": "unavailable", "ci_low": None,
           "ci_high": None, "method_note": "no counter can be read"}  # fmt: skip
    listed = rows(with_energy(record(), 36.0), {**lacking, "readings": [*kept, gap]})
    footprint.add(listed, Rates(380))
    cell = next(row for row in listed if row.case.method == "tome").cells["co2e_per_million_samples"]
    assert cell.value is None and "no counter can be read" in cell.note


def test_tokens_are_those_that_are_generated():
    made = with_energy(record(), 36.0)
    case = {**made["case"], "workload": "generate", "shape": "context=128, new_tokens=32", "resolution": None}
    listed = rows({**made, "case": case})
    if not listed:
        pytest.fail("the record of a generating case could not be read")
    footprint.add(listed, Rates())
    cells = listed[0].cells
    assert cells["kwh_per_million_tokens"].value == pytest.approx(cells["kwh_per_million_samples"].value / 32)


def test_the_site_shows_what_was_stated(tmp_path):
    records = [with_energy(record(), 36.0), with_energy(record(method="tome"), 18.0)]
    folder = stored(tmp_path / "results", [seal(made) for made in records])
    made = build(folder, tmp_path / "site", rates=Rates(380, 0.3, "CHF"), figure_seconds=None)
    assert not made.problems
    text = made.index.read_text() + (tmp_path / "site" / "methods.html").read_text()
    said = ("CO2e per million samples", "380 g of CO2e per kWh, as stated", "0.3 CHF per kWh")
    assert [words for words in said if words not in text] == []
    assert len(list((tmp_path / "site" / "cases").glob("*.html"))) == 2
