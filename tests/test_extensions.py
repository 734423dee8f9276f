"""A further axis, metric, meter, page, workload, backend, task or executor is one file and one line in a table.

A copy of the house gets one of each, every one by one insertion; a sweep and a site are then made in it. An axis and a
metric have no file: the axis has a field of `Case` instead.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

METER = '''"""How much a subject sparkles."""

from bench.reading import reading


def measure(subject, ready, part):
    """Its parameters, as sparks."""
    sparks = sum(parameter.numel() for parameter in subject.counted.parameters())
    return [reading("sparkle", sparks, "counted")], {"seen": True}
'''
PAGE = '''"""What sparkles."""

from reports.pages.page import Sheet


def sheets(site):
    """The one sheet."""
    yield Sheet("sparkle.html", "", lambda: f"<p>{len(site.rows)} rows sparkle</p>")
'''
TASK = '''"""A task that nobody has seen yet."""


class Sparks:
    """Scores how well sparks are told from stars."""

    metric = "accuracy"

    def __init__(self, cache, seed):
        self.cache, self.seed = cache, seed
'''
#: Every insertion: the file, the text in it before which a line is put, and that line.
LINES = {
    "axis": (
        "bench/config/axes.py",
        '    Axis("protocol", ',
        '    Axis("watts", "power limit", condition=True, late=True),',
    ),
    "field": ("bench/plan/case.py", '    backend: str = "eager"', "    watts: int | None = None"),
    "metric": (
        "bench/metrics/subjects.py",
        '    Metric(\n        "artefact_bytes"',
        '    Metric("sparkle", unit="1", better="higher", section="size", title="Sparkle", definition="Sparks."),',
    ),
    "meter": (
        "bench/meters/table.py",
        '    Meter("facts", ',
        '    Meter("sparkle", "", "counting", take="bench.meters.sparkle:measure"),',
    ),
    "page": (
        "reports/pages/__init__.py",
        '    Page("Case", ',
        '    Page("Sparkle", "sparkle.html", "reports.pages.sparkle"),',
    ),
    "workload": ("bench/workloads/__init__.py", '    "forward": ', '    "turns": "bench.workloads.turns",'),
    "backend": ("bench/backends/__init__.py", '    "eager": ', '    "script": "bench.backends.script",'),
    "task": ("suites/common/catalogue.yaml", "  digits: ", '  sparks: "suites.common.tasks.sparks:Sparks"'),
    "executor": ("bench/sweep/executors/__init__.py", '    "local": ', '    "noting": "bench.sweep.executors.noting",'),
}
PROGRAM = """
import json, sys
from pathlib import Path
from bench import backends, workloads
from bench.analysis import ranking, table
from bench.config import catalogue
from bench.plan import plan
from bench.plan.case import Case
from reports.site import build
from tests.sweeping import HEALTHY, QUICK, configuration, sweep

folder = Path(sys.argv[1])
done = sweep(configuration(folder, [HEALTHY], executor={"name": "noting", "retries": 0}))
(record,) = done.records
build(folder / "results", folder / "site")
block = {"models": [HEALTHY], "workload": "turns", "shapes": {"turns": [3]}}
turns = configuration(folder, [], suite={"name": "t", "grids": {"default": [block]}})
block = {"models": [HEALTHY], "backends": ["script"]}
script = configuration(folder, [], suite={"name": "t", "grids": {"default": [block]}})
plain = Case("t", "m")
frame = table.from_records([record])
print(json.dumps({
    "status": record["status"],
    "keys": [plain.key, Case("t", "m", watts=None).key, Case("t", "m", watts=30).key],
    "column": "watts" in frame.columns and "watts" in ranking.PLAIN,
    "reading": [row["value"] for row in record["readings"] if row["metric"] == "sparkle"],
    "params": [row["value"] for row in record["readings"] if row["metric"] == "params"],
    "details": record["sparkle"],
    "page": (folder / "site" / "sparkle.html").read_text(),
    "navigation": "sparkle.html" in (folder / "site" / "index.html").read_text(),
    "shown": "Sparks." in (folder / "site" / "methods.html").read_text(),
    "workload": [case.shape for case in plan.make(turns, catalogue.load()).cases],
    "backend": [case.backend for case in plan.make(script, catalogue.load()).cases],
    "runs_here": backends.why_not("script", "cpu", "fp32") == "",
    "task": catalogue.load().task("sparks").path,
    "jobs": sorted(set((folder / "jobs").read_text().split())),
}))
"""
EXECUTOR = '''"""The local executor, which also notes the kind of every job."""

from contextlib import contextmanager
from pathlib import Path

from bench.sweep.executors import local


@contextmanager
def open_executor(timeouts_s):
    """Opened like any other."""
    with local.open_executor(timeouts_s) as inner:

        class Noting:
            def run(self, kind, spec, *, log, **options):
                with (Path(log).parents[1].parent / "jobs").open("a") as file:
                    file.write(kind + "\\n")
                return inner.run(kind, spec, log=log, **options)

        yield Noting()
'''
#: Every new file: where it stands, and what it holds.
FILES = {
    "bench/meters/sparkle.py": METER,
    "reports/pages/sparkle.py": PAGE,
    "suites/common/tasks/sparks.py": TASK,
    "bench/sweep/executors/noting.py": EXECUTOR,
    "bench/workloads/turns.py": (ROOT / "tests/workloads/own_workload.py").read_text(),
    "bench/backends/script.py": (ROOT / "tests/backends/outside.py").read_text(),
}


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """What a sweep, a plan and a site of the extended house say."""
    house = tmp_path_factory.mktemp("house")
    for room in ("bench", "reports", "suites"):
        shutil.copytree(ROOT / room, house / room, ignore=shutil.ignore_patterns("__pycache__"))
    for other in ("conf", "tests"):
        (house / other).symlink_to(ROOT / other)
    for path, text in FILES.items():
        (house / path).write_text(text)
    for path, before, line in LINES.values():
        text = (house / path).read_text()
        place = text.index(before)
        (house / path).write_text(f"{text[:place]}{line}\n{text[place:]}")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(house / "out")],
        cwd=house,
        env={**os.environ, "PYTHONPATH": str(house)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_an_axis_parts_cases_at_another_value_only_and_is_a_column_and_a_condition(extended):
    usual, same, other = extended["keys"]
    assert usual == same != other and extended["column"]


def test_a_metric_and_its_meter_give_a_reading_with_details_in_the_record(extended):
    assert extended["status"] == "ok" and extended["details"] == {"seen": True}
    assert extended["reading"] == extended["params"] and extended["params"][0] > 0


def test_a_metric_is_explained_on_the_site_and_a_page_is_in_it(extended):
    assert extended["shown"] and extended["navigation"] and extended["page"] == "<p>1 rows sparkle</p>"


def test_a_workload_and_a_backend_can_be_asked_for_in_a_grid(extended):
    assert extended["workload"] == ["turns=3"] and extended["backend"] == ["script"] and extended["runs_here"]


def test_a_task_is_found_by_name(extended):
    assert extended["task"] == "suites.common.tasks.sparks:Sparks"


def test_an_executor_runs_the_sweep(extended):
    assert {"probe", "invocation"} <= set(extended["jobs"])
