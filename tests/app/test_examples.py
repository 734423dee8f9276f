"""The example for pull requests is what a user would copy: its commands exist and its gate works."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from bench.app import cli
from bench.config.paths import config_folder
from bench.config.schema import validate
from bench.config.suites import filled
from tests.synthetic import record, store

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "efficiency.yml"


def example():
    return yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))


def steps(job="compare"):
    return example()["jobs"][job]["steps"]


def commands():
    """Every shell line of the example."""
    text = "\n".join(step.get("run", "") for job in example()["jobs"] for step in steps(job))
    return [line.strip() for line in text.splitlines() if line.strip()]


def overrides(line):
    """What a command line gives to `bench`, with the example's own variables filled in; None for another command."""
    variables = {**example()["env"], "RUNNER_TEMP": "runner", "GITHUB_STEP_SUMMARY": "summary"}
    words = shlex.split(re.sub(r"\$\{?(\w+)\}?", lambda found: str(variables[found[1]]), line))
    for start in (["nox", "-s", "bench", "--"], [".nox/bench/bin/python", "-m", "bench"]):
        if words[: len(start)] == start:
            return words[len(start) :]
    return None


def test_the_example_is_a_workflow_with_few_rights_and_every_action_has_a_version():
    found = example()
    assert set(found) == {"name", True, "permissions", "env", "jobs"}  # YAML 1.1 takes `on` for a truth value
    assert "pull_request" in found[True] and "pull_request_target" not in found[True]
    assert found["permissions"] == {"contents": "read"}
    for step in [step for job in found["jobs"] for step in steps(job)]:
        assert ("run" in step) != ("uses" in step)
        assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step.get("uses", "a/b@v1"))
    for line in commands():
        assert "${{" not in line  # what a pull request says never becomes part of a command


def test_every_bench_command_in_the_example_is_a_configuration():
    suites = cli.register_suites()
    asked = [found for line in commands() if (found := overrides(line)) is not None]
    assert len(asked) == 4
    for words in asked:
        GlobalHydra.instance().clear()
        with initialize_config_dir(version_base="1.3", config_dir=str(config_folder())):
            validate(filled(OmegaConf.to_container(compose("config", words), resolve=True), suites))
    jobs = [next((word for word in words if word.startswith("job=")), "job=run") for words in asked]
    assert jobs == ["job=run", "job=run", "job=compare", "job=bundle"]


def test_the_audit_tells_and_blocks_nothing():
    """It asks a server that may be away, and a vulnerability elsewhere is no fault of the change."""
    audit = example()["jobs"]["audit"]
    assert audit["continue-on-error"] is True and audit["steps"][-1]["run"] == "nox -s audit"
    assert not any("needs" in job for job in example()["jobs"].values())


def test_the_sessions_that_the_example_starts_exist():
    sessions = set(re.findall(r"@nox\.session\ndef (\w+)\(", (ROOT / "noxfile.py").read_text(encoding="utf-8")))
    used = {word for line in commands() for word in re.findall(r"nox -s (\w+)", line)}
    assert used and used <= sessions


@pytest.mark.parametrize(("factor", "code"), [(1.0, 0), (1.10, 1)], ids=["noise", "regression"])
def test_the_steps_after_measuring_fail_on_a_regression_only_and_show_it_either_way(factor, code, tmp_path):
    for name, slow in (("base", 1.0), ("head", factor)):
        made = record(
            latency_ms=40 * slow, baseline_ms=40 * slow, noise=0.001, invocations=6, seed=len(name + str(slow))
        )
        store(tmp_path / name, [made])
    summary = tmp_path / "summary.md"
    environment = {**os.environ, "RUNNER_TEMP": str(tmp_path), "GITHUB_STEP_SUMMARY": str(summary)}
    ended = {}
    for step in steps():
        if step.get("name") in ("Compare", "Show the verdicts", "Pack the records"):
            line = step["run"].replace(".nox/bench/bin/python", shlex.quote(sys.executable))
            ended[step["name"]] = subprocess.run(
                ["bash", "-e", "-c", line], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
            )
            assert "if" not in step or "always()" in step["if"]  # it is shown also where the gate fails
    assert [done.returncode for done in ended.values()] == [code, 0, 0], [done.stderr for done in ended.values()]
    assert ("SLOWER" in summary.read_text()) == bool(code)
    assert (tmp_path / "head.bundle.zip").is_file()


def test_readme_and_commands_lead_to_the_example():
    for page, link in (("README.md", "docs/examples/efficiency.yml"), ("docs/commands.md", "examples/efficiency.yml")):
        assert f"]({link})" in (ROOT / page).read_text(encoding="utf-8"), page


# ---------------------------------------------------------------------------------------------- git bisect


def bisecting():
    """The shell that docs/reproducing.md gives to `git bisect run`."""
    page = (ROOT / "docs" / "reproducing.md").read_text(encoding="utf-8")
    (recipe,) = re.findall(r"```\n(git bisect run .*?)```", page, re.S)
    words = shlex.split(recipe)
    assert words[:5] == ["git", "bisect", "run", "sh", "-c"] and len(words) == 6
    return words[5]


@pytest.mark.parametrize(
    ("sweep", "compare", "code"),
    [
        (0, 0, 0),
        (3, 0, 0),
        (0, 1, 1),
        (3, 1, 1),  # failed rows are no reason to skip a commit
        (0, 2, 125),
        (0, 5, 125),
        (0, 130, 125),  # nothing was compared: neither good nor bad
        (1, 0, 125),
        (2, 0, 125),
        (130, 0, 125),
        (137, 0, 125),  # nothing was measured
    ],
)
def test_bisecting_skips_what_says_nothing_and_calls_only_a_regression_bad(sweep, compare, code, tmp_path):
    fake = tmp_path / "bin" / "python"
    fake.parent.mkdir()
    fake.write_text(
        f'#!/bin/sh\necho "$@" >> called\ncase "$*" in *job=compare*) exit {compare};; esac\nmkdir now\nexit {sweep}\n'
    )
    fake.chmod(0o755)
    (tmp_path / "now").mkdir()  # of the commit before
    environment = {**os.environ, "PATH": f"{fake.parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", "-c", bisecting()], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    called = (tmp_path / "called").read_text().splitlines()
    assert len(called) == (2 if sweep in (0, 3) else 1) and not done.stderr
    for line in called:
        words = shlex.split(line)[2:]
        suites = cli.register_suites()
        GlobalHydra.instance().clear()
        with initialize_config_dir(version_base="1.3", config_dir=str(config_folder())):
            validate(filled(OmegaConf.to_container(compose("config", words), resolve=True), suites))
