"""How crops come from one network to the next: both ends in this process, the bytes through what joins the services.

A crop is published and fetched one after the other, so that a hop costs what both ends do, without the wake-up of
another process; a broker's server is a process of its own. `fused` networks share memory and have no hop.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from multiprocessing import Pipe
from typing import Any, Protocol

from bench.errors import UsageError
from suites.serving.transports.fsync_log import Log
from suites.serving.transports.redis import RedisServer, popped
from suites.serving.transports.shared_memory import Ring

#: Bytes that a pipe surely takes in one piece, before anybody reads.
PIPE_HOLDS = 128 * 1024
_QUEUE = "crops"


class Hop(Protocol):
    """What joins two services."""

    def put(self, message: bytes) -> None:
        """Publish."""

    def get(self) -> bytes:
        """Fetch the oldest."""

    def close(self) -> None:
        """Give back what it holds."""


class PipeHop:
    """A pair of connected sockets with pickle around the bytes."""

    def __init__(self) -> None:
        self._from, self._into = Pipe()

    def put(self, message: bytes) -> None:
        """Pickle and write.

        Raises:
            ValueError: the pipe might not take it before anybody reads.
        """
        if len(message) > PIPE_HOLDS:
            raise ValueError(f"a pipe within one process holds {PIPE_HOLDS} bytes at most, not {len(message)}")
        self._into.send(message)

    def get(self) -> bytes:
        """Read and unpickle."""
        return bytes(self._from.recv())

    def close(self) -> None:
        """Close both ends."""
        self._from.close()
        self._into.close()


class RingHop:
    """A ring of slots in shared memory."""

    def __init__(self, size: int):
        self._ring = Ring(size)
        self.put, self.get = self._ring.write, self._ring.read

    def close(self) -> None:
        """Nothing: the memory goes with its last holder."""


class RedisHop:
    """A list of a Redis server."""

    def __init__(self) -> None:
        self._server = RedisServer()
        self._client = self._server.connect()

    def put(self, message: bytes) -> None:
        """Push."""
        self._client.lpush(_QUEUE, message)

    def get(self) -> bytes:
        """Pop."""
        return popped(self._client, _QUEUE)

    def close(self) -> None:
        """Close the connection and end the server."""
        self._client.close()
        self._server.close()


class LogHop:
    """A log that every message is forced to disk in."""

    def __init__(self) -> None:
        self._log = Log()
        self.put, self.get, self.close = self._log.append, self._log.next, self._log.close


_HOPS: dict[str, Callable[[int], Hop]] = {
    "pipe": lambda size: PipeHop(),
    "shared_memory": RingHop,
    "redis": lambda size: RedisHop(),
    "fsync_log": lambda size: LogHop(),
}
NAMES = ("fused", *_HOPS)


class Coupling:
    """A hop that is opened at its first use, in every process that uses it.

    Args:
        name: one of `NAMES` but `fused`, which has none.
        size: bytes of a message.

    Raises:
        UsageError: there is no such coupling.
    """

    def __init__(self, name: str, size: int):
        if name not in _HOPS:
            raise UsageError(f'coupling="{name}": choose {", ".join(NAMES)}')
        self.name, self.size = name, size
        self._hop: Hop | None = None
        self._owner = 0

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_hop": None, "_owner": 0}

    def passed(self, messages: list[bytes]) -> list[bytes]:
        """The messages as they come out at the other end, in order."""
        hop = self._opened()
        arrived = []
        for message in messages:
            hop.put(message)
            arrived.append(hop.get())
        return arrived

    def close(self) -> None:
        """Close the hop; the next use opens another."""
        hop, self._hop = self._hop, None
        if hop is not None and self._owner == os.getpid():
            hop.close()

    def _opened(self) -> Hop:
        if self._hop is None or self._owner != os.getpid():
            self._hop, self._owner = _HOPS[self.name](self.size), os.getpid()
            weakref.finalize(self, _closed, self._hop, self._owner)
        return self._hop


def _closed(hop: Hop, owner: int) -> None:
    if os.getpid() == owner:
        hop.close()
