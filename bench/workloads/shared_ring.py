"""A ring of slots in memory that two processes share, with semaphores for full and free ones."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from multiprocessing import get_context
from struct import Struct
from typing import TypeVar

SLOTS = 4
#: Seconds after which a slot that does not come is given up.
PATIENCE = 60.0
_LENGTH = Struct("<Q")
Made = TypeVar("Made")


class RingStuck(RuntimeError):
    """The other end died or took too long."""


class Ring:
    """One direction: who writes waits for a free slot, who reads for a full one, and copies its bytes out.

    To be made before the other process is forked.

    Args:
        size: bytes of the largest message.
        slots: messages that may wait.
    """

    def __init__(self, size: int, slots: int = SLOTS):
        context = get_context("fork")
        self.size, self.slots = size, slots
        self._slot = _LENGTH.size + size
        self._memory = mmap.mmap(-1, slots * self._slot)
        self._free, self._full = context.Semaphore(slots), context.Semaphore(0)
        self._written = self._read = 0

    def write(self, message: bytes | memoryview) -> None:
        """Put a message into the next slot.

        Raises:
            ValueError: it does not fit.
            RingStuck: no slot became free.
        """
        if len(message) > self.size:
            raise ValueError(f"a message of {len(message)} bytes does not fit into a slot of {self.size}")
        self.await_free()
        self.put(message)

    def read(self) -> bytes:
        """The bytes of the next slot.

        Raises:
            RingStuck: none was filled.
        """
        self.await_full()
        return self.take(bytes)

    def await_free(self) -> None:
        """Back once there is a free slot, which `put` fills."""
        if not self._free.acquire(timeout=PATIENCE):
            raise RingStuck(f"no slot of the ring became free in {PATIENCE:g} s")

    def put(self, message: bytes | memoryview) -> None:
        """Copy a message that fits into the slot that was awaited."""
        start = self._slot * (self._written % self.slots)
        _LENGTH.pack_into(self._memory, start, len(message))
        self._memory[start + _LENGTH.size : start + _LENGTH.size + len(message)] = message
        self._written += 1
        self._full.release()

    def await_full(self, patience: float = PATIENCE) -> None:
        """Back once there is a full slot, which `take` empties, after so many seconds at most."""
        if not self._full.acquire(timeout=patience):
            raise RingStuck(f"no slot of the ring was filled in {patience:g} s")

    def take(self, make: Callable[[memoryview], Made]) -> Made:
        """What `make` copies out of the slot that was awaited."""
        start = self._slot * (self._read % self.slots)
        (length,) = _LENGTH.unpack_from(self._memory, start)
        with memoryview(self._memory)[start + _LENGTH.size : start + _LENGTH.size + length] as view:
            made = make(view)
        self._read += 1
        self._free.release()
        return made
