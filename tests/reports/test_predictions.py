"""Predictors beside each other: the smallest error first, the ceiling beside it, one view a predictor."""

from types import SimpleNamespace

from reports.figures import predictions
from reports.predictions import predictors, table
from reports.rows import Cell

NUMBERS = {"mape": 4.0, "noise_mape": 1.5, "spearman": 0.98, "top1_regret": 1.02, "predict_us": 12.0}


def row(name, error, split="a", workload="prediction", status="ok", machine="measured", flag="", **asked):
    numbers = {**NUMBERS, "mape": error}
    cells = {key: Cell(value, 0.9 * value, 1.1 * value, 9, "measured") for key, value in numbers.items() if value}
    curve = {"metric": "predicted_ms", "part": "fbnet", "at": [10.0, 20.0], "values": [11.0, 19.0]}
    record = {
        "workload": {
            "machine": machine, "form": "plain", "family": "fbnet", "split": split, "target": "latency_ms", **asked,
        },
        "curves": [curve, {**curve, "metric": "spearman"}],
        "flags": [{"code": flag}] if flag else [],
    }  # fmt: skip
    return SimpleNamespace(
        cells=cells, value=numbers.get, status=status, record=record,
        case=SimpleNamespace(workload=workload, model_label=name),
    )  # fmt: skip


def site(*rows):
    return SimpleNamespace(rows=list(rows))


def test_rows_that_predict_and_were_judged_stand_by_what_they_were_asked():
    found = predictors(site(
        row("lut_sum", 4.0), row("cost_macs", 9.0, status="contaminated"), row("lut_trees", 2.0, split="c"),
        row("failed", 1.0, status="crashed"),
        row("of noise", 1.0, flag="disturbed_rows"), row("cohort", 1.0, workload="operator"), row("ranks", None),
    ))  # fmt: skip
    assert [one.name for one in found] == ["lut_sum", "cost_macs", "ranks", "lut_trees"]
    head, lines = table(found)
    assert len(head) == len(lines[0]) and lines[0][:4] == ["lut_sum", "fbnet, split a", "2", "4.00 % [3.60, 4.40]"]
    assert lines[0][head.index("R2")] == "n/a" and lines[0][-1] == "12.0"


def test_the_figure_says_the_finding_and_has_a_view_for_each():
    found = predictors(site(row("lut_sum", 4.0), row("lut_trees", 30.0, split="c")))
    drawn = predictions.figure(found)
    assert drawn.title == (
        "On unseen networks of a family lut_sum errs by 4.0 %, measuring again 1.5 %; "
        "on unseen families lut_trees errs by 30 %, measuring again 1.5 %"
    )
    assert list(drawn.views) == [predictions.ERRORS, "lut_sum (fbnet, split a)", "lut_trees (fbnet, split c)"]
    errors = drawn.views[predictions.ERRORS]["data"]
    assert [trace["name"] for trace in errors] == ["predictor", "measuring again"] and errors[1]["x"] == [1.5, 1.5]
    marks, *lines = drawn.views["lut_sum (fbnet, split a)"]["data"]
    assert marks["x"] == [10.0, 20.0] and marks["y"] == [11.0, 19.0]
    assert [line["line"]["dash"] for line in lines] == ["solid", "dot", "dot"]
    assert lines[1]["y"][0] == 10.15
    assert all(
        len(drawn.hover) > item[1]
        for view in drawn.views.values()
        for t in view["data"]
        for item in t.get("customdata", [])
    )


def test_a_simulated_machine_is_no_finding_and_nothing_is_no_picture():
    drawn = predictions.figure(predictors(site(row("lut_sum", 4.0, machine="additive"))))
    assert drawn.title == "1 predictors of time"
    assert predictions.figure([]).reason
