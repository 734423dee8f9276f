"""What every source of joules offers, and what stands in its place where there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from bench.errors import BenchError
from bench.reading import Provenance, Reading, unavailable

#: What a number of joules covers; several joined by "+".
Scope = Literal["gpu_board", "cpu_package", "cpu_package+dram", "soc", "wall"]

Clock = Callable[[], float]
Sleep = Callable[[float], None]


class EnergyError(BenchError):
    """A measurement of energy that was begun cannot be finished honestly."""


class CounterReset(EnergyError):
    """The counter was reset in the middle of a window: that window is lost, the next one is not."""


class DeadCounter(EnergyError):
    """The counter can be read but does not move."""


@dataclass(frozen=True)
class Unavailable:
    """No energy here: why, and what would help. It stands where a result would, and is never a zero.

    `shared` says that there is a meter but others draw from it as well: another way to read it would not help.
    """

    reason: str
    remedy: str = ""
    shared: bool = False

    def readings(self) -> list[Reading]:
        """The energy metrics, unavailable."""
        text = self.reason + (f" ({self.remedy})" if self.remedy else "")
        return [unavailable("energy_j", text), unavailable("energy_net_j", text)]

    def as_dict(self) -> dict[str, Any]:
        """The reason as plain JSON types."""
        return {"available": False, "reason": self.reason, "remedy": self.remedy}


class Backend(Protocol):
    """A source of joules between two marks.

    Attributes:
        name: of the backend, as `protocol.energy.backend` spells it.
        scope: what the joules cover.
        provenance: `measured`, or `estimated` where a formula stands for a meter.
        method_note: how the number comes about, in a sentence.
        sampled: whether the sensor looks at the power from time to time instead of adding it up all the time.
        has_idle: whether the idle device can be measured too.
        check: a second source for the same scope, read in the same windows, or None.
    """

    name: str
    scope: Scope
    provenance: Provenance
    method_note: str
    sampled: bool
    has_idle: bool
    check: Backend | None

    def start(self) -> None:
        """Make ready to be read; may begin sampling."""

    def stop(self) -> None:
        """Stop sampling and let go of the device."""

    def mark(self) -> Any:
        """The present, to be handed to `joules`."""

    def joules(self, begin: Any, end: Any) -> float:
        """Energy between two marks.

        Raises:
            EnergyError: the source has a hole between them.
        """

    def poll(self) -> None:
        """Look at the counter so that no wrap-around is missed; called about once a second.

        Raises:
            CounterReset: it was reset.
        """

    def raw(self) -> float | None:
        """A number that changes whenever the sensor is refreshed, or None if there is no such number."""

    def conditions(self) -> dict[str, Any]:
        """Power limit, clocks, temperature and the like at this moment."""

    def shared_with(self) -> str | None:
        """Who else uses the device, so that its joules are not ours alone; or None."""
