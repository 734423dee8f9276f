"""The kernel ends a worker because memory runs out: a row says so; driver, server and the next case live on."""

import subprocess
from pathlib import Path

import pytest

from bench.store.records import Store
from tests.faults.driver import command, environment, statuses
from tests.sweeping import HEALTHY

LIMIT = 1536 * 2**20
#: Where a control group with a limit on memory is made: what tells that it can be, and the file of the limit.
PLACES = {
    "/sys/fs/cgroup": ("cgroup.controllers", "memory.max"),
    "/sys/fs/cgroup/memory": ("memory.limit_in_bytes", "memory.limit_in_bytes"),
}


@pytest.fixture
def small_group():
    """A control group with little memory, where this is allowed."""
    for place, (sign, limit) in PLACES.items():
        group = Path(place) / "waterline-test"
        if not (Path(place) / sign).exists():
            continue
        try:
            group.mkdir(exist_ok=True)
            (group / limit).write_text(str(LIMIT))
        except OSError:
            if group.is_dir():
                group.rmdir()
            continue
        yield group
        group.rmdir()
        return
    pytest.skip("control groups with a limit on memory cannot be made here")


@pytest.mark.slow
def test_a_worker_that_the_kernel_ends_for_want_of_memory_is_an_oom_row_and_the_rest_is_measured(tmp_path, small_group):
    enter = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(small_group / "cgroup.procs")]
    models = ["tests.faults.models:eats_pages", HEALTHY]
    done = subprocess.run(
        [*enter, *command(tmp_path, models, "executor.retries=0", "executor.memory_share=0.2")],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    records = list(Store(tmp_path / "results").iterate())
    assert statuses(records) == {"eats_pages": "oom", "healthy": "ok"}
    (error,) = [record["error"] for record in records if record["error"]]
    assert error["message"] == "the kernel killed the process because memory ran out"
    assert "Traceback" not in done.stderr
