"""What every transport offers to its two ends, and the errors of one that does not work."""

from __future__ import annotations

from typing import Protocol

#: Seconds after which a message that does not come is given up.
PATIENCE = 60.0


class TransportFailed(RuntimeError):
    """The other end died, took too long, or what arrived is not what was sent."""


class Channel(Protocol):
    """One connection between the client's process and this one; it is made before the client is forked.

    `answered_at_once`: the client cannot go on before it has the answer, so that an exchange that was begun has to be
    ended (HTTP); else requests and answers are messages of their own.
    """

    answered_at_once: bool

    def begin_client(self) -> None:
        """In the client's process, once: connect."""

    def begin_server(self) -> None:
        """In this process, once, after the client was forked: listen."""

    def send(self, request: bytes) -> None:
        """In the client: send a request; where it is answered at once, return when the answer is there."""

    def take(self) -> bytes:
        """In the client: the answer."""

    def receive(self) -> bytes:
        """Here: the request."""

    def give(self, answer: bytes) -> None:
        """Here: send the answer."""

    def close(self) -> None:
        """Here: give back sockets, threads and servers."""
