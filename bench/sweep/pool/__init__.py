"""Several machines: a pool measures whole groups, each on one machine, and sends back what the local sweep writes.

A table of pools; another one is a file beside `ray_pool.py` and a line here.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from bench import lookup
from bench.config.schema import Config
from bench.errors import UsageError
from bench.sweep.pool.work import Work

#: Name -> module with a function `open_pool(config)` that gives a context manager around a `Pool`.
POOLS: dict[str, str] = {
    "ray": "bench.sweep.pool.ray_pool",
    "slurm": "bench.sweep.pool.slurm_pool",
}


@dataclass(frozen=True)
class Arrived:
    """Files that a machine wrote for a piece of work, by their path in its results folder."""

    work: str
    files: dict[str, bytes]


@dataclass(frozen=True)
class Ended:
    """A piece of work came to its end on a machine, or its machine was lost.

    Attributes:
        work: its key.
        status: `done`; `refused` where the machine is not as the driver; `failed` where its sweep stopped; `lost` where
            nothing is known, which is worth another machine.
        message: why, empty if done.
        node: the machine's name, empty if that is not known.
        began: and `ended`: when it was measured there, in seconds since 1970; None if it was not.
        place: what of the machine it had to itself, in words.
    """

    work: str
    status: str
    message: str = ""
    node: str = ""
    began: float | None = None
    ended: float | None = None
    place: str = ""

    @classmethod
    def told(cls, work: str, told: dict[str, Any]) -> Ended:
        """What a machine's process wrote last (`bench.sweep.pool.node`), as news."""
        names = ("status", "message", "node", "began", "ended", "place")
        return cls(work, **{name: told[name] for name in names if name in told})


News = Arrived | Ended


class Pool(Protocol):
    """Machines that each measure one piece of work at a time.

    `ahead` is how many pieces may wait at the pool beside those that are measured; None: all.
    """

    ahead: int | None

    def slots(self) -> int:
        """How many pieces can be measured at once now; 0 while no machine is there."""

    def offered(self) -> str:
        """What there is and what a slot takes, in words, for who wonders why nothing is measured."""

    def submit(self, work: Work) -> None:
        """Have a piece of work measured on some machine; returns at once."""

    def news(self) -> News | None:
        """What happened next; None if nothing did within about a second."""


def is_pool(name: str) -> bool:
    """Whether an executor of that name runs groups on several machines."""
    return name in POOLS


def open_pool(config: Config) -> AbstractContextManager[Pool]:
    """The pool that the configuration names, to be entered; leaving it ends whatever it runs.

    Raises:
        UsageError: the library behind it is not installed, or its machines cannot be reached.
    """
    module = lookup.module_of("executor", config.executor.name, POOLS)
    if not callable(getattr(module, "open_pool", None)):
        raise UsageError(f'executor "{config.executor.name}": the module {module.__name__} has no open_pool')
    opened: AbstractContextManager[Pool] = module.open_pool(config)
    return opened
