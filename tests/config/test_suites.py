"""A suite file is data: nothing of it reaches Hydra, nothing in it is run, read from the environment or composed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bench.app import cli
from bench.config.schema import validate
from bench.config.suite_files import find_suites
from bench.config.suites import filled, read_suite, skeleton
from bench.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
GRIDS = {"default": [{"models": ["deit_tiny"], "methods": ["none"]}]}


def suite(folder, **content):
    folder.mkdir(exist_ok=True)
    (folder / "suite.yaml").write_text(yaml.safe_dump({"name": folder.name, "grids": GRIDS, **content}))
    return folder / "suite.yaml"


HOSTILE = {
    "a defaults list": {"defaults": ["/suite@_global_.hydra.callbacks.x: second", "_self_"]},
    "a defaults list that is a boolean": {"defaults": [{"/tracking@_global_.tracking": False}]},
    "hydra's own part": {"hydra": {"job": {"env_set": {"PYTHONPATH": "/tmp"}}}},
    "an unknown key": {"searchpath": ["file:///tmp"]},
    "a variable in the title": {"title": "${oc.env:TOKEN}"},
    "a variable in a setting": {"methods": ['tome(tag="${oc.env:TOKEN}")']},
    "a variable in the name of a grid": {"grids": {"${oc.env:TOKEN}": GRIDS["default"]}},
    "an escaped variable": {"description": r"\\${oc.env:TOKEN}"},
    "a package in the name of a grid": {"grids": {**GRIDS, "x@_global_": GRIDS["default"]}},
    "a target": {"_target_": "os.system"},
    "a missing value": {"grids": "???"},
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_hydra_would_give_meaning_to_is_refused_with_the_file(what, tmp_path):
    file = suite(tmp_path / "nice", **HOSTILE[what])
    with pytest.raises(UsageError) as refused:
        read_suite(file)
    assert str(file) in str(refused.value)


def test_hydra_learns_the_names_of_keys_and_grids_and_nothing_else(tmp_path):
    content = read_suite(suite(tmp_path / "nice", title="A title", task="digits"))
    known = skeleton(content)
    assert (known.pop("name"), known.pop("grids")) == ("nice", {"default": None})
    assert set(known.values()) == {None}


def test_the_command_line_wins_over_the_file_key_by_key_and_grid_by_grid():
    known = {"s": {"name": "s", "title": "T", "grids": {"a": [1], "b": [2]}, "models": ["m"]}}
    tree = {"suite": {"name": "s", "title": None, "task": None, "models": ["n"], "grids": {"a": None, "b": [3]}}}
    assert filled(tree, known)["suite"] == {"name": "s", "title": "T", "models": ["n"], "grids": {"a": [1], "b": [3]}}
    renamed = {"suite": {**tree["suite"], "name": "other"}}
    assert filled(renamed, known, "s")["suite"]["title"] == "T"


@pytest.mark.parametrize("tree", [{}, {"suite": None}, {"suite": "x"}, {"suite": []}])
def test_no_suite_is_one_message(tree):
    with pytest.raises(UsageError, match="name one with suite="):
        filled(tree, {"s": {}})


def test_the_suites_that_come_with_waterline_are_what_their_files_say():
    for name, content in find_suites().items():
        tree = filled({"suite": skeleton(content), "protocol": {}}, {name: content})
        assert validate(tree).suite.model_dump(exclude_unset=True)["name"] == name
        assert set(tree["suite"]["grids"]) == set(content["grids"])


def test_a_folder_of_yaml_alone_copies_no_file_sets_no_variable_and_tells_no_secret(tmp_path):
    """The three ways that were found, through the command line: callbacks, `env_set` with `sitecustomize`, `oc.env`."""
    victim, loaded = tmp_path / "copied", tmp_path / "loaded"
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(f"open({str(loaded)!r}, 'w').close()\n")
    second = {"cmd": {"_target_": "shutil.copyfile", "src": "/etc/hostname", "dst": str(victim)}}
    ways = [
        (
            {"defaults": ["/suite@_global_.hydra.callbacks.x: second", "_self_"]},
            {"_target_": "builtins.dict", **second},
        ),
        ({"defaults": ["/suite@_global_.hydra.job.env_set: second", "_self_"]}, {"PYTHONPATH": str(tmp_path / "site")}),
        ({"title": "${oc.env:TOKEN}"}, {}),
    ]
    for number, (nice, other) in enumerate(ways):
        folder = tmp_path / f"way{number}"
        folder.mkdir()
        suite(folder / "nice", **nice)
        suite(folder / "second", **other)
        env = {**os.environ, "PYTHONPATH": str(ROOT), "BENCH_SUITES": str(folder), "TOKEN": "s3cret"}
        command = [sys.executable, "-m", "bench", "suite=nice", "job=plan"]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        assert "suite.yaml" in done.stderr and "s3cret" not in done.stderr + done.stdout
    assert not victim.exists() and not loaded.exists()


@pytest.mark.parametrize("words", ["suite=null", "suite={a: 1}", "suite=", "suite=../../x", "~suite"])
def test_whatever_stands_for_a_suite_is_one_or_one_line(words, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["bench", words, "job=plan"])
    monkeypatch.setattr(cli, "open_streams", lambda: [])
    monkeypatch.setattr(cli, "close_streams", lambda sinks: True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capfd.readouterr().err
    assert ended.value.code == 2 and said.startswith("bench: ") and said.count("\n") == 1
    assert "did you mean" not in said
