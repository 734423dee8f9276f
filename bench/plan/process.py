"""What one timed process of a session is to do: decided by the driver from those before it, obeyed by the worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class ProcessPlan:
    """A timed process; as it stands it is the first of a session, which does everything in full.

    Attributes:
        rounds: samples of each member; None takes as many as the protocol gives a first process.
        warmup_s: seconds of warm-up by the name of what is timed; in full for a name that is not there.
        throughput: whether throughput windows are taken.
        layers: whether times of layers are.
    """

    rounds: int | None = None
    warmup_s: Mapping[str, float] = field(default_factory=dict)
    throughput: bool = True
    layers: bool = True

    @classmethod
    def from_dict(cls, values: Mapping[str, Any] | None) -> ProcessPlan:
        """The plan that a worker was told; without one, that of a first process."""
        return cls(**(values or {}))

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)
