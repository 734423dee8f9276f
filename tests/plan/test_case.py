"""A case: its keys hold where nothing changed, and it names the side that it is compared with."""

import json
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bench.canonical import digest
from bench.config import axes
from bench.plan.case import Case

ORACLE = Path(__file__).parents[1] / "oracles" / "record_schema_1.json"

CONVNEXT = Case("s", "convnext_tiny", subject_digest="c0")
INCEPTION = Case("s", "inceptionnext_tiny", subject_digest="1n")
TOME = Case("s", "deit_tiny", "tome", setting="r=13", subject_digest="d0+t0")


def test_every_field_of_a_case_is_an_axis_and_the_other_way_round():
    assert {field.name for field in fields(Case)} == set(axes.BY_NAME)
    for field in fields(Case):
        if field.name not in ("suite", "model"):
            assert field.default == axes.BY_NAME[field.name].default


def test_the_key_of_a_case_of_the_first_schema_holds():
    told = json.loads(ORACLE.read_text())
    assert Case.from_dict(told["case"]).key == told["case_key"]
    assert Case.from_dict(told["case"]).baseline.key == told["baseline_key"]


def test_newer_axes_make_another_case_once_they_are_used():
    old = {k: v for k, v in asdict(TOME).items() if k != "suite" and not axes.BY_NAME[k].late}
    assert TOME.key == digest(old)
    for name, value in (("workload", "generate"), ("shape", "context=128"), ("backend", "onnxruntime")):
        assert replace(TOME, **{name: value}).key != TOME.key


def test_without_a_named_side_a_case_is_compared_with_its_own_model():
    assert TOME.baseline == Case("s", "deit_tiny", subject_digest="d0")
    assert TOME.baseline.is_baseline and not TOME.is_baseline
    assert TOME.compared_with(TOME.baseline) == TOME


def test_a_named_model_is_the_baseline_of_another_model():
    compared = INCEPTION.compared_with(CONVNEXT)
    assert compared.baseline == CONVNEXT and compared.group_key == CONVNEXT.key
    assert not compared.is_baseline and compared.against_label == "convnext_tiny"
    assert compared.key != INCEPTION.key  # what it is compared with decides what its record says


def test_a_named_side_compared_with_itself_is_a_baseline():
    assert CONVNEXT.compared_with(CONVNEXT) == CONVNEXT
    itself = TOME.compared_with(TOME)
    assert itself.is_baseline and itself.baseline == itself


def test_a_method_can_be_the_named_side_and_is_then_a_baseline_of_its_own():
    evit = Case("s", "deit_tiny", "evit", setting="keep_rate=0.7", subject_digest="d0+e0")
    compared = evit.compared_with(TOME)
    assert compared.baseline == TOME.compared_with(TOME)
    assert compared.baseline.is_baseline and compared.baseline.key != TOME.key


def test_a_backend_can_be_compared_with_another_of_the_same_network():
    eager = Case("s", "deit_tiny", subject_digest="d0")
    other = replace(eager, backend="onnxruntime").compared_with(eager)
    assert other.baseline == eager and other.against_label == "deit_tiny · eager"


@pytest.mark.parametrize("name, value", [("batch", 8), ("threads", 2), ("workload", "generate"), ("protocol", "other")])
def test_sides_that_are_not_alike_are_no_comparison(name, value):
    with pytest.raises(ValueError, match=name):
        INCEPTION.compared_with(replace(CONVNEXT, **{name: value}))


texts = st.text("abc", min_size=1, max_size=3)


@given(st.builds(Case, suite=st.just("s"), model=texts, method=st.sampled_from(["none", "m"]), setting=st.just(""),
                 subject_digest=texts, backend=st.sampled_from(["eager", "onnxruntime"]), dtype=st.sampled_from(["fp32",
                 "bf16"])),
       st.builds(Case, suite=st.just("s"), model=texts, method=st.sampled_from(["none", "m"]), setting=st.just(""),
                 subject_digest=texts, backend=st.sampled_from(["eager", "onnxruntime"]), dtype=st.sampled_from(["fp32",
                 "bf16"])))  # fmt: skip
def test_whatever_is_named_the_baseline_is_a_baseline_and_the_group_is_its_key(one, two):
    assume(
        one == two or any(getattr(one, name) != getattr(two, name) for name in ("model", "method", "backend", "dtype"))
    )
    compared = one.compared_with(two)
    assert compared.baseline.is_baseline
    assert compared.baseline.baseline == compared.baseline
    assert compared.group_key == compared.baseline.key
    assert Case.from_dict(json.loads(json.dumps(compared.as_dict()))) == compared
    for name in ("model", "method", "setting", "backend", "dtype"):
        assert getattr(compared.baseline, name) == getattr(two, name)
