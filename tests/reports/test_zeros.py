"""The share of zeros that becomes time: by hand, and drawn with a line a kernel."""

from types import SimpleNamespace

from bench.analysis.shares import arrived_share
from reports.figures import zeros
from reports.rows import Cell
from reports.zeros import Line, lines, table


def row(kernel, nonzero, speedup, *, base=False, macs=100.0):
    values = {"macs": macs, "macs_nonzero": nonzero}
    cells = {"speedup": Cell(speedup, 0.95 * speedup, 1.05 * speedup, 3, "measured")} if speedup else {}
    return SimpleNamespace(
        record={"labels": {"kernel": kernel}}, ranked=True, cells=cells, value=lambda metric, part="": values[metric],
        case=SimpleNamespace(is_baseline=base, batch=1),
        side=SimpleNamespace(label="dense"), name=f"{kernel} {nonzero:g}",
    )  # fmt: skip


def site(*rows):
    dense = row("mask", 100.0, None, base=True)
    return SimpleNamespace(rows=[dense, *rows], baseline=lambda one: dense)


def test_shares_are_of_the_zeros_and_not_of_what_is_executed():
    found = lines(site(row("mask", 50.0, 1.0), row("mask", 10.0, 1.0), row("csr", 10.0, 2.0, macs=10.0)))
    (line,) = found
    assert (line.kernel, [round(point.sparsity, 2) for point in line.points]) == ("mask", [0.5, 0.9])
    assert [point.share.value for point in line.points] == [0.0, 0.0]


def test_a_slim_network_is_set_against_the_dense_one():
    (line,) = lines(site(row("slim", 999.0, 2.0, macs=50.0), row("slim", 999.0, 4.0, macs=25.0)))
    assert [point.share.value for point in line.points] == [1.0, 1.0]


def test_the_table_and_the_figure_name_the_best():
    gather = Line(
        "gather", "dense, batch 1", tuple(lines(site(row("csr", 50.0, 0.5), row("csr", 10.0, 2.0)))[0].points)
    )
    head, rows = table([gather])
    assert head == ["kernel", "of", "50 % zero", "90 % zero"]
    assert rows[0][2].startswith("-2.00")  # (1 - 2) / 0.5
    assert rows[0][3].startswith(f"{arrived_share(2.0, None, None, 10.0).value:.2f}")
    drawn = zeros.figure([gather])
    assert drawn.title == "At most 56 % of the zeros becomes time: gather at 90 % zero"
    (spec,) = drawn.views.values()
    assert [trace["name"] for trace in spec["data"]] == ["gather"]
    assert zeros.figure([]).title == "No share of zeros"
