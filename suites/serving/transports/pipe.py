"""A pipe between two processes, with Python's pickle around the bytes (`multiprocessing.Pipe`)."""

from __future__ import annotations

from multiprocessing import Pipe
from multiprocessing.connection import Connection

from suites.serving.transports.channel import PATIENCE, TransportFailed


class PipeChannel:
    """Both ways over one pair of connected sockets."""

    answered_at_once = False

    def __init__(self) -> None:
        self._here, self._there = Pipe()

    def begin_client(self) -> None:
        """The other end is this process's no longer."""
        self._here.close()

    def begin_server(self) -> None:
        """The other end is this process's no longer."""
        self._there.close()

    def send(self, request: bytes) -> None:
        """Pickle and write."""
        self._there.send(request)

    def take(self) -> bytes:
        """Read and unpickle."""
        return _read(self._there)

    def receive(self) -> bytes:
        """Read and unpickle."""
        return _read(self._here)

    def give(self, answer: bytes) -> None:
        """Pickle and write."""
        self._here.send(answer)

    def close(self) -> None:
        """Close this end."""
        self._here.close()


def _read(end: Connection) -> bytes:
    if not end.poll(PATIENCE):
        raise TransportFailed(f"nothing came through the pipe for {PATIENCE:g} s")
    return bytes(end.recv())
