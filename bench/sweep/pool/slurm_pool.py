"""`executor=slurm`: pieces of work as an array of jobs on exclusive nodes, by submitit, over a shared folder.

A job starts a process of its own that shares nothing with submitit. A job that is preempted goes back into the queue
and continues in its folder; one that outlived its driver is found again by the next.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from collections import deque
from pathlib import Path
from typing import Any

from bench.config.schema import Config, Executor
from bench.errors import UsageError
from bench.sweep.pool import Arrived, Ended, News
from bench.sweep.pool.errand import Errand, ending, new_files
from bench.sweep.pool.node import RESULTS
from bench.sweep.pool.work import Work

#: A job's time limit over the plan's estimate, and the least of it in minutes: a killed job loses its last process.
LIMIT_OVER_ESTIMATE, LEAST_MINUTES = 3.0, 10
#: Seconds between two looks at the folders of all jobs.
POLL_S = 1.0
JOB_ID = "job_id"


def open_pool(config: Config) -> SlurmPool:
    """The nodes of the cluster that this host submits to.

    Raises:
        UsageError: submitit is not installed, this host has no `sbatch`, or nodes are to be shared by jobs on CPUs.
    """
    settings = config.executor
    if not settings.exclusive and (config.device.name == "cpu" or not settings.gpus):
        raise UsageError(
            "executor.exclusive=false is for jobs with a GPU of their own (device=cuda executor.gpus=1): on a CPU "
            "nothing else may run on the node"
        )
    folder = Path(config.executor.folder or Path(config.paths.results) / "pool")
    return SlurmPool(config.executor, folder.resolve())


class NodeJob:
    """What a job does: measure the piece of work in its folder; preempted, the same again where it was.

    Args:
        text: the piece of work.
        folder: shared by the node and the driver.
    """

    def __init__(self, text: str, folder: str):
        self.text, self.folder = text, folder

    def __call__(self) -> dict[str, Any]:
        """How it ended."""
        running = Errand(Work.read(self.text), Path(self.folder))
        try:
            while not running.wait(POLL_S):
                pass
            return running.ending()
        finally:
            running.end()

    def checkpoint(self) -> Any:
        """What is put into the queue when the job is preempted or at its time limit."""
        import submitit

        return submitit.helpers.DelayedSubmission(NodeJob(self.text, self.folder))


class SlurmPool:
    """Jobs of a cluster, as a context manager; leaving it after an error cancels what waits or runs.

    Args:
        settings: of the jobs.
        folder: for the pieces of work; on a file system that all nodes share.
    """

    #: Every piece goes to the queue at once, as one array: the cluster knows best when its turn is.
    ahead = None

    def __init__(self, settings: Executor, folder: Path):
        try:
            import submitit
        except ImportError as error:
            raise UsageError("executor=slurm needs submitit: pip install 'waterline-bench[pool]'") from error
        if settings.cluster == "slurm" and None in (shutil.which("sbatch"), shutil.which("srun")):
            raise UsageError(
                "executor=slurm: this host has no sbatch and srun; run the command on a login node of the cluster, or "
                "take executor.cluster=local to run the same jobs as processes here"
            )
        self._submitit, self._settings, self._folder = submitit, settings, folder
        self._collected: list[Work] = []
        self._jobs: dict[str, Any] = {}
        self._sent: dict[str, dict[str, int]] = {}
        self._told: deque[News] = deque()

    def __enter__(self) -> SlurmPool:
        self._folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for job in self._jobs.values() if kind is not None else ():
            with contextlib.suppress(Exception):  # a cluster that does not answer now must not hide the first error
                job.cancel()

    def slots(self) -> int:
        """Jobs that may run at once."""
        return self._settings.parallel

    def offered(self) -> str:
        """What may run at once; which nodes there are is the cluster's affair."""
        return f"{self._settings.parallel} jobs of {self._settings.cluster} may run at once"

    def submit(self, work: Work) -> None:
        """Have the piece in the next array; one that an earlier driver submitted and that still runs is watched."""
        earlier = self._still_running(work)
        if earlier is None:
            self._collected.append(work)
        else:
            self._watch(work, earlier)

    def parameters(self, works: list[Work]) -> dict[str, Any]:
        """What submitit is told about the array of these pieces."""
        minutes = self._settings.minutes or max(
            LEAST_MINUTES, *(math.ceil(LIMIT_OVER_ESTIMATE * work.seconds / 60) for work in works)
        )
        return {
            "name": "waterline",
            "timeout_min": minutes,
            "gpus_per_node": self._settings.gpus,
            **self._alone(),
            "slurm_array_parallelism": self._settings.parallel,
            **({"slurm_constraint": self._settings.label} if self._settings.label else {}),
            **self._settings.options,
        }

    def _alone(self) -> dict[str, Any]:
        """What keeps others away: the whole node, or a GPU with cores near it that SLURM gives to nobody else."""
        if self._settings.exclusive:
            return {"slurm_exclusive": True}
        return {"slurm_additional_parameters": {"gres_flags": "enforce-binding"}}

    def news(self) -> News | None:
        """The next thing that a job wrote, or that became of it."""
        if self._collected:
            self._flush()
        if not self._told:
            for key in list(self._jobs):
                self._look(key)
            if not self._told:
                time.sleep(POLL_S)
        return self._told.popleft() if self._told else None

    def _flush(self) -> None:
        works, self._collected = self._collected, []
        executor = self._submitit.AutoExecutor(self._folder / "submitit", cluster=self._settings.cluster)
        try:
            executor.update_parameters(**self.parameters(works))
        except (NameError, TypeError, ValueError) as error:
            raise UsageError(f"executor.options: submitit does not take them: {error}") from error
        with executor.batch():
            jobs = [executor.submit(NodeJob(work.text(), str(self._folder / work.key))) for work in works]
        for work, job in zip(works, jobs, strict=True):
            (self._folder / work.key).mkdir(exist_ok=True)
            (self._folder / work.key / JOB_ID).write_text(job.job_id, encoding="utf-8")
            self._watch(work, job)

    def _watch(self, work: Work, job: Any) -> None:
        self._jobs[work.key], self._sent[work.key] = job, {}

    def _still_running(self, work: Work) -> Any:
        """The job of an earlier driver for this piece, if it waits or runs; else None."""
        with contextlib.suppress(OSError, ValueError):
            number = (self._folder / work.key / JOB_ID).read_text(encoding="utf-8").strip()
            kind = self._submitit.SlurmJob if self._settings.cluster == "slurm" else self._submitit.LocalJob
            job: Any = kind(self._folder / "submitit", number)
            return None if job.done() else job
        return None

    def _look(self, key: str) -> None:
        job, folder = self._jobs[key], self._folder / key
        over = job.done()  # asked before the files are read: what came last is not missed
        files = new_files(folder / RESULTS, self._sent[key])
        if files:
            self._told.append(Arrived(key, files))
        if over:
            del self._jobs[key]
            told = ending(folder, None)
            if told["status"] == "lost":
                told["message"] = f"its job {job.job_id} ended as {job.state}"
            else:
                shutil.rmtree(folder / RESULTS, ignore_errors=True)  # all of it is on its way
            self._told.append(Ended.told(key, told))
