"""A server whose service time is known, so that what the instrument measures of a queue has a closed form.

L. Kleinrock, Queueing Systems I, 1975: Poisson arrivals at one server that takes a fixed time are M/D/1, at one that
takes exponential times M/M/1, at two of those M/M/2; evenly spaced ones at a fixed time are D/D/1. The stage spins:
sleeping overshoots and lets the core slow down.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bench.config.settings import Count, Positive
from bench.workloads import queueing

#: Different service times that are taken in turn: more than an open loop has requests, so that none comes twice.
DRAWN = 2048


class KnownServer(nn.Module):
    """One stage, `spin`, that takes so long as the request says.

    Attributes:
        requests: how many different ones there are.
        services: milliseconds of each, [requests].
    """

    network_stage = "spin"
    services: Tensor

    def __init__(self, law: str, ms: float, seed: int):
        super().__init__()
        self.requests = 1 if law == "fixed" else DRAWN
        generator = random.Random(seed)
        drawn = [1.0] if law == "fixed" else [generator.expovariate(1.0) for _ in range(DRAWN)]
        self.register_buffer("services", torch.tensor([ms * factor for factor in drawn]))

    def stages(self) -> list[tuple[str, Callable[[Any], Any]]]:
        """The one stage."""
        return [("spin", spin)]

    def example_request(self, index: int) -> Tensor:
        """Milliseconds that request `index` takes."""
        return self.services[index]

    def expected_sojourn_ms(self, rate: float, servers: int, arrivals: queueing.Arrivals) -> float | None:
        """The mean time in system of its queue, of the service times that there are; None where no form is closed.

        Args:
            rate: offered requests per second.
            servers: that answer.
            arrivals: their kind.

        Raises:
            ValueError: more is offered than the servers answer.
        """
        services = 1e-3 * self.services.double()
        mean, is_fixed = float(services.mean()), self.requests == 1
        if arrivals == "fixed" and is_fixed:
            return 1e3 * queueing.dd_sojourn(rate, mean, servers)
        if arrivals != "poisson" or (is_fixed and servers > 1):
            return None
        if servers > 1:
            return 1e3 * queueing.mmc_sojourn(rate, mean, servers)
        variation = 0.0 if is_fixed else float(services.std() / services.mean())
        return 1e3 * queueing.mg1_sojourn(rate, mean, variation)

    def forward(self, x: Tensor) -> Tensor:
        """The input: there is no network."""
        return x

    def example_inputs(self, batch: int) -> tuple[Tensor]:
        """Something to hand through."""
        return (torch.zeros(batch, 1),)


def spin(milliseconds: Tensor) -> Tensor:
    """The time that was asked for, once it has passed; at once where there is only its shape."""
    if milliseconds.is_meta:
        return milliseconds
    end = time.perf_counter_ns() + int(1e6 * float(milliseconds))
    while time.perf_counter_ns() < end:
        pass
    return milliseconds


def known_server(
    *, law: Literal["fixed", "exponential"] = "fixed", ms: Positive = 10.0, seed: Count = 0
) -> KnownServer:
    """A server of known service time, in evaluation mode.

    Args:
        law: of the service time.
        ms: its mean, milliseconds.
        seed: of exponential times.
    """
    return KnownServer(law, ms, seed).eval()
