import pytest

from reports.figures import layer_savings
from tests.reports.figures.specs import check
from tests.synthetic import record


def row(path, macs, time_ms, tokens=None):
    return {"index": 0, "name": path, "module_path": path, "macs": macs, "time_ms": time_ms, "tokens": tokens}


BASE = [row("embed.proj", 10e6, 1.0, 197), row("blocks.0.fc", 40e6, 4.0, 197), row("blocks.1.fc", 50e6, 5.0, 197)]
CASE = [
    row("embed.proj", 10e6, 1.0, 197),
    row("blocks.0.fc", 40e6, 4.0, 197),
    row("blocks.0.merge", 0.0, 1.0, 98),
    row("blocks.1.fc", 25e6, 3.0, 98),
]


def pair(case=CASE, base=BASE):
    return {**record(method="tome", setting="r=99"), "layers": case}, {**record(), "layers": base}


def test_savings_are_shares_of_the_baselines_total():
    figure = check(layer_savings.figure(*pair()))
    assert list(figure.table["block"]) == ["embed", "blocks.0", "blocks.1"]
    assert list(figure.table["MACs saved (% of total)"]) == [0, 0, 25]
    assert list(figure.table["time saved (% of total)"]) == pytest.approx([0, -10, 20])


def test_title_compares_promise_and_time():
    assert layer_savings.figure(*pair()).title == "tome(r=99) saves 25 % of the MACs and 10 % of the layers' time"
    slower = [CASE[0], row("blocks.0.fc", 40e6, 8.0, 197), *CASE[2:]]
    assert layer_savings.figure(*pair(slower)).title == (
        "tome(r=99) saves 25 % of the MACs and costs 30 % more time in the layers"
    )


def test_tokens_are_those_that_leave_the_block():
    figure = layer_savings.figure(*pair())
    assert list(figure.table["tokens"]) == [197, 98, 98]
    lines = {trace["name"]: trace["y"] for trace in figure.spec["data"] if trace.get("yaxis") == "y2"}
    assert lines == {"tokens, baseline": [197, 197, 197], "tokens, this case": [197, 98, 98]}


def test_blocks_that_keep_their_time_are_named():
    slow = [CASE[0], CASE[1], CASE[2], row("blocks.1.fc", 25e6, 5.5, 98)]
    assert layer_savings.figure(*pair(slow)).notes == ("MACs fall and time does not in: blocks.1",)


def test_a_block_that_only_the_method_has_costs():
    figure = check(layer_savings.figure(*pair([*CASE, row("merger", 5e6, 0.5, 98)])))
    assert figure.table["MACs saved (% of total)"][3] == pytest.approx(-5)


def test_layers_without_times_still_show_macs():
    bare = [{**each, "time_ms": None} for each in CASE]
    figure = check(layer_savings.figure(*pair(bare)))
    assert "no time was measured per layer" in figure.title
    assert figure.table["time saved (% of total)"][0] is None


def test_of_layers_without_tokens_there_is_one_panel_and_no_word_of_them():
    case, base = ([{**each, "tokens": None} for each in rows] for rows in (CASE, BASE))
    figure = check(layer_savings.figure(*pair(case, base)))
    assert "yaxis2" not in figure.spec["layout"] and "token" not in figure.how_to_read
    assert not any(
        "token" in text for text in (*figure.notes, *figure.table.columns, *figure.spec["data"][0]["hovertext"])
    )


def test_a_missing_baseline_or_layer_table_is_a_reason():
    case, base = pair()
    assert "baseline is not among" in check(layer_savings.figure(case, None)).reason
    assert "its baseline has no layer table" in check(layer_savings.figure(case, {**base, "layers": []})).reason
