"""How crops come from one network to the next: a process that publishes them, and this one, which fetches them.

Both ends are two processes, as two services are: the publisher is a fork that has the crops in memory which it shares
with this process, sends each through the same channels that requests come by, and is kept off this one's cores where
there are others (`suites.serving.transports`). What tells it to send is a few bytes through a pipe. `fused` networks
are in one process and have no hop.
"""

from __future__ import annotations

import mmap
import os
import weakref
from collections.abc import Sequence
from struct import Struct
from typing import Any

from bench.errors import UsageError
from suites.serving.transports import table
from suites.serving.transports.client import Client

#: The channels that join two services; base64 inside JSON is a habit of clients, not of services.
NAMES = ("fused", *(name for name in table.NAMES if name not in ("direct", "http_json")))
_LENGTH = Struct("<Q")


class Arena(Sequence[bytes]):
    """Messages in memory that this process writes and its forks read.

    Args:
        size: bytes of the largest message.
        most: messages at once.
    """

    def __init__(self, size: int, most: int):
        self.size, self.most = size, most
        self._slot = _LENGTH.size + size
        self._memory = mmap.mmap(-1, max(1, most) * self._slot)

    def put(self, messages: Sequence[bytes]) -> None:
        """Take these in place of those before.

        Raises:
            ValueError: there are more than it has room for, or one is too large.
        """
        if len(messages) > self.most or max(map(len, messages), default=0) > self.size:
            raise ValueError(
                f"{len(messages)} messages of up to {max(map(len, messages))} bytes do not fit: there is room for "
                f"{self.most} of {self.size}"
            )
        for place, message in enumerate(messages):
            start = place * self._slot
            _LENGTH.pack_into(self._memory, start, len(message))
            self._memory[start + _LENGTH.size : start + _LENGTH.size + len(message)] = message

    def __len__(self) -> int:
        return self.most

    def __getitem__(self, place: Any) -> Any:
        start = place * self._slot
        (length,) = _LENGTH.unpack_from(self._memory, start)
        return self._memory[start + _LENGTH.size : start + _LENGTH.size + length]


class Coupling:
    """A hop that is opened at its first use, in every process that uses it.

    Args:
        name: one of `NAMES` but `fused`, which has none.
        size: bytes of a message.
        most: messages that are handed over at once.

    Raises:
        UsageError: there is no such coupling.
    """

    def __init__(self, name: str, size: int, most: int):
        if name not in NAMES or name == "fused":
            raise UsageError(f'coupling="{name}": choose {", ".join(NAMES)}')
        self.name, self.size, self.most = name, size, most
        self._open: tuple[Client, Arena] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_open": None}

    def passed(self, messages: list[bytes]) -> list[bytes]:
        """The messages as they come out at the other end, in order.

        Raises:
            ValueError: more or larger ones than it was made for.
            TransportFailed: the publisher died or took too long.
        """
        client, arena = self._opened()
        arena.put(messages)
        return client.receive_all(len(messages))

    def described(self) -> dict[str, Any]:
        """Where the publisher runs and what a log is written to."""
        return {"coupling": self.name, "publisher": "a process of its own", **table.surroundings(self.name)}

    def close(self) -> None:
        """End the publisher; the next use opens another."""
        found, self._open = self._open, None
        if found is not None:
            found[0].close()

    def _opened(self) -> tuple[Client, Arena]:
        if self._open is None or self._open[0].owner != os.getpid():
            arena = Arena(self.size, self.most)
            client = Client(table.channel(self.name, self.size), arena)
            weakref.finalize(self, client.close)
            self._open = client, arena
        return self._open
