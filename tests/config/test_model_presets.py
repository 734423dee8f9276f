"""What a catalogue presets for a model and what the case fills in: the case wins, and a clash is told."""

import pytest

from bench.config.catalogue import Entry, check_model
from bench.errors import UsageError
from bench.plan.case import Case
from bench.plan.plan import default_resolution
from bench.plan.recipe import Recipe
from bench.worker.subject import build_model

PRESET = Entry(
    "vit_96",
    "suites.common.vit:vit",
    {"width": 16, "heads": 2, "depth": 1, "patch": 16, "classes": 3, "resolution": 96},
)


def built(resolution):
    case = Case(suite="s", model=PRESET.name, resolution=resolution or default_resolution(PRESET, {}))
    return build_model(Recipe(case, PRESET.path, PRESET.settings))[0]


def test_the_resolution_of_the_case_wins_over_the_preset():
    check_model(PRESET, {})
    assert built(None).resolution == 96
    assert built(64).resolution == 64


@pytest.mark.parametrize("name, remedy", [("resolution", r"suite\.resolutions=\[\.\.\.\]")])
def test_a_setting_that_is_an_axis_is_refused_with_the_axis(name, remedy):
    with pytest.raises(UsageError, match=f"{name}=64 clashes with the {name} of the case: set {remedy}"):
        check_model(PRESET, {name: 64})
