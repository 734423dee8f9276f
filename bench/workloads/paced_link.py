"""A link that is held to a bandwidth and a round trip: bytes really travel, over a loopback socket that keeps to it.

The closed form of `bench.workloads.split` says how long they take; this shows that what is sent does. Each way every
chunk leaves when the link has clocked it out and arrives half a round trip later.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

#: Bytes that leave together, at most: what an Ethernet frame carries.
CHUNK = 1500
#: Seconds before a moment in which waiting is spinning: sleeping overshoots.
SPUN = 1e-3
#: Seconds after which a transfer that stands still is given up.
PATIENCE = 30.0


def transfer_ms(
    payload: bytes, answer: bytes, bandwidth_mbps: float, rtt_ms: float, *, repeats: int = 5
) -> list[float]:
    """Milliseconds from the first byte of a payload until the last byte of its answer is back, of every repeat.

    Args:
        payload: sent there.
        answer: sent back as soon as the whole payload has arrived.
        bandwidth_mbps: of each way, 10^6 bits per second.
        rtt_ms: round trip.
        repeats: transfers on one connection.

    Raises:
        OSError: the connection failed, or what arrived is not what was sent.
    """
    rate, half = bandwidth_mbps * 1e6 / 8, rtt_ms / 2e3
    times = []
    with _connection() as (near, far):
        for _ in range(repeats):
            failure: list[BaseException] = []
            server = threading.Thread(target=_answer, args=(far, payload, answer, rate, half, failure), daemon=True)
            server.start()
            start = time.perf_counter()
            _send(near, payload, rate, half)
            back = _receive(near, len(answer))
            times.append(1e3 * (time.perf_counter() - start))
            server.join(PATIENCE)
            if failure or back != answer:
                raise OSError(f"the paced link lost bytes: {failure[0] if failure else 'another answer came back'}")
    return times


def _answer(
    far: socket.socket, payload: bytes, answer: bytes, rate: float, half: float, failure: list[BaseException]
) -> None:
    """The other side: takes the whole payload, then sends the answer."""
    try:
        if _receive(far, len(payload)) != payload:
            raise OSError("another payload arrived")
        _send(far, answer, rate, half)
    except BaseException as error:
        failure.append(error)


@contextmanager
def _connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a TCP connection over the loopback interface, without waiting for full segments."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        near = socket.create_connection(listening.getsockname(), timeout=PATIENCE)
        far, _ = listening.accept()
    with near, far:
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.settimeout(PATIENCE)
        yield near, far


def _send(end: socket.socket, message: bytes, rate: float, delay: float) -> None:
    """Chunk by chunk, each when the link has clocked it out and so much later."""
    start = time.perf_counter()
    for first in range(0, len(message), CHUNK):
        chunk = message[first : first + CHUNK]
        _wait_until(start + (first + len(chunk)) / rate + delay)
        end.sendall(chunk)


def _receive(end: socket.socket, size: int) -> bytes:
    """So many bytes.

    Raises:
        OSError: the other end closed before.
    """
    parts, missing = list[bytes](), size
    while missing:
        part = end.recv(min(missing, 1 << 16))
        if not part:
            raise OSError(f"the connection ended {missing} bytes too soon")
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def _wait_until(moment: float) -> None:
    left = moment - time.perf_counter()
    if left > SPUN:
        time.sleep(left - SPUN)
    while time.perf_counter() < moment:
        pass
