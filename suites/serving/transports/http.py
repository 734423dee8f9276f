"""HTTP/1.1 over the loopback interface: uvicorn and starlette in a thread of this process, one connection kept alive.

The picture is the body of a POST as it is (`http`), or base64 inside JSON (`http_json`), which is a third longer and
has to be parsed: a common bad habit. The network runs in the main thread, as in a service whose handlers are plain
functions; both threads share this process's core and interpreter lock, which is part of what is measured.
"""

from __future__ import annotations

import base64
import http.client
import json
import socket
import threading
from queue import Empty, SimpleQueue
from typing import Any

from suites.serving.decoders import wanted
from suites.serving.transports.channel import PATIENCE, TransportFailed

HOST = "127.0.0.1"


class HttpChannel:
    """One client's connection to a server of this process.

    Args:
        as_json: the body is base64 inside JSON.

    Raises:
        NotInstalled: uvicorn or starlette is not there.
    """

    answered_at_once = True

    def __init__(self, *, as_json: bool):
        wanted("uvicorn")
        wanted("starlette")
        self._json = as_json
        self._listening = socket.create_server((HOST, 0))
        self._port = self._listening.getsockname()[1]
        self._arrived: SimpleQueue[tuple[bytes, Any]] = SimpleQueue()
        self._open: Any = None
        self._server: Any = None
        self._thread: threading.Thread | None = None
        self._connection: http.client.HTTPConnection | None = None
        self._answer = b""

    # ------------------------------------------------------------------------------------------ in the client

    def begin_client(self) -> None:
        """The server's socket is not this process's; the connection is made with the first request."""
        self._listening.close()
        self._connection = http.client.HTTPConnection(HOST, self._port, timeout=PATIENCE)

    def send(self, request: bytes) -> None:
        """POST it and read the answer to its end, on one connection without Nagle's waiting."""
        assert self._connection is not None
        if self._connection.sock is None:
            self._connection.connect()
            assert self._connection.sock is not None
            self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        body = json.dumps({"image": base64.b64encode(request).decode()}).encode() if self._json else request
        kind = "application/json" if self._json else "image/jpeg"
        self._connection.request("POST", "/", body, {"Content-Type": kind})
        response = self._connection.getresponse()
        self._answer = response.read()
        if response.status != http.client.OK:
            raise TransportFailed(f"the server answered {response.status}: {self._answer[:200]!r}")

    def take(self) -> bytes:
        """The answer that has come."""
        return self._answer

    # ------------------------------------------------------------------------------------------ in this process

    def begin_server(self) -> None:
        """Run uvicorn in a thread until `close`."""
        import uvicorn

        config = uvicorn.Config(
            _app(self._json, self._arrived), log_level="error", lifespan="off", timeout_keep_alive=int(PATIENCE)
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._listening],), daemon=True)
        self._thread.start()

    def receive(self) -> bytes:
        """The body of the next request."""
        try:
            body, self._open = self._arrived.get(timeout=PATIENCE)
        except Empty:
            raise TransportFailed(f"no request came over HTTP in {PATIENCE:g} s") from None
        return body

    def give(self, answer: bytes) -> None:
        """Let the handler of the open request return the answer."""
        respond, self._open = self._open, None
        respond(answer)

    def close(self) -> None:
        """End the server and its thread."""
        if self._server is not None:
            self._server.should_exit = True
            self._server.force_exit = True
        if self._thread is not None:
            self._thread.join(5.0)
        self._listening.close()


def _app(as_json: bool, arrived: SimpleQueue[tuple[bytes, Any]]) -> Any:
    """One route that hands bodies to the main thread and waits for their answers."""
    import asyncio

    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    async def answered(request: Request) -> Response:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bytes] = loop.create_future()
        body = await request.body()
        if as_json:
            body = base64.b64decode(json.loads(body)["image"])
        arrived.put((body, lambda given: loop.call_soon_threadsafe(answer.set_result, given)))
        return Response(await answer, media_type="application/octet-stream")

    return Starlette(routes=[Route("/", answered, methods=["POST"])])
