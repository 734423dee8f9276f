"""Where processes run is a name in a table, or a module of one's own."""

from contextlib import contextmanager

import pytest

from bench.errors import UsageError
from bench.sweep.executors import local, open_executor
from tests.sweeping import HEALTHY, configuration, sweep

ran = []


@contextmanager
def open_executor_here(timeouts_s):
    """The local one, which also notes the kind of every job."""
    with local.open_executor(timeouts_s) as inner:

        class Noting:
            def run(self, kind, spec, **options):
                ran.append(kind)
                return inner.run(kind, spec, **options)

        yield Noting()


def test_an_executor_of_ones_own_runs_a_sweep_by_its_dotted_path(tmp_path):
    done = sweep(configuration(tmp_path, [HEALTHY], executor={"name": "tests.sweep.own_executor", "retries": 0}))
    assert [record["status"] for record in done.records] == ["ok"]
    assert {"probe", "invocation"} <= set(ran)


@pytest.mark.parametrize(
    "name, words", [("lcoal", "local"), ("tests.nowhere", "cannot be imported"), ("tests.sweeping", "open_executor")]
)
def test_a_wrong_executor_is_told_by_name(name, words):
    with pytest.raises(UsageError, match=words):
        open_executor(name, {})
