"""Jobs of submitit: real ones as processes of this host, and the script that a real SLURM would be given."""

import os
import stat
import threading
import time

import pytest

from bench.config import catalogue
from bench.config.schema import Executor
from bench.errors import UsageError
from bench.plan import plan
from bench.store.records import Store
from bench.sweep.pool.slurm_pool import SlurmPool, open_pool
from bench.sweep.pool.work import work_for
from tests.sweeping import configuration, sweep

submitit = pytest.importorskip("submitit")
MODELS = [f"tests.faults.models:healthy(width={width})" for width in (4, 5)]


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """A machine of the test's own."""
    monkeypatch.setenv("WATERLINE_NODE", f"test-{os.getpid()}")
    monkeypatch.setenv("TMPDIR", str(tmp_path))


def local(folder, models=MODELS, **more):
    executor = {"name": "slurm", "cluster": "local", "inner": "tests.workers", "parallel": 2, **more}
    return configuration(folder, models, executor=executor)


def test_a_job_gives_the_records_of_a_local_sweep_and_leaves_no_copies(tmp_path):
    config = local(tmp_path, MODELS[:1])
    done = sweep(config)
    assert not done.problems and len(done.records) == done.measured == 1
    assert {record["status"] for record in done.records} <= {"ok", "contaminated"}
    assert not list((Store(config.paths.results).root / "pool").glob("*/results"))
    assert sweep(config).measured == 0


@pytest.mark.slow
def test_a_job_that_is_killed_is_given_out_again(tmp_path):
    config = local(tmp_path)
    pool = Store(config.paths.results).root / "pool"

    def kill():
        import psutil

        while True:
            for process in psutil.process_iter(["cmdline"]):
                words = process.info["cmdline"] or []
                if "submitit.core._submit" in words and str(pool) in " ".join(words):
                    process.kill()
                    return
            time.sleep(0.05)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    done = sweep(config)
    killer.join(10)
    assert not killer.is_alive() and not done.problems and len(done.records) == 2


def works(config):
    made = plan.make(config, catalogue.load())
    return [work_for(config, group.label, group.cases, 400.0 * (i + 1), [None]) for i, group in enumerate(made.groups)]


def test_the_script_asks_for_exclusive_nodes_an_array_and_the_time_that_the_plan_expects(tmp_path, monkeypatch):
    script = tmp_path / "bin" / "sbatch"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\ncat "$1" > {tmp_path}/script\necho "Submitted batch job 77"\n', encoding="utf-8")
    (script.parent / "srun").write_text("#!/bin/sh\n", encoding="utf-8")
    for file in script.parent.iterdir():
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")
    options = {"slurm_partition": "bench", "slurm_account": "lab"}
    config = local(tmp_path, cluster="slurm", label="a100", gpus=1, options=options)
    pool = open_pool(config)
    for work in works(config):
        pool._folder.mkdir(parents=True, exist_ok=True)
        pool.submit(work)
    pool._flush()
    text = (tmp_path / "script").read_text(encoding="utf-8")
    for line in (
        "--exclusive",
        "--array=0-1%2",
        "--time=40",  # three times 800 s
        "--constraint=a100",
        "--gpus-per-node=1",
        "--partition=bench",
        "--account=lab",
        "--signal=USR2@90",  # a preempted job is told, and goes back into the queue
    ):
        assert f"#SBATCH {line}" in text, text
    names = [(pool._folder / work.key / "job_id").read_text() for work in works(config)]
    assert names == ["77_0", "77_1"]


def test_a_short_plan_gets_ten_minutes_and_a_limit_of_ones_own_is_taken(tmp_path):
    config = local(tmp_path)
    short = [work_for(config, "x", [], 5.0, [])]
    pool = SlurmPool(Executor(name="slurm", cluster="local"), tmp_path)
    assert pool.parameters(short)["timeout_min"] == 10
    assert SlurmPool(Executor(name="slurm", cluster="local", minutes=3), tmp_path).parameters(short)["timeout_min"] == 3


def test_a_host_without_sbatch_and_options_that_do_not_exist_are_errors_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="no sbatch and srun; run the command on a login node"):
        open_pool(local(tmp_path, cluster="slurm"))
    with pytest.raises(UsageError, match=r"executor\.options: submitit does not take them"):
        sweep(local(tmp_path, options={"slurm_partitoin": "x"}))
