"""The share of zeros that becomes time: by hand, and drawn with a line a kernel."""

from types import SimpleNamespace

from bench.analysis.shares import arrived_share
from reports.figures import zeros
from reports.rows import Cell
from reports.zeros import Line, lines, table


def row(kernel, nonzero, speedup, *, base=False, macs=100.0, method="none", setting="", model_settings=""):
    values = {"macs": macs, "macs_nonzero": nonzero}
    cells = {"speedup": Cell(speedup, 0.95 * speedup, 1.05 * speedup, 3, "measured")} if speedup else {}
    return SimpleNamespace(
        record={"labels": {"kernel": kernel}}, ranked=True, cells=cells, value=lambda metric, part="": values[metric],
        case=SimpleNamespace(
            is_baseline=base, batch=1, method=method, setting=setting, model_settings=model_settings
        ),
        side=SimpleNamespace(label="dense"), name=f"{kernel} {nonzero:g}", machine_key="m",
    )  # fmt: skip


def site(*rows):
    dense = row("mask", 100.0, None, base=True)
    return SimpleNamespace(rows=[dense, *rows], baseline=lambda one: dense)


def test_shares_are_of_the_zeros_and_not_of_what_is_executed():
    found = lines(site(row("mask", 50.0, 1.0), row("mask", 10.0, 1.0), row("csr", 10.0, 2.0, macs=10.0)))
    line, alone = found
    assert (line.kernel, [round(point.sparsity, 2) for point in line.points]) == ("mask", [0.5, 0.9])
    assert [point.share.value for point in line.points] == [0.0, 0.0]
    assert line.is_course and not alone.is_course


def test_a_slim_network_is_set_against_the_dense_one():
    (line,) = lines(site(row("slim", 999.0, 2.0, macs=50.0), row("slim", 999.0, 4.0, macs=25.0)))
    assert [point.share.value for point in line.points] == [1.0, 1.0]


def test_a_line_is_of_rows_that_differ_in_how_much_goes_and_in_nothing_else():
    """Blocks of another shape are another line; shares and kept widths are amounts."""
    found = lines(site(
        row("gather", 50.0, 1.0, model_settings="kernel='gather', sparsity=0.5, structure='block'"),
        row("gather", 25.0, 1.0, model_settings="kernel='gather', sparsity=0.75, structure='block'"),
        row("gather", 20.0, 1.0, model_settings="block=[16, 1], kernel='gather', sparsity=0.8, structure='block'"),
        row("slim", 0.0, 2.0, macs=40.0, method="optin", setting="ffn=[8, 8], heads=[1, 1]"),
        row("slim", 0.0, 2.0, macs=20.0, method="optin", setting="ffn=[4, 4], heads=[1, 0]"),
        row("mask", 50.0, 1.0, method="nm", setting="m=4, n=2"),
    ))  # fmt: skip
    assert [(line.name, len(line.points)) for line in found] == [
        ("gather: structure='block'", 2), ("gather: block=[16, 1], structure='block'", 1), ("slim: optin", 2),
        ("mask: nm(m=4, n=2)", 1),
    ]  # fmt: skip


def test_the_table_and_the_figure_name_the_best():
    gather = Line(
        "gather", "dense, batch 1", tuple(lines(site(row("csr", 50.0, 0.5), row("csr", 12.0, 2.0)))[0].points)
    )
    head, rows = table([gather])
    assert head == ["of", "kernel", "about 50 % zero", "about 90 % zero"]
    assert rows[0][2].startswith("-2.00 [") and rows[0][2].endswith("at 50 %")  # (1 - 2) / 0.5
    assert rows[0][3].startswith(f"{arrived_share(2.0, None, None, 100 / 12).value:.2f} [")
    assert rows[0][3].endswith("at 88 %")
    drawn = zeros.figure([gather])
    assert drawn.title == "At most 57 % of the zeros becomes time: gather at 88 % zero"
    (spec,) = drawn.views.values()
    assert [trace["name"] for trace in spec["data"]] == ["gather"]
    assert zeros.figure([]).title == "No share of zeros"
