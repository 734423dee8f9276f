"""Local, offloaded or split: which way answers first at a link's rate and a device's speed, and where that changes.

The time of a way is f x device + server + 8 x bytes / rate + round trip; one that sends nothing has only the first. Two
ways cost the same at the rate 8 x (difference of bytes) / (difference of the other times): the break-even rate. Server
times are of this machine, those of the device are f times as long. Pure functions of measured parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["always", "never", "below", "above"]


@dataclass(frozen=True)
class Way:
    """One way to answer a request.

    Attributes:
        name: as people read it.
        device_ms: of head and encoding, on this machine.
        server_ms: of decoding and tail, on this machine.
        bytes: on the wire, both ways together.
        sends: whether there is a link at all.
    """

    name: str
    device_ms: float
    server_ms: float
    bytes: float
    sends: bool = True

    def fixed_ms(self, factor: float, rtt_ms: float) -> float:
        """Milliseconds that do not depend on the rate."""
        return factor * self.device_ms + self.server_ms + (rtt_ms if self.sends else 0.0)

    def total_ms(self, rate_mbps: float, rtt_ms: float, factor: float) -> float:
        """Milliseconds of a request."""
        link = 8e-3 * self.bytes / rate_mbps if self.sends else 0.0
        return self.fixed_ms(factor, rtt_ms) + link


@dataclass(frozen=True)
class BreakEven:
    """At which rates one way is quicker than another: `below` or `above` a rate in Mbit/s, always or never."""

    kind: Kind
    mbps: float | None = None

    def holds(self, rate_mbps: float) -> bool:
        """Whether the first way is quicker at this rate."""
        if self.mbps is None:
            return self.kind == "always"
        return rate_mbps < self.mbps if self.kind == "below" else rate_mbps > self.mbps

    def __str__(self) -> str:
        return self.kind if self.mbps is None else f"{self.kind} {self.mbps:.3g} Mbit/s"


def break_even(first: Way, other: Way, *, factor: float = 1.0, rtt_ms: float = 0.0) -> BreakEven:
    """At which rates the first way is quicker than the other: 8 (b_other - b_first) / rate > t_first - t_other.

    Args:
        first: such as the split network.
        other: such as offloading a JPEG.
        factor: how much slower the device is than this machine.
        rtt_ms: round trip of the link.
    """
    slower = first.fixed_ms(factor, rtt_ms) - other.fixed_ms(factor, rtt_ms)
    saved = (other.bytes if other.sends else 0.0) - (first.bytes if first.sends else 0.0)
    if saved > 0:
        return BreakEven("always") if slower <= 0 else BreakEven("below", 8e-3 * saved / slower)
    if saved < 0:
        return BreakEven("never") if slower >= 0 else BreakEven("above", 8e-3 * saved / slower)
    return BreakEven("always" if slower < 0 else "never")


def winner(ways: Sequence[Way], rate_mbps: float, rtt_ms: float, factor: float) -> int:
    """The place of the quickest way; the first of several that are equally quick."""
    return min(range(len(ways)), key=lambda place: ways[place].total_ms(rate_mbps, rtt_ms, factor))


def link_map(
    ways: Sequence[Way], rates_mbps: Sequence[float], factors: Sequence[float], rtt_ms: float
) -> list[list[int]]:
    """The place of the quickest way, for each factor of the device and each rate."""
    return [[winner(ways, rate, rtt_ms, factor) for rate in rates_mbps] for factor in factors]
