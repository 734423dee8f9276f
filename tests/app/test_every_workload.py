"""Every workload but `forward` through what surrounds a sweep: planned, killed, resumed, reproduced, packed."""

import copy
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml

from bench.analysis.compare import compare
from bench.analysis.judge import judge
from bench.app import forecast
from bench.app.jobs import bundle as bundle_job
from bench.app.jobs import plan as plan_job
from bench.app.jobs import reproduce
from bench.config import catalogue
from bench.plan import plan
from bench.store.bundle import unpack_records, verify
from bench.store.records import Store
from bench.workloads import WORKLOADS, find
from reports.site import build
from tests.faults.driver import environment, family, until
from tests.sweeping import QUICK, WORKERS, configuration, sweep
from tests.workloads.test_every_workload_in_a_sweep import BLOCKS, HERE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

NAMES = sorted(BLOCKS)


def block(name):
    model, shapes = BLOCKS[name]
    return {"models": [f"{HERE}:{model}"], "workload": name, **({"shapes": shapes} if shapes else {})}


def suite(names=NAMES):
    return {"name": "every", "grids": {"default": [block(name) for name in names]}}


def of(folder, **changes):
    return configuration(folder, [], suite=suite(), protocol=QUICK, **changes)


def driver_of(folder):
    """A driver of the same sweep in a process of its own, as the command line starts it."""
    own = folder / "every"
    own.mkdir()
    (own / "suite.yaml").write_text(yaml.safe_dump(suite()))
    parts = ("latency", "counting", "energy")
    quick = [f"protocol.{part}.{key}={value}" for part in parts for key, value in QUICK[part].items()]
    fixed = ["suite=every", "tracking=off", "report=off", "counts=false", f"executor.name={WORKERS}"]
    command = [sys.executable, "-m", "bench", *fixed, *quick]
    return subprocess.Popen(
        command,
        cwd=folder,
        env={**environment(folder), "BENCH_SUITES": str(own)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def kept(folder):
    return list(Store(folder / "results").iterate([]))


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """The folder of a sweep that was killed after some records and resumed by the same command, and what was there."""
    folder = tmp_path_factory.mktemp("every")
    process = driver_of(folder)
    until(lambda: len(kept(folder)) >= 2, 300)
    children = family(process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive, "workers go with a driver that is killed"
    before = {record["record_key"]: record for record in kept(folder)}
    again = subprocess.run(
        list(process.args),
        cwd=folder,
        env={**environment(folder), "BENCH_SUITES": str(folder / "every")},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert again.returncode == 0, again.stdout[-2000:] + again.stderr[-2000:]
    return folder, before


@pytest.fixture(scope="module")
def rows(swept):
    found = {record["case"]["workload"]: record for record in kept(swept[0])}
    assert set(found) == set(WORKLOADS) - {"forward"}
    return found


def test_a_killed_sweep_goes_on_and_keeps_what_was_measured(swept):
    folder, before = swept
    after = {record["record_key"]: record for record in kept(folder)}
    assert 2 <= len(before) < len(after) == len(BLOCKS)
    assert all(after[key] == record for key, record in before.items())  # none was measured again
    sessions = list((folder / "results" / "samples").rglob("session.json"))
    assert len(sessions) == len(BLOCKS)


@pytest.mark.parametrize("name", NAMES)
def test_every_record_is_whole(rows, name):
    record = rows[name]
    assert record["status"] in ("ok", "contaminated"), record["error"]
    parts = {
        item["part"] for item in record["readings"] if item["metric"] == "latency_ms" and item["value"] is not None
    }
    assert set(find(name).parts) <= parts


def test_the_plan_estimates_every_workload_before_anything_is_run(tmp_path, capsys):
    config = of(tmp_path)
    made = plan.make(config, catalogue.load())
    found = forecast.forecast(config, made)
    assert set(found.seconds) == {group.key for group in made.groups} and all(s > 0 for s in found.seconds.values())
    # all of them can be counted on shapes; a machine that is busy may not have the time
    assert set(found.uncounted.values()) <= {forecast.TOO_LONG}
    assert plan_job.run(config) == 0 and not (tmp_path / "results").exists()
    told = capsys.readouterr().out
    assert all(f"{HERE}:{BLOCKS[name][0]}" in told or BLOCKS[name][0] in told for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_row_is_reproduced_with_its_shape_and_counts(swept, rows, name, capsys):
    folder, _ = swept
    row = rows[name]
    code = reproduce.run(of(folder, job="reproduce", row=row["case_key"]))
    told = capsys.readouterr().out
    assert code in (0, 1, 4), told  # times may be noisy, counts may not
    assert not re.search(r"^(macs|params|size_bytes).*DISAGREES", told, re.M), told
    assert re.search(r"^macs.*AGREES", told, re.M), told
    again = Store(folder / "results" / "reproductions" / row["case_key"] / "1").records
    cases = [json.loads(path.read_text())["case"] for path in again.glob("*.json")]
    assert {(case["workload"], case["shape"]) for case in cases} == {(name, row["case"]["shape"])}


@pytest.mark.parametrize("name", NAMES)
def test_a_count_that_changed_in_one_part_is_found_by_judge_and_comparison(rows, name):
    row = rows[name]
    part = next(item["part"] for item in row["readings"] if item["metric"] == "macs" and item["value"])
    other = copy.deepcopy(row)
    for item in other["readings"]:
        if item["metric"] == "macs" and item["part"] == part:
            item["value"] += 1
    wrong = [item for item in judge(row, other, own=True) if item.kind == "DISAGREES"]
    assert {item.metric for item in wrong} == {"macs"}
    same = [item for item in judge(row, copy.deepcopy(row), own=True) if item.kind == "DISAGREES"]
    assert not same
    later = copy.deepcopy(row)
    later["timing"]["session"] = "another"
    found = compare([row], [later])
    assert {(each.metric, each.part) for each in found.rows} >= {("latency_ms", "")}


def test_a_bundle_holds_every_workload_and_is_whole(swept, rows):
    folder, _ = swept
    config = of(folder)
    assert (
        bundle_job.run(config.model_copy(update={"report": config.report.model_copy(update={"enabled": False})})) == 0
    )
    path = Path(f"{config.paths.results}.bundle.zip")
    assert verify(path).ok
    packed = {record["case"]["workload"]: record for record in unpack_records(path)}
    for name, row in rows.items():
        assert packed[name]["curves"] == row["curves"] and packed[name]["readings"] == row["readings"]


#: Words that have a meaning for some workloads only.
FOREIGN = {
    "generate": r"\b(images?|pixels?|patch(es)?|unreduced)\b",
    "training_step": r"\b(images?|pixels?|patch(es)?|tokens?|unreduced)\b",
    "operator": r"\b(images?|pixels?|patch(es)?|tokens?|unreduced)\b",
}


def test_no_page_speaks_of_images_or_tokens_where_there_are_none(swept, rows, tmp_path):
    folder, _ = swept
    made = build(str(folder / "results"), tmp_path / "site", figure_seconds=None)
    assert not made.problems
    for name, words in FOREIGN.items():
        page = next((tmp_path / "site" / "cases").glob(f"{rows[name]['case_key']}*.html")).read_text()
        text = re.sub(r"<(script|style).*?</\1>|<[^>]+>", " ", page, flags=re.S)
        assert not re.findall(words, text, re.I), (
            name,
            [text[m.start() - 60 : m.end() + 40] for m in re.finditer(words, text, re.I)],
        )


def test_the_quick_sweep_is_what_the_command_line_made(swept, rows, tmp_path):
    """In this process as on the command line: the same cases under the same keys."""
    one = {"name": "every", "grids": {"default": [block("operator")]}}
    done = sweep(configuration(tmp_path, [], suite=one, protocol=QUICK))
    assert done.records[0]["case"]["shape"] == rows["operator"]["case"]["shape"]
