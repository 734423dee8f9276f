"""A ring of slots in memory that two processes share, each way, with semaphores for full and free ones."""

from __future__ import annotations

from bench.workloads.shared_ring import Ring, RingStuck
from suites.serving.transports.channel import TransportFailed


class SharedMemoryChannel:
    """A ring each way.

    Args:
        size: bytes of the largest request.
        answer: bytes of the largest answer.
    """

    answered_at_once = False

    def __init__(self, size: int, answer: int = 1 << 16):
        self._requests, self._answers = Ring(size), Ring(answer)

    def begin_client(self) -> None:
        """Nothing: the memory is there."""

    def begin_server(self) -> None:
        """Nothing: the memory is there."""

    def send(self, request: bytes) -> None:
        """Into a slot."""
        _written(self._requests, request)

    def take(self) -> bytes:
        """Out of a slot."""
        return _read(self._answers)

    def receive(self) -> bytes:
        """Out of a slot."""
        return _read(self._requests)

    def give(self, answer: bytes) -> None:
        """Into a slot."""
        _written(self._answers, answer)

    def close(self) -> None:
        """Nothing: the memory goes with its last holder."""


def _written(ring: Ring, message: bytes) -> None:
    try:
        ring.write(message)
    except RingStuck as error:
        raise TransportFailed(str(error)) from error


def _read(ring: Ring) -> bytes:
    try:
        return ring.read()
    except RingStuck as error:
        raise TransportFailed(str(error)) from error
