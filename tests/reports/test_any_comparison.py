"""Rows of models, backends and parts read as what they are.

Named sides, colours by model, a column per part, any score.
"""

import copy
import sys

import pytest

from bench.canonical import settings_text
from bench.metrics import METRICS
from bench.reading import reading
from bench.store.record_parts import whole_of
from reports.columns import column_key, column_of
from reports.figures import curves, pareto
from reports.figures.theme import BASELINE_STYLE, styles_of
from reports.findings import headline
from reports.fronts import mark_fronts
from reports.groups import group
from reports.leaderboard import payload
from reports.needs import Needs
from reports.rows import columns_of, rows_of
from reports.scores import score_of
from reports.standing import rank_rows
from reports.words import run_noun, unit_noun
from tests.reports.figures.specs import check
from tests.synthetic import record


def against(**sides):
    return settings_text(sides)


def models(**fields):
    """Three networks, two of them compared with the first."""
    other = {"against": against(model="plain_net"), "baseline_ms": 40.0, **fields}
    return [
        record(model="plain_net", **fields),
        record(model="fast_net", latency_ms=20.0, macs=0.5e9, noise=1e-4, **other),
        record(model="slow_net", latency_ms=80.0, macs=2.5e9, noise=1e-4, **other),
    ]


def rows(records):
    problems = []
    made = rows_of(records, problems)
    assert not problems
    return made


def test_models_that_are_compared_with_a_named_one_stand_in_one_group_and_are_called_by_their_names():
    made = rows(models())
    assert len(group(made)) == 1
    assert [(row.name, row.against) for row in made] == [
        ("plain_net", ""),
        ("fast_net", "plain_net"),
        ("slow_net", "plain_net"),
    ]
    assert made[1].cells["mac_ratio"].value == 2.5 and made[1].cells["realised_gain"].value == pytest.approx(2 / 2.5)
    said = headline(made, group(made))
    assert said == "Of 2 cases that were compared 1 is faster for certain and 1 slower"
    alone = [row for row in made if row.model != "slow_net"]
    assert headline(alone, group(alone)).startswith("fast_net is 2.00 ± 0.04 times as fast as plain_net, ")


def test_a_suite_of_models_is_coloured_by_model_and_its_other_side_is_the_black_circle():
    styles = styles_of(rows(models()))
    assert (
        styles["plain_net"] == BASELINE_STYLE
        and len({styles[name] for name in ("fast_net", "slow_net", "plain_net")}) == 3
    )
    alone = styles_of(rows([record(model="one"), record(model="two")]))
    assert BASELINE_STYLE not in (alone["one"], alone["two"]) and alone["one"] != alone["two"]
    names = [trace.get("name") for trace in check(pareto.figure(rows(models()))).spec["data"]]
    assert {"plain_net (baseline)", "fast_net", "slow_net"} <= set(names)


def test_a_backend_is_compared_inside_the_group_of_its_other_side_and_said_in_the_name():
    converted = record(backend="onnxruntime", against=against(backend="eager"), latency_ms=25.0, baseline_ms=40.0)
    made = rows([record(), converted])
    (only,) = group(made)
    assert "eager" not in only.title and [row.name for row in made] == ["deit_tiny", "deit_tiny · onnxruntime"]
    assert len(group(rows([record(), record(backend="onnxruntime")]))) == 2  # without `against` they are unlike


def with_part(made, part, **values):
    """The record with readings of a further part."""
    extra = [reading(name, value, "counted", part=part).as_dict() for name, value in values.items()]
    return {**made, "readings": [*made["readings"], *extra]}


def test_a_quantity_of_a_part_has_a_column_behind_those_of_the_whole():
    made = rows([with_part(record(), "prefill", latency_ms=5.0, macs=1e9)])
    keys = [column.key for column in columns_of(made)]
    assert max(keys.index(key) for key in keys if "@" not in key) < keys.index("latency_ms@prefill")
    assert (
        column_of("latency_ms@prefill").title == "Latency (p50) of prefill"
        and made[0].value("latency_ms", "prefill") == 5.0
    )
    assert made[0].value("latency_ms") != 5.0 and column_key("macs") == "macs"


def test_parts_are_ranked_by_themselves():
    two = [
        with_part(record(), "prefill", macs=2e9),
        with_part(record(method="tome", setting="r=8", macs=1e9), "prefill", macs=3e9),
    ]
    made = rows(two)
    rank_rows(made, group(made), columns_of(made))
    assert [row.rank["macs"] for row in made] == [(2, 2), (1, 1)]
    assert [row.rank["macs@prefill"] for row in made] == [(1, 1), (2, 2)]


def test_two_readings_of_one_part_are_refused():
    twice = with_part(with_part(record(), "prefill", macs=1e9), "prefill", macs=2e9)
    problems = []
    assert rows_of([twice], problems) == [] and "two readings of macs@prefill" in problems[0]


def scored(metric, value, **fields):
    made = record(**fields)
    kept = [item for item in made["readings"] if item["metric"] != "accuracy"]
    found = reading(metric, value, "measured", ci_low=value - 0.01, ci_high=value + 0.01, n=50)
    return {**made, "readings": [*kept, found.as_dict()]}


def test_the_front_is_of_the_score_that_rows_have_in_its_own_direction():
    better = scored("bits_per_byte", 2.0, method="tome", setting="r=1", latency_ms=20.0)
    worse = scored("bits_per_byte", 3.0, method="tome", setting="r=2", latency_ms=30.0)
    made = rows([scored("bits_per_byte", 1.9), better, worse])
    groups = group(made)
    mark_fronts(made, groups)
    assert {row.case.setting: row.pareto for row in made} == {"": "front", "r=1": "front", "r=2": "dominated"}
    assert score_of(made) == "bits_per_byte" and METRICS["bits_per_byte"].better == "lower"
    data = payload(made, groups, columns_of(made))
    assert data["groups"][0]["score"] == {"key": "bits_per_byte", "title": "bits per byte", "better": "lower"}
    change = next(row for row in made if row.case.setting == "r=1").cells["bits_per_byte_change"]
    assert change.value == pytest.approx(0.1)


def test_nouns_follow_the_workload_and_not_the_picture():
    assert (unit_noun(rows([record()])), run_noun(rows([record()]))) == ("image", "forward")
    asked = record(workload="generate", resolution=None, shape="context=8, new_tokens=4")
    assert unit_noun(rows([asked])) == "sample" and run_noun(rows([asked])) == "request"
    assert group(rows([asked]))[0].title.count("input as given") == 0
    assert "context 8, new tokens 4" in group(rows([asked]))[0].title


def test_reading_a_record_imports_no_module_that_it_names():
    made = record()
    made["case"]["workload"] = "antigravity"
    sys.modules.pop("antigravity", None)
    assert whole_of(made) == "" and "antigravity" not in sys.modules


CURVE = {
    "metric": "latency_ms",
    "index": "step",
    "at": [0, 1, 2],
    "values": [3.0, None, 1.0],
    "provenance": "measured",
    "part": "request",
    "note": "synchronised",
    "unit": "ms",
}


def test_a_curve_is_drawn_beside_the_same_one_of_the_other_side_with_its_gaps():
    own, other = {**record(), "curves": [CURVE]}, {**record(), "curves": [{**CURVE, "values": [6.0, 6.0, 6.0]}]}
    figure = check(curves.figure(own, other, other_name="plain_net"))
    black, blue = figure.spec["data"]
    assert (black["name"], black["y"], blue["y"]) == ("plain_net", [6.0, 6.0, 6.0], [3.0, None, 1.0])
    assert "3.00\u00a0ms at 0, 1.00\u00a0ms at 2" in figure.title and "1 of 3 points have no value" in figure.notes[0]
    assert list(figure.table["plain_net"]) == [6.0, 6.0, 6.0]
    with pytest.raises(ValueError, match="two curves"):
        curves.figure({**own, "curves": [CURVE, copy.deepcopy(CURVE)]})


def test_a_figure_is_left_out_where_rows_lack_what_it_declares():
    base, other = record(accuracy=90.0), record(method="tome", setting="r=8", accuracy=80.0)
    assert Needs(("latency_ms",), rows=2).met(rows([base, other])) and not Needs(("latency_ms",), rows=3).met(
        rows([base, other])
    )
    assert Needs(compared=True).met(rows([base, other])) and not Needs(compared=True).met(rows([base]))
    assert not Needs(("energy_j",)).met(rows([base, other]))
    assert not Needs(further=lambda found: len(found) > 5).met(rows([base]))
