"""Curves travel whole: from a reading through record and bundle to the tidy table, a value a line."""

import pytest

import bench
from bench.analysis import curves
from bench.reading import Curve
from bench.store.bundle import pack, unpack_records
from tests import synthetic

STEPS = Curve("macs", "step", [10, 5, 1], [3.0, None, 1.5], "counted", part="decode", note="by hand").as_dict()
NAMES = Curve("input_ms", "layer", ["embed", "head"], [1.0, 2.0], "measured").as_dict()


def record(*made):
    return {**synthetic.record(), "curves": list(made)}


def test_a_curve_is_a_line_per_value_in_its_order(tmp_path):
    synthetic.store(tmp_path / "results", [record(STEPS, NAMES)], with_samples=False)
    frame = bench.curves(tmp_path / "results")
    steps = frame[frame["metric"] == "macs"]
    assert list(steps["at"]) == [10, 5, 1] and list(steps["position"]) == [0, 1, 2]
    assert steps["value"].tolist()[0::2] == [3.0, 1.5] and steps["value"].isna().tolist() == [False, True, False]
    assert set(steps["unit"]) == {"MAC"} and set(steps["part"]) == {"decode"} and set(steps["index"]) == {"step"}
    assert list(frame[frame["metric"] == "input_ms"]["at"]) == ["embed", "head"]
    assert list(frame.columns) == list(curves.COLUMNS) and frame.attrs["problems"] == []


def test_a_bundle_carries_the_curves(tmp_path):
    made = synthetic.store(tmp_path / "results", [record(STEPS)])
    packed = pack(made.root, None, tmp_path / "run.zip")
    (kept,) = unpack_records(packed)
    assert kept["curves"] == [STEPS] and len(curves.from_records([kept])) == 3


@pytest.mark.parametrize(
    ("curve", "words"),
    [
        ({**STEPS, "metric": "speed"}, "not of a known metric"),
        ({**STEPS, "at": [1]}, "malformed"),
        ("text", "malformed"),
    ],
)
def test_a_curve_that_is_none_is_left_out_and_said(curve, words):
    frame = curves.from_records([record(curve), record(NAMES)])
    assert len(frame) == 2 and words in frame.attrs["problems"][0]


def test_without_curves_the_table_is_empty_and_has_its_columns():
    assert list(curves.from_records([]).columns) == list(curves.COLUMNS)
