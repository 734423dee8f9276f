"""The client: a process of its own that holds the files, sends one when it is told to, and takes the answer.

It is a fork of the process that measures, so that it has the files without a transfer, and is kept off that one's
cores where there are others. It ends with that process, when it is told to, and when nobody has asked for `IDLE`
seconds. What tells it to send is a few bytes through a pipe, the same for every transport.
"""

from __future__ import annotations

import os
import select
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from struct import Struct

from suites.serving.transports.bounded import check_platform, dies_with_parent, elsewhere
from suites.serving.transports.channel import PATIENCE, Channel, TransportFailed

IDLE = 600.0
_ORDER = Struct("<cI")
_SEND, _TAKE, _END = b"s", b"t", b"e"
_DONE = b"d"


class Client:
    """This process's side of its client.

    Args:
        channel: that joins the two.
        files: that the client has.

    Raises:
        NotImplementedError: this is no Linux.
    """

    def __init__(self, channel: Channel, files: Sequence[bytes]):
        check_platform()
        self.channel = channel
        self.owner = os.getpid()
        self._orders_out, self._orders = os.pipe()
        self._done, self._done_in = os.pipe()
        self._in_exchange = self._closed = False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that threads do not come along is known: the client uses none
            self.pid = os.fork()
        if self.pid == 0:
            _be_client(channel, files, self._orders_out, self._done_in, self.owner)
        os.close(self._orders_out)
        os.close(self._done_in)
        channel.begin_server()

    def receive(self, index: int) -> bytes:
        """The file of that number, sent by the client."""
        self.settle()
        self._order(_SEND, index)
        self._in_exchange = self.channel.answered_at_once
        return self.channel.receive()

    def receive_all(self, count: int) -> list[bytes]:
        """The first so many files in order: the client goes on to the next while this one is read.

        Where the client cannot go on without an answer, it gets an empty one for each.
        """
        self.settle()
        if self.channel.answered_at_once:
            return [self._exchanged(index) for index in range(count)]
        for index in range(count):
            self._order(_SEND, index)
        return [self.channel.receive() for _ in range(count)]

    def _exchanged(self, index: int) -> bytes:
        found = self.receive(index)
        self.respond(b"")
        return found

    def respond(self, answer: bytes) -> None:
        """Give an answer; back once the client has it."""
        if self.channel.answered_at_once:
            if not self._in_exchange:
                raise TransportFailed("there is no open request to answer")
            self._in_exchange = False
        else:
            self._order(_TAKE)
        self.channel.give(answer)
        self._await()

    def settle(self) -> None:
        """End an exchange that was begun, with an empty answer."""
        if self._in_exchange:
            self.respond(b"")

    def close(self) -> None:
        """End the client and what joins the two; in a fork of its owner only what the fork holds."""
        if self._closed:
            return
        self._closed = True
        if os.getpid() == self.owner:
            try:
                self.settle()
                self._order(_END)
            except (OSError, TransportFailed):
                pass  # it has ended already
            self._reap()
            self.channel.close()
        for end in (self._orders, self._done):
            os.close(end)

    def _reap(self) -> None:
        until = time.monotonic() + 2.0
        while time.monotonic() < until:
            if os.waitpid(self.pid, os.WNOHANG)[0]:
                return
            time.sleep(0.005)
        os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)

    def _order(self, what: bytes, index: int = 0) -> None:
        os.write(self._orders, _ORDER.pack(what, index))

    def _await(self) -> None:
        if not select.select([self._done], [], [], PATIENCE)[0] or os.read(self._done, 1) != _DONE:
            raise TransportFailed("the client does not say that it has the answer")


def _be_client(channel: Channel, files: Sequence[bytes], orders: int, done: int, parent: int) -> None:
    """In the fork: do what is told until the end, and leave without what the parent registered for its own."""
    try:
        dies_with_parent()
        elsewhere()
        channel.begin_client()
        _obey(channel, files, orders, lambda: os.write(done, _DONE), parent)
    except BaseException:  # whatever it is, it must not run on as a second parent
        traceback.print_exc()
    finally:
        os._exit(0)


def _obey(channel: Channel, files: Sequence[bytes], orders: int, say_done: Callable[[], int], parent: int) -> None:
    waited = 0.0
    while waited < IDLE and os.getppid() == parent:
        if not select.select([orders], [], [], 1.0)[0]:
            waited += 1.0
            continue
        waited = 0.0
        order = os.read(orders, _ORDER.size)
        if len(order) < _ORDER.size:
            return
        what, index = _ORDER.unpack(order)
        if what == _END:
            return
        if what == _SEND:
            channel.send(files[index])
        else:
            channel.take()
        if what == _TAKE or channel.answered_at_once:
            say_done()
