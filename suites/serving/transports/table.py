"""The transports by name, and one that opens itself in whichever process uses it."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from bench.errors import UsageError
from suites.serving.transports.bounded import beside
from suites.serving.transports.channel import Channel
from suites.serving.transports.client import Client
from suites.serving.transports.fsync_log import FsyncLogChannel, file_system
from suites.serving.transports.http import HttpChannel
from suites.serving.transports.pipe import PipeChannel
from suites.serving.transports.redis import RedisChannel
from suites.serving.transports.shared_memory import SharedMemoryChannel

_CHANNELS: dict[str, Callable[[int], Channel]] = {
    "pipe": lambda size: PipeChannel(),
    "shared_memory": SharedMemoryChannel,
    "http": lambda size: HttpChannel(as_json=False),
    "http_json": lambda size: HttpChannel(as_json=True),
    "redis": lambda size: RedisChannel(),
    "fsync_log": lambda size: FsyncLogChannel(),
}
NAMES = ("direct", *_CHANNELS)


def channel(name: str, size: int) -> Channel:
    """The channel of a transport, for messages of so many bytes at most, before its client is forked.

    Raises:
        NotInstalled: a library, or a Redis server, is not there.
    """
    return _CHANNELS[name](size)


def surroundings(name: str) -> dict[str, Any]:
    """The cores of this process and of those beside it, and the file system of a log."""
    told: dict[str, Any] = {}
    if hasattr(os, "sched_getaffinity"):
        told = {"measured_cores": sorted(os.sched_getaffinity(0)), "client_cores": beside()}
    return told | ({"log_file_system": file_system()} if name == "fsync_log" else {})


class Transport:
    """Requests from a client's process; opened at the first use, in every process that uses it.

    Args:
        name: of the transport; `direct` has none and is refused here.
        files: gives the files that the client has, in order.

    Raises:
        UsageError: there is no such transport.
    """

    def __init__(self, name: str, files: Callable[[], Sequence[bytes]]):
        if name not in _CHANNELS:
            raise UsageError(f'transport="{name}": choose {", ".join(NAMES)}')
        self.name = name
        self._files = files
        self._client: Client | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_client": None}

    def receive(self, index: int) -> bytes:
        """The file of that number, as it arrives."""
        return self._opened().receive(index)

    def respond(self, answer: bytes) -> None:
        """Give the answer; back once the client has it."""
        self._opened().respond(answer)

    def settle(self) -> None:
        """End an exchange that a run left open."""
        if self._client is not None and self._client.owner == os.getpid():
            self._client.settle()

    def described(self) -> dict[str, Any]:
        """Where the client runs and what its log is written to."""
        return {"transport": self.name, "client": "a process of its own", **surroundings(self.name)}

    def close(self) -> None:
        """End the client; the next use opens another."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _opened(self) -> Client:
        if self._client is None or self._client.owner != os.getpid():
            files = self._files()
            self._client = Client(channel(self.name, max(map(len, files))), files)
            weakref.finalize(self, self._client.close)
        return self._client
