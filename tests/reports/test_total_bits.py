"""Quality against total bits: families, their laws and the best format at a budget, by hand."""

from types import SimpleNamespace

import pytest

from bench.bits_law import fitted
from reports import total_bits
from reports.figures import total_bits as figure
from tests.reports.figures.specs import check


def row(method, params, bits, loss, *, workload="generate", metric="bits_per_byte", status="ok", plain=False):
    values = {"params": params, metric: loss, "effective_bits": 32.0, "nominal_bits": None if plain else bits}
    case = SimpleNamespace(workload=workload, task="text_bytes", method_label=method, is_baseline=plain)
    cells = {name: SimpleNamespace(value=value) for name, value in values.items()}
    return SimpleNamespace(status=status, value=values.get, cells=cells, record={}, case=case)


def site(*more):
    """Four bits lie on 1 + 40 B^-0.4, eight on 0.9 + 60 B^-0.4: they cross where 20 B^-0.4 = 0.1, B = 200^2.5."""
    sizes = [2e4, 1e5, 5e5, 2e6]
    four = [row("q(bits=4)", n, 4, 1 + 40 * (4 * n) ** -0.4) for n in sizes]
    eight = [row("q(bits=8)", n, 8, 0.9 + 60 * (8 * n) ** -0.4) for n in sizes]
    return SimpleNamespace(rows=[*four, *eight, *more])


def test_laws_of_a_family_are_found_and_the_best_format_changes_where_they_cross():
    (family,) = total_bits.families(site(row("q(bits=2)", 1e5, 2, 3.0), row("q(bits=4)", 9e9, 4, 9.0, status="failed")))
    four, eight = family.lines
    assert (four.name, len(four.points), four.points[0][0]) == ("q(bits=4)", 4, 8e4)  # two bits have one size
    assert four.law.floor == pytest.approx(1, abs=1e-3) and eight.law.power == pytest.approx(0.4, abs=1e-3)
    crossing = 200**2.5
    found = family.best()
    assert len(found) == 4 and found[0][0] == pytest.approx(1.6e5) and found[-1][0] == pytest.approx(8e6)
    assert all(name == ("q(bits=4)" if budget < crossing else "q(bits=8)") for budget, name, _ in found)
    assert {name for _, name, _ in found} == {"q(bits=4)", "q(bits=8)"} and all(share == 1 for *_, share in found)


def test_a_busy_machine_changes_no_score():
    busy = [row("q(bits=3)", n, 3, 2 + 40 * (3 * n) ** -0.4, status="contaminated") for n in (2e4, 1e5, 5e5)]
    assert [found.name for found in total_bits.families(site(*busy))[0].lines] == [
        "q(bits=4)",
        "q(bits=8)",
        "q(bits=3)",
    ]


def test_a_plain_network_counts_the_bits_that_it_stores():
    assert total_bits.total_bits(row("none", 10, None, 1.0, plain=True)) == 320
    assert total_bits.total_bits(row("q(bits=4)", 10, 4, 1.0)) == 40


def test_the_figure_draws_a_law_through_marks_and_a_higher_score_has_none():
    found = total_bits.families(site())
    drawn = check(figure.figure(found))
    (spec,) = drawn.views.values()
    assert [trace["mode"] for trace in spec["data"]] == ["lines", "markers"] * 2
    assert drawn.title == "q(bits=8) is best at 3 of 4 budgets of total bits"
    head, rows = total_bits.budgets(found)
    assert len(rows) == 4 and rows[0][2:] == ["q(bits=4)", "100 %"] and len(head) == 4
    higher = [row(f"q(bits={b})", n, b, n / 10, metric="accuracy") for n in (1, 2, 3) for b in (4, 8)]
    (family,) = total_bits.families(SimpleNamespace(rows=higher))
    assert family.best() == [] and [line.law for line in family.lines] == [None, None]
    (spec,) = figure.figure([family]).views.values()
    assert [trace["mode"] for trace in spec["data"]] == ["markers"] * 2


def test_two_sizes_are_no_family():
    few = SimpleNamespace(rows=[row(f"q(bits={b})", n, b, 1.0) for n in (1, 2) for b in (4, 8)])
    assert total_bits.families(few) == [] and figure.figure([]).spec is None


def test_methods_without_bits_of_their_own_are_no_formats():
    sizes = [2e4, 1e5, 5e5]
    plain = [row("none", n, None, 9.0 - n / 1e6, plain=True) for n in sizes]
    shorter = [row("fewer_steps(steps=4)", n, None, 9.5 - n / 1e6) for n in sizes]
    assert total_bits.families(SimpleNamespace(rows=[*plain, *shorter])) == []


def test_a_floor_is_never_below_zero_and_what_the_sizes_do_not_say_is_left_out():
    """Halved by every doubling, 8 to 1, is a power of 1 without a floor; a steeper end would ask for a negative one."""
    exact = fitted([1, 2, 4, 8], [8.0, 4.0, 2.0, 1.0])
    assert exact.floor == pytest.approx(0, abs=1e-3) and exact.power == pytest.approx(1, abs=1e-3)
    steeper = fitted([1, 2, 4, 8], [8.0, 7.0, 5.0, 0.5])
    assert steeper.floor == 0 and steeper.is_determined
    flat = fitted([1, 2, 4, 8], [6.0, 7.0, 7.0, 8.0])
    assert not flat.is_determined  # it rises
    rising = [row("q(bits=2)", n, 2, loss) for n, loss in ((2e4, 6.0), (1e5, 7.0), (5e5, 7.0), (2e6, 8.0))]
    head, rows = total_bits.table(total_bits.families(site(*rising)))
    laws = {line[1]: line[head.index("floor a") :] for line in rows}
    assert laws["q(bits=2)"] == ["-", "-"] and laws["q(bits=8)"][1] == "0.4"
