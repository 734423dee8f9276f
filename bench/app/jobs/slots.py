"""`job=slots`: what this machine can offer a pool, and the commands of Ray that offer it."""

from __future__ import annotations

import json
import os

from bench.config.schema import Config
from bench.host import topology
from bench.host.slots import Slot, slots
from bench.host.visible_gpus import VISIBLE, nvml

#: Stands in a command where the address of the cluster's first machine goes.
HEAD = "HEAD:6379"


def run(config: Config) -> int:
    """Print what can measure at once here and how it is offered; 0."""
    head = config.executor.address if ":" in (config.executor.address or "") else HEAD
    try:
        with nvml() as lib:
            found = slots(lib, os.sched_getaffinity(0))
    except RuntimeError as error:
        found = []
        print(f"no GPU: {error}")
    for one in found:
        said = f"processors {topology.as_list(one.share.cpus)}" if one.share.cpus else "all processors"
        print(f"{one.label:<16} {one.name}, {said}" + (f" ({one.share.reason})" if one.share.reason else ""))
    print("\n".join(commands(found, str(head).removeprefix("ray://"), config)))
    return 0


def commands(found: list[Slot], head: str, config: Config) -> list[str]:
    """What to type on this machine, and then on any of the cluster, for each class of its devices.

    Unlike boards are offered by nodes of their own, because Ray's resources do not say which of them a task gets.
    """
    slot = config.executor.slot
    if not found:
        offer = json.dumps({slot: 1, **({config.executor.label: 1} if config.executor.label else {})})
        return [f"ray start --address={head} --num-gpus=0 --resources='{offer}'"]
    classes: dict[str, list[Slot]] = {}
    for one in found:
        classes.setdefault(one.label, []).append(one)
    lines = []
    for label, own in classes.items():
        offer = json.dumps({slot: len(own), label: len(own)})
        visible = ",".join(one.uuid for one in own)
        lines += [
            f"{VISIBLE}={visible} ray start --address={head} --num-gpus={len(own)} --resources='{offer}'",
            f"python -m bench suite={config.suite.name} device=cuda executor=ray executor.gpus=1 "
            f"executor.label={label}",
        ]
    return lines
