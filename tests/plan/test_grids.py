"""From a grid to cases: shapes by axis, named other sides, backends, and what a user is told of a wrong one."""

import pytest

from bench.config import catalogue
from bench.config.schema import validate
from bench.errors import UsageError
from bench.plan import plan
from tests.sweeping import HEALTHY, QUICK

DEIT, SMALL = "deit_tiny", "deit_small"


def cases(*blocks, **suite):
    config = validate({"suite": {"name": "tiny", "grids": {"default": list(blocks)}, **suite}, "protocol": QUICK})
    return plan.make(config, catalogue.load())


def told(*blocks, **suite):
    with pytest.raises(UsageError) as error:
        cases(*blocks, **suite)
    return str(error.value)


def test_shapes_list_values_by_axis_and_the_old_keys_are_shorthand():
    short = cases({"models": [DEIT], "batches": [1, 8], "resolutions": [224]})
    long = cases({"models": [DEIT], "shapes": {"batch": [1, 8], "resolution": [224]}})
    assert [case.key for case in short.cases] == [case.key for case in long.cases]
    assert [case.batch for case in short.cases] == [1, 8]


def test_a_block_of_models_needs_no_methods():
    made = cases({"models": [DEIT, SMALL]})
    assert [case.model for case in made.cases] == [DEIT, SMALL]
    assert all(case.is_baseline for case in made.cases)


def test_members_of_different_models_are_timed_with_the_side_that_a_block_names():
    made = cases({"models": [DEIT, SMALL], "against": SMALL})
    (group,) = made.groups
    assert group.baseline.model == SMALL and group.cases[0] == group.baseline
    assert [case.model for case in group.cases] == [SMALL, DEIT]
    assert {case.baseline.key for case in group.cases} == {group.key}


def test_methods_of_one_model_can_be_held_against_another_model():
    made = cases({"models": [SMALL], "methods": ["tome(r=8)"], "against": {"model": DEIT}})
    (group,) = made.groups
    assert [case.method_label for case in group.cases] == ["none", "tome(r=8)"]
    assert group.baseline.model == DEIT


def test_a_method_can_be_the_other_side():
    made = cases({"models": [DEIT], "methods": ["tome(r=8)", "tome(r=13)"], "against": {"method": "tome(r=8)"}})
    (group,) = made.groups
    assert group.baseline.method_label == "tome(r=8)" and len(group.cases) == 2


def test_each_block_is_scored_on_the_task_that_it_names_else_on_the_suites_own():
    blocks = [
        {"models": ["byte_1m"], "workload": "generate"},
        {"models": ["addition_search"], "workload": "generate", "task": "additions"},
        {"models": ["digits_tiny", DEIT], "task": "digits"},
    ]
    suite = {"name": "tiny", "task": "text_bytes", "grids": {"default": blocks}}

    def made(**config):
        return plan.make(validate({"suite": suite, "protocol": QUICK, **config}), catalogue.load())

    found = made()
    assert {case.model: case.task for case in found.cases} == {
        "byte_1m": "text_bytes",
        "addition_search": "additions",
        "digits_tiny": "digits",
        DEIT: "none",
    }
    assert found.scores == {"text_bytes": "bits_per_byte", "additions": "accuracy", "digits": "accuracy"}
    asked = made(task={"name": "digits"})
    assert {case.model for case in asked.cases if case.task != "none"} == {"digits_tiny"}
    assert {case.task for case in made(task={"name": "none"}).cases} == {"none"}


def test_data_of_the_users_takes_the_place_of_the_task_that_a_block_names(tmp_path):
    (tmp_path / "text").write_text("words " * 100)
    block = {"models": ["byte_1m"], "workload": "generate", "task": "text_bytes"}
    config = {"suite": {"name": "tiny", "grids": {"default": [block]}}, "protocol": QUICK}
    data = {"data": {"root": str(tmp_path / "text")}, "task": {"name": "textfile"}}
    (case,) = plan.make(validate({**config, **data}), catalogue.load()).cases
    assert case.task == "textfile"


def test_every_backend_has_its_own_baseline_unless_one_is_named():
    apart = cases({"models": [DEIT], "backends": ["eager", "compile"]})
    assert len(apart.groups) == 2 and [case.compile for case in apart.cases] == ["off", "default"]
    together = cases({"models": [DEIT], "backends": ["eager", "compile"], "against": {"backend": "eager"}})
    (group,) = together.groups
    assert [case.backend for case in group.cases] == ["eager", "compile"]


def test_the_command_line_replaces_lists_and_axes_one_by_one():
    block = {"models": [DEIT], "methods": ["tome(r=8)"], "batches": [1], "resolutions": [224]}
    assert {case.batch for case in cases(block, batches=[2, 4]).cases} == {2, 4}
    assert {(case.batch, case.resolution) for case in cases(block, shapes={"batch": [2]}).cases} == {(2, 224)}
    assert {case.model for case in cases(block, against=SMALL).groups[0].cases} == {SMALL, DEIT}


@pytest.mark.parametrize(
    "block, words",
    [
        ({"shapes": {"contxt": [1]}}, ["contxt", "workload forward"]),
        ({"shapes": {"batch": [0]}}, ["batch=0", "from 1"]),
        ({"shapes": {"batch": [1.5]}}, ["batch=1.5", "whole number"]),
        ({"shapes": {"batch": []}}, ["shapes.batch has no values"]),
        ({"shapes": {"batch": [2]}, "batches": [4]}, ["both give values"]),
        ({"workload": "genrate"}, ["genrate", "generate"]),
        ({"against": {}}, ["against names nothing"]),
        ({"against": {"modle": "x"}}, ["modle"]),
        ({"against": "deit_tny"}, ["deit_tny", "deit_tiny"]),
        ({"task": "text_byte"}, ["text_byte", "text_bytes"]),
        ({"task": 3}, ["task"]),
    ],
)
def test_a_wrong_block_is_told_with_its_place_and_the_right_word(block, words):
    text = told({"models": [HEALTHY], **block})
    for word in words:
        assert word.lower() in text.lower(), text


OPERATORS = {
    "models": ["lka"],
    "against": {"model": "ska"},
    "workload": "operator",
    "shapes": {"batch": [4], "resolution": [16]},
}


def test_a_model_of_the_grid_is_known_however_its_settings_are_quoted_and_ordered():
    block = {"models": ["fbnet_layer(inputs=8, kernel=3)", "fbnet_a(plan='b')", "lka"], "batches": [4]}
    other = {"models": ["fbnet_b"], "batches": [2]}
    asked = ["fbnet_layer(kernel=3, inputs=8)", 'fbnet_a(plan="b")']
    tree = {"suite": {"name": "t", "grids": {"default": [block, other]}, "models": asked}, "protocol": QUICK}
    made = plan.make(validate(tree), catalogue.load()).cases
    assert [case.batch for case in made] == [4, 4]


@pytest.mark.parametrize(
    "model, workload",
    [
        ("timm:test_vit", "forward"),
        (HEALTHY, "forward"),
        (DEIT, "forward"),
        ("gnconv", "operator"),
        ("lka", "operator"),
    ],
)
def test_a_model_by_name_is_measured_as_one_of_its_workload(model, workload):
    for blocks in ([{"models": [DEIT]}, OPERATORS], [OPERATORS, {"models": [DEIT]}]):
        tree = {"suite": {"name": "tiny", "grids": {"default": blocks}}, "model": model, "protocol": QUICK}
        (case,) = plan.make(validate(tree), catalogue.load()).cases
        assert case.workload == workload


def test_a_bare_function_of_ones_own_has_neither_sizes_nor_the_other_side_of_somebody_elses():
    suite = {"name": "tiny", "grids": {"default": [OPERATORS]}, "models": [HEALTHY], "workload": "operator"}
    (case,) = plan.make(validate({"suite": suite, "protocol": QUICK}), catalogue.load()).cases
    assert case.is_baseline and case.batch == 1 and case.resolution is None
