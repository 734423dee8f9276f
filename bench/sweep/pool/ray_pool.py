"""`executor=ray`: pieces of work as tasks of Ray, one at a time on each machine that offers a slot.

A task starts a process of its own that shares nothing with Ray and streams the files that it writes.
"""

from __future__ import annotations

import socket
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.config.schema import Config, Executor
from bench.errors import UsageError
from bench.sweep.pool import Arrived, Ended, News
from bench.sweep.pool.errand import Errand
from bench.sweep.pool.work import Work

#: Seconds between two looks of a task at what its process has written.
POLL_S = 0.5
#: Seconds that the driver waits for news at most.
NEWS_S = 1.0
#: Seconds within which something has to listen at the cluster's address.
CONNECT_S = 5.0


def open_pool(config: Config) -> RayPool:
    """The machines of the cluster at `executor.address`.

    Raises:
        UsageError: Ray is not installed, there is no cluster at the address, or a sweep on GPUs asks for none.
    """
    if config.device.name != "cpu" and not config.executor.gpus:
        raise UsageError(
            f"device={config.device.name} clashes with executor.gpus=0: a task of Ray sees no GPU that it did not ask "
            "for; say executor.gpus=1 and start the machines with --num-gpus (job=slots prints how)"
        )
    return RayPool(config.executor)


def errand(text: str) -> Iterator[tuple[dict[str, bytes], dict[str, Any] | None]]:
    """What a task does: files as they come, and last how it ended.

    The process dies with the task, however that ends (`bench.worker.isolation.die_with_parent`).
    """
    with tempfile.TemporaryDirectory(prefix="waterline-errand-") as folder:
        running = Errand(Work.read(text), Path(folder))
        try:
            while not running.wait(POLL_S):
                files = running.new_files()
                if files:
                    yield files, None
            yield running.new_files(), running.ending()
        finally:
            running.end()


def _listed(resources: Mapping[str, float]) -> str:
    """Resources of Ray in words, bytes left out."""
    counted = {name: count for name, count in resources.items() if "memory" not in name}
    return ", ".join(f"{name} {count:g}" for name, count in sorted(counted.items())) or "nothing"


class RayPool:
    """The machines of a Ray cluster, as a context manager; leaving it cancels what runs.

    Args:
        settings: address, slot, label and the folder of code.
    """

    #: One piece waits at the pool beside those that are measured, so that no machine waits for the driver.
    ahead = 1

    def __init__(self, settings: Executor):
        try:
            import ray
        except ImportError as error:
            raise UsageError("executor=ray needs Ray: pip install 'waterline-bench[pool]'") from error
        self._ray, self._settings = ray, settings
        self._running: dict[Any, str] = {}
        self._told: deque[News] = deque()

    def __enter__(self) -> RayPool:
        self._check_address()
        local = self._settings.address == "local"
        environment = {"working_dir": self._settings.working_dir} if self._settings.working_dir else {}
        resources = {name: 1.0 for name in (self._settings.slot, self._settings.label) if name}
        try:
            self._ray.init(
                address=None if local else self._settings.address or "auto",
                resources=resources if local else None,
                runtime_env=environment or None,
                include_dashboard=False if local else None,
                log_to_driver=False,
                configure_logging=False,
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UsageError(self._nobody(error)) from error
        self._task = self._ray.remote(errand)
        return self

    def _check_address(self) -> None:
        """Raise UsageError where nothing listens at an address of host and port: Ray itself would try for minutes."""
        host, found, port = (self._settings.address or "").removeprefix("ray://").rpartition(":")
        if not found:
            return
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
        except (OSError, ValueError, OverflowError) as error:
            raise UsageError(self._nobody(error)) from error

    def _nobody(self, error: Exception) -> str:
        return (
            f"executor.address={self._settings.address}: no Ray cluster answers there ({error}); start one with "
            "ray start --head, or take executor.address=local for this machine alone"
        )

    def __exit__(self, *_: object) -> None:
        for stream in self._running:
            self._ray.cancel(stream, force=False)
        self._running.clear()
        self._ray.shutdown()

    def slots(self) -> int:
        """Slots of the machines that are there now."""
        offered = self._ray.cluster_resources()
        counts = [offered.get(self._settings.slot, 0)]
        if self._settings.label:
            counts.append(offered.get(self._settings.label, 0))
        if self._settings.gpus:
            counts.append(offered.get("GPU", 0) // self._settings.gpus)
        return int(min(counts))

    def offered(self) -> str:
        """What the nodes of the cluster offer, and what a slot takes."""
        settings, nodes = self._settings, [node for node in self._ray.nodes() if node["Alive"]]
        given = {name: count for name, count in self._ray.cluster_resources().items() if not name.startswith("node:")}
        wanted = {settings.slot: 1, **({settings.label: 1} if settings.label else {})}
        wanted |= {"GPU": settings.gpus} if settings.gpus else {}
        return (
            f"a slot takes {_listed(wanted)}; the cluster has {len(nodes)} node{'' if len(nodes) == 1 else 's'} with "
            f"{_listed(given)}"
        )

    def submit(self, work: Work) -> None:
        """Hand the piece of work to Ray, which places it where a slot is free."""
        label = {self._settings.label: 0.001} if self._settings.label else {}
        options = {
            "num_cpus": 0,
            "num_gpus": self._settings.gpus,
            "resources": {self._settings.slot: 1, **label},
            "max_retries": 0,  # a lost machine's work is given out anew by the driver, without what came before
            "num_returns": "streaming",
        }
        self._running[self._task.options(**options).remote(work.text())] = work.key

    def news(self) -> News | None:
        """The next thing that a task sent, or that became of it."""
        if not self._told and self._running:
            ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=NEWS_S, fetch_local=True)
            for stream in ready:
                self._told.extend(self._take(stream))
        return self._told.popleft() if self._told else None

    def _take(self, stream: Any) -> list[News]:
        key = self._running[stream]
        try:
            files, ended = self._ray.get(next(stream))
        except StopIteration:
            del self._running[stream]
            return [Ended(key, "lost", "its task ended without a word")]
        except self._ray.exceptions.RayError as error:
            del self._running[stream]
            return [Ended(key, "lost", f"its machine was lost ({type(error).__name__})")]
        news: list[News] = [Arrived(key, files)] if files else []
        if ended is not None:
            del self._running[stream]
            news.append(Ended.told(key, ended))
        return news
