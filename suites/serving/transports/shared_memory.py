"""A ring of slots in memory that two processes share, with semaphores for full and free ones."""

from __future__ import annotations

import mmap
from multiprocessing import get_context
from struct import Struct

from suites.serving.transports.channel import PATIENCE, TransportFailed

SLOTS = 4
_LENGTH = Struct("<Q")


class Ring:
    """One direction: who writes waits for a free slot, who reads for a full one, and copies its bytes out.

    Args:
        size: bytes of the largest message.
    """

    def __init__(self, size: int):
        context = get_context("fork")
        self.size = size
        self._slot = _LENGTH.size + size
        self._memory = mmap.mmap(-1, SLOTS * self._slot)
        self._free, self._full = context.Semaphore(SLOTS), context.Semaphore(0)
        self._written = self._read = 0

    def write(self, message: bytes) -> None:
        """Put a message into the next slot.

        Raises:
            ValueError: it does not fit.
            TransportFailed: no slot became free.
        """
        if len(message) > self.size:
            raise ValueError(f"a message of {len(message)} bytes does not fit into a slot of {self.size}")
        if not self._free.acquire(timeout=PATIENCE):
            raise TransportFailed(f"no slot of the ring became free in {PATIENCE:g} s")
        start = self._slot * (self._written % SLOTS)
        _LENGTH.pack_into(self._memory, start, len(message))
        self._memory[start + _LENGTH.size : start + _LENGTH.size + len(message)] = message
        self._written += 1
        self._full.release()

    def read(self) -> bytes:
        """The bytes of the next slot.

        Raises:
            TransportFailed: none was filled.
        """
        if not self._full.acquire(timeout=PATIENCE):
            raise TransportFailed(f"no slot of the ring was filled in {PATIENCE:g} s")
        start = self._slot * (self._read % SLOTS)
        (length,) = _LENGTH.unpack_from(self._memory, start)
        message = self._memory[start + _LENGTH.size : start + _LENGTH.size + length]
        self._read += 1
        self._free.release()
        return message


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
        self._requests.write(request)

    def take(self) -> bytes:
        """Out of a slot."""
        return self._answers.read()

    def receive(self) -> bytes:
        """Out of a slot."""
        return self._requests.read()

    def give(self, answer: bytes) -> None:
        """Into a slot."""
        self._answers.write(answer)

    def close(self) -> None:
        """Nothing: the memory goes with its last holder."""
