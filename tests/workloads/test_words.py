"""The words of workloads: names without torch, shapes that are checked, and docs that say what the code says."""

import subprocess
import sys
from pathlib import Path

import pytest

from bench.errors import UsageError
from bench.metrics import METRICS, rate_of
from bench.workloads import WORKLOADS, describing, find, module_of
from bench.workloads.workload import repeated

ROOT = Path(__file__).resolve().parents[2]


def test_docs_hold_the_tables_of_the_code():
    text = (ROOT / "docs" / "workloads.md").read_text()
    assert describing.overview() in text and describing.axes() in text


def test_the_example_of_the_docs_is_a_workload():
    text = (ROOT / "docs" / "workloads.md").read_text()
    block = next(part for part in text.split("```python\n") if "def make_parts" in part).partition("```")[0]
    scope = {}
    exec(block, scope)
    assert scope["WORKLOAD"].shape({}) == {"batch": 1, "turns": 2}

    class Subject:
        args = (3,)

        @staticmethod
        def module(value):
            return value + 1

    (part,) = scope["make_parts"](Subject, {"batch": 2, "turns": 3})
    assert part.run() == [4, 4, 4] and part.units == 6


def test_workloads_are_known_without_torch():
    program = (
        "import sys; from bench.workloads import WORKLOADS, module_of; [module_of(name) for name in WORKLOADS]; "
        "from bench.workloads import open_loop, queueing, describing; describing.axes(); "
        "sys.exit('torch' in sys.modules or 'scipy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


def test_the_rate_of_every_workload_is_a_metric_of_its_parts():
    for name in WORKLOADS:
        metric = METRICS[rate_of(find(name).unit)]
        assert metric.per_part and metric.unit == f"{find(name).unit}/s"


def test_every_call_that_a_compiler_is_offered_is_asked_for():
    for name in WORKLOADS:
        own = Path(module_of(name).__file__)  # with the files that share its work
        asked = [file.read_text().partition("require(")[2] for file in (own, *own.parent.glob(f"{own.stem}_*.py"))]
        for call in find(name).calls:
            assert call == "forward" or any(f'"{call}"' in text for text in asked)


@pytest.mark.parametrize(
    ("workload", "shape", "message"),
    [
        ("generate", {"contxt": 4}, 'did you mean "context"'),
        ("generate", {"new_tokens": 0}, "from 1"),
        ("generate", {"context": 1.5}, "whole number"),
        ("sample", {"guidance": -1.0}, "from 0 to 1000"),
        ("split", {"bandwidth_mbps": "fast"}, "number from"),
        ("pipeline", {"batch": 2}, "from 1 to 1"),
    ],
)
def test_a_shape_that_makes_no_sense_says_what_would(workload, shape, message):
    with pytest.raises(UsageError, match=message):
        find(workload).shape(shape)


def test_an_unknown_workload_gets_the_nearest_name():
    with pytest.raises(UsageError, match='did you mean "generate"'):
        find("genrate")
    with pytest.raises(UsageError, match="cannot be imported"):
        find("nowhere.to_be_found")
    with pytest.raises(UsageError, match="has no WORKLOAD"):
        find("tests.workloads.subjects")


def test_passes_are_repeated_within_their_time_and_the_first_is_not_kept():
    now, made = [0], []

    def run(seconds):
        now[0] += round(seconds * 1e9)
        made.append(len(made))
        return made[-1]

    assert repeated(lambda: run(1), lambda: now[0], times=3, seconds=20) == [1, 2, 3]
    made.clear()
    assert repeated(lambda: run(30), lambda: now[0], times=3, seconds=20) == [1]


def test_a_unit_that_no_metric_counts_is_refused_when_the_workload_is_looked_up():
    with pytest.raises(UsageError, match=r"turns_per_s.*units there: sample, token"):
        find("tests.workloads.turns")


def test_the_plan_knows_how_long_a_pipeline_is_under_load():
    module = module_of("pipeline")
    calm = module.WORKLOAD.shape({"seconds": 10})
    saturated = 5 * 4 * 0.5  # the chain, its network, pre-processing and transfer
    assert module.facts_seconds(calm) == pytest.approx(saturated)
    assert module.facts_seconds({**calm, "rate": 100.0}) == pytest.approx(saturated + 5 * 10)
    assert module.facts_seconds({**calm, "load": 0.5}) == pytest.approx(saturated + 5 * 10)
    assert module.facts_seconds({**calm, "rate": 1.0}) == pytest.approx(saturated + 5 * 20)  # 20 requests at least
