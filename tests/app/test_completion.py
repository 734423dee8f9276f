"""Tab offers what may stand there: verbs, suites, grids, models, methods, settings, rows; never an error."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.app import completion
from bench.config import catalogue
from bench.config.axes import OVERRIDES
from bench.config.schema import all_keys, validate
from bench.config.verbs import JOBS

ROOT = Path(__file__).resolve().parents[2]
#: Protocols of which there is one of either version.
OF_BOTH = ("glance", "publish", "quick", "standard")


def test_every_verb_suite_and_choice_is_offered():
    assert completion.offers("bench job=") == [f"job={verb}" for verb in JOBS]
    assert "suite=decode" in completion.offers("bench suite=d") and "suite=ops" not in completion.offers(
        "bench suite=d"
    )
    assert completion.offers("bench protocol=") == [
        f"protocol={name}"
        for name in ("counts", "glance", "publish", "quick", "standard", *(f"v2/{name}" for name in OF_BOTH))
    ]
    assert {"task=none", "task=digits", "task=additions"} <= set(completion.offers("bench task="))
    for choice in completion.offers("bench retry="):
        validate({
            "suite": {"name": "s", "grids": {"default": [{"models": ["m"]}]}},
            "protocol": {"name": "t", "version": 1}, "retry": choice.partition("=")[2],
        })  # fmt: skip


def test_keys_are_those_of_the_configuration():
    offered = {word.rstrip("=") for word in completion.offers("bench ")}
    assert not offered - set(all_keys())
    assert {"job", "suite", "grid", "model", "retry", "device.threads", "paths.results", "suite.methods"} <= offered
    assert set(completion.LISTS) == set(OVERRIDES)
    assert completion.offers("bench paths.r") == ["paths.results="]


def test_grids_are_those_of_the_suite_on_the_line():
    assert "grid=paper" in completion.offers("bench suite=vit_tokens grid=")
    assert completion.offers("bench suite=no_such grid=") == []


def test_models_and_methods_are_completed_inside_a_list_and_settings_after_a_bracket():
    known = catalogue.load()
    assert completion.offers("bench model=deit_t") == ["model=deit_tiny", "model=deit_tiny_distilled"]
    assert "suite.models=[deit_tiny,digits_small" in completion.offers("bench suite.models=[deit_tiny,digits_s")
    assert "suite.methods=[tome" in completion.offers("bench suite.methods=[to")
    assert 'suite.methods=["tome(r=' in completion.offers('bench suite.methods=["tome(')
    methods = {word.partition("=")[2] for word in completion.offers("bench suite.methods=")}
    assert methods == set(known.methods)
    own = completion.offers("bench suite=vit_tokens suite.methods=")
    assert "suite.methods=tome" in own and "suite.methods=lora" not in own
    assert "suite.methods=[lora" in completion.offers("bench suite=vit_tokens suite.methods=[lor")


def test_rows_are_those_of_the_results_folder(tmp_path, monkeypatch):
    (tmp_path / "mine" / "records").mkdir(parents=True)
    (tmp_path / "mine" / "records" / "3f2a55b1c0ffee00.m.1.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert completion.offers("bench paths.results=mine row=") == ["row=3f2a55b1"]
    assert completion.offers("bench row=") == []


@pytest.mark.parametrize("line", ["bench", "bench =", "bench suite.methods=[((", "bench model=nets:", "bench x=y"])
def test_nothing_typed_is_an_error(line):
    assert isinstance(completion.offers(line), list)


def test_the_command_line_answers_a_shells_question_without_hydra_pydantic_or_the_library(tmp_path):
    script = (
        "import sys; from bench.app.cli import main\n"
        "try: main()\n"
        "finally:\n"
        "    slow = {'hydra', 'pydantic', 'torch', 'bench.api', 'importlib.metadata'} & set(sys.modules)\n"
        "    print(sorted(slow), file=sys.stderr)"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COMP_LINE": "bench job=pl", "COMP_POINT": "12"}
    command = [sys.executable, "-c", script, "-sc", "query=bash"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout.split(), done.stderr.strip()) == (0, ["job=plan"], "[]")
