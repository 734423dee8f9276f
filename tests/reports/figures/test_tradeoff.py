import pytest

from reports.figures import tradeoff
from reports.figures.tradeoff import ALL
from tests.reports.figures.rows import rows
from tests.reports.figures.specs import check
from tests.synthetic import record, suite_records


def sweep(*settings, method="tome"):
    """A baseline and a case per setting with MACs and latency that fall by a tenth and accuracy by 2 at each step."""
    made = [record(accuracy=90.0)]
    for step, setting in enumerate(settings, start=1):
        share = 1 - step / 10
        made.append(
            record(
                method=method,
                setting=setting,
                macs=1.25e9 * share,
                latency_ms=40 * share,
                accuracy=90.0 - 2 * step,
                noise=0,
            )
        )
    return rows(*made)


def test_a_family_is_ordered_by_the_one_setting_that_varies():
    (family,) = tradeoff.families(sweep("at=[4], r=16", "at=[4], r=8", "at=[4], r=13"))
    assert (family.knob, family.strengths) == ("r", (8.0, 13.0, 16.0))


@pytest.mark.parametrize(
    "settings",
    [("r=8, s=1", "r=13, s=2"), ("r=[8]", "r=[13]"), ("r=8", "r=8, s=1"), ("on=True", "on=False"), ("r=8",)],
    ids=["two vary", "lists", "other names", "booleans", "one setting"],
)
def test_no_curve_where_there_is_no_single_numeric_setting(settings):
    assert tradeoff.families(sweep(*settings)) == []


def test_curve_holds_the_values_at_each_strength_and_the_baseline_as_a_level():
    spec = check(tradeoff.figure(sweep("r=8", "r=13"))).view("tome: r", "Accuracy")
    curve, level = spec["data"]
    assert (curve["x"], curve["y"]) == ([8, 13], [88, 86])
    assert level["y"] == [90, 90] and level["line"]["dash"] == "dash"
    assert spec["layout"]["xaxis"]["title"]["text"] == "tome: r"


def test_all_methods_are_put_on_one_axis_of_macs_kept():
    spec = tradeoff.figure(sweep("r=8", "r=13")).view(ALL, "Accuracy")
    assert spec["data"][0]["x"] == pytest.approx([80, 90, 100])
    assert spec["data"][0]["y"] == pytest.approx([86, 88, 90])


def test_title_says_what_the_last_setting_changes_against_the_first():
    title = tradeoff.figure(sweep("r=8", "r=13")).title
    assert title.startswith("tome on deit_tiny, r from 8 to 13: MACs −11 %, latency −")
    assert title.endswith("accuracy −2.0 points")


def test_methods_without_a_curve_are_named():
    figure = check(tradeoff.figure(rows(*suite_records())))
    assert figure.notes == ("no curve over a setting for evit: it needs two values of exactly one numeric setting",)
    assert ALL in figure.controls[0].options and "tome: r" in figure.controls[0].options


def test_marks_lead_to_their_rows():
    figure = tradeoff.figure(sweep("r=8", "r=13"))
    curve = figure.view("tome: r", "Accuracy")["data"][0]
    assert [figure.table["strength"][item[0]] for item in curve["customdata"]] == curve["x"]
    assert [figure.hover[item[1]].split("<br>")[0] for item in curve["customdata"]] == [
        "<b>deit_tiny · tome(r=8)</b>",
        "<b>deit_tiny · tome(r=13)</b>",
    ]


def test_nothing_to_trade_is_a_reason():
    for made in (rows(record(accuracy=90.0)), rows(record(status="crashed")), []):
        assert "no method of this group" in check(tradeoff.figure(made)).reason
