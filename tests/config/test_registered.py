"""Names that a library registers: read from its sources, offered by pattern.

Misspelt ones answered with the nearest.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from bench.config import catalogue as catalogues
from bench.config.registered import registered
from bench.config.schema import Suite
from bench.errors import UsageError


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A package `zoo_lib` that registers three networks and retires a name."""
    folder = tmp_path / "zoo_lib" / "nets"
    folder.mkdir(parents=True)
    (tmp_path / "zoo_lib" / "__init__.py").write_text("raise RuntimeError('nothing of it is imported')\n")
    (folder / "one.py").write_text(
        "@register\ndef tiny_lite(**kw):\n    pass\n\n\n@register\n@other\ndef tiny_full(**kw):\n    pass\n\n\n"
        "def helper():\n    pass\n\n\nregister_deprecations(__name__, {\n    'tiny_old': 'tiny_full',\n})\n"
    )
    (folder / "two.py").write_text("@register()\ndef big_lite(**kw):\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return "zoo_lib.nets:register"


@pytest.fixture
def catalogue(library, tmp_path):
    folder = tmp_path / "suite"
    folder.mkdir()
    (folder / "catalogue.yaml").write_text(
        f"models:\n  own_net: 'os:getcwd'\nprefixes:\n  zoo: {{build: 'os:getcwd', names: '{library}'}}\n"
    )
    return catalogues.load([folder])


def test_names_are_those_under_the_decorator_and_retired_ones_are_still_taken(library):
    found = registered(library)
    assert found.names == ("big_lite", "tiny_full", "tiny_lite")
    assert found.retired == ("tiny_old",)
    assert "tiny_full" in found and "tiny_full.tag" in found and "tiny_old" in found and "helper" not in found


def test_a_misspelt_name_is_answered_with_the_nearest_before_anything_is_imported(catalogue):
    assert catalogue.model("zoo:big_lite").settings == {"name": "big_lite"}
    with pytest.raises(UsageError, match='zoo has no model "big_light"; did you mean "big_lite"'):
        catalogue.model("zoo:big_light")


def test_a_library_that_is_not_there_says_how_to_install_it():
    with pytest.raises(UsageError, match="no_such_zoo is not installed: python -m pip install no_such_zoo"):
        registered("no_such_zoo.models:register")


def test_patterns_name_models_with_settings_and_those_of_the_grid_first(catalogue):
    assert catalogue.matching("zoo:*_lite") == ["zoo:big_lite", "zoo:tiny_lite"]
    assert catalogue.matching("zoo:tiny*(form='x')") == ["zoo:tiny_full(form='x')", "zoo:tiny_lite(form='x')"]
    grid = ["zoo:tiny_lite(form='x')", "own_net"]
    assert catalogue.matching("zoo:tiny_*", grid) == ["zoo:tiny_lite(form='x')", "zoo:tiny_full", "zoo:tiny_lite"]
    assert catalogue.matching("own_?et") == ["own_net"]
    with pytest.raises(UsageError, match='no model matches "zoo:\\*heavy"'):
        catalogue.matching("zoo:*heavy")


def test_a_single_name_needs_no_brackets():
    suite = Suite(name="s", grids={"default": [{"models": ["a"]}]}, models="timm:*lite*", methods="tome(r=2)")
    assert suite.models == ["timm:*lite*"]
    assert suite.methods == ["tome(r=2)"]


def planned(*words):
    """What the plan of the zoo says, from the command line."""
    done = subprocess.run(
        [sys.executable, "-m", "bench", "suite=convnets", "grid=zoo", "protocol=counts", "job=plan", *words],
        capture_output=True, text=True, cwd=Path(__file__).parents[2], env=None, timeout=120, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_the_zoo_is_chosen_by_pattern_on_the_command_line():
    code, said = planned("suite.models=timm:efficientnet_lite?")
    assert code == 0
    assert all(f"timm:efficientnet_lite{number}" in said for number in range(5))
    assert "5 cases" in said
    code, said = planned("suite.models=timm:efficientnet_lyte0")
    assert code == 2
    assert 'did you mean "efficientnet_lite0"' in said


def test_names_of_timm_are_all_found():
    from suites.common.timm_bridge import import_timm

    try:
        timm = import_timm()
    except UsageError as error:
        pytest.skip(str(error))
    found = registered("timm.models:register_model")
    assert set(found.names) == set(timm.list_models())
    assert all(timm.is_model(name) for name in [*found.names[::40], *found.retired[::20]])
