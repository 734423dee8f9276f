"""The recipe for a lab is what a user would copy: its commands are ours, its units run its scripts, and it works."""

import configparser
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.config.schema import all_keys
from bench.config.verbs import JOBS
from bench.store.bundle import pack
from bench.store.records import Store
from tests.analysis.test_history import session
from tests.synthetic import store

ROOT = Path(__file__).resolve().parents[2]
LAB = ROOT / "docs" / "examples" / "lab"
SCRIPTS = ("night.sh", "publish.sh")


def settings(**changed):
    """The variables of `lab.env` as bash reads them."""
    shown = subprocess.run(
        ["bash", "-euc", f"set -a; source {LAB}/lab.env; env -0"],
        env={**os.environ, **changed},
        capture_output=True,
        check=True,
    )
    return dict(line.split("=", 1) for line in shown.stdout.decode().split("\0") if "=" in line)


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_scripts_are_bash_that_stops_at_the_first_error_and_can_be_run(script):
    path = LAB / script
    assert os.access(path, os.X_OK) and "set -euo pipefail" in path.read_text()
    subprocess.run(["bash", "-n", str(path)], check=True)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_command_of_the_scripts_is_one_of_ours(script):
    text = (LAB / script).read_text()
    found = re.findall(r'"\$PYTHON" -m bench ([^|\n]*)', text)
    assert len(found) == {"night.sh": 2, "publish.sh": 3}[script]
    known = {*all_keys(), "suite", "tracking", "report"}
    for line in found:
        words = re.findall(r"([a-z_.]+)=", re.sub(r"\$\{[^}]*\}", "", line))
        assert words and set(words) <= known
        assert set(re.findall(r"job=(\w+)", line)) <= set(JOBS)


def test_units_and_crontab_run_the_scripts_with_the_settings_and_every_timer_has_a_service():
    for path in LAB.glob("*.service"):
        unit = configparser.ConfigParser(strict=False, interpolation=None)
        unit.optionxform = str
        unit.read_string(path.read_text())
        script, given = shlex.split(unit["Service"]["ExecStart"])
        assert (LAB / Path(script).name).is_file() and Path(given).name == "lab.env"
        assert unit["Service"]["Type"] == "oneshot" and "Nice" not in unit["Service"]
        assert path.with_suffix(".timer").is_file()
    for line in (LAB / "crontab").read_text().splitlines():
        if not line.startswith("#"):
            assert (LAB / Path(line.split()[5]).name).is_file()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze checks units")
def test_systemd_takes_the_times():
    for path in LAB.glob("*.timer"):
        (when,) = re.findall(r"OnCalendar=(.*)", path.read_text())
        subprocess.run(["systemd-analyze", "calendar", when], check=True, capture_output=True)


def test_settings_can_be_given_from_outside_and_threads_are_stated(tmp_path):
    found = settings(LAB=str(tmp_path), MACHINE="one")
    assert found["LAB"] == str(tmp_path) and found["MACHINE"] == "one"
    assert "device.threads=1" in found["OVERRIDES"] and re.fullmatch(r"\d{4}-\d\d-\d\d", found["NIGHT"])


def night(folder, day, gain, machine):
    """A bundle as a machine hands it in."""
    item = session(day, gain, seed=len(machine), machine_key=machine)
    made = store(folder / f"{machine}{day}", [item], with_samples=False)
    return pack(made.root, None, folder / "incoming" / f"{machine}.{day}.zip")


def publish(folder, **changed):
    folders = {name: str(folder / name.lower()) for name in ("LAB", "INCOMING", "WEB")}
    given = {**os.environ, "CHECKOUT": str(ROOT), "PYTHON": sys.executable, **folders, **changed}
    command = [str(LAB / "publish.sh"), str(LAB / "lab.env")]
    return subprocess.run(command, env=given, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_mornings_merge_publish_and_fail_while_something_is_slower(tmp_path):
    pytest.importorskip("ruptures", reason="changes of level need the extra history: pip install ruptures")
    for day in (1, 2):
        for machine in ("machine0000000aa", "machine0000000bb"):
            night(tmp_path, day, 1.5, machine)
    first = publish(tmp_path)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "4 records new" in first.stdout and "nothing could be judged" in first.stdout
    assert (tmp_path / "web" / "machines.html").is_file() and not list((tmp_path / "incoming").glob("*.zip"))
    for day in range(3, 9):
        night(tmp_path, day, 1.5 if day < 5 else 1.2, "machine0000000aa")
    second = publish(tmp_path)
    assert second.returncode == 1 and "since commit 00000005" in second.stdout, second.stdout + second.stderr
    assert "still worse" in (tmp_path / "web" / "history.html").read_text()
    assert len(list(Store(tmp_path / "lab" / "results").iterate())) == 10
    accepted = publish(tmp_path, SINCE="2026-10-05")
    assert accepted.returncode == 0, accepted.stdout + accepted.stderr
