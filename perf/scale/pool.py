"""A simulated pool: nodes of a real Ray cluster on this host, one of them slow, one lost on the way, some stragglers.

Cases are counted, not timed: what is looked at is the driver, which sees the same of a case that takes an hour.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from bench.config.protocol import Protocol
from bench.config.schema import Config, validate
from bench.store.journal import Journal
from bench.store.records import Store
from bench.sweep.events import Event, Recorded
from perf.scale.subjects import SLOW

#: Cases of a group, which one machine measures as a piece; and every so many groups one has a straggler.
TOGETHER, STRAGGLERS = 25, 8
STRAGGLER_S = 5.0
SUBJECT = "perf.scale.subjects:short"
NODES = ("one", "two", f"{SLOW}-one")
#: Share of the records after which a node is lost.
LOST_AFTER = 0.4
MB = 2**20


def configuration(folder: Path, cases: int, address: str) -> Config:
    """A sweep of so many short cases in groups of `TOGETHER`."""
    blocks = []
    for start in range(0, cases, TOGETHER):
        wait = STRAGGLER_S if start // TOGETHER % STRAGGLERS == 0 else 0.0
        names = [f"{SUBJECT}(width={start + 1 + number})" for number in range(TOGETHER)]
        names[-1] = f"{SUBJECT}(width={start + TOGETHER}, wait={wait})"
        blocks.append({"models": names[1:], "against": {"model": names[0]}, "batches": [1]})
    return validate({
        "suite": {"name": "pool", "task": "none", "grids": {"default": blocks}},
        "protocol": {**Protocol().model_dump(), "name": "counts", "timed": False},
        "tracking": {"enabled": False},
        "report": {"enabled": False},
        "counts": False,
        "executor": {"name": "ray", "address": address},
        "paths": {"results": str(folder / "results"), "site": str(folder / "site"), "cache": str(folder / "cache")},
    })  # fmt: skip


@contextmanager
def cluster(folder: Path) -> Iterator[Any]:
    """A head that measures nothing, and the nodes."""
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_DEDUP_LOGS="0")
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.measuring = [add(made, name, folder) for name in NODES]
    try:
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


def add(made: Any, name: str, folder: Path) -> Any:
    """A node with one slot, whose processes know its name."""
    variables = {"WATERLINE_NODE": name, "TMPDIR": str(folder)}
    return made.add_node(num_cpus=1, resources={"bench_slot": 1}, env_vars=variables)


def swept(cases: int) -> dict[str, Any]:
    """What the driver took while a pool that loses a node measured so many cases; run in a process of its own."""
    from bench.config import catalogue
    from bench.plan import plan
    from bench.sweep.loop import Driver

    with tempfile.TemporaryDirectory(prefix="waterline-pool-") as place, cluster(Path(place)) as nodes:
        config = configuration(Path(place), cases, nodes.address)
        made = plan.make(config, catalogue.load())
        process, kept = psutil.Process(), [0]
        memory = {"before": process.memory_info().rss / MB}
        due = threading.Event()

        def lose() -> None:
            due.wait()
            nodes.remove_node(nodes.measuring[0], allow_graceful=False)
            add(nodes, "three", Path(place))

        def watch(event: Event) -> None:
            kept[0] += isinstance(event, Recorded)
            if kept[0] >= LOST_AFTER * len(made.cases):
                due.set()

        loser = threading.Thread(target=lose, daemon=True)
        loser.start()
        processor, started = process.cpu_times(), time.perf_counter()
        done = Driver(config, made, [watch]).run({})
        seconds, used = time.perf_counter() - started, process.cpu_times()
        memory["after"] = process.memory_info().rss / MB
        loser.join(30)
        return {
            "cases": len(made.cases),
            "records": len({head.case_key for head in done.records.heads()}),
            "problems": done.problems,
            "seconds": seconds,
            "driver_cpu_s": used.user + used.system - processor.user - processor.system,
            "driver_mb": memory["after"],
            "driver_grew_mb": memory["after"] - memory["before"],
            **told(Path(config.paths.results)),
        }


def told(results: Path) -> dict[str, Any]:
    """What the journal says of the machines: losses, pieces by machine, and pieces measured at one time on one."""
    journal = Journal(Store(results).journal).read()
    pieces = [item for item in journal.events("measured_on") if item["began"]]
    spans = [(item["node"], item["began"], item["ended"]) for item in pieces]
    pairs = ((a, b) for place, a in enumerate(spans) for b in spans[place + 1 :])
    overlaps = sum(a[0] == b[0] and a[1] < b[2] and b[1] < a[2] for a, b in pairs)
    by_node = {name: sum(item["node"] == name for item in pieces) for name in sorted({item["node"] for item in pieces})}
    return {"lost": len(journal.events("machine_lost")), "overlaps": overlaps, "pieces": by_node}
