"""The door: a stranger's file outside the package becomes rows, and a wrong kernel does not."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from bench.errors import UsageError
from bench.testing import Subject, run_check
from suites.ops import door

ROOT = Path(__file__).parents[3]
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
MINE = """
import torch
from suites.ops.door import kernel

def fast(x, w):
    return torch.relu(x @ w){wrong}

def slow(x, w):
    return (x.unsqueeze(-1) * w).sum(1).clamp(min=0)

mine = kernel(fast, slow, {{"small": [(6, 5), (5, 4)], "wide": [(3, 8), (8, 9)]}})
"""


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A folder of a stranger's own, which the bench is started from."""

    def write(name, wrong=""):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(MINE.format(wrong=wrong)))

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return write


def test_two_functions_and_shapes_are_a_row(outside):
    outside("stranger_right")
    subject = Subject(
        "stranger",
        model="stranger_right:mine(shape='wide')",
        workload="operator",
        shape={"batch": 1},
        dtypes=("fp32", "fp64"),
    )
    for check in ("builds", "seeded", "steady", "meta_counts", "dtypes"):
        run_check(check, subject)
    mine = door.load("stranger_right:mine")
    assert mine.rows("stranger_right:mine") == [
        "stranger_right:mine(shape='small')",
        "stranger_right:mine(shape='wide')",
    ]
    operator = mine(shape="wide", backward=True)
    args = operator.check_args(0)
    found, expected = operator(*args), operator.reference(*args)
    assert len(found) == 3  # the result and two gradients
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-5)
    assert operator.form == "fast" and mine(side="reference").form == "slow"


def test_a_changed_file_is_another_case(outside, tmp_path):
    said = "from bench.config.signatures import source_digest; print(source_digest('stranger_changes:mine'))"

    def digest(wrong):
        outside("stranger_changes", wrong)
        command = [sys.executable, "-c", said]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=ENVIRONMENT, check=True)
        return done.stdout

    assert digest("") == digest("  # a comment") != digest(" * 1.0")


def test_the_door_says_what_is_wrong_and_prints_the_command(outside, tmp_path):
    outside("stranger_said")
    outside("stranger_wrong", wrong=" + 0.01")

    def run(path):
        return subprocess.run(
            [sys.executable, "-m", "suites.ops.door", path], capture_output=True, text=True, cwd=tmp_path,
            env=ENVIRONMENT, check=False,
        )  # fmt: skip

    right, wrong = run("stranger_said:mine"), run("stranger_wrong:mine")
    assert (
        right.returncode == 0
        and "python -m bench suite=ops" in right.stdout
        and 'stranger_said:mine(shape=\\"wide\\")' in right.stdout
    )
    assert wrong.returncode == 1 and "off, beyond" in wrong.stdout


def test_constant_inputs_and_missing_shapes_are_refused():
    with pytest.raises(UsageError, match="at least one shape"):
        door.kernel(torch.relu, torch.relu, {})
    zeros = door.kernel(torch.relu, torch.relu, {"one": [(4, 4)]}, inputs=lambda shape, generator: [torch.zeros(4, 4)])
    with pytest.raises(UsageError, match="constant"):
        zeros.trials()
    with pytest.raises(ValueError, match="small"):
        door.kernel(torch.relu, torch.relu, {"small": [(4,)]})(shape="smal")


def test_the_printed_command_names_the_rows_once_a_shell_and_hydra_have_read_it():
    import shlex

    from hydra.core.override_parser.overrides_parser import OverridesParser

    rows = ["mykernel:mine(shape='small')", "mykernel:mine(shape='a b')"]
    words = shlex.split(door.command(rows))
    overrides = OverridesParser.create().parse_overrides(words[3:])
    assert words[:3] == ["python", "-m", "bench"]
    assert [str(value).replace('"', "'") for value in overrides[-1].value()] == rows
